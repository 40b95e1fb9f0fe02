"""Faults planted in a copy of the kernels are found. Here two, quickly; all of them: python -m tests.simt.faults."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.simt.faults import FAULTS, QUICK, Fault, finding, planted


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_each_fault_can_be_planted(fault: Fault, tmp_path: Path) -> None:
    csrc = planted(fault, tmp_path)
    assert (csrc / fault.file).is_file()


def test_there_are_enough() -> None:
    assert len({fault.name for fault in FAULTS}) == len(FAULTS) >= 12


@pytest.mark.parametrize("fault", QUICK, ids=lambda fault: fault.name)
def test_a_planted_fault_is_found(fault: Fault) -> None:
    assert finding(fault)
