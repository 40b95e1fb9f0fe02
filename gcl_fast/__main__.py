from gcl_fast.cli import main

raise SystemExit(main())
