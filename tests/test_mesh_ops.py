"""The mesh ops together: rasterize, interpolate, render_mesh and mesh_warp in one compiled function, and their errors."""

from __future__ import annotations

import pytest
import torch

from gcl_fast import ops
from gcl_fast.meshes import project, turn
from tests.toy_meshes import WEAK, ellipsoid


def test_rendering_and_warping_at_changing_angles_is_one_graph_with_a_gradient():
    verts, faces = ellipsoid(dtype=torch.float32)
    camera, size = WEAK.float(), (10, 6)

    def everything(verts, image, yaws):
        guide = ops.render_mesh(verts[None], faces, camera, yaws, size)  # [1, R, 1, H, W]
        views = project(turn(verts, yaws), camera, size)  # [R, V, 3]
        raster = ops.rasterize(views, faces, size)
        values = ops.interpolate(verts, faces, raster.face_id, raster.bary)
        warped, visibility = ops.mesh_warp(image, project(verts[None], camera, size), views, faces)
        seen = (visibility == 1).unsqueeze(1)
        return (warped * guide[0] * seen).square().sum(), guide, values, warped, visibility

    torch._dynamo.reset()
    compiled = torch.compile(everything, fullgraph=True, backend="aot_eager")
    for yaws in ([0.0, 45.0], [0.0, 40.0], [20.0, -30.0]):
        results = []
        for function in (everything, compiled):
            image = torch.rand(1, 2, *size, generator=torch.Generator().manual_seed(0)).requires_grad_()
            loss, *rest = function(verts, image, yaws)
            results.append((loss, *rest, torch.autograd.grad(loss, image)[0]))
        for want, got in zip(*results, strict=True):
            torch.testing.assert_close(got, want)
        assert results[0][1].any() and results[0][-1].any() and {0, 1} <= set(results[0][4].unique().tolist())


@pytest.mark.parametrize(
    ("error", "words", "call"),
    [
        (ValueError, "dst_verts", lambda v, f: ops.mesh_flow(v, v[:, :1], f, (4, 4))),
        (TypeError, "dst_verts", lambda v, f: ops.mesh_flow(v, v.double(), f, (4, 4))),
        (ValueError, "image", lambda v, f: ops.mesh_warp(torch.zeros(2, 1, 4, 4), v, v, f)),
        (TypeError, "fill", lambda v, f: ops.mesh_warp(torch.zeros(1, 1, 4, 4), v, v, f, fill="grey")),
        (ValueError, "bary", lambda v, f: ops.interpolate(v, f, torch.zeros(1, 4, 4).int(), torch.zeros(1, 4, 4, 2))),
        (ValueError, "attributes", lambda v, f: ops.interpolate(v, f, torch.zeros(2, 4, 4).int(), torch.zeros(2, 4, 4, 3))),
    ],
)
def test_errors_name_the_argument(error, words, call):
    with pytest.raises(error, match=words):
        call(torch.zeros(1, 4, 3), torch.tensor([[0, 1, 2]]))
