"""Faults planted in a copy of the kernels are found. Here two, quickly; all of them: python -m tests.simt.faults."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.simt.faults import FAULTS, QUICK, Fault, finding, planted
from tests.simt.harness import HERE


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_each_fault_can_be_planted(fault: Fault, tmp_path: Path) -> None:
    csrc = planted(fault, tmp_path)
    assert (csrc / fault.file).is_file()


def test_there_are_enough_and_each_is_in_the_table_of_outcomes() -> None:
    names = {fault.name for fault in FAULTS}
    assert len(names) == len(FAULTS) >= 12
    rows = [line.split("|")[1].strip() for line in (HERE / "README.md").read_text().splitlines() if line.startswith("| ")]
    assert set(rows) == names | {"fault"}


@pytest.mark.parametrize("fault", QUICK, ids=lambda fault: fault.name)
def test_a_planted_fault_is_found(fault: Fault) -> None:
    assert finding(fault)
