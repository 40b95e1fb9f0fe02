"""One file per command of the command line; each has main(argv) -> exit code."""
