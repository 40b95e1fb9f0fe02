from gcl_fast.cli.main import main

raise SystemExit(main())
