"""Hostile calls of every op: sizes 0 and 1, every dtype, strides, views, extreme values. `make fuzz` runs them for a minute."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gcl_fast import compat, ops
from gcl_fast.ops import _negated
from tests.fuzz.run import fuzz
from tests.fuzz.valid_calls import CALLS, Call, Draw

OPS = re.findall(r'"(\w+)\(', (Path(__file__).resolve().parent.parent / "csrc/registration.cpp").read_text())
SECONDS, COUNT = 60.0, 1200  # what comes first; the cases are the same each time


def test_every_op_survives_hostile_calls() -> None:
    total = fuzz(0, SECONDS, COUNT)
    assert not total["crashes"], "\n".join(total["crashes"])
    assert not total["faults"], "\n".join(total["faults"])
    if sum(total["ops"].values()) > COUNT // 2:  # on a machine that had the time
        missing = {f"torch.ops.gcl_fast.{op}" for op in OPS} - set(total["ops"])
        assert not missing


def test_every_public_op_is_fuzzed() -> None:
    names = {call(Draw(0)).name.removeprefix("compat.") for call in CALLS}
    assert names >= {name for name in ops.__all__ if name[0].islower()} - {"mesh_flow_of_rasters"}
    assert names >= set(compat.__all__)


def test_a_crash_is_told_by_its_case(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GCL_FUZZ_CRASH_AT", "3")
    total = fuzz(0, SECONDS, 8)
    assert len(total["crashes"]) == 1 and total["crashes"][0].startswith("case 3: SIGFPE"), total
    assert "GCL_FUZZ_CRASH_AT" in os.environ


def numbers(result: Any) -> list[Any]:
    """What a result holds, as lists."""
    if isinstance(result, ops.SparseDistance):
        result = (result.indptr, result.indices, result.values)
    parts = result if isinstance(result, tuple) else (result,)
    return [part.tolist() if hasattr(part, "tolist") else part for part in parts]


@pytest.mark.parametrize("make", [call for call in CALLS if call.__name__ not in ("memory", "cluster_memory")])
def test_the_program_s_default_device_and_type_are_not_looked_at(make: Callable[[Draw], Call]) -> None:
    """Of tensors that are elsewhere: a `torch.set_default_device("cuda")` or a bfloat16 default is the program's."""
    for seed in range(12):
        try:
            want = numbers(make(Draw(seed))())
        except (ValueError, AssertionError):  # no row, no query with a match
            continue
        call = make(Draw(seed))
        torch.set_default_dtype(torch.bfloat16)
        try:
            with torch.device("meta"):
                got = call()
        finally:
            torch.set_default_dtype(torch.float32)
        np.testing.assert_equal(numbers(got), want)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_rows_of_no_width(device: torch.device, dtype: torch.dtype) -> None:
    """All similarities are 0: the loss is the logarithm of one positive and its negatives. Once a division by zero (SIGFPE)."""
    rows, labels = torch.zeros(5, 0, dtype=dtype, device=device), torch.arange(5, device=device)
    index = torch.tensor([0, 3, 3], device=device)
    query = rows[:3].clone().requires_grad_()
    want = torch.full((3,), 5.0, device=device).log()
    loss = ops.bank_nce(query, rows, labels, index, temperature=0.1)
    assert torch.allclose(loss.float(), want)
    loss.sum().backward()
    assert query.grad is not None and query.grad.shape == (3, 0)
    sampled = ops.bank_nce(rows[:3], rows, labels, index, temperature=0.1, num_negatives=2)
    assert torch.allclose(sampled.float(), torch.full_like(want, 3.0).log())
    terms = ops.gcl_memory_loss(rows[:3], rows[:3], rows, labels, index, seed=0)
    assert torch.allclose(terms.float(), want)
    assert ops.bank_update_(rows.clone(), index, rows[:3], 0.5).shape == (5, 0)


def test_a_bank_is_moved_wherever_its_numbers_lie(device: torch.device) -> None:
    """Of a negated view torch's fallback lost the tensor; an expanded bank and windows have one memory for many numbers."""
    rows = torch.randn(5, 3, generator=torch.Generator().manual_seed(0)).to(device)
    index, feature = torch.tensor([4, 0], device=device), torch.ones(2, 3, device=device)
    want = ops.bank_update_(-rows, index, -feature, 0.5)
    negated = torch._neg_view(rows.clone())
    assert negated.is_neg()
    torch.testing.assert_close(ops.bank_update_(negated, index, torch._neg_view(feature), 0.5), want, rtol=0, atol=0)
    for shared in (rows[:1].expand(5, 3), rows.flatten().unfold(0, 3, 1)):
        with pytest.raises(ValueError, match="bank must have memory for each number"):
            ops.bank_update_(shared, index, feature, 0.5)


@pytest.mark.parametrize("stride", [(1, 1), (2, 1), (1, 4), (2, 3)])
def test_rows_that_overlap_are_not_moved(device: torch.device, stride: tuple[int, int]) -> None:
    """Of a window that slides over numbers each row was moved through the others', in the order of the threads."""
    memory, index, feature = torch.randn(20, device=device), torch.tensor([4, 0], device=device), torch.ones(2, 3, device=device)
    before, bank = memory.clone(), memory.as_strided((5, 3), stride)
    labels, keys = torch.arange(5, device=device), {"seed": 0, "momentum": 0.5}
    with pytest.raises(ValueError, match="bank must have memory for each number, got an expanded tensor or rows that overlap"):
        ops.bank_update_(bank, index, feature, 0.5)
    with pytest.raises(ValueError, match="bank must have memory for each number"):
        ops.gcl_memory_step_(feature, feature, bank, labels, index, **keys)
    with pytest.raises(RuntimeError, match=r"bank must have (contiguous rows|rows that do not overlap)"):
        torch.ops.gcl_fast.bank_update_(bank, index, feature, 0.5, False, False)
    assert torch.equal(memory, before)
    apart = memory.as_strided((3, 2), (3, 2))  # one row between the numbers of another
    want = ops.bank_update_(apart.clone(), index.clamp(max=2), feature[:, :2], 0.5)
    assert torch.equal(ops.bank_update_(apart, index.clamp(max=2), feature[:, :2], 0.5), want)


def _writing_calls() -> dict[str, tuple[Any, ...]]:
    """One call of each raw op that writes an argument: what it writes is of its schema."""
    rows, pick = torch.randn(4, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([3, 0])
    labels, value, index = torch.tensor([0, 0, 1, 1]), torch.full((4, 2), -9.0), torch.zeros(4, 2, dtype=torch.long)
    no_copies = torch.zeros(5, dtype=torch.long), torch.zeros(0, dtype=torch.long)
    zeros = torch.zeros(4), torch.arange(4)
    return {
        "bank_update_": (rows, pick, rows[:2].clone(), 0.5, True, False),
        "cross_entropy_rows_": (rows[:, :4].contiguous(), labels, 0.5, True),
        "gcl_memory_step_": (rows[:2].clone(), rows[2:].clone(), rows, labels, pick, 0.1, 2, torch.tensor([3]), 0, True, 0.2),
        "knn_update_": (rows[:, :4].contiguous(), torch.arange(4), 0, 0, *zeros, *no_copies, value, index),
        "softmax_rows_": (torch.tensor([0, 2, 8]), rows[0].clone()),
    }


@pytest.mark.parametrize("name", sorted(_negated.WRITING))
def test_a_raw_op_writes_a_negated_view(name: str) -> None:
    """Of these torch's fallback loses the tensor, and 2.15 may end the process."""
    op, arguments = getattr(torch.ops.gcl_fast, name).default, _writing_calls()[name]
    plain = [a.clone() if isinstance(a, torch.Tensor) else a for a in arguments]
    views = [torch._neg_view(-a) if isinstance(a, torch.Tensor) and a.is_floating_point() else a for a in arguments]
    want, got = op(*plain), op(*views)
    torch.testing.assert_close(got, want, rtol=0, atol=0)
    for place, argument in enumerate(op._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            assert not torch.equal(plain[place], _writing_calls()[name][place])
            torch.testing.assert_close(views[place].resolve_neg(), plain[place], rtol=0, atol=0)


def test_every_op_that_writes_knows_negated_views() -> None:
    writing = {op for op in OPS if torch._C._get_schema(f"gcl_fast::{op}", "").is_mutable}
    assert writing == set(_negated.WRITING)


@pytest.mark.parametrize("features", [[None, None], torch.zeros(3, 2, dtype=torch.float8_e4m3fn)])
def test_features_that_are_no_numbers_are_named(features: object) -> None:
    with pytest.raises((TypeError, ValueError), match="target_features"):
        compat.compute_jaccard_distance(features, print_flag=False)  # type: ignore[arg-type]  # a wrong type is the point


def test_endless_neighbours_are_named() -> None:
    one = torch.zeros(1, 1).numpy()
    with pytest.raises(ValueError, match="k1 and k2 must be finite"):
        compat.re_ranking(one, one, one, k1=float("inf"))  # type: ignore[arg-type]  # a wrong type is the point


def test_neighbours_of_nobody() -> None:
    empty = ops.jaccard_distance(torch.zeros(0, 3), k1=2**63 - 1)
    assert empty.shape == (0, 0) and empty.indptr.tolist() == [0] and not len(empty.values)


def test_a_memory_of_no_width() -> None:
    memory = compat.Memory(0, 4, K=2)
    memory.labels = torch.arange(4)
    rows = torch.zeros(2, 0)
    assert torch.allclose(memory(rows, rows, torch.tensor([1, 2])), 3 * torch.tensor(3.0).log())
    cluster = compat.ClusterMemory(0, 4)
    assert torch.allclose(cluster(rows, torch.tensor([1, 2])), torch.tensor(4.0).log())


def test_wrong_arguments_of_the_drop_ins_are_named() -> None:
    with pytest.raises(ValueError, match=r"Memory: indexes must have shape \[B=2\], got \[2, 1\]"):
        compat.Memory(3, 4)(torch.ones(2, 3), torch.ones(2, 3), torch.zeros(2, 1, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"ClusterMemory: inputs must have shape \[B, D=3\], got \[2, 4\]"):
        compat.ClusterMemory(3, 4)(torch.ones(2, 4), torch.zeros(2, dtype=torch.int64))
    with pytest.raises(ValueError, match="k1 must be at least 1, got -1"):
        compat.compute_jaccard_distance(torch.ones(3, 2), k1=-1, print_flag=False)
    with pytest.raises(ValueError, match=r"evaluate_rank: distmat must be \[Q, G\]"):
        compat.evaluate_rank([1.0], [1], [1], [1], [1])
    with pytest.raises(TypeError, match="query must be a dense tensor, got the layout sparse_coo"):
        ops.rank_metrics(torch.eye(2).to_sparse(), torch.eye(2), *(torch.arange(2) for _ in range(4)))
    with pytest.raises(ValueError, match="max_rank must be at most 1048576"):
        ops.rank_metrics(torch.eye(2), torch.eye(2), *(torch.arange(2) for _ in range(4)), max_rank=2**31)
    graph = ops.SparseDistance(torch.tensor([0, 2, 1]), torch.tensor([0]), torch.tensor([0.0]), (2, 2))
    with pytest.raises(ValueError, match="indptr must rise from 0 to nnz=1"):
        ops.dbscan(graph, 0.5, 1)
    index = torch.tensor([0])
    assert ops.bank_nce(torch.ones(1, 2), torch.ones(1, 2), index, index, temperature=1.0, num_negatives=2**70).item() == 0


def test_numbers_of_numpy_are_numbers() -> None:
    x, labels, index = torch.randn(12, 4), torch.arange(12) % 3, torch.arange(2)
    near = ops.jaccard_distance(x, np.int64(4), np.int32(2), max_distance=np.float32(0.5))
    assert torch.equal(ops.dbscan(near, np.float32(0.5), np.int64(2)), ops.dbscan(near, 0.5, 2))
    loss = [
        ops.gcl_memory_loss(x[:2], x[:2], x, labels, index, temperature=t, num_negatives=n, seed=s)
        for t, n, s in ((0.5, 5, 7), (np.float32(0.5), np.int64(5), np.uint8(7)))
    ]
    assert all(torch.equal(a, b) for a, b in zip(*loss, strict=True))
    verts, faces, camera = torch.rand(1, 3, 3), torch.tensor([[0, 1, 2]]), torch.tensor([[1.0, 0, 0]])
    want = ops.render_mesh(verts, faces, camera, [0, 90], (8, 8))
    for yaws in (np.array([0, 90]), [np.float32(0), np.int64(90)]):
        assert torch.equal(ops.render_mesh(verts, faces, camera, yaws, (np.int64(8), 8)), want)
    with pytest.raises(ValueError, match="render_mesh: yaw_degrees must be finite, got nan"):
        ops.render_mesh(verts, faces, camera, np.array([np.nan]), (8, 8))
    with pytest.raises(TypeError, match="num_negatives must be an integer or None, got bool"):
        ops.bank_nce(x[:2], x, labels, index, temperature=1.0, num_negatives=np.bool_(True))


def test_rasters_that_do_not_fit_are_named() -> None:
    faces, verts = torch.tensor([[0, 1, 2]]), torch.rand(2, 3, 3) * 8
    src, dst = ops.rasterize(verts[:1], faces, (8, 8)), ops.rasterize(verts, faces, (8, 8))
    with pytest.raises(ValueError, match=r"mesh_flow_of_rasters: dst.face_id must have shape \[B=1, H=8, W=8\], got \[2, 8, 8\]"):
        ops.mesh_flow_of_rasters(verts[:1], faces, src, dst)
    wide = ops.Rasterized(*(t[:, :1, :1].expand(-1, 1, (1 << 20) + 1, *t.shape[3:]) for t in dst))
    with pytest.raises(ValueError, match=r"mesh_flow_of_rasters: src and dst must be at most 1048576 on a side, got"):
        ops.mesh_flow_of_rasters(verts, faces, wide, wide)
    with pytest.raises(TypeError, match="mesh_flow_of_rasters: dst must be what rasterize gives, got Tensor"):
        ops.mesh_flow_of_rasters(verts[:1], faces, src, dst.depth)


def test_memories_check_their_settings_and_show_them() -> None:
    with pytest.raises(TypeError, match="ClusterMemory: temp must be a number, got str"):
        compat.ClusterMemory(3, 4, temp="a")
    with pytest.raises(ValueError, match="Memory: momentum must be at least 0.0 and at most 1.0, got 2"):
        compat.Memory(3, 4, momentum=2)
    assert str(compat.ClusterMemory(16, 5)) == "ClusterMemory(16, 5, temp=0.05, momentum=0.2)"
    assert str(compat.Memory(16, 5)) == "Memory(16, 5, temp=0.07, momentum=0.2, K=8192)"


def test_a_sparse_distance_is_short_in_words_and_equal_to_itself_alone() -> None:
    near = ops.jaccard_distance(torch.eye(3), 2, 1, max_distance=0.5)
    assert repr(near) == f"SparseDistance([3, 3], {len(near.values)} stored, float32 on cpu, max_distance=0.5)"
    assert near == near and near != near.to("cpu")


def _differentiable() -> dict[str, tuple[Callable[[torch.Tensor], Any], torch.Tensor]]:
    """Ops with a backward as functions of one argument, and that argument."""
    rows, labels, index = torch.randn(9, 4), torch.arange(9), torch.tensor([0, 3])
    verts, faces, image = torch.rand(2, 5, 3) * 8, torch.tensor([[0, 1, 2], [2, 3, 4]]), torch.rand(2, 1, 8, 8)
    raster, colours = ops.rasterize(verts, faces, (8, 8)), torch.rand(5, 2)
    memory = {"labels": labels, "index": index, "seed": 0}
    return {
        "bank_nce": (lambda x: ops.bank_nce(x, rows, labels, index, temperature=0.1), rows[:2]),
        "gcl_memory_loss": (lambda x: ops.gcl_memory_loss(rows[:2], x, rows, **memory), rows[:2]),
        "gcl_memory_step_": (lambda x: ops.gcl_memory_step_(x, x, rows.clone(), momentum=0.5, **memory), rows[:2]),
        "rasterize": (lambda x: ops.rasterize(x, faces, (8, 8)).bary, verts),
        "interpolate": (lambda x: ops.interpolate(colours, faces, raster.face_id, x), raster.bary),
        "mesh_warp": (lambda x: ops.mesh_warp(x, verts, verts, faces).warped, image),
        "reflect_pad": (lambda x: ops.reflect_pad(x, 2), image),
    }


@pytest.mark.parametrize("name", sorted(_differentiable()))
def test_a_forward_mode_derivative_is_refused(name: str) -> None:
    """torch leaves tangents out of an op that has a backward alone: its derivative was zero."""
    function, x = _differentiable()[name]
    for derivative in (lambda: torch.func.jvp(function, (x,), (x,)), lambda: torch.func.jacfwd(function)(x)):
        with pytest.raises(NotImplementedError, match=f"{name}: no forward-mode derivative"):
            derivative()
    with torch.autograd.forward_ad.dual_level():
        with pytest.raises(NotImplementedError, match=f"{name}: no forward-mode derivative"):
            function(torch.autograd.forward_ad.make_dual(x, x))
        function(x)


@pytest.mark.parametrize("name", sorted(_differentiable()))
def test_a_tangent_of_the_gradient_is_refused_or_kept(name: str) -> None:
    """Of a weight on the result, forward over reverse."""
    function, x = _differentiable()[name]
    x = x.clone().requires_grad_()
    result = function(x)
    tangent = torch.randn_like(result)
    (want,) = torch.autograd.grad(result, x, tangent, retain_graph=True)
    with torch.autograd.forward_ad.dual_level():
        weight = torch.autograd.forward_ad.make_dual(torch.ones_like(result), tangent)
        if name != "bank_nce":  # whose backward is torch's own operations
            with pytest.raises(NotImplementedError, match=r"no forward-mode derivative \(jvp, jacfwd\) by gradient"):
                torch.autograd.grad(result, x, weight)
            return
        (gradient,) = torch.autograd.grad(result, x, weight)
        torch.testing.assert_close(torch.autograd.forward_ad.unpack_dual(gradient).tangent, want)


def test_a_flow_is_a_constant_of_forward_mode_too() -> None:
    verts, faces = torch.rand(1, 3, 3) * 8, torch.tensor([[0, 1, 2]])
    grid, tangent = torch.func.jvp(lambda x: ops.mesh_flow(x, x, faces, (8, 8)).grid, (verts,), (verts,))
    assert torch.equal(grid, ops.mesh_flow(verts, verts, faces, (8, 8)).grid) and not tangent.any()
