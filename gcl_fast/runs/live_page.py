"""The report while the run goes on: written anew after an epoch, as often as that costs next to nothing."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from gcl_fast.errors import GclError
from gcl_fast.report import write_report

SHARE = 0.01  # of the time since the page was last written
FIRST_COST = 0.5  # seconds that the first one is taken to need


class LivePage:
    """Writes `<run_dir>/report.html` when a hundredth of the training since the last time covers what that took."""

    def __init__(self, run_dir: Path) -> None:
        self.run_dir, self.cost, self.trained, self.broken = run_dir, FIRST_COST, 0.0, False

    def after_epoch(self, seconds: float) -> None:
        """seconds: that the epoch took."""
        self.trained += seconds
        if self.broken or self.cost > SHARE * self.trained:
            return
        began = time.perf_counter()
        try:
            write_report(self.run_dir, live=True)
        except (GclError, OSError) as error:  # the page is no reason to end a training
            self.broken = True
            print(f"no report while training: {error}", file=sys.stderr)
        self.cost, self.trained = time.perf_counter() - began, 0.0
