"""Landmarks of a photo -> a body: it bends as anny's own, is found from its landmarks, and its doubts are told."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from gcl_fast.estimation import Landmarks
from gcl_fast.ops.camera import project


@pytest.fixture(scope="module")
def body():
    pytest.importorskip("anny", reason="bodies are anny's")
    from gcl_fast.estimation.posable_body import posable_body

    return posable_body()


def test_the_body_bends_as_annys_own(body) -> None:
    from gcl_fast.estimation.posable_body import AVERAGE
    from gcl_fast.estimation.posture import number, usual
    from gcl_fast.meshes.anny_body import AnnyBody

    angles = torch.zeros(1, len(usual()[0]))
    for name, value in (("yaw", 0.7), ("lean", 0.1), ("thigh.L", -0.5), ("knee.L", 0.8), ("arm.R", 0.4), ("twist", 0.2)):
        angles[0, number(name)] = value
    place, turned, rest = body.skeleton(angles, torch.zeros(1, 4))
    ours = body.vertices(place, turned, rest, torch.zeros(1, 4))
    c, s = np.cos(0.7), np.sin(0.7)
    cl, sl = np.cos(0.1), np.sin(0.1)
    root = np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]]) @ np.array([[1, 0, 0], [0, cl, -sl], [0, sl, cl]])
    pose = {"upperleg01.L": [-0.5, 0, 0], "lowerleg01.L": [0.8, 0, 0], "upperarm01.R": [0.4, 0, 0], "spine03": [0, 0.2, 0]}
    theirs = AnnyBody().vertices(AVERAGE, {"root": root, **pose})
    assert (ours - theirs).abs().max() < 5e-4  # half a millimetre: float32 here, float64 there; a pixel is 7 mm


def test_a_body_is_found_again_from_its_own_landmarks(body) -> None:
    from gcl_fast.estimation.landmark_fit import Fit, fit_landmarks, perspective, seen
    from gcl_fast.estimation.posture import number
    from gcl_fast.estimation.walking import COEFFICIENTS, usual_angles

    # walking: left heel strikes, left foot pushes off, long stride with the right leg swinging, standing
    angles = usual_angles(torch.tensor([[0.9, 0.0], [-0.7, -0.5], [-0.3, 1.0], [0.1, 0.0]]), COEFFICIENTS)
    angles[:, number("yaw")] = torch.tensor([0.3, 1.9, -2.6, -1.0])
    camera = torch.tensor([[-0.7, 0.01, 0.05]]).expand(4, -1)
    true = Fit(angles, torch.zeros(4, 4), camera, torch.full((4,), 0.3))
    place, turned, rest = body.skeleton(true.angles, true.shape)
    points = torch.zeros(4, 33, 2)
    world, visible = torch.zeros(4, 33, 3), torch.zeros(4, 33)
    metres = body.landmark_positions(place, turned)
    points[:, body.landmarks], world[:, body.landmarks] = seen(metres, true.camera, true.elevation), metres
    visible[:, body.landmarks] = 1.0
    fit, off = fit_landmarks(body, Landmarks(points, world, visible, torch.ones(4)))
    away = (fit.angles - true.angles)[:, number("yaw")]
    assert torch.atan2(away.sin(), away.cos()).abs().max() < np.deg2rad(8)
    assert off.max() < 0.012  # a hundredth of the image's height
    found = body.vertices(*body.skeleton(fit.angles, fit.shape), fit.shape)
    pixels = project(found, perspective(fit), (256, 128))[..., :2]
    wanted = project(body.vertices(place, turned, rest, true.shape), perspective(true), (256, 128))[..., :2]
    assert (pixels - wanted).norm(dim=-1).mean() < 4


def test_a_stride_is_a_mirror_image_half_a_cycle_later_and_vanishes_in_standing() -> None:
    from gcl_fast.estimation.posture import ANGLES, NAMES, number
    from gcl_fast.estimation.walking import COEFFICIENTS, CYCLES, usual_angles

    phases = torch.linspace(0, 2 * np.pi, 11)[:-1]
    gait = torch.stack((phases.cos(), phases.sin()), 1)
    now, later = usual_angles(gait, COEFFICIENTS), usual_angles(-gait, COEFFICIENTS)
    for i, name in enumerate(NAMES):
        other = number(f"{name[:-1]}{'LR'[name[-1] == 'L']}") if name[-2:] in (".L", ".R") else i
        sign = -1.0 if ANGLES[i].axis in ("y", "z", "along") else 1.0
        torch.testing.assert_close(later[:, other], sign * now[:, i], atol=1e-6, rtol=0, msg=name)
    still = usual_angles(torch.zeros(1, 2), COEFFICIENTS)[0]
    for name, (standing, curve) in CYCLES.items():
        assert still[number(f"{name}.L")] == still[number(f"{name}.R")] == pytest.approx(np.deg2rad(standing))
        # two harmonics follow the curve: its course within a fifth of its range, mostly nearer
        off = now[:, number(f"{name}.L")].rad2deg() - torch.tensor(curve)
        assert off.abs().max() < 0.2 * np.ptp(curve) and off.abs().mean() < 0.1 * np.ptp(curve)


def test_a_bent_elbow_and_a_stride_seen_at_two_fifths_of_its_depth_are_found(body) -> None:
    from gcl_fast.estimation.landmark_fit import fit_landmarks, seen
    from gcl_fast.estimation.posture import number
    from gcl_fast.estimation.walking import COEFFICIENTS, usual_angles

    angles = usual_angles(torch.tensor([[0.9, 0.0], [-0.9, 0.0]]), COEFFICIENTS)  # from the front, a hand at the ear
    angles[:, number("elbow.R")], angles[:, number("arm.R")] = np.deg2rad((70, -25))
    place, turned, _ = body.skeleton(angles, torch.zeros(2, 4))
    metres = body.landmark_positions(place, turned)
    points, world, visible = torch.zeros(2, 33, 2), torch.zeros(2, 33, 3), torch.zeros(2, 33)
    points[:, body.landmarks] = seen(metres, torch.tensor([[-0.7, 0.01, 0.05]]).expand(2, -1), torch.full((2,), 0.25))
    metres[..., 2] = 0.4 * metres[..., 2] + 0.15 * metres[..., 1]  # flat and pitched, as the pose model sees people
    world[:, body.landmarks], visible[:, body.landmarks] = metres, 1.0
    fit, _ = fit_landmarks(body, Landmarks(points, world, visible, torch.ones(2)))
    for name in ("elbow.R", "thigh.L", "thigh.R"):
        off = (fit.angles - angles)[:, number(name)].rad2deg().abs().max()
        assert off < (25 if name == "elbow.R" else 3), (name, off)


def test_cyclists_and_cut_off_people_are_told_from_walkers(body) -> None:
    from gcl_fast.estimation.body_estimates import bodies_from_landmarks
    from gcl_fast.estimation.landmark_fit import FitSettings, seen
    from gcl_fast.estimation.posture import number, usual

    angles = usual()[0].repeat(5, 1)
    angles[:, number("yaw")] = torch.tensor([0.0, 1.6, 1.6, 0.0, 0.4])
    for side in "LR":
        angles[2, number(f"thigh.{side}")], angles[2, number(f"knee.{side}")] = np.deg2rad(
            (-80, 100)
        )  # on a bicycle, from the side
    place, turned, _ = body.skeleton(angles, torch.zeros(5, 4))
    metres = body.landmark_positions(place, turned)
    camera = torch.tensor([[-0.7, 0.0, 0.05]]).repeat(5, 1)
    camera[3, 2] = 0.3  # the feet are below the picture
    points, world = torch.zeros(5, 33, 2), torch.zeros(5, 33, 3)
    visible = torch.zeros(5, 33)
    points[:, body.landmarks], world[:, body.landmarks] = seen(metres, camera, torch.full((5,), 0.3)), metres
    visible[:, body.landmarks] = 1.0
    scrambled = points[4, body.landmarks].flip(0)
    points[4, body.landmarks] = scrambled
    found = bodies_from_landmarks(Landmarks(points, world, visible, torch.ones(5)), [(128, 64)] * 5, FitSettings(steps=20))
    assert list(found.doubts)[:4] == ["", "", "sitting or cycling", "cut off"] and found.doubts[4]


def test_each_reason_to_doubt_a_body_is_told(body) -> None:
    from gcl_fast.estimation.body_estimates import NOBODY, bodies_from_landmarks
    from gcl_fast.estimation.landmark_fit import FitSettings, seen
    from gcl_fast.estimation.posable_body import LANDMARKS
    from gcl_fast.estimation.posture import usual

    metres = body.landmark_positions(*body.skeleton(usual()[0].repeat(5, 1), torch.zeros(5, 4))[:2])
    camera = torch.tensor([[-0.7, 0.0, 0.05]]).repeat(5, 1)
    camera[3, 0] = -1.4  # half as large
    points, world, visible = torch.zeros(5, 33, 2), torch.zeros(5, 33, 3), torch.zeros(5, 33)
    points[:, body.landmarks], world[:, body.landmarks] = seen(metres, camera, torch.full((5,), 0.3)), metres
    visible[:, body.landmarks] = 1.0
    visible[2, 25:29] = 0.2  # knees and ankles
    for name in ("elbow", "wrist", "hip", "knee"):  # as no body is built: half a picture's height wider
        points[4, LANDMARKS[name][0], 0] += 0.25
        points[4, LANDMARKS[name][0] + 1, 0] -= 0.25
    score = torch.tensor([0.5, 0.49, 1.0, 1.0, 1.0])  # just seen, just not
    found = bodies_from_landmarks(Landmarks(points, world, visible, score), [(128, 64)] * 5, FitSettings(steps=20))
    assert found.absent.tolist() == [False, True, False, False, False]
    assert list(found.doubts) == ["", NOBODY, "legs hidden", "small in the photo", "body does not fit the landmarks"]


def observed(body, gait: Tensor, elevation: float = 0.25):
    """A fit that walks so, and all that is seen of it."""
    from gcl_fast.estimation.landmark_fit import Fit, seen
    from gcl_fast.estimation.posture import number
    from gcl_fast.estimation.walking import COEFFICIENTS, usual_angles

    n = len(gait)
    angles = usual_angles(gait, COEFFICIENTS)
    angles[:, number("yaw")] = 0.7
    angles[:, number("side")] = 0.03  # one shoulder is higher
    fit = Fit(angles, torch.zeros(n, 4), torch.tensor([[-0.7, 0.01, 0.05]]).expand(n, -1), torch.full((n,), elevation))
    metres = body.landmark_positions(*body.skeleton(fit.angles, fit.shape)[:2])
    points, world, visible = torch.zeros(n, 33, 2), torch.zeros(n, 33, 3), torch.zeros(n, 33)
    points[:, body.landmarks], world[:, body.landmarks] = seen(metres, fit.camera, fit.elevation), metres
    visible[:, body.landmarks] = 1.0
    return fit, Landmarks(points, world, visible, torch.ones(n))


def test_a_fit_that_shows_what_is_seen_lacks_nothing_but_to_be_usual(body) -> None:
    """Depths as the pose model shows them: less than they are, legs and trunk pitched, the more the higher the camera hangs."""
    from gcl_fast.estimation.landmark_fit import ACROSS, LIMBS, PITCH, PITCH_UP, TRUNK, FitSettings, _Energy
    from gcl_fast.estimation.posable_body import LANDMARKS

    gait = torch.tensor([[0.9, 0.0], [-0.3, 1.0]])
    fit, landmarks = observed(body, gait)
    world, pitch = landmarks.world, PITCH + PITCH_UP * 0.25
    first = {name: numbers[0] for name, numbers in LANDMARKS.items()}

    def way(start: Tensor, end: Tensor) -> Tensor:
        return torch.nn.functional.normalize(end - start, dim=-1)

    depths = []
    for start, end, part, _, pitched in LIMBS:
        for side in (0, 1):
            limb = way(world[:, first[start] + side], world[:, first[end] + side])
            depths.append(part * limb[:, 2] + pitched * pitch * limb[:, 1])
    depths += [part * way(world[:, first[name] + 1], world[:, first[name]])[:, 2] for name, part, _ in ACROSS]
    hips, shoulders = (world[:, first[name] : first[name] + 2].mean(1) for name in ("hip", "shoulder"))
    trunk = way(hips, shoulders)
    energy = _Energy(body, landmarks, FitSettings())
    energy.depth, energy.trunk = torch.stack(depths, 1), TRUNK[0] * trunk[:, 2] + pitch * trunk[:, 1]
    torch.testing.assert_close(energy(fit, gait), energy._unusual(fit, gait), rtol=0, atol=1e-4)
    assert energy.off(fit).max() < 1e-6


def test_an_angle_beyond_its_limits_costs_on_either_side(body) -> None:
    from gcl_fast.estimation.landmark_fit import Fit, FitSettings, _Energy
    from gcl_fast.estimation.posture import limits

    low, high = limits()
    limited = torch.isfinite(low) & torch.isfinite(high)
    fit, landmarks = observed(body, torch.zeros(1, 2))
    energy = _Energy(body, landmarks, FitSettings(prior=0.0))
    inside = torch.where(limited, (low + high) / 2, 0).repeat(len(low), 1)  # a row for each angle
    for bound, step in ((low, -0.1), (high, 0.1)):
        costs = []
        for angle in (bound, bound + step):
            angles = inside.clone()
            angles.diagonal().copy_(angle)
            costs.append(energy._unusual(Fit(angles, fit.shape, fit.camera, fit.elevation), torch.zeros(1, 2)))
        more = (costs[1] - costs[0])[limited]
        torch.testing.assert_close(more, torch.full_like(more, 4.0), rtol=1e-3, atol=0)


def test_landmarks_that_are_not_seen_count_nowhere(body) -> None:
    from gcl_fast.estimation.landmark_fit import FitSettings, _Energy
    from gcl_fast.estimation.posable_body import LANDMARKS

    fit, landmarks = observed(body, torch.zeros(1, 2))
    knee = LANDMARKS["knee"][0]
    landmarks.points[0, knee] += 0.5
    landmarks.visible[0, knee] = 0.0
    energy = _Energy(body, landmarks, FitSettings())
    assert energy.off(fit).max() < 1e-6
    assert int((energy.limb_weight == 0).sum()) == 2  # thigh and shank, one end of which is not seen


def test_a_fit_begins_at_the_phase_of_the_stride_that_is_seen(body) -> None:
    from gcl_fast.estimation.landmark_fit import FitSettings, _Energy, start

    gait = FitSettings().stride[0] * torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])
    _, landmarks = observed(body, gait, elevation=0.3)
    found = start(body, landmarks, _Energy(body, landmarks, FitSettings()))[1]
    torch.testing.assert_close(found, gait, rtol=0, atol=1e-5)


def test_landmarks_that_are_not_seen_do_not_place_the_body() -> None:
    from gcl_fast.estimation.landmark_fit import _placed

    model = torch.randn(1, 12, 2, generator=torch.Generator().manual_seed(0))
    points, visible = 0.4 * model + torch.tensor([0.1, -0.2]), torch.ones(1, 12)
    points[0, 3], visible[0, 3] = torch.tensor([3.0, -3.0]), 0.0
    camera = _placed(model, points, visible)[0]
    assert camera.tolist() == pytest.approx([math.log(0.4), 0.1, -0.2], abs=0.02)


def test_the_mirror_image_of_a_photo_says_the_same() -> None:
    """Of a network that knows no left and right: places, depths and masks are turned back before they are averaged."""
    from gcl_fast.estimation.blaze_pose import MASK, BlazePose

    def network(canvas: Tensor, spans: dict[int, tuple[int, int]], _: tuple[int, int]) -> tuple[Tensor, ...]:
        left, right = spans[MASK]
        columns = canvas.mean((1, 2))  # [B, S]
        x = (columns * torch.arange(64).add(0.5)).sum(1) / columns.sum(1)  # where it is bright
        place = torch.stack((x, torch.full_like(x, 30.0), torch.zeros_like(x)), 1)
        seen = torch.tensor([[3.0, -2.0]]).expand(len(x), 2)  # visible, if it is there at all
        metres = torch.stack((x / 64 - 0.5, torch.ones_like(x), torch.ones_like(x)), 1)
        mask = canvas.mean(1, keepdim=True)[..., left:right]
        return torch.cat((place, seen), 1).repeat(1, 39), torch.ones(len(x), 1), mask, metres.repeat(1, 39)

    pose = BlazePose.__new__(BlazePose)
    pose.network, pose.device, pose.size, pose.mirror = network, torch.device("cpu"), 64, False
    photos = [np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8) for shape in ((60, 30, 3), (50, 20, 3))]
    photos[0][:, 20:], photos[1][:, :8] = 255, 250
    plain = pose.estimate(photos)
    pose.mirror = True
    both = pose.estimate(photos)
    assert plain.points[0, 0, 0] > 0.01 and plain.points[1, 0, 0] < -0.01
    torch.testing.assert_close(both.points, plain.points, rtol=0, atol=1e-5)
    torch.testing.assert_close(both.world, plain.world, rtol=0, atol=1e-5)
    assert torch.allclose(both.visible, torch.tensor(-2.0).sigmoid().expand(2, 33))
    assert plain.masks is not None and both.masks is not None
    for one, other in zip(plain.masks, both.masks, strict=True):
        assert one.float().std() > 5 and (one.int() - other.int()).abs().max() <= 1
