"""How many threads a run takes: as many as there are cores that nobody else keeps busy.

Threads of one computation wait for each other many times a second. With one of them on a core that another process uses, all
run at the pace of the one that waits for its turn: two threads on two cores beside one busy process are several times slower
than one thread alone.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping

import torch

from gcl_fast.stages.core_use import SAMPLE, allowed_cores, free_cores

ALMOST = 0.3  # of a core: what the system itself uses now and then does not count
CHOSEN_BY = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")


def fitting_threads(most: int, allowed: float, free: float | None) -> int:
    """Threads for a machine of which `allowed` cores may be used and `free` are idle (None: unknown), at most `most`."""
    threads = min(most, max(1, math.ceil(allowed)))
    return threads if free is None else max(1, min(threads, math.floor(free + ALMOST)))


def choose_threads(setting: int, before: Mapping[str, object] | None = None) -> str:
    """Set torch's threads for a run, and say why where they are fewer than usual, or more than the cores.

    Arguments:
        setting: how many; 0: chosen here. Then OMP_NUM_THREADS decides where it is set, else what the run had so far, else the
            cores that are free now.
        before: what the run wrote down (`resolved`), where it goes on.

    Returns: a line for the console, or "".
    """
    if setting:
        torch.set_num_threads(setting)
        cores = allowed_cores()
        return f"threads: {setting} on {cores:.3g} cores: they wait for each other" if setting > math.ceil(cores) else ""
    if any(os.environ.get(name) for name in CHOSEN_BY):
        return ""
    allowed, usual = allowed_cores(), torch.get_num_threads()
    kept = (before or {}).get("threads")
    if isinstance(kept, int):
        threads = min(kept, max(1, math.ceil(allowed)))
        torch.set_num_threads(threads)
        if threads < kept:
            return f"threads: {kept} in the run so far, {threads} here, where no more cores may be used"
        return ""
    free = free_cores(SAMPLE)
    threads = fitting_threads(usual, allowed, free)
    torch.set_num_threads(threads)
    if threads == usual:
        return ""
    why = f"of {allowed:.3g} cores {free:.1f} are free now" if free is not None else f"{allowed:.3g} cores may be used"
    return f"threads: {threads} instead of {usual}, since {why}; --threads N chooses another number"
