"""interpolate, render_mesh, mesh_flow, mesh_warp against their plain definitions and against geometry."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gcl_fast import ops, reference
from gcl_fast.bodies import project, turn

FEW = settings(deadline=None, max_examples=15, derandomize=True)
NAN = float("nan")


def ellipsoid(rings: int = 6, segments: int = 8, radii=(0.3, 0.9, 0.2), dtype=torch.float64):
    """A closed mesh: verts [V, 3], faces [F, 3]."""
    rows = [[0.0, -1.0, 0.0], [0.0, 1.0, 0.0]]
    for i in range(1, rings):
        a = math.pi * i / rings
        for j in range(segments):
            b = 2 * math.pi * (j + 0.3) / segments
            rows.append([math.sin(a) * math.cos(b), -math.cos(a), math.sin(a) * math.sin(b)])
    faces = []
    for j in range(segments):
        k = (j + 1) % segments
        faces += [[0, 2 + j, 2 + k], [1, 2 + (rings - 2) * segments + k, 2 + (rings - 2) * segments + j]]
        for i in range(rings - 2):
            p, q = 2 + i * segments, 2 + (i + 1) * segments
            faces += [[p + j, q + j, q + k], [p + j, q + k, p + k]]
    return torch.tensor(rows, dtype=dtype) * torch.tensor(radii, dtype=dtype), torch.tensor(faces, dtype=torch.int32)


def soup(seed: int, batch: int = 2, faces: int = 6, height: int = 9, width: int = 7):
    """Random triangles in pixels with depth around 0, some of them outside the image."""
    g = torch.Generator().manual_seed(seed)
    verts = torch.rand(batch, 8, 3, generator=g, dtype=torch.float64) * torch.tensor([width + 4, height + 4, 2.0])
    verts = verts - torch.tensor([2, 2, 1])
    return verts, torch.randint(0, 8, (faces, 3), generator=g, dtype=torch.int32), (height, width)


def square(depth: float, x=(0.0, 8.0), y=(0.0, 8.0)):
    """Two triangles over a rectangle, at one depth."""
    corners = [[x[0], y[0], depth], [x[1], y[0], depth], [x[1], y[1], depth], [x[0], y[1], depth]]
    return torch.tensor(corners, dtype=torch.float64), torch.tensor([[0, 1, 2], [0, 2, 3]], dtype=torch.int32)


WEAK = torch.tensor([[1.0, 0.05, -0.02]], dtype=torch.float64)
EYE = torch.tensor([[0.05, -0.02, 4.0, 1.9, 0.01, 0.0]], dtype=torch.float64)


# --- interpolate ---------------------------------------------------------------------------------------------------------


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


# --- mesh_flow and mesh_warp ---------------------------------------------------------------------------------------------


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
