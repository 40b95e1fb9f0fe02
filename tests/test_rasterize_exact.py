"""rasterize: coverage and visibility against exact rational arithmetic."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from gcl_fast import ops
from tests.raster_cases import FLOATS, cross, exactly_covered, random_mesh, tensor

FEW = settings(deadline=None, max_examples=15, derandomize=True)


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


def squares(corner: Tensor, side: float, depth: float) -> Tensor:
    """Vertices [..., 4 N, 3] of upright squares whose upper left corners are corner [..., N, 2]."""
    xy = corner[..., None, :] + side * tensor([[0, 0], [1, 0], [1, 1], [0, 1]])
    return torch.cat([xy, torch.full_like(xy[..., :1], depth)], -1).flatten(-3, -2)


@pytest.mark.parametrize("side", [4, 10, 30])  # of the square, in pixels: drawn in one block of them, in several, row by row
@pytest.mark.parametrize("turned", [False, True])  # which winding is whose: the sweep begins with the faces of one
@pytest.mark.parametrize("has_hole", [False, True])
def test_a_square_behind_a_wall_shows_in_its_hole_alone_and_one_in_the_wall_hides_it(device, side, turned, has_hole) -> None:
    """Wherever square and hole lie: in each picture a wall of a square for each pixel, one of which may be missing, and a large
    square, first of the faces and so of those at one depth."""
    size = (9, 10)
    pixels = torch.cartesian_prod(*map(torch.arange, size)).flip(1).float()  # [P, 2] x, y
    shifts = torch.cartesian_prod(*[torch.arange(0, side, max(1, side // 4))] * 2)
    corner = (pixels[:, None] - shifts)[..., None, :]  # [P, S, 1, 2]
    hole = torch.eye(len(pixels), dtype=torch.bool)[:, None]  # [P, 1, P]
    wall = squares(pixels + 100.0 * (hole & has_hole)[..., None], 1, 1.0).expand(-1, len(shifts), -1, -1)
    verts = torch.cat([squares(corner, side, 2.0 if has_hole else 1.0), wall], 2).flatten(0, 1)
    faces = 4 * torch.arange(1 + len(pixels))[:, None, None] + torch.tensor([[0, 1, 2], [0, 2, 3]])
    faces[0] = faces[0].flip(1)
    got = ops.rasterize(verts.to(device), (faces.flip(2) if turned else faces).flatten(0, 1).to(device), size)
    covered = ((pixels >= corner) & (pixels < corner + side)).all(-1)  # [P, S, P]
    shown = hole.expand_as(covered) if has_hole else covered
    assert torch.equal((got.face_id < 2).cpu().view_as(shown), shown)
    assert torch.equal(got.depth.cpu().view_as(shown) == 2, shown & has_hole)


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


def test_triangles_far_larger_than_the_image_are_exact(device, generator) -> None:
    side = 2.0**21
    row, col = torch.meshgrid(torch.arange(5), torch.arange(5), indexing="ij")
    for dtype in FLOATS:
        whole = tensor([[[-side, -side, 1], [side, -side, 2], [-side, side, 3], [side, side, 4]]], device, dtype)
        face_id, bary, depth = ops.rasterize(whole, torch.tensor([[0, 1, 2], [3, 2, 1]], device=device), (5, 5))
        assert torch.equal(face_id[0].cpu(), (row + col >= 0).int())  # centres are past the diagonal x + y = 0
        assert depth.isfinite().all() and (bary.sum(-1) - 1).abs().max() <= 4 * torch.finfo(dtype).eps
    for _ in range(20):  # long edges that pass between the centres of a small image
        corners = (torch.rand(1, 3, 3, generator=generator, dtype=torch.float64) - 0.5) * 2.0**21
        corners[..., 2] = 1.0
        corners[0, 2, :2] = 3.0 - corners[0, 0, :2] * torch.rand(1, generator=generator, dtype=torch.float64)
        got = ops.rasterize(corners.to(device), torch.tensor([[0, 1, 2]], device=device), (6, 6)).face_id[0]
        assert {tuple(p) for p in (got == 0).nonzero().tolist()} == exactly_covered(corners[0].tolist(), (6, 6))
