"""rasterize: the reference bit for bit, invariance, odd triangles and sizes, bad inputs."""

from __future__ import annotations

import importlib
import math

import numpy as np
import pytest
import torch

from gcl_fast import ops, reference
from tests.raster_cases import FLOATS, assert_same, closed_mesh, random_mesh, tensor
from tests.threads import threads

# ---- the reference -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("index", [torch.int32, torch.int64])
@pytest.mark.parametrize("cull", [False, True])
def test_equals_the_reference_bit_for_bit(device, generator, dtype, index, cull) -> None:
    for grid in (0, 2, 256):
        verts, faces = random_mesh(generator, device, dtype, grid=grid)
        got = ops.rasterize(verts, faces.to(index), (24, 32), cull_backfaces=cull)
        assert_same(got, reference.rasterize(verts.cpu(), faces.cpu(), (24, 32), cull_backfaces=cull))


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("size", [(37, 43), (300, 41), (3, 700), (2, 70_000)])  # the last is too wide to be swept
def test_both_ways_to_draw_give_the_same_bits(device, generator, dtype, size) -> None:
    """On a CPU strips and whole images, on a GPU strips in shared memory and a z-buffer in global memory."""
    ball, its_faces = closed_mesh(25.0, 3)
    ball += torch.tensor([size[1] - 43.0, 0.0, 0.0])  # at the right border
    for verts, faces in (random_mesh(generator, device, dtype, size=size, grid=4), (ball.to(device), its_faces.to(device))):
        verts = verts.to(dtype)
        want = ops.rasterize(verts, faces, size, method="plain")
        assert (want.face_id >= 0).any()
        for method in ("fused", "auto"):
            assert_same(ops.rasterize(verts, faces, size, method=method), want)


@pytest.mark.parametrize("scale", [2.0, 15.0, 60.0, 400.0, 1e6])
def test_near_and_far_sides_of_triangles_of_any_size(device, scale) -> None:
    """Below a pixel, of some pixels, longer than the picture; seen from either side; in strips of rows too."""
    verts, faces = closed_mesh(scale, batch=2)
    for z in (1.0, -1.0):
        turned = (verts * torch.tensor([1.0, 1.0, z])).to(device)
        for cull in (False, True):
            want = reference.rasterize(turned.cpu(), faces, (37, 43), cull_backfaces=cull)
            got = ops.rasterize(turned, faces.to(device), (37, 43), cull_backfaces=cull)
            assert_same(got, want)
            assert_same(ops.rasterize(turned[1:], faces.to(device), (37, 43), cull_backfaces=cull), [part[1:] for part in want])
    assert (got.face_id >= 0).any()


def test_the_reference_in_small_pieces_is_the_same(generator, monkeypatch) -> None:
    verts, faces = random_mesh(generator, "cpu", grid=4)
    whole = reference.rasterize(verts, faces, (24, 32))
    monkeypatch.setattr(importlib.import_module("gcl_fast.reference.rasterize"), "PAIRS_AT_ONCE", 50)
    assert_same(reference.rasterize(verts, faces, (24, 32)), whole)


@pytest.mark.parametrize("dtype", FLOATS)
def test_barycentrics_are_a_partition_of_one(device, generator, dtype) -> None:
    verts, faces = random_mesh(generator, device, dtype)
    face_id, bary, depth = ops.rasterize(verts, faces, (24, 32))
    seen = face_id >= 0
    assert seen.any() and not seen.all()
    assert (bary >= 0).all() and (bary <= 1).all()
    assert (bary[seen].sum(-1) - 1).abs().max() <= 4 * torch.finfo(dtype).eps
    assert (bary[~seen] == 0).all() and (depth[~seen] == math.inf).all() and (face_id[~seen] == -1).all()
    corner_depth = torch.stack([v[faces][..., 2] for v in verts])  # [B,F,3]
    corners = torch.stack([z[i.clamp(min=0)] for z, i in zip(corner_depth, face_id.long(), strict=True)])  # [B,H,W,3]
    assert (depth >= corners.amin(-1))[seen].all() and (depth <= corners.amax(-1))[seen].all()


# ---- invariance --------------------------------------------------------------------------------------------------------------


def test_each_image_of_a_batch_stands_alone(device, generator) -> None:
    verts, faces = random_mesh(generator, device, batch=5)
    whole = ops.rasterize(verts, faces, (24, 32))
    order = torch.tensor([3, 0, 4, 2, 1], device=device)
    assert_same(ops.rasterize(verts[order], faces, (24, 32)), [part[order] for part in whole])
    assert_same(ops.rasterize(verts[1:3], faces, (24, 32)), [part[1:3] for part in whole])


def test_the_order_of_faces_and_vertices_changes_names_alone(device, generator) -> None:
    for verts, faces in (random_mesh(generator, device), [part.to(device) for part in closed_mesh(15.0)]):
        out = ops.rasterize(verts, faces, (37, 43))
        order = torch.randperm(len(faces), generator=generator).to(device)
        names = torch.randperm(verts.shape[1], generator=generator).to(device)
        other = ops.rasterize(verts[:, names], names.argsort()[faces[order]], (37, 43))
        back = torch.where(other.face_id >= 0, order[other.face_id.long().clamp(min=0)].int(), -1)
        assert_same((back, other.bary, other.depth), out)


def test_strips_of_one_image_give_the_bits_of_the_whole() -> None:
    verts, faces = closed_mesh(25.0)
    results = []
    for count in (1, 2, 3, 8):
        with threads(count):
            results.append(ops.rasterize(verts, faces, (131, 43)))
    for other in results[1:]:
        assert_same(other, results[0])


def test_threads_and_runs_do_not_change_a_bit(device, generator) -> None:
    verts, faces = random_mesh(generator, device, batch=5)
    verts.requires_grad_()
    weight = torch.randn(5, 24, 32, 3, generator=generator).to(device)
    results = []
    for count in (1, 4, 3):
        with threads(count):
            out = ops.rasterize(verts, faces, (24, 32))
            loss = (out.bary * weight).sum() + out.depth[out.face_id >= 0].sum()
            results.append((*(part.detach() for part in out), torch.autograd.grad(loss, verts)[0]))
    assert all(torch.equal(a, b) for other in results[1:] for a, b in zip(results[0], other, strict=True))


def test_strided_inputs(device, generator) -> None:
    verts, faces = random_mesh(generator, device)
    plain = ops.rasterize(verts, faces, (24, 32))
    assert_same(ops.rasterize(verts.mT.contiguous().mT, faces.repeat_interleave(2, 0)[::2], (24, 32)), plain)
    repeated = ops.rasterize(verts[:1].expand(3, -1, -1), faces, (24, 32))
    assert_same(repeated, [part[[0, 0, 0]] for part in plain])


# ---- odd triangles and sizes -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", FLOATS)
def test_triangles_that_cover_nothing(device, dtype) -> None:
    inf, nan, far = math.inf, math.nan, 2.0**21 + 1
    good = [[0.0, 0.0, 1.0], [0.0, 9.0, 1.0], [9.0, 0.0, 1.0]]
    spoilt = ([nan, 0, 1], [0, inf, 1], [0, 0, nan], [0, 0, -inf], [-far, 0, 1], [0, far, 1])
    for bad in (*spoilt, [9.0, 0.0, 1.0], [4.5, 4.5, 1.0]):  # the last two have no area
        verts = tensor([[bad, *good[1:]], good], device, dtype)  # the second image is as it should be
        face_id, bary, depth = ops.rasterize(verts, torch.tensor([[0, 1, 2]], device=device), (4, 4))
        assert (face_id[0] == -1).all() and (bary[0] == 0).all() and (depth[0] == inf).all(), bad
        assert (face_id[1] == 0).all()
    away = tensor([[[x - 40, y, z] for x, y, z in good], [[x, y + 40, z] for x, y, z in good]], device, dtype)
    assert (ops.rasterize(away, torch.tensor([[0, 1, 2]], device=device), (4, 4)).face_id == -1).all()


def test_triangles_without_area_that_gain_one_by_snapping(device) -> None:
    along = [2.5 + t / 1024 for t in (-618 * 7, -170 * 7, 161 * 7)], [2.5 + t / 1024 for t in (-618 * 4, -170 * 4, 161 * 4)]
    one = [[x, y, z] for x, y, z in zip(*along, (1.0, 2.0, 3.0), strict=True)]
    verts = tensor([[[x + right, y, z] for right in range(5) for x, y, z in one]], device).requires_grad_()
    faces = torch.arange(15, device=device).view(5, 3)
    face_id, bary, depth = ops.rasterize(verts, faces, (5, 9))
    assert face_id[0, 2, 2:7].tolist() == [0, 1, 2, 3, 4] and (bary[face_id >= 0].sum(-1) - 1).abs().max() < 1e-6
    assert_same((face_id, bary, depth), reference.rasterize(verts.detach().cpu(), faces.cpu(), (5, 9)))
    (grad,) = torch.autograd.grad(bary.square().sum() + depth[face_id >= 0].sum(), verts)
    assert grad.isfinite().all() and (grad[..., :2] == 0).all() and (grad[..., 2] >= 0).all()


def test_front_faces_run_counter_clockwise_on_the_screen(device) -> None:
    verts = tensor([[[0, 0, 1], [0, 9, 1], [9, 0, 1]]], device)  # down, then right: counter-clockwise where y is down
    front, back = torch.tensor([[0, 1, 2]], device=device), torch.tensor([[0, 2, 1]], device=device)
    assert (ops.rasterize(verts, front, (3, 3), cull_backfaces=True).face_id == 0).all()
    assert (ops.rasterize(verts, back, (3, 3), cull_backfaces=True).face_id == -1).all()
    assert (ops.rasterize(verts, back, (3, 3)).face_id == 0).all()


def test_negative_and_signed_zero_depths_are_ordered(device) -> None:
    for dtype in FLOATS:
        flat = tensor([[[x, y, z] for z in (0.0, -0.0, -5.0, 3e38, -3e38) for x, y in ((0, 0), (0, 9), (9, 0))]], device, dtype)
        faces = torch.arange(15, device=device).view(5, 3)
        for order, want in (([0, 1], 0), ([1, 0], 0), ([1], 0), ([3, 0, 2], 2), ([3, 4, 2], 1), ([3, 0], 1)):
            out = ops.rasterize(flat, faces[order], (3, 3))
            assert (out.face_id == want).all() and not (out.depth.signbit() & (out.depth == 0)).any(), (dtype, order)


@pytest.mark.parametrize("size", [(0, 0), (0, 5), (5, 0), (1, 1), (1, 37), (37, 1), (3, 5)])
def test_odd_and_empty_sizes(device, generator, size) -> None:
    for batch, num_verts, num_faces in ((2, 9, 12), (0, 9, 12), (2, 9, 0), (1, 0, 0), (0, 0, 0)):
        verts = (torch.rand(batch, num_verts, 3, generator=generator) * 40 - 4).to(device).requires_grad_()
        faces = torch.randint(max(num_verts, 1), (num_faces, 3), generator=generator).to(device)
        out = ops.rasterize(verts, faces, size)
        assert out.face_id.shape == out.depth.shape == (batch, *size) and out.bary.shape == (batch, *size, 3)
        assert_same([part.detach() for part in out], reference.rasterize(verts.detach().cpu(), faces.cpu(), size))
        (grad,) = torch.autograd.grad(out.bary.sum(), verts)
        assert grad.shape == verts.shape and grad.isfinite().all()


# ---- bad inputs --------------------------------------------------------------------------------------------------------------


def test_bad_inputs_are_named(device) -> None:
    verts, faces = torch.rand(1, 4, 3, device=device), torch.tensor([[0, 1, 2]], device=device)
    cases = [
        (TypeError, "verts must be float32 or float64, got int64", (verts.long(), faces, (4, 4))),
        (TypeError, "verts must be a torch.Tensor", ([[0.0]], faces, (4, 4))),
        (ValueError, r"verts must have shape \[B, V, 3\], got \[4, 3\]", (verts[0], faces, (4, 4))),
        (ValueError, r"verts must have shape \[B, V, 3\], got \[1, 4, 2\]", (verts[..., :2], faces, (4, 4))),
        (TypeError, "faces must be int32 or int64, got float32", (verts, faces.float(), (4, 4))),
        (ValueError, r"faces must have shape \[F, 3\], got \[1, 1, 3\]", (verts, faces[None], (4, 4))),
        (ValueError, "image_size must be .height, width.", (verts, faces, (4, -1))),
        (ValueError, "image_size must be .height, width.", (verts, faces, (4.0, 4))),
        (ValueError, "image_size must be .height, width.", (verts, faces, 4)),
        (ValueError, "image_size must be at most 1048576", (verts, faces, (4, 1 << 21))),
        (ValueError, "faces must be on .* as verts is, got meta", (verts, faces.to("meta"), (4, 4))),
    ]
    for error, words, args in cases:
        with pytest.raises(error, match="rasterize: " + words):
            ops.rasterize(*args)
    for method in ("fast", None, 1):
        with pytest.raises(ValueError, match=f"rasterize: method must be one of auto, plain, fused, got {method!r}"):
            ops.rasterize(verts, faces, (4, 4), method=method)
    with pytest.raises(TypeError, match="cull_backfaces must be a bool"):
        ops.rasterize(verts, faces, (4, 4), cull_backfaces=1)
    assert ops.rasterize(verts, faces, (4, 4), cull_backfaces=np.bool_(True)).face_id.shape[1:] == (4, 4)


@pytest.mark.parametrize("index", [torch.int32, torch.int64])
@pytest.mark.parametrize("wrong", [-1, 3, 2**31 - 1])
def test_a_face_that_names_no_vertex(device, index, wrong) -> None:
    """On the CPU an error; on the GPU, where looking would stall, such a face is not drawn."""
    verts = tensor([[[0, 0, 1], [0, 9, 1], [9, 0, 1]]], device)
    faces = torch.tensor([[0, 1, wrong], [0, 1, 2]], dtype=index, device=device)
    if device.type == "cpu":
        with pytest.raises(IndexError, match=rf"faces must be in \[0, V=3\), got {wrong}"):
            ops.rasterize(verts, faces, (3, 3))
        with pytest.raises(RuntimeError, match="faces must be in"):
            torch.ops.gcl_fast.rasterize(verts, faces, 3, 3, False)
    else:
        verts.requires_grad_()
        out = ops.rasterize(verts, faces, (3, 3))
        assert (out.face_id == 1).all()
        out.bary.square().sum().backward()
        assert verts.grad.isfinite().all()


def test_calling_the_operator_itself_wrongly_does_not_crash(device) -> None:
    verts, faces = torch.rand(1, 4, 3, device=device), torch.tensor([[0, 1, 2]], device=device)
    for args in (
        (verts.half(), faces, 4, 4, False),
        (verts[0], faces, 4, 4, False),
        (verts, faces.float(), 4, 4, False),
        (verts, faces[0], 4, 4, False),
        (verts, faces, -1, 4, False),
        (verts, faces, 4, 1 << 40, False),
        (verts, faces, 4, 4, False, 3),
        (verts, faces, 4, 4, False, -1),
    ):
        with pytest.raises(RuntimeError):
            torch.ops.gcl_fast.rasterize(*args)
