"""Checkpoints as commit 26a14f4 wrote them: a run that was stopped there goes on here, to the same bits."""

from __future__ import annotations

import json

import pytest
import torch

pytest.importorskip("torchvision", reason="the backbones need torchvision")

from gcl_fast.stages.checkpoint import load_checkpoint
from tests import distributed_worker as worker
from tests.test_end_to_end import _equal

KEYS = (
    "format",
    "stage",
    "epoch",
    "position",
    "iteration",
    "seconds",
    "plan",
    "best",
    "scores",
    "modules",
    "optimizers",
    "extra",
    "random",
    "config",
)
MODULES = {"stage3": ("encoder", "generator", "discriminator")}
EXTRA = {
    "cluster-contrast": ("labels", "centroids", "planned", "epochs"),
    "mlc": ("bank", "ready", "planned", "epochs"),
    "jvtc": ("bank", "ready", "planned", "epochs", "labels"),
    "stage3": ("memory", "centers"),
}


def as_written_then(state: dict, case: str) -> dict:
    """The keys of that commit and no other, each with this run's value."""
    old = {key: state[key] for key in KEYS}
    names = MODULES.get(case, ("encoder",))
    old["modules"] = {name: dict(state["modules"][name]) for name in names}
    old["optimizers"] = {name: state["optimizers"][name] for name in names}
    old["extra"] = {key: state["extra"][key] for key in EXTRA[case]}
    if case == "stage3":
        old["extra"]["memory"] = {name: state["extra"]["memory"][name] for name in ("features", "labels")}
    old["random"] = {"torch": state["random"]["torch"], "cuda": None}
    old["plan"] = [torch.tensor(batch.tolist(), dtype=torch.int64) for batch in state["plan"]]
    return old


@pytest.mark.parametrize("case", EXTRA)
def test_a_run_stopped_at_that_commit_goes_on(case, tmp_path):
    whole = worker.run(case, tmp_path / "whole")
    with pytest.raises(worker.Killed):
        worker.run(case, tmp_path / "stopped", stop_at=3)  # inside the second epoch
    (path,) = (tmp_path / "stopped").glob("*/last.pt")
    state = load_checkpoint(path)
    assert state["position"] == 1 and state["plan"] is not None
    torch.save(as_written_then(state, case), path)
    resumed = worker.run(case, tmp_path / "stopped", resume=True)
    _equal(whole, resumed)
    history = [json.loads(line) for line in (tmp_path / "stopped" / "history.jsonl").read_text().splitlines()]
    steps = [line["iteration"] for line in history if "clusters" not in line and "memory_momentum" not in line]
    assert steps == [0, 1, 2, 3]
