"""Turning bodies about their axis and projecting them."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gcl_fast import reference
from gcl_fast.meshes import project, turn
from gcl_fast.ops.camera import turn_each
from tests.toy_meshes import EYE, WEAK, ellipsoid

FEW = settings(deadline=None, max_examples=15, derandomize=True)
ANGLES = [0.0, 90.0, 180.0, -270.0, 33.3, 451.0]


def bodies() -> torch.Tensor:
    return torch.randn(2, 3, 9, 3, generator=torch.Generator().manual_seed(4), dtype=torch.float64)


def no_further_than_twice(ours, theirs, exact) -> None:
    """Of the plain definition's error in float32, and four roundings of the largest number, for what it finds by luck."""
    rounding = 4 * torch.finfo(torch.float32).eps * exact.nan_to_num().abs().max()
    assert torch.equal(ours.isnan(), exact.isnan())
    assert (ours - exact).nan_to_num().abs().max() <= 2 * (theirs - exact).nan_to_num().abs().max() + rounding


@pytest.mark.parametrize("yaws", [ANGLES, torch.tensor(ANGLES, dtype=torch.float64), []])
def test_turning_is_its_definition(yaws, device):
    verts = bodies()
    want = reference.turn(verts, yaws)
    assert want.shape == (2, 3, len(yaws), 9, 3)
    torch.testing.assert_close(turn(verts.to(device), yaws).cpu(), want, rtol=0, atol=1e-13)
    if len(yaws) > 0:
        single, exact = verts.float(), reference.turn(verts.float().double(), yaws)
        no_further_than_twice(turn(single.to(device), yaws).cpu().double(), reference.turn(single, yaws).double(), exact)


def test_turning_each_by_its_own_angle_is_its_definition(device):
    verts, yaws = bodies().flatten(0, 1), torch.tensor(ANGLES, dtype=torch.float64)
    want = reference.turn_each(verts, yaws)
    torch.testing.assert_close(turn_each(verts.to(device), yaws.to(device)).cpu(), want, rtol=0, atol=1e-13)
    assert torch.equal(want, torch.stack([turned[n] for n, turned in enumerate(reference.turn(verts, yaws))]))


@pytest.mark.parametrize("camera", [WEAK, EYE, EYE - torch.tensor([0, 0, 3.3, 0, 0, 0])])
def test_projection_is_its_definition(camera, device):
    verts = bodies() / 3
    cameras = camera * torch.tensor([[1.0], [0.9], [1.1]])  # one for each of the second dimension
    want = reference.project(verts, cameras, (32, 16))
    got = project(verts.to(device), cameras.to(device), (32, 16)).cpu()
    torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12, equal_nan=True)
    single, cameras = verts.float(), cameras.float()
    exact = reference.project(single.double(), cameras.double(), (32, 16))
    ours = project(single.to(device), cameras.to(device), (32, 16)).cpu().double()
    no_further_than_twice(ours, reference.project(single, cameras, (32, 16)).double(), exact)


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


@pytest.mark.parametrize("camera", [WEAK, EYE])
def test_one_body_seen_by_several_cameras(camera):
    verts, _ = ellipsoid()
    cameras = camera * torch.tensor([[1.0], [0.9]])
    seen = project(verts, cameras, (32, 16))
    torch.testing.assert_close(seen, torch.stack([project(verts, one, (32, 16)) for one in cameras]))


def test_a_vertex_behind_the_eye_leaves_the_gradient_of_the_others_alone(device):
    verts, camera = bodies()[0].to(device) / 3, EYE.double().to(device)
    behind = verts.clone()
    behind[:, 0, 2] = -9.0
    leaves = [(v.requires_grad_(), camera.clone().requires_grad_()) for v in (verts[:, 1:].clone(), behind)]
    alone, among = (project(v, c, (32, 16)) for v, c in leaves)
    assert among[:, 0].isnan().all() and torch.equal(among[:, 1:], alone)
    (of_alone, camera_alone), (of_among, camera_among) = (
        torch.autograd.grad(p.square().sum(), leaf) for p, leaf in zip((alone, among[:, 1:]), leaves, strict=True)
    )
    torch.testing.assert_close(camera_among, camera_alone)
    torch.testing.assert_close(of_among[:, 1:], of_alone)
    assert (of_among[:, 0] == 0).all()


def test_turning_by_changing_angles_compiles_to_one_graph():
    torch._dynamo.reset()
    compiled = torch.compile(turn, fullgraph=True, backend="aot_eager")
    verts, _ = ellipsoid(dtype=torch.float32)
    for yaws in ([0, 45.0], [10.0], [11.0], [-200.5], torch.tensor([3.0, 4.0])):
        torch.testing.assert_close(compiled(verts, yaws), turn(verts, yaws))


@pytest.mark.parametrize("yaw", [float("nan"), float("inf"), -float("inf")])
def test_an_angle_that_is_not_finite_is_an_error(yaw):
    with pytest.raises(ValueError, match="yaw_degrees must be finite"):
        turn(torch.zeros(1, 4, 3), [0, yaw])


@pytest.mark.parametrize(
    ("error", "words", "call"),
    [
        (TypeError, "verts", lambda v: turn([1.0], [0])),
        (TypeError, "yaw_degrees must be a sequence", lambda v: turn(v, "45")),
        (TypeError, "yaw_degrees must be a sequence", lambda v: turn(v, 45)),
        (TypeError, "yaw_degrees must hold numbers, got bool", lambda v: turn(v, [True])),
        (TypeError, "yaw_degrees must hold numbers, got str", lambda v: turn(v, ["45"])),
        (ValueError, r"yaw_degrees must be numbers of shape \[R\], got bool", lambda v: turn(v, torch.tensor([True]))),
        (ValueError, r"yaw_degrees must be numbers of shape \[R\], got complex64", lambda v: turn(v, torch.tensor([1j]))),
        (ValueError, r"yaw_degrees must be numbers of shape \[R\]", lambda v: turn(v, torch.zeros(1, 2))),
        (TypeError, "camera must be a torch.Tensor", lambda v: project(v, [1.0, 0, 0], (4, 4))),
        (TypeError, "camera must be floating point", lambda v: project(v, torch.ones(3, dtype=torch.int64), (4, 4))),
        (ValueError, "camera must have shape", lambda v: project(v, torch.zeros(1, 4), (4, 4))),
        (ValueError, "camera must be on cpu as verts is, got meta", lambda v: project(v, torch.ones(3, device="meta"), (4, 4))),
        (ValueError, "verts", lambda v: project(v[..., :2], torch.zeros(1, 3), (4, 4))),
        (
            ValueError,
            r"camera must have leading .* \[2\] of verts, got \[3\]",
            lambda v: project(v[[0, 0]], EYE.expand(3, 6), (4, 4)),
        ),
    ],
)
def test_errors_name_the_argument(error, words, call):
    with pytest.raises(error, match=words):
        call(torch.zeros(1, 4, 3))
