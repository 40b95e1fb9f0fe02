"""render_mesh against its plain definition and against geometry; turning, projecting, and the mesh ops together."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gcl_fast import ops, reference
from gcl_fast.bodies import project, turn
from tests.toy_meshes import EYE, WEAK, ellipsoid, square

FEW = settings(deadline=None, max_examples=15, derandomize=True)
NAN = float("nan")


# --- turning and projecting ----------------------------------------------------------------------------------------------


@FEW
@given(seed=st.integers(0, 10**6), angle=st.floats(-720, 720))
def test_turning_keeps_height_and_distance_to_the_axis(seed, angle):
    verts = torch.randn(2, 9, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    turned = turn(verts, [angle])[:, 0]
    middle = (verts.amin(1, keepdim=True) + verts.amax(1, keepdim=True)) / 2
    assert torch.equal(turned[..., 1], verts[..., 1])
    flat, flat_turned = (v[..., [0, 2]] - middle[..., [0, 2]] for v in (verts, turned))
    torch.testing.assert_close(flat_turned.norm(dim=-1), flat.norm(dim=-1))
    torch.testing.assert_close(turned, turn(verts, torch.tensor([angle], dtype=torch.float64))[:, 0])
    order = torch.randperm(9, generator=torch.Generator().manual_seed(seed))
    assert torch.equal(turn(verts[:, order], [angle])[:, 0], turned[:, order])  # no order of the vertices matters


def test_who_faces_the_camera_turns_to_image_left_and_away():
    verts = torch.tensor([[-1.0, 0, -1], [1, 0, 1], [0, 0, -1]], dtype=torch.float64)  # the last one is the nose
    nose = turn(verts, [0, 90, 180, 270, 360])[:, 2]
    want = [[0, 0, -1.0], [-1, 0, 0], [0, 0, 1], [1, 0, 0], [0, 0, -1]]
    torch.testing.assert_close(nose, torch.tensor(want, dtype=torch.float64))


@pytest.mark.parametrize("camera", [WEAK, EYE])
def test_projection_scales_with_the_image(camera):
    verts, _ = ellipsoid()
    small, large = project(verts[None], camera, (32, 16)), project(verts[None], camera, (96, 48))
    torch.testing.assert_close(small[..., :2] * 3, large[..., :2])
    assert torch.equal(small[..., 2], large[..., 2])


def test_projection_by_hand():
    point = torch.tensor([[0.2, -0.4, 0.5]], dtype=torch.float64)
    weak = project(point, torch.tensor([0.5, 0.1, 0.2], dtype=torch.float64), (100, 60))
    torch.testing.assert_close(weak, torch.tensor([[30 + 50 * 0.5 * 0.3, 50 + 50 * 0.5 * -0.2, 0.5]], dtype=torch.float64))
    eye = project(point, torch.tensor([0.1, 0.2, 1.5, 2.0, 0.05, -0.01], dtype=torch.float64), (100, 60))
    torch.testing.assert_close(
        eye, torch.tensor([[30 + 100 * (2 * 0.3 / 2 + 0.05), 50 + 100 * (2 * -0.2 / 2 - 0.01), 2.0]], dtype=torch.float64)
    )
    assert project(point, torch.tensor([0, 0, -0.5, 1.0, 0, 0], dtype=torch.float64), (8, 8)).isnan()[0, 2]


# --- render_mesh ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("camera", [WEAK, EYE])
def test_guide_is_its_definition(camera, device):
    verts, faces = ellipsoid()
    verts = torch.stack((verts, verts * 0.7 + 0.1))
    camera = camera.expand(2, -1)
    want = reference.render_mesh(verts, faces, camera, [0, 37.5, 135], (24, 12))
    got = ops.render_mesh(verts.to(device), faces.to(device), camera.to(device), [0, 37.5, 135], (24, 12)).cpu()
    torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-9)
    # In float32 a vertex may snap to the next 1/256 pixel: some pixels on edges change their face, no others change.
    single = ops.render_mesh(verts.float().to(device), faces.to(device), camera.to(device), [0, 37.5, 135], (24, 12)).cpu()
    assert single.dtype == torch.float32
    assert ((single.double() - want).abs() > 1e-5).double().mean() < 0.02


def test_shade_of_a_face_is_lamberts_whichever_way_it_winds(device):
    verts, faces = square(0.0, (-1.0, 1.0), (-1.0, 1.0))
    camera = torch.tensor([[1.0, 0, 0]], dtype=torch.float64, device=device)
    for winding in (faces, faces.flip(1)):
        image = ops.render_mesh(verts[None].to(device), winding.to(device), camera, [0, 30], (8, 8)).cpu()
        light = torch.tensor([-0.4, -0.6, -1.0], dtype=torch.float64) / math.sqrt(0.16 + 0.36 + 1)
        torch.testing.assert_close(image[0, 0], torch.full_like(image[0, 0], 0.25 + 0.75 * float(-light[2])))
        normal = torch.tensor([-math.sin(math.radians(30)), 0, -math.cos(math.radians(30))], dtype=torch.float64)
        assert image[0, 1].max().item() == pytest.approx(0.25 + 0.75 * float(normal @ light))


def test_guide_is_zero_outside_and_at_least_a_quarter_inside(device):
    verts, faces = ellipsoid(dtype=torch.float32)
    arguments = (verts[None].to(device), faces.to(device), WEAK.float().to(device))
    image = ops.render_mesh(*arguments, [0.0, 50.0], (32, 16))
    body = image > 0
    assert body.any() and not body.all() and image.max() <= 1 and image[body].min() >= 0.25
    assert torch.equal(image, ops.render_mesh(*arguments, [360, 50 - 360], (32, 16)))


def test_faces_behind_the_eye_are_dropped():
    near, faces = square(1.0, (-0.4, 0.0), (-0.5, 0.5))
    behind = near.clone() * torch.tensor([-1.0, 1, -1])
    verts = torch.cat((near, behind))[None]
    camera = torch.tensor([[0.0, 0, 0, 1.0, 0, 0]], dtype=torch.float64)
    one = ops.render_mesh(verts, torch.cat((faces, faces + 4)), camera, [0], (16, 16))
    assert torch.equal(one, ops.render_mesh(verts, faces, camera, [0], (16, 16))) and one.any()


def test_guide_of_nothing():
    verts, faces = ellipsoid(dtype=torch.float32)
    camera = WEAK.float()
    assert ops.render_mesh(verts[None][:0], faces, camera[:0], [0, 1], (4, 3)).shape == (0, 2, 1, 4, 3)
    assert ops.render_mesh(verts[None], faces, camera, [], (4, 3)).shape == (1, 0, 1, 4, 3)
    assert ops.render_mesh(verts[None], faces, camera, [0], (0, 3)).shape == (1, 1, 1, 0, 3)
    assert not ops.render_mesh(verts[None], faces[:0], camera, [0], (4, 3)).any()
    assert not ops.render_mesh(verts[None, :0], faces[:0], camera, [0], (4, 3)).any()


# --- all of them ---------------------------------------------------------------------------------------------------------


def test_one_graph_under_compile():
    verts, faces = ellipsoid(dtype=torch.float32)
    views = project(turn(verts, [0, 40])[None], WEAK[:, None].float(), (10, 6))[0]
    image = torch.rand(1, 2, 10, 6)

    def everything(verts, views, image):
        guide = ops.render_mesh(verts[None], faces, WEAK.float(), [0, 45], (10, 6))
        raster = ops.rasterize(views, faces, (10, 6))
        values = ops.interpolate(verts, faces, raster.face_id, raster.bary)
        return guide, values, *ops.mesh_warp(image, views[:1], views[1:], faces)

    compiled = torch.compile(everything, fullgraph=True, backend="aot_eager")
    for got, want in zip(compiled(verts, views, image), everything(verts, views, image), strict=True):
        torch.testing.assert_close(got, want)


@pytest.mark.parametrize(
    ("error", "words", "call"),
    [
        (ValueError, "camera", lambda v, f: ops.render_mesh(v, f, torch.zeros(1, 4), [0], (4, 4))),
        (ValueError, "camera", lambda v, f: ops.render_mesh(v, f, torch.zeros(2, 3), [0], (4, 4))),
        (TypeError, "camera", lambda v, f: ops.render_mesh(v, f, torch.zeros(1, 3, dtype=torch.int64), [0], (4, 4))),
        (TypeError, "yaw_degrees", lambda v, f: ops.render_mesh(v, f, torch.zeros(1, 3), 45.0, (4, 4))),
        (ValueError, "yaw_degrees", lambda v, f: ops.render_mesh(v, f, torch.zeros(1, 3), [NAN], (4, 4))),
        (ValueError, "image_size", lambda v, f: ops.render_mesh(v, f, torch.zeros(1, 3), [0], (4, -4))),
        (ValueError, "verts", lambda v, f: ops.render_mesh(v[0], f, torch.zeros(1, 3), [0], (4, 4))),
        (TypeError, "faces", lambda v, f: ops.render_mesh(v, f.float(), torch.zeros(1, 3), [0], (4, 4))),
        (ValueError, "dst_verts", lambda v, f: ops.mesh_flow(v, v[:, :1], f, (4, 4))),
        (TypeError, "dst_verts", lambda v, f: ops.mesh_flow(v, v.double(), f, (4, 4))),
        (ValueError, "src_verts", lambda v, f: ops.mesh_warp(torch.zeros(2, 1, 4, 4), v, v, f)),
        (TypeError, "fill", lambda v, f: ops.mesh_warp(torch.zeros(1, 1, 4, 4), v, v, f, fill="grey")),
        (ValueError, "bary", lambda v, f: ops.interpolate(v, f, torch.zeros(1, 4, 4).int(), torch.zeros(1, 4, 4, 2))),
        (ValueError, "attributes", lambda v, f: ops.interpolate(v, f, torch.zeros(2, 4, 4).int(), torch.zeros(2, 4, 4, 3))),
        (TypeError, "verts", lambda v, f: turn([1.0], [0])),
        (ValueError, "verts", lambda v, f: project(v[..., :2], torch.zeros(1, 3), (4, 4))),
    ],
)
def test_errors_name_the_argument(error, words, call):
    with pytest.raises(error, match=words):
        call(torch.zeros(1, 4, 3), torch.tensor([[0, 1, 2]]))
