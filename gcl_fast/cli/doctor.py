"""gcl-fast doctor: what is here, what is missing."""

from __future__ import annotations


def main(argv: list[str]) -> int:
    """0 when the kernels load; optional packages may be missing."""
    from gcl_fast.cli.machine import examine, table

    if argv:
        print("usage: gcl-fast doctor (it takes no options)")
        return 0 if argv[0] in ("-h", "--help") else 2
    findings = examine()
    print(table(findings))
    return 0 if all(f.ok for f in findings if f.name == "kernels") else 1
