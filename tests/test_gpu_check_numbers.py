"""How gpu-check measures: its oracles see a wrong result, a crash or a hang costs one number, what is missing is named."""

from __future__ import annotations

import sys
import time
import types
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from bench import floors, machine_code, neighbors
from bench.gpu_check import measuring, oracles, training_numbers, worker
from bench.gpu_check.catalogue import Number, numbers
from bench.gpu_check.records import Records
from bench.gpu_check.watching import Measurements
from gcl_fast import ops
from gcl_fast.ops import _check
from gcl_fast.stages import layout
from tests.taped_graph import TapedGraph

CPU = torch.device("cpu")
K1, K2, EPS = 12, 4, 0.6
TOY = Number("toy", "targets", "fake", {})


@pytest.fixture
def records(tmp_path: Path) -> Records:
    return Records(tmp_path / "r.jsonl", {"device": "A CPU", "source": "s"}, "c")


# Oracles


def test_the_oracle_of_neighbours_sees_a_wrong_one() -> None:
    x = neighbors.features(150, 16, CPU)
    similarity, index = ops.knn(x, K1)
    rows = oracles.sample(len(x), 20, CPU)
    oracles.check_neighbors(x, similarity, index, rows)
    row = int(rows[3])
    far = int((x @ x[row]).argmin())
    for place, value in ((0, far), (5, far), (5, int(index[row, 4]))):
        wrong = index.clone()
        wrong[row, place] = value
        with pytest.raises(AssertionError):
            oracles.check_neighbors(x, similarity, wrong, rows)
    with pytest.raises(AssertionError, match="similarity differs"):
        oracles.check_neighbors(x, similarity + 1e-4, index, rows)


def test_the_oracle_of_jaccard_distances_sees_a_wrong_or_missing_one() -> None:
    x = neighbors.features(150, 16, CPU)
    index = ops.knn(x, K1).index
    distance = ops.jaccard_distance(index, K1, K2, features=x)
    rows, oracle = torch.arange(0, 150, 30), oracles.JaccardRows(index, x, K1, K2)
    assert oracles.check_jaccard(distance, oracle, rows, most=15) > 100
    wrong = replace(distance, values=distance.values.clone())
    place = int((distance.values * (distance.values < 0.5)).argmax())
    row = int(torch.searchsorted(distance.indptr, place, right=True)) - 1
    wrong.values[place] += 1e-4
    with pytest.raises(AssertionError, match="defined as"):
        oracles.check_jaccard(wrong, oracle, torch.tensor([row]), most=150)
    kept = torch.arange(len(distance.values)) != place
    indptr = distance.indptr - (torch.arange(151) > row).long()
    fewer = ops.SparseDistance(indptr, distance.indices[kept], distance.values[kept], distance.shape)
    with pytest.raises(AssertionError, match="is not stored"):
        oracles.check_jaccard(fewer, oracle, torch.tensor([row]), most=2000)


@pytest.mark.parametrize("min_samples", [1, 3, 6])
def test_the_oracle_of_labels_agrees_with_dbscan(min_samples: int) -> None:
    distance = ops.jaccard_distance(neighbors.features(300, 16, CPU), K1, K2)
    for eps in (0.3, 0.45, 0.6):
        want = oracles.expected_labels(distance, eps, min_samples)
        assert want is not None and torch.equal(ops.dbscan(distance, eps, min_samples), want)
    assert len(want.unique()) > 1


# One number


def measure(monkeypatch, records: Records, prepare, number: Number = TOY) -> dict:
    module = types.ModuleType("bench.gpu_check.fake_numbers")
    module.prepare = prepare
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(worker.FAMILIES, "fake", "fake_numbers")
    return worker.result(number, CPU, records)


def prepared(check=lambda: "equal", **options) -> measuring.Prepared:
    return measuring.Prepared([lambda: torch.ones(3).sum()] * 2, check, **{"rounds": 3, "profiled": False, **options})


def test_a_number_stands_beside_its_goal_and_its_floor(monkeypatch, records: Records) -> None:
    for name, amount in (("copy", "bytes"), ("fp32 product", "operations"), ("bf16 product", "operations")):
        records.add("number", f"ceiling {name}", status="ok", seconds=1.0, **{f"{amount}_per_call": 1e9})
    number = replace(TOY, goal=1.0, images=4)
    line = measure(monkeypatch, records, lambda *_: prepared(work=floors.Work(2e3)), number)
    assert line["status"] == "ok" and line["check"] == "equal" and line["rounds"] == 3 and line["measured_by"] == "eager_seconds"
    assert line["floor_seconds"] == 2e-6 and line["floor_by"] == "measured ceilings" and line["bytes"] == 2e3
    assert line["times_goal"] == line["seconds"] and line["images_per_second"] == 4 / line["seconds"]


def test_a_number_that_fails_its_check_has_no_time(monkeypatch, records: Records) -> None:
    def wrong() -> str:
        raise AssertionError("bary differs\nby much")

    line = measure(monkeypatch, records, lambda *_: prepared(wrong))
    assert line["status"] == "failed" and line["why"] == "AssertionError: bary differs" and "seconds" not in line


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ModuleNotFoundError("No module named 'gone_rival'", name="gone_rival"), "left_out"),
        (ModuleNotFoundError("No module named 'bench.gone'", name="bench.gone"), "failed"),
        (ModuleNotFoundError("No module named 'gcl_fast.gone'", name="gcl_fast.gone"), "failed"),
        (ImportError("cannot import name 'x' from 'json'", name="json"), "failed"),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), "failed"),
        (MemoryError(), "failed"),
    ],
)
def test_only_a_missing_package_is_left_out(error: Exception, status: str, monkeypatch, records: Records) -> None:
    def prepare(number: Number, device: torch.device) -> measuring.Prepared:
        raise error

    line = measure(monkeypatch, records, prepare)
    assert line["status"] == status and ("gone_rival" in line["why"]) == (status == "left_out")


def test_a_replay_that_differs_is_an_error() -> None:
    one = (torch.tensor([1.0, float("nan")]), [torch.arange(3)])
    measuring.compare(one, (one[0].clone(), [torch.arange(3)]), exact=True)
    with pytest.raises(AssertionError, match="differs"):
        measuring.compare(one, (one[0], [torch.tensor([0, 1, 3])]), exact=True)
    measuring.compare(torch.tensor([1.0]), torch.tensor([1.00001]), exact=False)
    with pytest.raises(AssertionError, match="more than rounding"):
        measuring.compare(torch.tensor([1.0]), torch.tensor([1.001]), exact=False)


@pytest.mark.parametrize(("warms_up", "rounds"), [(False, 1), (True, 5)])
def test_a_first_call_that_compiles_is_no_measurement(warms_up: bool, rounds: int, monkeypatch) -> None:
    monkeypatch.setattr(measuring, "SECONDS", 0.05)
    prepared = measuring.Prepared([lambda: None], lambda: "", rounds=5, warms_up=warms_up)
    found = measuring.timed_eagerly(prepared, 0.06, torch.device("cpu"))
    assert found["rounds"] == rounds and (found["eager_seconds"] < 0.05) is warms_up


def test_kernels_add_up_and_overlapping_ones_count_once() -> None:
    spans = [("a", 0.0, 4.0), ("b", 2.0, 5.0), ("a", 10.0, 11.0)]
    assert measuring.union([span[1:] for span in spans]) == 6.0
    first = measuring.kernel_table(spans, times=2)[0]
    assert first == {"kernel": "a", "calls": 1.0, "microseconds": 2.5}


def test_every_number_has_a_family_and_a_name_of_its_own() -> None:
    for toy in (False, True):
        every = numbers(toy=toy)
        assert len({number.key for number in every}) == len(every)
        assert {number.family for number in every} <= set(worker.FAMILIES)
        assert [number.key.split()[0] for number in every[:5]] == ["ceiling"] * 5
    full = numbers()
    for part in ("targets", "train"):
        times = [number.expected for number in full if number.part == part][5 if part == "targets" else 0 :]
        assert times == sorted(times)
    assert full[0].limit >= 60 and {n.goal for n in full if n.key == "bank 16 fp32"} == {75e-6}


# The processes that measure

SCRIPT = """
import json, os, sys, time
from pathlib import Path
from bench.gpu_check.records import Records
job = json.load(sys.stdin)
records = Records(Path(job["results"]), job["identity"], job["commit"])
for key in job["keys"]:
    records.add("begun", key)
    if key == "crash":
        print("it broke", file=sys.stderr, flush=True)
        os.abort()
    if key == "hang":
        time.sleep(600)
    records.add("number", key, status="ok", seconds=1.0)
"""


def runs(records: Records, tmp_path: Path, *names: str, until: float = 600.0, script: str = SCRIPT, **limits: float):
    env = {"PYTHONPATH": str(Path(__file__).resolve().parent.parent)}
    measurements = Measurements(records, kind="cpu", toy=True, env=env, work=tmp_path)
    measurements.command = [sys.executable, "-c", script]
    chosen = [Number(name, "targets", "fake", {}, expected=0.0, limit=limits.get(name, 600.0)) for name in names]
    measurements.run(chosen, time.time() + until)
    return measurements, {key: line["status"] for key, line in records.ended().items()}


def test_a_crash_and_a_hang_cost_one_number_each(records: Records, tmp_path: Path) -> None:
    _, states = runs(records, tmp_path, "one", "crash", "two", "hang", "three", hang=1.0)
    assert states == {"one": "ok", "crash": "failed", "two": "ok", "hang": "failed", "three": "ok"}
    assert "signal 6: " in records.ended()["crash"]["why"] and "it broke" in records.ended()["crash"]["why"]
    assert records.ended()["hang"]["why"] == "ended after 1 s, its time limit"


def test_what_the_time_cuts_off_is_open_and_comes_last_in_the_next_run(records: Records, tmp_path: Path) -> None:
    records.add("number", "one", status="ok", seconds=1.0)
    records.add("begun", "hang")  # a run was killed here
    measurements, states = runs(records, tmp_path, "two", until=-1.0)
    chosen = [Number(name, "targets", "fake", {}) for name in ("one", "hang", "two")]
    assert states == {"one": "ok"} and [number.key for number in measurements.open(chosen)] == ["two", "hang"]


def test_what_was_left_out_is_tried_again_where_wheels_are_carried(records: Records, tmp_path: Path) -> None:
    records.add("number", "one", status="left_out", why="needs PIL, which is not here")
    measurements = Measurements(records, kind="cpu", toy=True, env={}, work=tmp_path)
    chosen = [Number("one", "targets", "fake", {})]
    assert measurements.open(chosen) == []
    measurements.again = True
    assert measurements.open(chosen) == chosen


def test_a_process_that_cannot_begin_fails_once(records: Records, tmp_path: Path) -> None:
    _, states = runs(records, tmp_path, "one", "two", script="import sys; sys.exit('no such build')")
    assert states == {"one": "failed"} and "began nothing: its process ended with exit code 1" in records.ended()["one"]["why"]


# Counted


def test_a_floor_is_the_slower_of_memory_and_arithmetic() -> None:
    ceilings = floors.Ceilings(bandwidth=100.0, fp32=10.0, bf16=600.0)
    assert floors.Work(200.0).floor(ceilings) == 2.0
    assert floors.Work(200.0, fp32=50.0).floor(ceilings) == 5.0
    assert floors.Work(0.0, split=100.0).floor(ceilings) == pytest.approx(100 * 3 / 300)  # three TF32 products each
    assert floors.Work(0.0, split=100.0).floor(replace(ceilings, bf16=20.0)) == 10.0  # where tensor cores do not pay
    assert floors.published("NVIDIA H100 80GB HBM3") == floors.PUBLISHED["H100"] and floors.published("A CPU") is None
    bank = floors.bank_step(16, 12936, 2048, 8192, 4)
    assert bank.bytes == pytest.approx(12936 * 2048 * 4, rel=0.02)  # the bank is read once


USAGE = """
Fatbin elf code:
================
arch = sm_90

Resource usage:
 Common:
  GLOBAL:28 CONSTANT[4]:224
 Function _ZN3gcl11warp_kernelIfEEvNS_10WarpParamsIT_EE:
  REG:28 STACK:16 SHARED:2048 LOCAL:0 CONSTANT[0]:440 TEXTURE:0 SURFACE:0 SAMPLER:0
"""
CODE = """
Fatbin elf code:
================
arch = sm_90

\tcode for sm_90
\t\tFunction : _ZN3gcl11warp_kernelIfEEvNS_10WarpParamsIT_EE
\t.headerflags\t@"EF_CUDA_SM90 EF_CUDA_VIRTUAL_SM(EF_CUDA_SM90)"
        /*0000*/                   LDC R1, c[0x0][0x28] ;      /* 0x00000a00ff017b82 */
                                                               /* 0x000fe20000000800 */
        /*0010*/              @!P0 LDG.E.128.CONSTANT R4, desc[UR6][R12.64] ;  /* 0x0 */
        /*0020*/                   LDG.E R4, desc[UR6][R12.64] ;  /* 0x0 */
        /*0030*/              @UP1 UIADD3 UR4, UR4, 0x1, URZ ;  /* 0x0 */
        /*0040*/                   HMMA.1688.F32.TF32 R4, R4, R8, R12 ;  /* 0x0 */
        /*0050*/                   FFMA R4, R4, R8, R12 ;  /* 0x0 */
        /*0060*/                   STL [R1], R4 ;  /* 0x0 */
        /*0070*/                   LDS.64 R4, [R1] ;  /* 0x0 */
        /*0080*/              @P0  EXIT ;  /* 0x0 */
\t\tFunction : _ZN3gcl11flow_kernelIdEEvNS_10FlowParamsIT_EE
        /*0000*/                   DFMA R4, R4, R8, R12 ;  /* 0x0 */
"""


def test_machine_code_is_counted() -> None:
    warp, flow = machine_code.parse_code(CODE.splitlines())
    assert (warp.name, warp.arch, warp.instructions, warp.spills) == ("warp_kernel", "sm_90", 9, 1)
    counted = {"constant": 1, "global load": 2, "integer": 1, "tensor": 1, "fp32": 1, "local": 1, "shared": 1, "branch": 1}
    assert dict(warp.classes) == counted
    assert dict(warp.widths) == {"global load 16": 1, "global load 4": 1, "shared load 8": 1}
    assert flow.name == "flow_kernel" and dict(flow.classes) == {"fp64": 1}
    used = machine_code.parse_resources(USAGE.splitlines())
    assert used["sm_90", warp.mangled] | {"REG": 28, "STACK": 16, "SHARED": 2048} == used["sm_90", warp.mangled]
    assert "warp_kernel" in machine_code.table([warp, flow])


def test_machine_code_says_what_is_missing(tmp_path: Path, monkeypatch, capsys) -> None:
    assert machine_code.main([str(tmp_path / "none.so")]) == 1
    assert "no module" in capsys.readouterr().err or machine_code.find_cuobjdump() is None
    monkeypatch.setattr(machine_code, "find_cuobjdump", lambda: None)
    with pytest.raises(FileNotFoundError, match="comes with the CUDA toolkit and with the triton package"):
        machine_code.read_module(tmp_path / "none.so")


# Training


def test_a_step_graph_is_checked_beside_steps_without_one(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torchvision", reason="the backbones need torchvision")
    monkeypatch.setattr(layout, "check_graphs", lambda *_: None)
    monkeypatch.setattr(_check, "check_index", lambda *_, **__: None)  # as on a GPU, where row numbers are not read
    monkeypatch.setattr(training_numbers, "CudaGraph", lambda _: TapedGraph())
    case = {"stage": 3, "batch": 4, "size": (64, 40), "way": "step graph", "backbone": "resnet18"}
    prepared = training_numbers.prepare(Number("toy", "train", "training", case), CPU)
    assert "each loss of 4 iterations within" in prepared.check()
    monkeypatch.setattr(TapedGraph, "replay", lambda _: None)
    with pytest.raises(AssertionError, match="is nan, not"):
        prepared.check()
