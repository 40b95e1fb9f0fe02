"""rasterize: gradients, and what the dispatcher, autograd and the compiler ask of an op."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from gcl_fast import ops, reference
from tests.raster_cases import FLOATS, random_mesh, tensor


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
    ran = torch.library.opcheck(torch.ops.gcl_fast.rasterize.default, (verts.requires_grad_(), faces, 6, 6, False, 0))
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
