"""rasterize: coverage against exact rational arithmetic, the reference bit for bit, gradients, and everything odd."""

from __future__ import annotations

import importlib
import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from gcl_fast import ops, reference

FLOATS = [torch.float32, torch.float64]
FEW = settings(deadline=None, max_examples=15, derandomize=True)
NEAR = Fraction(1, 1 << 60)  # far below what a snapped edge can tell from zero


def tensor(values, device="cpu", dtype=torch.float32) -> Tensor:
    return torch.tensor(values, dtype=dtype, device=device)


def random_mesh(generator, device, dtype=torch.float32, batch=2, num_verts=40, num_faces=60, size=(24, 32), grid=0):
    """Triangles all over the image and beyond; with `grid`, vertices on multiples of 1/grid pixel, so that edges meet centres."""
    span = torch.tensor([size[1] + 12.0, size[0] + 12.0, 1.0], dtype=dtype)
    verts = torch.rand(batch, num_verts, 3, generator=generator, dtype=dtype) * span - 6
    if grid:
        verts = (verts * grid).round() / grid
    faces = torch.randint(num_verts, (num_faces, 3), generator=generator)
    return verts.to(device), faces.to(device)


def assert_same(got, want) -> None:
    for name, a, b in zip(("face_id", "bary", "depth"), got, want, strict=True):
        assert a.dtype == b.dtype and torch.equal(a.cpu(), b.cpu()), name


# ---- exact coverage ----------------------------------------------------------------------------------------------------------


def snap(x: float) -> Fraction:
    return Fraction(round(Fraction(x) * 256), 256)  # Fraction rounds half to even


def cross(o, a, b) -> Fraction:
    return (a[0] - o[0]) * (b[1] - o[1]) - (a[1] - o[1]) * (b[0] - o[0])


def exactly_covered(corners: list[list[float]], size: tuple[int, int]) -> set[tuple[int, int]]:
    """Pixels whose centre, moved right by NEAR and down by NEAR^2, lies strictly inside the snapped triangle.

    This is the top-left rule in other words: such a move enters through left edges first, then through top edges.
    """
    a, b, c = ((snap(x), snap(y)) for x, y, _ in corners)
    turn = cross(a, b, c)
    covered = set()
    for row in range(size[0] if turn else 0):
        for col in range(size[1]):
            p = (Fraction(2 * col + 1, 2) + NEAR, Fraction(2 * row + 1, 2) + NEAR * NEAR)
            if all(side * turn > 0 for side in (cross(a, b, p), cross(b, c, p), cross(c, a, p))):
                covered.add((row, col))
    return covered


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("grid", [0, 2, 512])
def test_coverage_equals_exact_arithmetic(device, generator, dtype, grid) -> None:
    size = (7, 9)
    verts, _ = random_mesh(generator, device, dtype, batch=1, num_verts=60, size=size, grid=grid)
    faces = torch.arange(60, device=device).view(20, 3)
    for face in range(20):
        face_id, bary, depth = ops.rasterize(verts, faces[face : face + 1], size)
        want = exactly_covered(verts[0, faces[face]].tolist(), size)
        assert {tuple(p) for p in (face_id[0] == 0).nonzero().tolist()} == want
        for row, col in want:
            check_weights(verts[0, faces[face]].tolist(), row, col, bary[0, row, col].tolist(), depth[0, row, col].item(), dtype)


def check_weights(corners, row, col, bary, depth, dtype) -> None:
    """The clamped barycentrics and the depth of the triangle as given, in rational arithmetic."""
    a, b, c = ([Fraction(n) for n in corner[:2]] for corner in corners)
    p = (Fraction(2 * col + 1, 2), Fraction(2 * row + 1, 2))
    turn = 1 if cross(a, b, c) > 0 else -1
    part = [max(turn * part, Fraction(0)) for part in (cross(b, c, p), cross(c, a, p), cross(a, b, p))]
    if sum(part) < Fraction(1, 10):
        return  # a sliver: its floating-point weights are ill-conditioned
    exact = [x / sum(part) for x in part]
    # Each edge function is two products of lengths up to `side`, each rounded at most three times by eps / 2.
    side = max(abs(n - m) for corner in (a, b, c) for n, m in zip(corner, p, strict=True))
    close = float(6 * side * side / sum(part)) * torch.finfo(dtype).eps
    assert all(abs(float(x) - y) <= close for x, y in zip(exact, bary, strict=True))
    depth_close = 3 * (close + torch.finfo(dtype).eps) * max(abs(corner[2]) for corner in corners)
    assert abs(float(sum(x * Fraction(corner[2]) for x, corner in zip(exact, corners, strict=True))) - depth) <= depth_close


def test_layers_show_the_nearest_face_and_the_lowest_on_a_tie(device, generator) -> None:
    size = (8, 8)
    verts, _ = random_mesh(generator, device, batch=1, num_verts=45, size=size, grid=4)
    layer = torch.randint(3, (15,), generator=generator).to(device)
    verts[0, :, 2] = layer.repeat_interleave(3).float() - 1  # each triangle flat, several at one depth
    faces = torch.arange(45, device=device).view(15, 3)
    face_id, _, depth = ops.rasterize(verts, faces, size)
    covered = [exactly_covered(verts[0, f].tolist(), size) for f in faces]
    for row in range(8):
        for col in range(8):
            here = [(layer[f].item() - 1, f) for f in range(15) if (row, col) in covered[f]]
            want = min(here, default=(math.inf, -1))
            assert (depth[0, row, col].item(), face_id[0, row, col].item()) == want


def fan(data, size: int) -> tuple[list[list[float]], list[list[int]]]:
    """A square cut into triangles from a point inside of it to points around its border."""
    quarter = st.integers(0, 4 * size).map(lambda n: n / 4)
    inside = st.integers(1, 4 * size - 1).map(lambda n: n / 4)
    cuts = [sorted({0.0, *data.draw(st.lists(quarter, max_size=4))} - {float(size)}) for _ in range(4)]
    border = [(t, 0.0) for t in cuts[0]] + [(float(size), t) for t in cuts[1]]
    border += [(size - t, float(size)) for t in cuts[2]] + [(0.0, size - t) for t in cuts[3]]
    verts = [[data.draw(inside), data.draw(inside), 1.0]] + [[x, y, 1.0] for x, y in border]
    return verts, [[0, 1 + i, 1 + (i + 1) % len(border)] for i in range(len(border))]


def strip(data, size: int) -> tuple[list[list[float]], list[list[int]]]:
    """A square cut into quads with jittered inner corners, each quad into two triangles along either diagonal."""
    cells = data.draw(st.integers(1, 3))
    step = size / cells
    eighths = st.integers(-8, 8).map(lambda n: n / 8 * step * 0.2)
    inner = range(1, cells)
    verts = []
    for i in range(cells + 1):
        for j in range(cells + 1):
            dx = data.draw(eighths) if j in inner else 0.0
            dy = data.draw(eighths) if i in inner else 0.0
            verts.append([round((j * step + dx) * 256) / 256, round((i * step + dy) * 256) / 256, 1.0])
    faces = []
    for i in range(cells):
        for j in range(cells):
            a, b = i * (cells + 1) + j, i * (cells + 1) + j + 1
            d, c = a + cells + 1, b + cells + 1
            faces += [[a, b, c], [a, c, d]] if data.draw(st.booleans()) else [[b, d, a], [d, b, c]]
    return verts, faces


@FEW
@given(data=st.data(), cut=st.sampled_from([fan, strip]))
def test_a_cut_square_gives_each_centre_exactly_one_owner(data, cut) -> None:
    size = 6
    verts, faces = cut(data, size)
    offset = data.draw(st.tuples(*[st.sampled_from([0.0, 0.25, 0.5, 1.0])] * 2))
    points = tensor([[[x + offset[0], y + offset[1], z] for x, y, z in verts]])
    owners = sum((ops.rasterize(points, torch.tensor([face]), (8, 8)).face_id[0] == 0).int() for face in faces)
    centre = torch.arange(8) + 0.5
    inside = [(offset[k] <= centre) & (centre < offset[k] + size) for k in (0, 1)]  # left and top edge in, right and bottom out
    assert torch.equal(owners, (inside[1][:, None] & inside[0][None, :]).int())


@FEW
@given(data=st.data(), cut=st.sampled_from([fan, strip]))
def test_the_owners_in_one_picture_are_the_owners_one_by_one(data, cut) -> None:
    """Sloped, in any order of faces and corners: each centre of the square shows the one face that owns it alone."""
    verts, faces = cut(data, 6)
    order = data.draw(st.permutations(range(len(faces))))
    faces = torch.tensor([[faces[n][(k + n) % 3] for k in range(3)] for n in order])
    points = tensor([[[x + 1.0, y + 0.5, x / 3 - y] for x, y, _ in verts]])
    whole = ops.rasterize(points, faces, (8, 8)).face_id[0]
    for n in range(len(faces)):
        alone = ops.rasterize(points, faces[n : n + 1], (8, 8)).face_id[0] == 0
        assert torch.equal(whole == n, alone)
        assert {tuple(p) for p in alone.nonzero().tolist()} == exactly_covered(points[0, faces[n]].tolist(), (8, 8))


def exact_depth(corners: list[list[float]], row: int, col: int) -> Fraction | None:
    """Depth of the triangle as given at a centre inside of it, None where the centre is outside (snapping took it in)."""
    a, b, c = ([Fraction(n) for n in corner] for corner in corners)
    p = (Fraction(2 * col + 1, 2), Fraction(2 * row + 1, 2))
    parts = [cross(b, c, p), cross(c, a, p), cross(a, b, p)]
    if min(parts) < 0 < max(parts):
        return None
    return sum(part * corner[2] for part, corner in zip(parts, (a, b, c), strict=True)) / sum(parts)


@FEW
@given(data=st.data(), dtype=st.sampled_from(FLOATS))
def test_visibility_equals_exact_arithmetic(data, dtype) -> None:
    """Crossing triangles: the face shown is, in rational arithmetic, the nearest one, but for depths too close to tell apart."""
    size, count = (5, 6), 8
    place = st.integers(-16, 64).map(lambda n: n / 8)
    depth = st.integers(-8, 8).map(lambda n: n / 4)
    corners = [[[data.draw(place), data.draw(place), data.draw(depth)] for _ in range(3)] for _ in range(count)]
    verts = tensor([[v for corner in corners for v in corner]], dtype=dtype)
    out = ops.rasterize(verts, torch.arange(3 * count).view(count, 3), size)
    covered = [exactly_covered(corner, size) for corner in corners]
    for row in range(size[0]):
        for col in range(size[1]):
            here = {f: exact_depth(corners[f], row, col) for f in range(count) if (row, col) in covered[f]}
            face, seen = out.face_id[0, row, col].item(), out.depth[0, row, col].item()
            assert (face in here) if here else (face, seen) == (-1, math.inf)
            # Coordinates are eighths, so edge functions and their sum are exact in either type: each weight is rounded once by a
            # division, and the depth, of corners no deeper than 2, at most five times more.
            close = 2 * 3 * 4 * torch.finfo(dtype).eps
            if here:
                assert None not in here.values() and abs(here[face] - Fraction(seen)) <= close
                assert here[face] <= min(here.values()) + 2 * Fraction(close)


# ---- the reference -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("index", [torch.int32, torch.int64])
@pytest.mark.parametrize("cull", [False, True])
def test_equals_the_reference_bit_for_bit(device, generator, dtype, index, cull) -> None:
    for grid in (0, 2, 256):
        verts, faces = random_mesh(generator, device, dtype, grid=grid)
        got = ops.rasterize(verts, faces.to(index), (24, 32), cull_backfaces=cull)
        assert_same(got, reference.rasterize(verts.cpu(), faces.cpu(), (24, 32), cull_backfaces=cull))


def closed_mesh(scale: float, batch: int = 1) -> tuple[Tensor, Tensor]:
    """A bumpy ball of 2 x 12 x 16 triangles as large as `scale` pixels in radius, near and far side, and two vertices spoilt."""
    polar = torch.linspace(0.0, math.pi, 13)[:, None]
    around = torch.arange(16) * (math.pi / 8) + torch.arange(batch)[:, None, None] * 0.3
    radius = 1 + 0.2 * torch.sin(4 * polar) * torch.cos(3 * around)
    x, z = radius * torch.sin(polar) * torch.cos(around), radius * torch.sin(polar) * torch.sin(around)
    verts = torch.stack((x, torch.cos(polar).expand_as(x), z), -1).reshape(batch, -1, 3) * scale
    verts = verts + torch.tensor([21.3, 18.2, 0.0])
    verts[:, 40, 0], verts[:, 90, 2] = math.nan, math.inf
    ring, column = torch.meshgrid(torch.arange(12), torch.arange(16), indexing="ij")
    a, b = ring * 16 + column, ring * 16 + (column + 1) % 16
    return verts, torch.stack((a, b, a + 16, b, b + 16, a + 16), -1).reshape(-1, 3)


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
    results, before = [], torch.get_num_threads()
    try:
        for threads in (1, 2, 3, 8):
            torch.set_num_threads(threads)
            results.append(ops.rasterize(verts, faces, (131, 43)))
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert_same(other, results[0])


def test_threads_and_runs_do_not_change_a_bit(device, generator) -> None:
    verts, faces = random_mesh(generator, device, batch=5)
    verts.requires_grad_()
    weight = torch.randn(5, 24, 32, 3, generator=generator).to(device)
    results, before = [], torch.get_num_threads()
    try:
        for threads in (1, 4, 3):
            torch.set_num_threads(threads)
            out = ops.rasterize(verts, faces, (24, 32))
            loss = (out.bary * weight).sum() + out.depth[out.face_id >= 0].sum()
            results.append((*(part.detach() for part in out), torch.autograd.grad(loss, verts)[0]))
    finally:
        torch.set_num_threads(before)
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


def test_triangles_far_larger_than_the_image_are_exact(device, generator) -> None:
    side = 2.0**21
    whole = tensor([[[-side, -side, 1], [side, -side, 2], [-side, side, 3], [side, side, 4]]], device, torch.float64)
    face_id, bary, depth = ops.rasterize(whole, torch.tensor([[0, 1, 2], [3, 2, 1]], device=device), (5, 5))
    row, col = torch.meshgrid(torch.arange(5), torch.arange(5), indexing="ij")
    assert torch.equal(face_id[0].cpu(), (row + col >= 0).int())  # centres are past the diagonal x + y = 0
    assert depth.isfinite().all() and (bary.sum(-1) - 1).abs().max() < 1e-15
    for _ in range(20):  # long edges that pass between the centres of a small image
        corners = (torch.rand(1, 3, 3, generator=generator, dtype=torch.float64) - 0.5) * 2.0**21
        corners[..., 2] = 1.0
        corners[0, 2, :2] = 3.0 - corners[0, 0, :2] * torch.rand(1, generator=generator, dtype=torch.float64)
        got = ops.rasterize(corners.to(device), torch.tensor([[0, 1, 2]], device=device), (6, 6)).face_id[0]
        assert {tuple(p) for p in (got == 0).nonzero().tolist()} == exactly_covered(corners[0].tolist(), (6, 6))


def test_a_triangle_without_area_that_gains_one_by_snapping(device) -> None:
    along = [2.5 + t / 1024 for t in (-618 * 7, -170 * 7, 161 * 7)], [2.5 + t / 1024 for t in (-618 * 4, -170 * 4, 161 * 4)]
    verts = tensor([[[x, y, z] for x, y, z in zip(*along, (1.0, 2.0, 3.0), strict=True)]], device).requires_grad_()
    faces = torch.tensor([[0, 1, 2]], device=device)
    face_id, bary, depth = ops.rasterize(verts, faces, (5, 5))
    assert face_id[0, 2, 2] == 0 and (bary[face_id >= 0].sum(-1) - 1).abs().max() < 1e-6
    assert_same((face_id, bary, depth), reference.rasterize(verts.detach().cpu(), faces.cpu(), (5, 5)))
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
        for order, want in (([0, 1], 0), ([1, 0], 0), ([3, 0, 2], 2), ([3, 4, 2], 1), ([3, 0], 1)):
            assert (ops.rasterize(flat, faces[order], (3, 3)).face_id == want).all(), (dtype, order)


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


# ---- gradients and the dispatcher --------------------------------------------------------------------------------------------


def seen_parts(verts, faces, size):
    out = ops.rasterize(verts, faces, size)
    return out.bary, out.depth[out.face_id >= 0]


def test_gradcheck(device, generator) -> None:
    verts, faces = random_mesh(generator, device, torch.float64, num_verts=9, num_faces=6, size=(6, 6))
    out = ops.rasterize(verts, faces, (6, 6))
    assert (out.face_id >= 0).sum() > 10
    assert torch.autograd.gradcheck(lambda v: seen_parts(v, faces, (6, 6)), (verts.requires_grad_(),))


def test_a_clamped_coordinate_has_no_gradient(device) -> None:
    verts = tensor([[[0.501, 0.0, 1.0], [0.501, 9.0, 2.0], [9.0, 0.0, 3.0]]], device, torch.float64)  # snaps to x = 0.5
    faces = torch.tensor([[0, 1, 2]], device=device)
    bary = ops.rasterize(verts, faces, (2, 2)).bary
    assert bary[0, 0, 0, 2] == 0 and bary[0, 0, 0, :2].min() > 0
    assert torch.autograd.gradcheck(lambda v: seen_parts(v, faces, (2, 2)), (verts.requires_grad_(),))


def test_gradient_is_as_good_as_the_references(device, generator) -> None:
    """Against the reference's autograd in float64: at most twice the error of its autograd in float32."""
    verts, faces = random_mesh(generator, "cpu")
    weight = torch.randn(2, 24, 32, 3, generator=generator)

    def grad(rasterize, v: Tensor) -> Tensor:
        v = v.detach().requires_grad_()
        out = rasterize(v, faces.to(v.device), (24, 32))
        seen = out.face_id >= 0
        loss = (out.bary * weight.to(v)).sum() + (out.depth[seen] * weight.to(v)[..., 0][seen]).sum()
        return torch.autograd.grad(loss, v)[0].cpu().double()

    exact, plain = grad(reference.rasterize, verts.double()), grad(reference.rasterize, verts)
    assert exact.abs().max() > 1
    assert (grad(ops.rasterize, verts.double().to(device)) - exact).abs().max() <= 1e-12 * exact.abs().max()
    error = (grad(ops.rasterize, verts.to(device)) - exact).abs()
    assert error.norm() <= 2 * (plain - exact).norm()


def test_no_second_derivative(device) -> None:
    verts = tensor([[[0, 0, 1], [0, 9, 1], [9, 0, 1]]], device).requires_grad_()
    bary = ops.rasterize(verts, torch.tensor([[0, 1, 2]], device=device), (3, 3)).bary
    (grad,) = torch.autograd.grad(bary.square().sum(), verts, create_graph=True)
    with pytest.raises(NotImplementedError, match="second derivative"):
        grad.sum().backward()


@pytest.mark.parametrize("dtype", FLOATS)
def test_opcheck(device, generator, dtype) -> None:
    verts, faces = random_mesh(generator, device, dtype, num_verts=9, num_faces=6, size=(6, 6))
    ran = torch.library.opcheck(torch.ops.gcl_fast.rasterize.default, (verts.requires_grad_(), faces, 6, 6, False))
    assert len(ran) == 4 and set(ran.values()) == {"SUCCESS"}
    out = ops.rasterize(verts.detach(), faces, (6, 6))
    corner, order = torch.sort(faces.reshape(-1), stable=True)
    begin = torch.searchsorted(corner, torch.arange(10, device=device))
    args = (torch.randn_like(out.bary), torch.randn_like(out.depth), verts.detach(), faces, out.face_id, order, begin)
    torch.library.opcheck(torch.ops.gcl_fast.rasterize_backward.default, args)


def test_compiles_without_a_graph_break(device, generator) -> None:
    verts, faces = random_mesh(generator, device, num_verts=9, num_faces=6, size=(6, 6))

    def loss(v: Tensor) -> Tensor:
        out = ops.rasterize(v, faces, (6, 6), cull_backfaces=True)
        return (out.bary.square().sum(-1) + torch.where(out.face_id >= 0, out.depth, 0.0)).sum()

    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    for v in (verts, verts[:1] + 0.25):
        plain, fast = v.clone().requires_grad_(), v.clone().requires_grad_()
        loss(plain).backward()
        compiled(fast).backward()
        assert torch.equal(plain.grad, fast.grad)


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
    with pytest.raises(TypeError, match="cull_backfaces must be a bool"):
        ops.rasterize(verts, faces, (4, 4), cull_backfaces=1)


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
    ):
        with pytest.raises(RuntimeError):
            torch.ops.gcl_fast.rasterize(*args)
