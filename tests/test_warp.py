"""mesh_flow and mesh_warp against their plain definitions and against geometry."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gcl_fast import ops, reference
from gcl_fast.bodies import project, turn
from tests.toy_meshes import EYE, WEAK, ellipsoid, soup, square

FEW = settings(deadline=None, max_examples=15, derandomize=True)
NAN = float("nan")


@FEW
@given(seed=st.integers(0, 10**6))
def test_flow_is_its_definition_on_any_triangles(seed):
    src, faces, size = soup(seed)
    dst, _, _ = soup(seed + 1)
    got, want = ops.mesh_flow(src, dst, faces, size), reference.mesh_flow(src, dst, faces, size)
    torch.testing.assert_close(got.grid, want.grid, rtol=1e-9, atol=1e-9)
    assert torch.equal(got.visibility, want.visibility)


@pytest.mark.parametrize("camera", [WEAK, EYE])
def test_flow_is_its_definition_on_a_body(camera, device):
    verts, faces = ellipsoid()
    views = project(turn(verts, [0, 60])[None], camera[:, None], (24, 12))[0]  # [2, V, 3]
    want = reference.mesh_flow(views[:1], views[1:], faces, (24, 12))
    got = ops.mesh_flow(views[:1].to(device), views[1:].to(device), faces.to(device), (24, 12))
    torch.testing.assert_close(got.grid.cpu(), want.grid, rtol=1e-9, atol=1e-9)
    assert torch.equal(got.visibility.cpu(), want.visibility)
    assert {1, 2} <= set(want.visibility.unique().tolist())


@FEW
@given(seed=st.integers(0, 10**6))
def test_every_point_of_a_view_is_visible_in_itself(seed):
    verts, faces, size = soup(seed, faces=12)
    flow = ops.mesh_flow(verts, verts, faces, size)
    drawn = ops.rasterize(verts, faces, size).face_id >= 0
    assert torch.equal(flow.visibility == 1, drawn) and torch.equal(flow.grid == -2, ~drawn.unsqueeze(-1).expand(*drawn.shape, 2))


def test_back_of_a_body_is_occluded_and_its_front_is_not(device):
    verts, faces = ellipsoid(16, 24)
    views = project(turn(verts, [0, 20, 180])[None], EYE[:, None], (96, 48))[0].to(device)
    visible = [ops.mesh_flow(views[:1], views[i : i + 1], faces.to(device), (96, 48)).visibility for i in range(3)]
    counts = [torch.bincount(v.flatten().long(), minlength=3).tolist() for v in visible]
    assert counts[0][2] == 0
    assert counts[1][1] > 0.75 * (counts[1][1] + counts[1][2])
    assert counts[2][1] <= 0.02 * (counts[2][1] + counts[2][2])  # at most single pixels on the silhouette


def test_an_occluder_hides_exactly_what_lies_behind_it():
    wall, faces = square(2.0)
    front, _ = square(1.0, (2.0, 5.0), (0.0, 8.0))
    aside = front + torch.tensor([100.0, 0, 0])  # in the destination view it has left the image
    both = torch.cat((faces, faces + 4))
    flow = ops.mesh_flow(torch.cat((wall, front))[None], torch.cat((wall, aside))[None], both, (8, 8))
    want = torch.ones(8, 8, dtype=torch.uint8)
    want[:, 2:5] = 2
    assert torch.equal(flow.visibility[0], want)
    shifted = ops.mesh_flow(wall[None] - torch.tensor([3.0, 0, 0]), wall[None], faces, (8, 8)).visibility[0]
    assert (shifted[:, :3] == 2).all() and (shifted[:, 3:] == 1).all()  # outside the source image


@FEW
@given(dx=st.integers(-3, 3), dy=st.integers(-3, 3), seed=st.integers(0, 10**6))
def test_moving_a_mesh_by_whole_pixels_moves_the_picture(dx, dy, seed):
    verts, faces = square(1.0, (3.0, 9.0), (3.0, 7.0))
    image = torch.rand(1, 2, 10, 12, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    moved = verts + torch.tensor([dx, dy, 0.5])
    warped, visibility = ops.mesh_warp(image, verts[None], moved[None], faces, fill=7.0)
    want = torch.full_like(image, 7.0)
    want[..., 3 + dy : 7 + dy, 3 + dx : 9 + dx] = image[..., 3:7, 3:9]
    torch.testing.assert_close(warped, want, rtol=1e-12, atol=1e-12)
    assert torch.equal(visibility[0] == 1, (want != 7).all(1)[0])


def test_warp_is_its_definition_and_differentiable_in_the_image(device):
    verts, faces = ellipsoid()
    views = project(turn(verts, [0, 40])[None], WEAK[:, None], (10, 6))[0].to(device)
    faces = faces.to(device)
    image = torch.randn(1, 2, 10, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).to(device)
    got = ops.mesh_warp(image, views[:1], views[1:], faces, fill=-1.0)
    want = reference.mesh_warp(image.cpu(), views[:1].cpu(), views[1:].cpu(), faces.cpu(), fill=-1.0)
    torch.testing.assert_close(got.warped.cpu(), want.warped, rtol=1e-9, atol=1e-9)
    assert torch.equal(got.visibility.cpu(), want.visibility)
    assert torch.autograd.gradcheck(lambda i: ops.mesh_warp(i, views[:1], views[1:], faces).warped, (image.requires_grad_(),))
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        half = ops.mesh_warp(image.detach().to(dtype), views[:1], views[1:], faces, fill=-1.0).warped
        assert half.dtype == dtype
        torch.testing.assert_close(half.double(), got.warped, rtol=2 * torch.finfo(dtype).eps, atol=4 * torch.finfo(dtype).eps)


def test_a_source_vertex_that_is_not_finite_hides_its_faces():
    verts, faces = square(1.0)
    broken = verts.clone()
    broken[1] = NAN
    flow = ops.mesh_flow(broken[None], verts[None], faces, (8, 8))
    drawn = ops.rasterize(verts[None], faces, (8, 8)).face_id
    assert (flow.visibility[drawn == 0] == 2).all() and (flow.grid[drawn == 0] == -2).all()
    assert (flow.visibility[drawn == 1] == 1).all()
    image = torch.ones(1, 1, 8, 8, dtype=torch.float64, requires_grad=True)
    ops.mesh_warp(image, broken[None], verts[None], faces).warped.sum().backward()
    assert image.grad.isfinite().all()


def test_flow_and_warp_of_nothing():
    verts, faces = square(1.0)
    image = torch.zeros(0, 3, 4, 4, dtype=torch.float64)
    assert ops.mesh_warp(image, verts[None][:0], verts[None][:0], faces).warped.shape == (0, 3, 4, 4)
    flow = ops.mesh_flow(verts[None], verts[None], faces[:0], (4, 5))
    assert (flow.grid == -2).all() and flow.grid.shape == (1, 4, 5, 2) and not flow.visibility.any()
    warped = ops.mesh_warp(torch.ones(1, 1, 4, 5, dtype=torch.float64), verts[None], verts[None], faces[:0], fill=0.5).warped
    assert (warped == 0.5).all()
