"""mesh_flow and mesh_warp against their plain definitions and against geometry."""

from __future__ import annotations

import importlib

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gcl_fast import ops, reference
from gcl_fast.meshes import project, turn
from gcl_fast.ops.warp import _inputs, _pixels_by_cell
from tests.instruction_sets import ALL_SETS, said_with
from tests.threads import threads
from tests.toy_meshes import EYE, WEAK, ellipsoid, soup, square

FEW = settings(deadline=None, max_examples=15, derandomize=True)
NAN = float("nan")


@FEW
@given(seed=st.integers(0, 10**6))
def test_flow_is_its_definition_on_any_triangles(seed):
    src, faces, size = soup(seed)
    dst, _, _ = soup(seed + 1)
    src[1, :, 2] *= 100  # each mesh is as deep as it is
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


@pytest.mark.parametrize("axis", [0, 1])
def test_the_left_and_upper_border_belong_to_the_image_and_the_others_do_not(axis, device):
    verts, faces = (t.to(device) for t in square(1.0))
    for step, seen, place in ((-0.5, True, -1.0), (0.5, False, 1.0)):
        moved = verts.clone()
        moved[:, axis] += step
        flow = ops.mesh_flow(moved[None], verts[None], faces, (8, 8))
        border = 0 if seen else -1
        assert (flow.grid[0, ..., axis].select(1 - axis, border) == place).all()
        inside = torch.ones(8, 8, dtype=torch.bool)
        inside.select(1 - axis, border)[:] = seen
        assert torch.equal(flow.visibility[0].cpu() == 1, inside)


@pytest.mark.parametrize("slope", [-1.0, 1.0])
@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize(("lean", "reach"), [(0.0, 9.0), (1e-3, 2.0)])
def test_a_face_seen_edge_on_is_taken_for_level_and_one_nearly_so_for_no_steeper_than_the_mesh(slope, axis, lean, reach, device):
    """It stands before a wall, as deep as the mesh at most: so a pixel away it does not lie behind the wall."""
    wall, faces = square(2.0)
    at = 4.5 - 0.3 * slope  # nearest to the centre on the side where its plane goes back
    edge = torch.tensor([[at, 1.0, 1.0], [at + slope * lean, 4.0, 1.3], [at, 7.0, 1.0]], dtype=torch.float64)
    shown = edge + torch.tensor([[0.0, 0, 0], [3.0, 0, 0], [0.0, 0, 0]], dtype=torch.float64)
    order = [1 - axis, axis, 2] if axis else [0, 1, 2]
    far = torch.tensor([[0.0, 0.0, reach]], dtype=torch.float64)
    src, dst = (torch.cat((wall, part[:, order], far))[None].to(device) for part in (edge, shown))
    faces = torch.cat((faces, torch.tensor([[4, 5, 6]], dtype=torch.int32))).to(device)
    flow = ops.mesh_flow(src, dst, faces, (8, 8))
    of_edge = ops.rasterize(dst, faces, (8, 8)).face_id == 2
    assert of_edge.sum() > 5 and (flow.visibility[of_edge] == 1).all()


def test_faces_at_one_depth_do_not_hide_each_other(device):
    """However large the depth is, and so its rounding."""
    y, x = torch.meshgrid(torch.arange(10), torch.arange(10), indexing="ij")
    jitter = 0.4 * torch.rand(2, 10, 10, generator=torch.Generator().manual_seed(0))
    for depth in (1234.567, -0.3):
        wall = torch.stack((x + jitter[0], y + jitter[1], torch.full((10, 10), depth)), -1).view(1, 100, 3).to(device)
        corner = (torch.arange(9)[:, None] * 10 + torch.arange(9)).view(-1, 1)
        faces = torch.cat((corner + torch.tensor([0, 1, 11]), corner + torch.tensor([0, 11, 10]))).int().to(device)
        moved = wall + torch.tensor([0.3, 0.2, 0.0], device=device)
        flow = ops.mesh_flow(moved, wall, faces, (9, 9))
        inside = (flow.grid.abs() < 1).all(-1)
        assert inside.sum() > 60 and (flow.visibility[inside] == 1).all()


def test_a_vertex_that_is_not_finite_does_not_make_the_mesh_deeper(device):
    wall, faces = square(2.0)
    front, _ = square(1.9, (2.0, 5.0), (0.0, 8.0))
    aside = front + torch.tensor([100.0, 0, 0])
    both = torch.cat((faces, faces + 4)).to(device)
    for spoilt in ([NAN, 0, 1e3], [0, float("inf"), -1e3], [0, 0, NAN]):
        more = torch.tensor([spoilt], dtype=torch.float64)
        src, dst = (torch.cat((wall, part, more))[None].to(device) for part in (front, aside))
        assert (ops.mesh_flow(src, dst, both, (8, 8)).visibility[0, :, 2:5] == 2).all(), spoilt


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


def scene(device=torch.device("cpu"), dtype=torch.float64, size=(10, 6), batch=2):
    """Bodies of different widths from two sides: src_verts, dst_verts, faces, image."""
    verts, faces = ellipsoid(dtype=dtype)
    wider = torch.linspace(1, 0.7, batch, dtype=dtype)[:, None, None] if batch else verts.new_zeros(0, 1, 1)
    views = project(turn(verts * wider, [0, 40]), WEAK[:, None].to(dtype), size).to(device)  # [B, 2, V, 3]
    image = torch.randn(batch, 2, *size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return views[:, 0], views[:, 1], faces.to(device), image.to(device, dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_opcheck(dtype, device):
    src, dst, faces, image = scene(device, dtype)
    views = _inputs(src.contiguous(), dst, faces, *image.shape[-2:])
    passed = lambda ran: len(ran) == 4 and set(ran.values()) == {"SUCCESS"}  # noqa: E731
    assert passed(torch.library.opcheck(torch.ops.gcl_fast.mesh_flow.default, views))
    assert passed(torch.library.opcheck(torch.ops.gcl_fast.mesh_warp.default, (image, *views, 0.5, False)))
    tracked = image.clone().requires_grad_()
    assert passed(torch.library.opcheck(torch.ops.gcl_fast.mesh_warp.default, (tracked, *views, 0.5, True)))
    warped, source, visibility = torch.ops.gcl_fast.mesh_warp(image, *views, 0.5, True)
    arguments = (warped, source, visibility, *_pixels_by_cell(source, visibility))
    assert passed(torch.library.opcheck(torch.ops.gcl_fast.mesh_warp_backward.default, arguments))


@pytest.mark.parametrize("image_dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("vert_dtype", [torch.float32, torch.float64])
def test_the_gradient_is_the_transpose(image_dtype, vert_dtype, device):
    src, dst, faces, image = scene(device, vert_dtype)
    image = image.to(image_dtype).requires_grad_()
    other = torch.randn(image.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(device, image_dtype)
    warped, visibility = ops.mesh_warp(image, src, dst, faces)
    (grad,) = torch.autograd.grad(warped, image, other)
    assert (visibility == 1).any() and grad.dtype == image_dtype
    tolerance = 1e-12 if image_dtype == torch.float64 else 1e-5
    torch.testing.assert_close((grad * image).sum(), (warped * other).sum(), rtol=tolerance, atol=tolerance)


def test_the_gradient_of_many_channels_is_that_of_each(device):
    src, dst, faces, image = scene(device)
    image = image.repeat(1, 5, 1, 1)[:, :9].requires_grad_()
    weight = torch.randn(image.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(device)
    (grad,) = torch.autograd.grad(ops.mesh_warp(image, src, dst, faces).warped, image, weight)
    assert grad.abs().amax((0, 2, 3)).min() > 0
    for c in range(9):
        one = image.detach()[:, c : c + 1].requires_grad_()
        (alone,) = torch.autograd.grad(ops.mesh_warp(one, src, dst, faces).warped, one, weight[:, c : c + 1])
        assert torch.equal(alone, grad[:, c : c + 1])


def test_as_many_pixels_have_a_gradient_as_are_visible(device):
    for width in (1, 2, 31, 32, 33, 64, 65):
        verts, faces = square(1.0, (0.0, width), (0.0, 1.0))
        image = torch.ones(1, 1, 1, width, dtype=torch.float64, device=device, requires_grad=True)
        views = verts[None].to(device)
        ops.mesh_warp(image, views, views, faces.to(device)).warped.sum().backward()
        torch.testing.assert_close(image.grad, torch.ones_like(image), rtol=1e-12, atol=0)


def test_no_second_derivative(device):
    src, dst, faces, image = scene(device)
    warped = ops.mesh_warp(image.requires_grad_(), src, dst, faces).warped
    (grad,) = torch.autograd.grad(warped.square().sum(), image, create_graph=True)
    with pytest.raises(NotImplementedError, match="second derivative"):
        grad.sum().backward()


def test_no_gradient_asks_for_no_more(device):
    src, dst, faces, image = scene(device)
    with torch.no_grad():
        quiet = ops.mesh_warp(image.clone().requires_grad_(), src, dst, faces)
    loud = ops.mesh_warp(image.clone().requires_grad_(), src.clone().requires_grad_(), dst, faces)
    assert loud.warped.requires_grad and not quiet.warped.requires_grad and not loud.visibility.requires_grad
    assert torch.equal(quiet.warped, loud.warped.detach())
    views = _inputs(src.contiguous(), dst, faces, *image.shape[-2:])
    bare = torch.ops.gcl_fast.mesh_warp(image.requires_grad_(), *views, 0.0, False)[0]
    with pytest.raises(RuntimeError, match="keep_source"):
        bare.sum().backward()


def test_a_feature_map_of_another_size_follows_the_grid(device):
    """The grid of a raster reads any map of the same field of view: here one whose value is its own place."""
    src, dst, faces, _ = scene(device, size=(40, 20))
    grid, visibility = ops.mesh_flow(src, dst, faces, (40, 20))
    for height, width in ((10, 5), (80, 60)):
        x = (torch.arange(width, device=device, dtype=torch.float64) + 0.5) * (20 / width)
        y = (torch.arange(height, device=device, dtype=torch.float64) + 0.5) * (40 / height)
        places = torch.stack(torch.meshgrid(x, y, indexing="xy")).expand(2, -1, -1, -1)  # [2, 2, h, w]
        read = torch.nn.functional.grid_sample(places, grid, align_corners=False)
        want = torch.stack(((grid[..., 0] + 1) * 10, (grid[..., 1] + 1) * 20), 1)
        margin = torch.tensor([20 / width, 40 / height], device=device, dtype=torch.float64)[None, :, None, None]
        size = torch.tensor([20, 40], device=device, dtype=torch.float64)[None, :, None, None]
        inner = ((want > margin) & (want < size - margin)).all(1) & (visibility == 1)
        assert inner.any()
        torch.testing.assert_close(read.movedim(1, -1)[inner], want.movedim(1, -1)[inner])


def everything(src, dst, faces, image):
    image = image.clone().requires_grad_()
    grid, seen = ops.mesh_flow(src, dst, faces, tuple(image.shape[-2:]))
    warped, visibility = ops.mesh_warp(image, src, dst, faces, fill=0.25)
    weight = torch.linspace(-1, 2, warped.numel(), dtype=warped.dtype).view_as(warped)
    return grid, seen, visibility, warped.detach(), torch.autograd.grad(warped, image, weight)[0]


def test_no_bit_depends_on_threads_or_on_the_batch():
    src, dst, faces, image = scene(dtype=torch.float32, size=(97, 51), batch=3)
    results = []
    for count in (1, 2, 5):
        with threads(count):
            results.append(everything(src, dst, faces, image))
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))
    order = [2, 0]
    part = everything(src[order], dst[order], faces, image[order])
    for got, want in zip(part[:4], results[0][:4], strict=True):
        assert torch.equal(got, want[order])


def test_each_instruction_set_gives_the_same_bits():
    code = (
        "import hashlib, torch\n"
        "from tests.test_warp import everything, scene\n"
        "digest = hashlib.sha256()\n"
        "for dtype in (torch.float32, torch.float64):\n"
        "    for value in everything(*scene(dtype=dtype, size=(97, 51))):\n"
        "        digest.update(value.contiguous().numpy().tobytes())\n"
        "print(digest.hexdigest())\n"
    )
    said = {said_with(isa, code).strip() for isa in ALL_SETS}
    assert len(said) == 1 and len(said.pop()) == 64


def test_positions_far_outside_do_not_crash(device):
    """Source corners up to 1e30 pixels away, where integers end."""
    verts, faces = square(1.0)
    for scale in (1e3, 1e6, 1e12, 1e30):
        far = (verts[None] - 4) * torch.tensor([scale, scale, 1.0])
        flow = ops.mesh_flow(far.to(device), verts[None].to(device), faces.to(device), (8, 8))
        outside = (flow.grid.abs() >= 1).any(-1)
        assert outside.any() and (flow.visibility[outside] == 2).all()


def test_calling_the_operators_themselves_wrongly_does_not_crash(device):
    src, dst, faces, image = scene(device)
    views = [*_inputs(src.contiguous(), dst, faces, *image.shape[-2:])]
    for n, wrong in (
        (0, src[..., :2]),
        (0, src.half()),
        (1, faces.long()),
        (1, faces[0]),
        (2, views[2][:1]),
        (2, views[2].long()),
        (3, views[3].float()),
        (4, views[4][:, 1:]),
        (5, views[5].float()),
        (5, views[5][0]),
    ):
        arguments = [*views[:n], wrong, *views[n + 1 :]]
        with pytest.raises(RuntimeError, match="mesh_flow"):
            torch.ops.gcl_fast.mesh_flow(*arguments)
        with pytest.raises(RuntimeError, match="mesh_warp"):
            torch.ops.gcl_fast.mesh_warp(image, *arguments, 0.0, True)
    for wrong in (image[:1], image[..., 1:], image.half(), image[0]):
        with pytest.raises(RuntimeError, match="mesh_warp: image"):
            torch.ops.gcl_fast.mesh_warp(wrong, *views, 0.0, True)
    anything = [views[0], faces, torch.full_like(views[2], 10**6), *views[3:]]
    assert not torch.ops.gcl_fast.mesh_flow(*anything)[1].any()  # faces that do not exist are background
    _, source, visibility = torch.ops.gcl_fast.mesh_warp(image, *views, 0.0, True)
    order, begin = _pixels_by_cell(source, visibility)
    wide = [views[0], faces, *(t[:, :1, :1].expand(-1, 1, (1 << 20) + 1, *t.shape[3:]) for t in views[2:])]
    with pytest.raises(RuntimeError, match="mesh_flow: image sides must be in"):  # float32 has not every column of 2^24
        torch.ops.gcl_fast.mesh_flow(*wide)
    grad = image[:, :, :1, :1].expand(-1, -1, *wide[2].shape[1:])
    with pytest.raises(RuntimeError, match="mesh_warp_backward: image sides must be in"):
        torch.ops.gcl_fast.mesh_warp_backward(grad, wide[3][..., :2], wide[2].byte(), order, begin)
    for arguments in ((image[0], source, visibility), (image, source[..., :1], visibility), (image, source, visibility.int())):
        with pytest.raises(RuntimeError, match="mesh_warp_backward"):
            torch.ops.gcl_fast.mesh_warp_backward(*arguments, order, begin)


def test_bad_inputs_are_named():
    src, dst, faces, image = scene()
    flow = [
        (TypeError, "src_verts must be float32 or float64, got float16", (src.half(), dst, faces, (4, 4))),
        (ValueError, r"dst_verts must have shape \[B=2, V=42, 3\]", (src, dst[:1], faces, (4, 4))),
        (TypeError, "dst_verts must be float64, got float32", (src, dst.float(), faces, (4, 4))),
        (ValueError, r"faces must have shape \[F, 3\]", (src, dst, faces[0], (4, 4))),
        (ValueError, "image_size must be fewer than 2.31 pixels", (src, dst, faces, (1 << 16, 1 << 16))),
        (ValueError, "dst_verts must be on cpu as src_verts is, got meta", (src, dst.to("meta"), faces, (4, 4))),
    ]
    for error, words, arguments in flow:
        with pytest.raises(error, match="mesh_flow: " + words):
            ops.mesh_flow(*arguments)
    warp = [
        (TypeError, "image must be .*, got int64", (image.long(), src, dst, faces)),
        (ValueError, r"image must have shape \[B, C, H, W\]", (image[0], src, dst, faces)),
        (ValueError, r"src_verts must have shape \[B, V, 3\]", (image, src[0], dst, faces)),
    ]
    for error, words, arguments in warp:
        with pytest.raises(error, match="mesh_warp: " + words):
            ops.mesh_warp(*arguments)
    with pytest.raises(TypeError, match="mesh_warp: fill must be a number, got str"):
        ops.mesh_warp(image, src, dst, faces, fill="grey")


def test_rendering_and_warping_compile_to_one_graph_with_gradients():
    src, dst, faces, image = scene(dtype=torch.float32)

    def loss(src, dst, image, colours):
        raster = ops.rasterize(dst, faces, (10, 6))
        painted = ops.interpolate(colours, faces, raster.face_id, raster.bary)  # [B, H, W, 2]
        warped, visibility = ops.mesh_warp(image, src, dst, faces, fill=0.5)
        grid, _ = ops.mesh_flow(src, dst, faces, (10, 6))
        read = torch.nn.functional.grid_sample(image[..., ::2, ::2], grid, align_corners=False)
        error = (warped - painted.movedim(-1, 1)).square() + read.square()
        return (error * (visibility == 1).unsqueeze(1)).sum()

    colours = torch.randn(src.shape[1], 2, generator=torch.Generator().manual_seed(1))
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    results = []
    for function in (loss, compiled):
        inputs = image.clone().requires_grad_(), colours.clone().requires_grad_()
        value = function(src, dst, *inputs)
        results.append((value.detach(), *torch.autograd.grad(value, inputs)))
    for plain, fast in zip(*results, strict=True):
        torch.testing.assert_close(fast, plain)
        assert plain.abs().max() > 0


def test_one_source_serves_many_views_and_is_rasterized_once(device, monkeypatch):
    verts, faces = ellipsoid(dtype=torch.float32)
    views = project(turn(verts, [0, 20, 40, 60])[None], EYE[:, None].float(), (20, 12))[0].to(device)  # [4, V, 3]
    src, dst, faces = views[:1], views[1:], faces.to(device)
    photo = torch.rand(1, 2, 20, 12, generator=torch.Generator().manual_seed(0)).to(device).requires_grad_()
    want = ops.mesh_warp(photo.expand(3, -1, -1, -1), src.expand(3, -1, -1), dst, faces)
    weight = torch.linspace(-1, 1, want.warped.numel(), device=device).view_as(want.warped)
    (slope,) = torch.autograd.grad(want.warped, photo, weight)
    flow = ops.mesh_flow(src.expand(3, -1, -1), dst, faces, (20, 12))
    seen = []
    module = importlib.import_module("gcl_fast.ops.warp")
    monkeypatch.setattr(module, "rasterize", lambda v, *rest: seen.append(len(v)) or ops.rasterize(v, *rest))
    got = ops.mesh_warp(photo, src, dst, faces)
    assert seen == [4]  # with the views, in one call
    assert torch.equal(got.warped, want.warped) and torch.equal(got.visibility, want.visibility) and (want.visibility == 1).any()
    assert torch.equal(torch.autograd.grad(got.warped, photo, weight)[0], slope)
    from_one = ops.mesh_flow(src, dst, faces, (20, 12))
    assert torch.equal(from_one.grid, flow.grid) and torch.equal(from_one.visibility, flow.visibility)
    double = [t.detach().cpu().double() for t in (photo, src, dst)]
    plain, fast = (module.mesh_warp(*double, faces.cpu()) for module in (reference, ops))
    torch.testing.assert_close(fast.warped, plain.warped, rtol=1e-9, atol=1e-9)
    assert ops.mesh_warp(photo, src, dst[:0], faces).warped.shape == (0, 2, 20, 12)


def test_sources_that_are_neither_one_nor_as_many_are_an_error():
    verts, faces = ellipsoid(dtype=torch.float32)
    three, image = verts.expand(3, -1, -1), torch.zeros(3, 1, 4, 4)
    with pytest.raises(ValueError, match=r"mesh_flow: dst_verts must have shape \[B=2, "):
        ops.mesh_flow(three[:2], three, faces, (4, 4))
    with pytest.raises(ValueError, match=r"mesh_warp: image must be 1 or, as dst_verts, B=3 in number, got \[2, "):
        ops.mesh_warp(image[:2], three, three, faces)
    with pytest.raises(ValueError, match=r"mesh_warp: dst_verts must have shape \[B=3, "):
        ops.mesh_warp(image, three, three[:1], faces)
