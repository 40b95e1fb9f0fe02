"""How threads wait for each other: briefly awake, then asleep, so that a core another process needs is not burnt."""

from __future__ import annotations

import os
import sys
from collections.abc import MutableMapping

# Of GNU's OpenMP, which torch's wheels bring: turns of a loop before a waiting thread sleeps. Its own 300,000 are several
# milliseconds at every meeting of the threads; these are some hundred microseconds, longer than the gaps between a step's
# operations. And of LLVM's and Intel's: milliseconds, in place of 200.
SHORT = {"GOMP_SPINCOUNT": "10000", "KMP_BLOCKTIME": "1"}
VARIABLES = ("OMP_WAIT_POLICY", *SHORT)


def wait_briefly(environment: MutableMapping[str, str] = os.environ) -> None:
    """Set it for this process, before torch is loaded; whoever has set any of it decides."""
    if "torch" not in sys.modules and not any(name in environment for name in VARIABLES):
        environment.update(SHORT)
