"""interpolate against its plain definition, and its gradients."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gcl_fast import ops, reference
from gcl_fast.meshes import project, turn
from gcl_fast.ops.interpolate import _entries_by_row
from tests.threads import threads
from tests.toy_meshes import WEAK, ellipsoid, soup

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


def scene(device=torch.device("cpu"), dtype=torch.float64, shared=False, channels=3):
    verts, faces, size = soup(3, faces=9)
    raster = ops.rasterize(verts.to(device, dtype), faces.to(device), size)
    g = torch.Generator().manual_seed(2)
    attributes = torch.randn(*(() if shared else (2,)), 8, channels, generator=g, dtype=torch.float64).to(device, dtype)
    return attributes, faces.to(device), raster.face_id, raster.bary


def backward_arguments(attributes, faces, face_id, bary, need=(True, True)):
    order, begin = _entries_by_row(attributes, faces, face_id)
    grad = torch.linspace(-1, 1, face_id.numel() * attributes.shape[-1], device=bary.device, dtype=bary.dtype)
    return grad.view(*face_id.shape, -1), attributes, faces, face_id, bary, order, begin, *need


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shared", [True, False])
def test_opcheck(dtype, shared, device):
    attributes, faces, face_id, bary = scene(device, dtype, shared)
    arguments = (attributes.requires_grad_(), faces, face_id, bary.clone().requires_grad_())
    ran = torch.library.opcheck(torch.ops.gcl_fast.interpolate.default, arguments)
    assert len(ran) == 4 and set(ran.values()) == {"SUCCESS"}
    for need in ((True, True), (False, True), (True, False)):
        arguments = backward_arguments(attributes.detach(), faces, face_id, bary, need)
        ran = torch.library.opcheck(torch.ops.gcl_fast.interpolate_backward.default, arguments)
        assert len(ran) == 4 and set(ran.values()) == {"SUCCESS"}


@pytest.mark.parametrize("shared", [True, False])
def test_second_derivatives(shared, device):
    attributes, faces, face_id, bary = scene(device, shared=shared, channels=2)
    inputs = attributes.requires_grad_(), bary.clone().requires_grad_()
    assert torch.autograd.gradgradcheck(lambda a, b: ops.interpolate(a, faces, face_id, b), inputs)
    assert torch.autograd.gradgradcheck(lambda a: ops.interpolate(a, faces, face_id, bary), inputs[:1])
    assert torch.autograd.gradgradcheck(lambda b: ops.interpolate(attributes.detach(), faces, face_id, b), inputs[1:])


def gradients(interpolate, attributes, faces, face_id, bary):
    attributes, bary = attributes.clone().requires_grad_(), bary.clone().requires_grad_()
    out = interpolate(attributes, faces, face_id, bary)
    weight = torch.linspace(-1, 2, out.numel(), dtype=out.dtype, device=out.device).view_as(out)
    return out.detach(), *torch.autograd.grad(out, (attributes, bary), weight)


@pytest.mark.parametrize("shared", [True, False])
def test_float32_is_no_worse_than_plain_pytorch(shared, device):
    exact = gradients(reference.interpolate, *scene(shared=shared, channels=5))
    attributes, faces, face_id, bary = (t.cpu() for t in scene(device, shared=shared, channels=5))
    single = (attributes.float(), faces, face_id, bary.float())
    plain = gradients(reference.interpolate, *single)
    got = gradients(ops.interpolate, *(t.to(device) for t in single))
    for want, theirs, ours in zip(exact, plain, got, strict=True):
        assert want.abs().max() > 0.1
        assert (ours.cpu() - want).norm() <= 2 * (theirs - want).norm()


@pytest.mark.parametrize("shared", [True, False])
def test_no_bit_depends_on_threads_or_on_the_batch(shared):
    verts, faces = ellipsoid(20, 30, dtype=torch.float32)
    pixels = project(
        turn(verts[None].expand(3, -1, -1), [0.0])[:, 0] * torch.tensor([1, 0.9, 0.8])[:, None, None],
        WEAK.float().expand(3, -1),
        (96, 64),
    )
    raster = ops.rasterize(pixels, faces, (96, 64))
    g = torch.Generator().manual_seed(1)
    attributes = torch.randn(*(() if shared else (3,)), len(verts), 4, generator=g)
    results = []
    for count in (1, 2, 5):
        with threads(count):
            results.append(gradients(ops.interpolate, attributes, faces, raster.face_id, raster.bary))
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))
    if not shared:
        order = [2, 0]
        weight = torch.linspace(-1, 2, results[0][0].numel()).view_as(results[0][0])[order]
        a, w = attributes[order].clone().requires_grad_(), raster.bary[order].clone().requires_grad_()
        out = ops.interpolate(a, faces, raster.face_id[order], w)
        part = out.detach(), *torch.autograd.grad(out, (a, w), weight)
        assert all(torch.equal(x, y[order]) for x, y in zip(part, results[0], strict=True))


def test_each_vertex_of_a_large_shared_table_has_its_gradient_from_any_number_of_threads():
    faces = torch.arange(6000).view(2000, 3)
    weights = torch.tensor([0.2, 0.3, 0.5])
    table, bary = torch.zeros(6000, 1, requires_grad=True), weights.expand(1, 40, 50, 3)
    for count in (1, 2, 5):
        with threads(count):
            out = ops.interpolate(table, faces, torch.arange(2000).view(1, 40, 50), bary)
            (grad,) = torch.autograd.grad(out.sum(), table)
            assert torch.equal(grad, weights.repeat(2000)[:, None])


def test_what_does_not_exist_reads_the_nearest_that_does(device):
    attributes = torch.tensor([[1.0], [10.0], [100.0]], device=device)
    faces = torch.tensor([[0, 1, 2], [-5, 7, 2**40]], device=device)
    bary = torch.tensor([0.5, 0.25, 0.25], device=device).expand(1, 1, 4, 3)
    face_id = torch.tensor([[[0, 1, 9, -(2**40)]]], device=device)
    got = ops.interpolate(attributes, faces, face_id, bary)
    near = 0.5 * 1 + 0.5 * 100
    torch.testing.assert_close(got.flatten().cpu(), torch.tensor([0.5 + 2.5 + 25, near, near, 0.0]))


def test_calling_the_operators_themselves_wrongly_does_not_crash(device):
    attributes, faces, face_id, bary = scene(device)
    wrong = [
        (attributes[0, 0], faces, face_id, bary),
        (attributes[:1], faces, face_id, bary),
        (attributes.half(), faces, face_id, bary.half()),
        (attributes, faces.long(), face_id, bary),
        (attributes, faces, face_id.long(), bary),
        (attributes, faces[:, :2], face_id, bary),
        (attributes, faces, face_id, bary.float()),
        (attributes, faces, face_id[0], bary),
    ]
    for arguments in wrong:
        with pytest.raises(RuntimeError, match="interpolate"):
            torch.ops.gcl_fast.interpolate(*arguments)
    right = backward_arguments(attributes, faces, face_id, bary)
    with pytest.raises(RuntimeError, match="grad_out"):
        torch.ops.gcl_fast.interpolate_backward(right[0][..., :1], *right[1:])
    with pytest.raises(RuntimeError, match="int64"):
        torch.ops.gcl_fast.interpolate_backward(*right[:5], right[5].int(), *right[6:])


def test_bad_inputs_are_named():
    attributes, faces, face_id, bary = scene()
    cases = [
        (TypeError, "attributes must be float32 or float64, got int64", (attributes.long(), faces, face_id, bary)),
        (ValueError, r"attributes must have shape \[B=2, V, C\], got \[1, 8, 3\]", (attributes[:1], faces, face_id, bary)),
        (TypeError, "faces must be int32 or int64, got float32", (attributes, faces.float(), face_id, bary)),
        (TypeError, "face_id must be int32 or int64, got float32", (attributes, faces, face_id.float(), bary)),
        (ValueError, r"bary must have shape \[B=2, H=9, W=7, 3\]", (attributes, faces, face_id, bary[..., :2])),
        (ValueError, "bary must be on cpu as face_id is, got meta", (attributes, faces, face_id, bary.to("meta"))),
    ]
    for error, words, arguments in cases:
        with pytest.raises(error, match="interpolate: " + words):
            ops.interpolate(*arguments)
