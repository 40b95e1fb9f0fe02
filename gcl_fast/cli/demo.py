"""gcl-fast demo: the whole system in minutes."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

from gcl_fast.cli.options import parse
from gcl_fast.config.plain_values import not_negative

TO_COME = (
    "a synthetic world, then three stages and a control: about ten minutes on two quiet cores, longer beside other work; "
    "stopped, the same command goes on"
)


@dataclass
class DemoOptions:
    """Make a synthetic world and train all three stages on it: about ten minutes on two CPU cores."""

    out: Path = Path("runs/demo")
    seed: int = 1
    fresh: bool = False
    """Start anew even if a demo is there."""

    def __post_init__(self) -> None:
        not_negative(self, "seed")


def main(argv: list[str]) -> int:
    options = parse(DemoOptions, argv, prog="gcl-fast demo")

    from gcl_fast.runs.synthetic_demo import finished, run_demo, summary

    if options.fresh or not finished(options.out):
        print(f"{TO_COME}, in {options.out}", flush=True)
    print(summary(run_demo(options.out, seed=options.seed, fresh=options.fresh)))
    if (options.out / "report.html").exists():
        print(f"report: {options.out / 'report.html'}")
    print(f"checkpoints, events and pictures: {options.out}")
    print(f"people turned once around: gcl-fast generate {shlex.quote(str(options.out))} --turntable --num 4")
    print("next, with your own photos, without labels: docs/own_photos.md")
    return 0
