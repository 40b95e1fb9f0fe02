"""render_mesh against its plain definition, against rasterize of turned and projected vertices, and against geometry."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from gcl_fast import ops, reference
from gcl_fast.meshes import project, turn
from tests.instruction_sets import ALL_SETS, said_with
from tests.threads import threads
from tests.toy_meshes import EYE, WEAK, ellipsoid, square

FEW = settings(deadline=None, max_examples=15, derandomize=True)
FLOATS = [torch.float32, torch.float64]
NAN = float("nan")
LIGHT = torch.tensor([-0.4, -0.6, -1.0], dtype=torch.float64) / math.sqrt(0.16 + 0.36 + 1)


def crowd(seed: int, batch: int = 3, dtype=torch.float32) -> tuple[Tensor, Tensor, Tensor]:
    """verts, faces and a camera of each kind by turns: random triangles about a metre wide, some behind the eye or not finite."""
    g = torch.Generator().manual_seed(seed)
    verts = torch.rand(batch, 20, 3, generator=g, dtype=torch.float64) * 2 - 1
    verts[0, 3, 1], verts[-1, 4, 1] = NAN, math.inf  # height does not move the axis: the others are drawn
    camera = WEAK if seed % 2 else EYE - torch.tensor([0, 0, 3.3, 0, 0, 0])
    return verts.to(dtype), torch.randint(0, 20, (30, 3), generator=g), camera.expand(batch, -1).to(dtype)


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


@pytest.mark.parametrize("dtype", FLOATS)
def test_a_face_towards_the_light_is_white_and_not_more(dtype, device):
    g = torch.Generator().manual_seed(0)
    across = torch.linalg.svd(LIGHT[None]).Vh[1:]  # [2, 3]
    verts = (torch.rand(300, 3, 2, generator=g, dtype=torch.float64) * 2 - 1) @ across
    camera = torch.tensor([[1.0, 0, 0]], dtype=dtype, device=device).expand(300, -1)
    image = ops.render_mesh(verts.to(device, dtype), torch.tensor([[0, 1, 2]], device=device), camera, [0], (16, 16))
    assert image.max() == 1 and image[image > 0].min() > 1 - 1e-4


@pytest.mark.parametrize("dtype", FLOATS)
def test_a_face_without_area_that_snapping_shows_gets_no_light(dtype, device):
    xy = [[0.25 + 7 * t / 2048, 0.25 + 4 * t / 2048, 0.0] for t in (-618, -170, 161)]
    verts, camera = torch.tensor([xy], dtype=dtype, device=device), torch.tensor([[1.0, 0, 0]], dtype=dtype, device=device)
    image = ops.render_mesh(verts, torch.tensor([[0, 1, 2]], device=device), camera, [0], (4, 4))
    assert image[0, 0, 0, 2, 2] == 0.25


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


def painted(verts: Tensor, faces: Tensor, camera: Tensor, yaws: list[float], size: tuple[int, int]) -> Tensor:
    """The picture in float64 on the faces that `rasterize` sees in the vertices turned and projected in their own type."""
    seen = ops.rasterize(project(turn(verts, yaws), camera[:, None], size).flatten(0, 1), faces, size).face_id.long()
    body = turn(verts.double(), yaws).flatten(0, 1)  # [B*R, V, 3]
    a, b, c = body[:, faces.long()].unbind(2)  # each [B*R, F, 3]
    normal = torch.nn.functional.normalize(torch.linalg.cross(b - a, c - a), dim=-1)
    lens = camera.double().repeat_interleave(len(yaws), 0)[:, None]  # [B*R, 1, 3 or 6]
    ray = a + lens[..., :3] if camera.shape[-1] == 6 else torch.tensor([0, 0, 1.0], dtype=torch.float64)
    away = (normal * ray).sum(-1, keepdim=True) > 0
    grey = 0.25 + 0.75 * (torch.where(away, -normal, normal) @ LIGHT).clamp_min(0)  # [B*R, F]
    image = torch.where(seen >= 0, grey.gather(1, seen.clamp_min(0).flatten(1)).view(seen.shape), 0.0)
    return image.view(len(verts), len(yaws), 1, *size)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("camera", [WEAK, EYE, torch.tensor([[1.2, 1.5, 3.0, 1.9, -0.7, -0.9]], dtype=torch.float64)])
def test_a_pixel_shows_the_face_of_rasterize(camera, dtype):
    """Also to an eye that looks at the bodies aslant, one of them away from the origin."""
    verts, faces = ellipsoid(12, 16, dtype=dtype)
    verts = torch.stack((verts, verts * 0.7 + torch.tensor([0.1, 0.1, 0.9], dtype=dtype)))
    yaws = [0, 37.5, 90, 211]
    want = painted(verts, faces, camera.expand(2, -1).to(dtype), yaws, (48, 29))
    got = ops.render_mesh(verts, faces, camera.expand(2, -1).to(dtype), yaws, (48, 29))
    # Every pixel, those on edges too. Two edges of a face meet at 0.3 rad or more and a cross product sums two products, each
    # rounded at most four times by eps / 2: its direction is right to 4 / sin 0.3 < 14 eps; the turn, its length and the light
    # add some 10 more roundings.
    assert (got.double() - want).abs().max() <= 24 * torch.finfo(dtype).eps
    assert 0.15 < (want > 0).double().mean() < 0.8


@FEW
@given(seed=st.integers(0, 10**6), angle=st.floats(-720, 720), height=st.integers(1, 19), width=st.integers(1, 19))
def test_any_triangles_are_their_definition(seed, angle, height, width):
    verts, faces, camera = crowd(seed, dtype=torch.float64)
    got = ops.render_mesh(verts, faces, camera, [angle, 90.0], (height, width))
    want = reference.render_mesh(verts, faces, camera, [angle, 90.0], (height, width))
    # A vertex may fall on the other side of half a 1/256 pixel, where the plain definition turns by other roundings.
    different = (got - want).abs() > 1e-9
    assert different.double().mean() <= 0.01
    assert got.isfinite().all() and got.min() >= 0 and got.max() <= 1


@pytest.mark.parametrize("dtype", FLOATS)
def test_each_body_and_each_view_stands_alone(dtype, device):
    for seed in (0, 1):
        verts, faces, camera = (t.to(device) for t in crowd(seed, 5, dtype))
        yaws = [0.0, 30.0, -45.0]
        whole = ops.render_mesh(verts, faces, camera, yaws, (24, 17))
        assert whole.any()
        order = torch.tensor([3, 0, 4, 2, 1], device=device)
        assert torch.equal(ops.render_mesh(verts[order], faces, camera[order], yaws, (24, 17)), whole[order])
        assert torch.equal(ops.render_mesh(verts[1:3], faces, camera[1:3], yaws, (24, 17)), whole[1:3])
        assert torch.equal(ops.render_mesh(verts, faces, camera, yaws[::-1], (24, 17)), whole.flip(1))
        for r, yaw in enumerate(yaws):
            assert torch.equal(ops.render_mesh(verts, faces, camera, [yaw], (24, 17))[:, 0], whole[:, r])
        far = 70  # more views than travel with one launch
        many = ops.render_mesh(verts[:1], faces, camera[:1], [5.0 * r for r in range(far)], (9, 7))
        assert torch.equal(many[:, 66:67], ops.render_mesh(verts[:1], faces, camera[:1], [330.0], (9, 7)))


def test_a_body_turns_about_the_middle_of_all_its_vertices_in_any_order(device):
    verts, faces = ellipsoid(9, 12, dtype=torch.float32)
    verts = torch.cat((verts, torch.tensor([[1.0, 0.0, -0.7]]))).to(device)  # one far out, and of no face
    camera, total = WEAK.float().to(device), len(verts)
    want = ops.render_mesh(verts[None], faces.to(device), camera, [40.0], (24, 16))
    for shift in range(1, total):
        image = ops.render_mesh(verts.roll(shift, 0)[None], ((faces + shift) % total).to(device), camera, [40.0], (24, 16))
        assert torch.equal(image, want), shift


def test_order_of_the_faces_matters_only_where_depths_tie(device):
    verts, faces = ellipsoid(9, 12, dtype=torch.float32)
    order = torch.randperm(len(faces), generator=torch.Generator().manual_seed(0))
    arguments = WEAK.float().to(device), [10.0, 200.0], (40, 21)
    plain, shuffled = (ops.render_mesh(verts[None].to(device), f.to(device), *arguments) for f in (faces, faces[order]))
    assert torch.equal(plain > 0, shuffled > 0) and ((plain - shuffled).abs() > 1e-6).float().mean() < 0.01


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("batch", [1, 5])
def test_threads_do_not_change_a_bit(batch, dtype):
    results = []
    for count in (1, 4, 3, 1):
        with threads(count):
            one = [ops.render_mesh(*crowd(seed, batch, dtype), [0.0, 30.0][: 3 - batch // 3], (50, 17)) for seed in (0, 1)]
            results.append(torch.cat(one))
    assert all(torch.equal(results[0], other) for other in results[1:]) and results[0].any()


def test_every_instruction_set_gives_the_same_bits():
    code = (
        "import torch\nfrom gcl_fast import ops\nfrom tests.test_render_mesh import crowd, digest\n"
        "both = [ops.render_mesh(*crowd(s, 2, t), [0, 77.0], (31, 18)) for s in (2, 3) for t in (torch.float32, torch.float64)]\n"
        "print(digest(both))"
    )
    said = {said_with(isa, code).strip() for isa in ALL_SETS}
    assert len(said) == 1 and len(said.pop()) == 64


def digest(pictures: list[Tensor]) -> str:
    import hashlib

    return hashlib.sha256(b"".join(p.numpy().tobytes() for p in pictures)).hexdigest()


def test_strided_inputs_and_other_types_of_camera(device):
    verts, faces, camera = (t.to(device) for t in crowd(1))
    plain = ops.render_mesh(verts, faces, camera, [0, 20.0], (12, 9))
    strided = verts.mT.contiguous().mT, faces.int().repeat_interleave(2, 0)[::2], camera.mT.contiguous().mT
    assert torch.equal(ops.render_mesh(*strided, torch.tensor([0.0, 20.0]), (12, 9)), plain)
    assert torch.equal(ops.render_mesh(verts, faces, camera.double(), torch.tensor([0, 20]), (12, 9)), plain)


def test_a_body_without_a_middle_is_not_drawn_and_the_others_are(device):
    verts, faces, camera = crowd(1)
    verts[1, 5, 2] = NAN
    images = ops.render_mesh(verts.to(device), faces.to(device), camera.to(device), [0, 90.0], (12, 9))
    assert not images[1].any() and images[0].any() and images[2].any()


@pytest.mark.parametrize("size", [(1, 1), (1, 37), (37, 1), (3, 5), (2, 33000)])
def test_odd_sizes(size, device):
    verts, faces = ellipsoid(dtype=torch.float32)
    camera = (WEAK.float() * torch.tensor([max(size[1] / size[0], 1.0), 1, 1])).expand(2, -1)
    got = ops.render_mesh(verts.expand(2, -1, -1).to(device), faces.to(device), camera.to(device), [0, 50.0], size).cpu()
    want = painted(verts.expand(2, -1, -1), faces, camera, [0, 50.0], size)
    assert got.shape == want.shape and (got - want).abs().max() <= 1e-5 and (want > 0).any()


def test_the_picture_asks_for_no_gradient():
    verts, faces = ellipsoid()
    image = ops.render_mesh(verts[None].requires_grad_(), faces, WEAK.clone().requires_grad_(), [0], (6, 5))
    assert not image.requires_grad


@pytest.mark.parametrize("dtype", FLOATS)
def test_opcheck(dtype, device):
    verts, faces, camera = (t.to(device) for t in crowd(1, dtype=dtype))
    turns = torch.tensor([[1.0, 0.0], [0.0, 1.0]], dtype=dtype)
    for where in {torch.device("cpu"), device}:
        ran = torch.library.opcheck(torch.ops.gcl_fast.render_mesh.default, (verts, faces, camera, turns.to(where), 6, 5))
        assert len(ran) == 4 and set(ran.values()) == {"SUCCESS"}


def test_one_graph_under_compile():
    torch._dynamo.reset()
    compiled = torch.compile(ops.render_mesh, fullgraph=True, backend="aot_eager")
    for seed, yaws, size in ((1, [0, 45.0], (10, 6)), (3, [10.0], (7, 6)), (2, torch.tensor([3.0, 4.0]), (7, 6))):
        arguments = (*crowd(seed), yaws, size)
        assert torch.equal(compiled(*arguments), ops.render_mesh(*arguments))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.int64])
def test_angles_in_a_list_and_in_a_tensor_are_the_same(dtype, device):
    verts, faces, camera = (t.to(device) for t in crowd(1))
    yaws = [0, 90, 180, 270, 360, -90, 450, -720, 45, 211]
    want = ops.render_mesh(verts, faces, camera, yaws, (12, 9))
    for where in {torch.device("cpu"), device}:
        assert torch.equal(ops.render_mesh(verts, faces, camera, torch.tensor(yaws, dtype=dtype, device=where), (12, 9)), want)
    turned, quarters = turn(verts, yaws[:8]), turn(verts, torch.tensor(yaws[:8], dtype=dtype, device=device))
    assert torch.equal(turned.nan_to_num(), quarters.nan_to_num())


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
        (TypeError, "verts", lambda v, f: ops.render_mesh(v.half(), f, torch.zeros(1, 3), [0], (4, 4))),
        (ValueError, "faces", lambda v, f: ops.render_mesh(v, f[0], torch.zeros(1, 3), [0], (4, 4))),
        (ValueError, "yaw_degrees", lambda v, f: ops.render_mesh(v, f, torch.zeros(1, 3), torch.zeros(1, 1), (4, 4))),
        (ValueError, "image_size", lambda v, f: ops.render_mesh(v, f, torch.zeros(1, 3), [0], (4, 1 << 21))),
    ],
)
def test_errors_name_the_argument(error, words, call):
    with pytest.raises(error, match=f"render_mesh: .*{words}"):
        call(torch.zeros(1, 4, 3), torch.tensor([[0, 1, 2]]))


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("size", [(24, 17), (3, 150)])
def test_both_ways_to_draw_give_the_same_bits(dtype, size, device):
    for seed in (0, 1):
        scene = [*(t.to(device) for t in crowd(seed, dtype=dtype)), [5.0 * view for view in range(35)], size]
        want = ops.render_mesh(*scene, method="plain")
        assert want.any() and all(torch.equal(ops.render_mesh(*scene, method=way), want) for way in ("fused", "auto"))
    with pytest.raises(ValueError, match="render_mesh: method must be one of auto, plain, fused, got 'quick'"):
        ops.render_mesh(*scene, method="quick")


@pytest.mark.parametrize("wrong", [-1, 4, 2**31 - 1])
def test_a_face_that_names_no_vertex(device, wrong):
    """On the CPU an error; on the GPU, where looking would stall, such a face is not drawn."""
    verts, faces = square(0.0, (-1.0, 1.0), (-1.0, 1.0))
    verts, camera = verts[None].to(device), WEAK.to(device)
    more = torch.cat((torch.tensor([[0, 1, wrong]], dtype=torch.int32), faces)).to(device)
    if device.type == "cpu":
        with pytest.raises(IndexError, match=rf"render_mesh: faces must be in \[0, V=4\), got {wrong}"):
            ops.render_mesh(verts, more, camera, [0], (3, 3))
    else:
        want = ops.render_mesh(verts, faces.to(device), camera, [0], (3, 3))
        assert torch.equal(ops.render_mesh(verts, more, camera, [0], (3, 3)), want)


def test_calling_the_operator_itself_wrongly_does_not_crash(device):
    verts, faces = torch.rand(1, 4, 3, device=device), torch.tensor([[0, 1, 2]], device=device)
    camera, turns = torch.ones(1, 3, device=device), torch.ones(1, 2)
    for args in (
        (verts.half(), faces, camera, turns, 4, 4),
        (verts[0], faces, camera, turns, 4, 4),
        (verts, faces.float(), camera, turns, 4, 4),
        (verts, faces[0], camera, turns, 4, 4),
        (verts, faces, camera[0], turns, 4, 4),
        (verts, faces, camera.expand(2, 3), turns, 4, 4),
        (verts, faces, torch.ones(1, 4, device=device), turns, 4, 4),
        (verts, faces, camera.double(), turns, 4, 4),
        (verts, faces, camera, turns[0], 4, 4),
        (verts, faces, camera, turns.double(), 4, 4),
        (verts, faces, camera, turns, -1, 4),
        (verts, faces, camera, turns, 4, 1 << 40),
        (verts, faces, camera, turns, 4, 4, 3),
    ):
        with pytest.raises(RuntimeError):
            torch.ops.gcl_fast.render_mesh(*args)
