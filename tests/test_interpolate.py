"""interpolate against its plain definition, and its gradients."""

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
@given(seed=st.integers(0, 10**6), shared=st.booleans())
def test_interpolate_is_its_definition(seed, shared):
    verts, faces, size = soup(seed)
    raster = ops.rasterize(verts, faces, size)
    g = torch.Generator().manual_seed(seed)
    attributes = torch.randn(*(() if shared else (2,)), 8, 4, generator=g, dtype=torch.float64)
    got = ops.interpolate(attributes, faces, raster.face_id, raster.bary)
    torch.testing.assert_close(got, reference.interpolate(attributes, faces, raster.face_id, raster.bary), rtol=1e-12, atol=1e-12)
    assert (got[raster.face_id < 0] == 0).all()


def test_interpolated_vertices_are_the_pixel_centres(device):
    verts, faces = ellipsoid()
    pixels = project(verts[None], WEAK, (40, 20)).to(device)
    raster = ops.rasterize(pixels, faces.to(device), (40, 20))
    got = ops.interpolate(pixels, faces.to(device), raster.face_id, raster.bary)
    inside = raster.face_id >= 0
    y, x = torch.meshgrid(torch.arange(40, device=device) + 0.5, torch.arange(20, device=device) + 0.5, indexing="ij")
    error = (got[..., :2] - torch.stack((x, y), -1)).abs().amax(-1)[inside]
    assert inside.any() and error.max() < 0.05  # clamped barycentrics move a centre by parts of the 1/256 snapping grid
    torch.testing.assert_close(got[..., 2][inside], raster.depth[inside], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("shared", [True, False])
def test_interpolate_gradients(shared, device):
    verts, faces, size = soup(3, height=4, width=3)
    raster = ops.rasterize(verts.to(device), faces.to(device), size)
    attributes = torch.randn(*(() if shared else (2,)), 8, 2, dtype=torch.float64).to(device).requires_grad_()
    bary = raster.bary.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda a, b: ops.interpolate(a, faces.to(device), raster.face_id, b), (attributes, bary))


def test_nothing_of_the_background_reaches_a_gradient():
    attributes = torch.tensor([[NAN], [NAN], [NAN], [1.0], [2.0], [3.0]], requires_grad=True)
    faces = torch.tensor([[0, 1, 2], [3, 4, 5]])
    bary = torch.tensor([[[[NAN, NAN, NAN], [0.2, 0.3, 0.5]]]], requires_grad=True)
    out = ops.interpolate(attributes, faces, torch.tensor([[[-1, 1]]]), bary)
    out.sum().backward()
    torch.testing.assert_close(out.flatten(), torch.tensor([0.0, 2.3]))
    assert bary.grad[0, 0, 0].eq(0).all() and attributes.grad.isfinite().all()


def test_interpolate_takes_views_and_empty_batches():
    verts, faces, size = soup(5)
    raster = ops.rasterize(verts, faces, size)
    attributes = torch.randn(4, 8, 2, dtype=torch.float64).transpose(0, 2)[..., ::2].transpose(1, 2)[:, :2].transpose(1, 2)
    got = ops.interpolate(attributes, faces.t().contiguous().t(), raster.face_id.transpose(1, 2), raster.bary.transpose(1, 2))
    face_id, bary = raster.face_id.mT.contiguous(), raster.bary.transpose(1, 2).contiguous()
    want = ops.interpolate(attributes.contiguous(), faces, face_id, bary)
    assert torch.equal(got, want)
    assert ops.interpolate(attributes[:0], faces, raster.face_id[:0], raster.bary[:0]).shape == (0, *size, 2)
    nothing = torch.zeros(2, 0, 2, dtype=torch.float64, requires_grad=True)
    out = ops.interpolate(nothing, faces[:0], torch.full_like(raster.face_id, -1), raster.bary)
    out.sum().backward()
    assert not out.any() and nothing.grad.shape == nothing.shape
