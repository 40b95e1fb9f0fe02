"""Two processes over gloo: the same bank on both, the losses and weights of one process, resume, clean errors."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("torchvision", reason="the backbones need torchvision")

from gcl_fast import distributed
from gcl_fast.cli.main import main
from gcl_fast.config import TrainConfig, from_dict
from gcl_fast.data.plans import Plan
from gcl_fast.errors import ConfigError, PeerError
from gcl_fast.runs.batch_shares import check_shares
from tests import distributed_worker as worker
from tests.toy_world import SETTINGS, write_toy_world

ROOT = Path(__file__).resolve().parent.parent
pytestmark = pytest.mark.skipif(not torch.distributed.is_available(), reason="this torch has no distributed package")


def torchrun(*command: str, processes: int = 2) -> subprocess.CompletedProcess:
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
    }
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    return subprocess.run([*launch, *command], env=environment, capture_output=True, text=True, timeout=240, check=False)


def leaves(value, where=""):
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from leaves(inner, f"{where}.{key}")
    elif isinstance(value, (list, tuple)):
        for i, inner in enumerate(value):
            yield from leaves(inner, f"{where}[{i}]")
    else:
        yield where, value


def equal(one, two) -> None:
    left, right = dict(leaves(one)), dict(leaves(two))
    assert left.keys() == right.keys()
    for name, value in left.items():
        same = torch.equal(value, right[name]) if isinstance(value, torch.Tensor) else value == right[name]
        assert same, name


@pytest.fixture(scope="module")
def ranks(tmp_path_factory) -> tuple[Path, dict, dict]:
    out = tmp_path_factory.mktemp("ranks")
    done = torchrun(str(ROOT / "tests" / "distributed_worker.py"), str(out), *worker.CASES)
    assert done.returncode == 0, done.stderr
    return out, *(torch.load(out / f"rank{rank}.pt", weights_only=True) for rank in (0, 1))


def test_every_rank_holds_the_same_bits(ranks) -> None:
    """Weights, optimisers, bank or centroids, pseudo-labels; in the runs with batch norm also its averages."""
    equal(*ranks[1:])


def history(folder: Path) -> tuple[list[dict[str, float]], list[list[str]]]:
    """Numbers and warnings of each logged line."""
    lines = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
    numbers = [{k: v for k, v in line.items() if k not in ("stage", "time", "warnings")} for line in lines]
    return numbers, [line.get("warnings", []) for line in lines]


@pytest.mark.parametrize("case", worker.CASES)
def test_two_processes_train_as_one_with_the_joint_batch(case: str, ranks, tmp_path: Path) -> None:
    out, found, _ = ranks
    alone = worker.run(case, tmp_path)
    (one, warnings_alone), (two, warnings) = history(tmp_path), history(out / case)
    assert warnings_alone == warnings
    for line_alone, line in zip(one, two, strict=True):
        assert line_alone == pytest.approx(line, rel=1e-6, abs=1e-9)  # some losses are logged in float32
    for part in ("modules", "extra"):
        want = dict(leaves(alone[part]))
        for name, value in leaves(found[case][part]):
            if isinstance(value, torch.Tensor) and value.is_floating_point():
                # float64, but for the memories of stage 1: rows rounded to float32
                tolerance = 1e-9 if value.dtype == torch.float64 else 3e-7
                assert (value - want[name]).abs().max() <= tolerance * want[name].abs().max().clamp_min(1e-3), name
            elif isinstance(value, torch.Tensor):
                assert torch.equal(value, want[name]), name


@pytest.mark.parametrize("case", worker.RESUMED)
def test_a_stopped_run_resumes_to_the_same_bits(case: str, ranks) -> None:
    _, found, _ = ranks
    equal(found[f"{case}_again"], found[f"{case}_whole"])


def test_one_process_goes_on_with_a_run_of_two(ranks, tmp_path: Path) -> None:
    out, found, _ = ranks
    shutil.copytree(out / "stopped", tmp_path / "stopped")
    alone = worker.run("cluster-contrast", tmp_path / "stopped", resume=True)
    want = dict(leaves(found["cluster-contrast"]["modules"]))
    for name, value in leaves(alone["modules"]):
        assert (value - want[name]).abs().max() <= 1e-9 * want[name].abs().max().clamp_min(1e-3), name


def test_half_precision_rows_are_gathered_in_order(ranks) -> None:
    assert torch.equal(ranks[1]["gathered"], torch.arange(8, dtype=torch.bfloat16).view(4, 2))


def test_the_gradient_of_gathered_rows_is_summed_and_that_of_others_left(ranks) -> None:
    rows, beside = ranks[2]["gradients"]
    assert rows.eq(1 + 2).all() and beside.eq(1).all()


def test_processes_that_join_take_all_of_the_first(ranks) -> None:
    """Parameters and buffers, whole numbers too, which float32 would round."""
    joined = ranks[2]["joined"]
    assert joined["weight"].eq(1).all() and joined["running_mean"].eq(1).all() and joined["num_batches_tracked"] == 2**24 + 1


def test_running_averages_become_their_mean(ranks) -> None:
    assert ranks[2]["averaged"]["running_mean"].eq(1.5).all() and ranks[2]["averaged"]["running_var"].eq(1).all()


def test_an_error_on_one_rank_ends_all_and_is_told(tmp_path: Path) -> None:
    done = torchrun(str(ROOT / "tests" / "distributed_worker.py"), str(tmp_path), "fail")
    assert done.returncode != 0
    assert "no iteration 1" in done.stderr


def test_the_command_line_under_torchrun(tmp_path: Path) -> None:
    pytest.importorskip("tyro", reason="the command line needs tyro")
    root, settings = write_toy_world(tmp_path / "data"), tmp_path / "toy.yaml"
    settings.write_text(SETTINGS.replace("epochs: 2", "epochs: 1").replace("iters: 3", "iters: 2"))
    command = ["-m", "gcl_fast", "train", "--config", str(settings), "--root", str(root), "--runs", str(tmp_path / "runs")]
    done = torchrun(*command, "--name", "two")
    assert done.returncode == 0, done.stderr
    run = tmp_path / "runs" / "two"
    metrics = json.loads((run / "metrics.json").read_text())
    assert {"untrained", "stage1", "stage3", "seconds"} <= metrics.keys()
    assert (run / "report.html").exists() and (run / "pictures" / "stage3_train.png").exists()
    iterations = [line["iteration"] for line in history(run)[0] if "image_rec" in line]
    assert iterations == [0, 1, 0, 1]  # stages 2 and 3, each line once
    assert done.stdout.count("report:") == 1 and done.stdout.count("stage3: mAP") == 1
    assert main(["evaluate", str(run)]) == 0


def test_a_batch_that_cannot_be_shared_is_named(monkeypatch) -> None:
    monkeypatch.setattr(distributed, "world", lambda: 3)
    config = from_dict(TrainConfig, {"stage1": {"batch_size": 48}, "stage2": {"batch_size": 15}})
    check_shares(config, (1, 2))
    with pytest.raises(ConfigError, match=r"stage3\.batch_size, .*multiple of 3, .*got 16"):
        check_shares(config, (1, 2, 3))
    jvtc = from_dict(TrainConfig, {"stage1": {"method": "jvtc", "jvtc": {"batch_size": 16}}})
    with pytest.raises(ConfigError, match=r"stage1\.jvtc\.batch_size.*multiple of 12.*4 views.*got 16"):
        check_shares(jvtc, (1,))
    with pytest.raises(ConfigError, match="2 images or more"):
        check_shares(from_dict(TrainConfig, {"stage2": {"batch_size": 3}}), (2,))


def test_batch_norm_that_cannot_be_synchronised_is_known_before_a_run_folder_is_touched(monkeypatch) -> None:
    config = from_dict(TrainConfig, {"sync_bn": True, "device": "cpu"})
    check_shares(config, (1, 2, 3))  # one process
    monkeypatch.setattr(distributed, "world", lambda: 2)
    check_shares(config, (2,))  # holds the encoder still
    for stage in (1, 3):
        with pytest.raises(ConfigError, match="sync_bn must be false on cpu"):
            check_shares(config, (stage,))
    with pytest.raises(ConfigError, match="2 images or more for its batch norm, got 2$"):
        check_shares(from_dict(TrainConfig, {"device": "cpu", "stage2": {"batch_size": 2}}), (2,))


def test_shares_of_a_plan() -> None:
    plan = Plan((np.arange(8), np.arange(10, 17)))
    shares = [plan.share(rank, 2) for rank in (0, 1)]
    assert [b.tolist() for b in shares[0]] == [[0, 1, 2, 3], [10, 11, 12]]
    assert [b.tolist() for b in shares[1]] == [[4, 5, 6, 7], [13, 14, 15]]  # 16 has no counterpart
    assert shares[1].first_rows == (4, 3) and shares[1].first_row(1) == 3 and plan.first_row(1) == 0
    assert [b.tolist() for b in plan.share(1, 2, unit=3)] == [[3, 4, 5], [13, 14, 15]]
    assert plan.share(0, 1) is plan
    with pytest.raises(ValueError, match="4 rows for each of 2 processes, got 7 rows"):
        plan.share(0, 2, unit=4)


def test_one_process_sends_nothing() -> None:
    rows = torch.ones(3, 2, requires_grad=True)
    assert distributed.world() == 1 and distributed.rank() == 0 and distributed.first()
    assert distributed.gather_rows(rows) is rows and distributed.from_first(lambda: 5) == 5
    network = torch.nn.BatchNorm1d(2)
    assert distributed.sync_batch_norm(network, torch.device("cpu")) is network


def test_batch_norm_is_synchronised_on_gpus_alone(monkeypatch) -> None:
    monkeypatch.setattr(distributed, "world", lambda: 2)
    network = torch.nn.Sequential(torch.nn.BatchNorm1d(2))
    with pytest.raises(ConfigError, match="sync_bn must be false on cpu"):
        distributed.sync_batch_norm(network, torch.device("cpu"))
    assert isinstance(distributed.sync_batch_norm(network, torch.device("cuda"))[0], torch.nn.SyncBatchNorm)


def test_each_process_has_a_gpu_of_its_own(monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert distributed.own_gpu() == torch.device("cuda", 1)
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(ConfigError, match="at most the 2 GPUs of this machine, got process 3"):
        distributed.own_gpu()


def test_a_mean_leaves_what_it_was_given(monkeypatch) -> None:
    monkeypatch.setattr(distributed, "world", lambda: 2)
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda x: x.add_(3))
    x = torch.ones(())
    assert distributed.mean(x) == 2 and x == 1


def test_running_averages_that_are_equal_keep_their_bits(monkeypatch) -> None:
    """Of seven processes, whose sum float32 rounds."""
    norm = torch.nn.BatchNorm1d(200)
    norm.running_mean.copy_(torch.rand(200, generator=torch.Generator().manual_seed(0)))
    before = norm.running_mean.clone()
    monkeypatch.setattr(distributed, "world", lambda: 7)
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda x: x.copy_(sum(x.clone() for _ in range(7))))
    distributed.average_buffers([norm])
    assert torch.equal(norm.running_mean, before)


def test_a_process_that_is_gone_is_told_as_such(monkeypatch) -> None:
    def closed(x: torch.Tensor) -> None:
        raise RuntimeError("Connection closed by peer")

    monkeypatch.setattr(distributed, "world", lambda: 2)
    monkeypatch.setattr(torch.distributed, "all_reduce", closed)
    with pytest.raises(PeerError, match="another process of this run ended; its own message says why"):
        distributed.barrier()


def test_what_the_first_process_makes_or_fails_at_reaches_the_others(monkeypatch) -> None:
    sent: list = []

    def broadcast(box: list, **_: object) -> None:
        if distributed.first():
            sent[:] = box
        box[:] = sent

    monkeypatch.setattr(distributed, "world", lambda: 2)
    monkeypatch.setattr(torch.distributed, "broadcast_object_list", broadcast)
    for make, error in ((lambda: 5, None), (lambda: 1 / 0, ZeroDivisionError)):
        for rank, raised in ((0, error), (1, error and PeerError)):
            monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
            with pytest.raises(raised) if raised else contextlib.nullcontext():
                assert distributed.from_first(make if rank == 0 else pytest.fail) == 5


def test_commands_other_than_train_and_half_an_environment_are_refused(monkeypatch, capsys) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main(["evaluate", "nothing"]) == 1
    assert "only train runs in several processes, torchrun started 2" in capsys.readouterr().err
    for name in ("RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RANK", "0")
    absent = "but MASTER_ADDR, MASTER_PORT is not set: start them with torchrun"
    with pytest.raises(ConfigError, match=absent), distributed.session(torch.device("cpu")):
        pass


@pytest.fixture
def group(monkeypatch) -> list:
    """What a process started by torchrun does about its group."""
    done: list = []
    for name, value in (("WORLD_SIZE", "2"), ("RANK", "0"), ("MASTER_ADDR", "localhost"), ("MASTER_PORT", "1")):
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "set_device", done.append)
    monkeypatch.setattr(torch.distributed, "init_process_group", lambda kinds, timeout: done.append((kinds, timeout)))
    monkeypatch.setattr(torch.distributed, "destroy_process_group", lambda: done.append("parted"))
    monkeypatch.setattr(distributed, "barrier", lambda: done.append("waited"))
    return done


def test_processes_meet_on_their_gpus_and_part_together(group: list) -> None:
    """What lies on the CPU is sent there, too: no barrier waits for a GPU."""
    device = torch.device("cuda", 1)
    with distributed.session(device):
        group.append("worked")
    assert group == [device, ("cpu:gloo,cuda:nccl", distributed.TIMEOUT), "worked", "waited", "parted"]


def test_after_an_error_a_process_waits_for_nobody(group: list) -> None:
    with pytest.raises(ValueError, match="wrong"), distributed.session(torch.device("cpu")):
        raise ValueError("wrong")
    assert group == [("gloo", distributed.TIMEOUT)]


def test_only_the_first_process_prints(group: list, monkeypatch, capsys) -> None:
    for rank in (0, 1):
        monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
        with distributed.session(torch.device("cpu")):
            print(f"process {rank}")
    assert capsys.readouterr().out == "process 0\n"
