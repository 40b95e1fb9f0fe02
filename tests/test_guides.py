"""Guides: the photo's pixels at their places in another view, the background, and the generator that is given both."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gcl_fast import ops
from gcl_fast.errors import InputError
from gcl_fast.guides import GUIDE_CHANNELS, Bodies, Guide, GuidedGenerator, between_photos, fill_holes, turned_view, untold_view
from gcl_fast.guides.guide import MARGIN, carry, clothed, ground_of
from gcl_fast.guides.guided_generator import OCCLUDED, ON_BODY, START
from gcl_fast.meshes import open_mesh_source
from gcl_fast.meshes.mesh_files import write_faces, write_mesh
from gcl_fast.ops.camera import turn, turn_each
from gcl_fast.records import Record
from tests.toy_world import ellipsoid

SIZE = (80, 40)
WEAK = np.array([1.0, 0.0, 0.0], np.float32)
PERSPECTIVE = np.array([0.0, 0.0, 3.0, 1.4, 0.0, 0.0], np.float32)


def records(folder: Path, cameras: list[np.ndarray], faces: list[np.ndarray] | None = None) -> list[Record]:
    """One body a camera, each a little larger than the one before; their mesh files below `folder`/mesh."""
    vertices, triangles = ellipsoid()
    place = folder / "mesh/market/train/vertices"
    for i, camera in enumerate(cameras):
        write_mesh(place / f"{i}.npz", vertices * (0.8 + 0.05 * i), camera, None if faces is None else faces[i])
    if faces is None:
        write_faces(place, triangles)
    return [Record(folder / f"{i}.jpg", -1, 0) for i in range(len(cameras))]


def bodies(folder: Path, cameras: list[np.ndarray], device: torch.device | str = "cpu") -> Bodies:
    people = records(folder, cameras)
    return Bodies(open_mesh_source(folder / "mesh", "market1501", "train", SIZE), people, device)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 20), st.integers(1, 20), st.integers(0, 2**31), st.floats(0, 1))
def test_holes_are_filled_from_around(height: int, width: int, seed: int, share: float) -> None:
    rng = torch.Generator().manual_seed(seed)
    image = torch.rand(2, 3, height, width, generator=rng, dtype=torch.float64)
    known = torch.rand(2, 1, height, width, generator=rng) < share
    filled = fill_holes(image, known)
    assert torch.equal(torch.where(known, filled, 0), torch.where(known, image, 0))
    for row in range(2):
        if known[row].any():  # between the least and the largest of what is known
            inside = image[row][:, known[row, 0]]
            assert (filled[row].amin((1, 2)) >= inside.amin(1) - 1e-9).all()
            assert (filled[row].amax((1, 2)) <= inside.amax(1) + 1e-9).all()
        else:
            assert not filled[row].any()


def test_what_runs_across_a_picture_goes_on_behind_the_hole() -> None:
    """Half of the filling comes from left and right alone, where such lines are the same."""
    across = (torch.arange(16) // 2 % 2).float().view(1, 1, 16, 1).expand(1, 1, 16, 16)
    known = torch.ones(1, 1, 16, 16)
    known[..., 4:12, 4:12] = 0
    off, off_down = ((fill_holes(lines, known) - lines).abs().mean() for lines in (across, across.mT))
    assert off < 0.7 * off_down


def test_the_gradient_of_filling_is_right() -> None:
    rng = torch.Generator().manual_seed(0)
    image = torch.rand(1, 2, 7, 5, generator=rng, dtype=torch.float64, requires_grad=True)
    known = torch.rand(1, 1, 7, 5, generator=rng) < 0.4
    assert torch.autograd.gradcheck(lambda x: fill_holes(x, known), image)


def test_a_turn_of_each_is_the_turn_of_all(device: torch.device) -> None:
    verts = torch.randn(4, 9, 3, generator=torch.Generator().manual_seed(1)).to(device)
    yaws = [0.0, 45.0, 180.0, 300.0]
    every = turn(verts, yaws)  # [4, 4, 9, 3]
    each = turn_each(verts, torch.tensor(yaws, device=device))
    torch.testing.assert_close(each, torch.stack([every[i, i] for i in range(4)]), rtol=1e-6, atol=1e-6)
    with pytest.raises(ValueError, match=r"turn_each: yaw_degrees must be \[B=4\], got \[3\]"):
        turn_each(verts, torch.zeros(3))


def test_bodies_stand_where_the_mesh_source_puts_them(tmp_path: Path, device: torch.device) -> None:
    cameras = [WEAK, PERSPECTIVE, WEAK * [0.9, 1, 1] + [0, 0.1, 0]]
    held = bodies(tmp_path, cameras, device)
    source = open_mesh_source(tmp_path / "mesh", "market1501", "train", SIZE)
    yaws = [45.0, 270.0, 100.0]
    seen = held.seen(torch.arange(3, device=device), torch.tensor(yaws, device=device))
    for i, yaw in enumerate(yaws):
        verts, faces = source.project(Record(tmp_path / f"{i}.jpg", -1, 0), [yaw])
        torch.testing.assert_close(seen.verts[i].cpu(), verts[0], rtol=1e-5, atol=1e-4)
        assert torch.equal(seen.faces.cpu(), faces)
    assert torch.equal(held.seen(torch.tensor([2], device=device)).verts, held.seen(torch.arange(3, device=device)).verts[2:])


def test_the_same_bodies_in_another_order(tmp_path: Path, device: torch.device) -> None:
    held = bodies(tmp_path, [WEAK, PERSPECTIVE, WEAK * [0.9, 1, 1] + [0, 0.1, 0]], device)
    index, order = torch.arange(3, device=device), torch.tensor([2, 0, 1], device=device)
    yaws = torch.tensor([45.0, 270.0, 100.0], device=device)
    for view, rolled in (
        (held.seen(index), held.rolled(1).seen(index)),
        (held.seen(index, yaws), held.rolled(1).seen(index, yaws[order])),
    ):
        for other in (view.rows(order), rolled):
            for got, want in ((other.verts, view.verts), (other.mesh, view.mesh), *zip(other.raster, view.raster, strict=True)):
                assert torch.equal(got, want[order])


def test_the_mesh_of_a_view_is_the_rendered_one(tmp_path: Path, device: torch.device) -> None:
    seen = bodies(tmp_path, [WEAK, PERSPECTIVE, PERSPECTIVE], device)
    source = open_mesh_source(tmp_path / "mesh", "market1501", "train", SIZE)
    yaws = torch.tensor([60.0, 135.0, 250.0], device=device)
    for view, angles in ((seen.seen(torch.arange(3, device=device)), [0.0] * 3), (seen.seen(torch.arange(3), yaws), yaws)):
        for row in range(3):
            vertices, faces, camera = source.body(Record(tmp_path / f"{row}.jpg", -1, 0))
            rendered = ops.render_mesh(vertices[None], faces, camera[None], [float(angles[row])], SIZE)[0, 0]
            assert (rendered > 0).sum() > 300
            torch.testing.assert_close(view.mesh[row].cpu(), 2 * rendered - 1, atol=1e-5, rtol=0)


def test_flow_of_rasters_is_the_flow(tmp_path: Path, device: torch.device) -> None:
    held = bodies(tmp_path, [WEAK, WEAK], device)
    index = torch.arange(2, device=device)
    photo, turned = held.seen(index), held.seen(index, torch.tensor([45.0, 135.0], device=device))
    flow, want = photo.flow_to(turned), ops.mesh_flow(photo.verts, turned.verts, photo.faces, SIZE)
    assert torch.equal(flow.grid, want.grid) and torch.equal(flow.visibility, want.visibility)


def test_texture_holds_the_body_alone_and_background_the_rest(tmp_path: Path, device: torch.device) -> None:
    held = bodies(tmp_path, [WEAK, WEAK], device)
    index = torch.arange(2, device=device)
    photo, turned = held.seen(index), held.seen(index, torch.tensor([90.0, 180.0], device=device))
    image = torch.where(photo.silhouette, 2.0, -1.0).expand(-1, 3, -1, -1).contiguous()  # body 2, background -1
    mesh = torch.zeros(2, 1, *SIZE, device=device)
    guide = turned_view(image, photo, turned, mesh)
    on_body = (guide.body > 0).expand(-1, 3, -1, -1)
    assert torch.equal(guide.body > 0, turned.silhouette) and not bool((guide.visible * guide.occluded).any())
    torch.testing.assert_close(guide.texture[on_body], torch.full_like(guide.texture[on_body], 2.0))
    torch.testing.assert_close(guide.background, torch.full_like(guide.background, -1.0))  # nothing of the body bleeds into it
    assert not bool((guide.known.bool() & photo.silhouette).any())
    assert guide.channels().shape == (2, GUIDE_CHANNELS, *SIZE)
    torch.testing.assert_close(guide.composite(), torch.where(turned.silhouette, 2.0, -1.0).expand(-1, 3, -1, -1))


def test_no_background_is_taken_from_the_margin_of_a_body() -> None:
    silhouette = torch.zeros(1, 1, 9, 12, dtype=torch.bool)
    silhouette[..., 4, 5] = True
    near = torch.zeros_like(silhouette)
    near[..., 4 - MARGIN : 5 + MARGIN, 5 - MARGIN : 6 + MARGIN] = True  # hair and loose clothes
    background, known = ground_of(torch.where(near, 7.0, -1.0).expand(-1, 3, -1, -1), silhouette)
    assert torch.equal(known.bool(), ~near) and MARGIN > 0
    torch.testing.assert_close(background, torch.full_like(background, -1.0))


def test_no_background_is_taken_from_where_a_mask_shows_the_person(tmp_path: Path, device: torch.device) -> None:
    people = records(tmp_path, [WEAK, WEAK])
    vertices, _ = ellipsoid()
    coat = np.zeros(SIZE, np.uint8)
    coat[30:60, 5:15] = 255  # beside the body
    write_mesh(tmp_path / "mesh/market/train/vertices/1.npz", vertices, WEAK, mask=coat)
    held = Bodies(open_mesh_source(tmp_path / "mesh", "market1501", "train", SIZE), people, device)
    index = torch.arange(2, device=device)
    photo, turned = held.seen(index), held.seen(index, torch.tensor([90.0, 90.0], device=device))
    worn = torch.from_numpy(coat > 0).to(device)
    assert not bool((photo.covered ^ photo.silhouette)[0].any()) and bool(photo.covered[1, 0][worn].all())
    assert torch.equal(turned.covered, turned.silhouette)  # how clothes hang in a new view no mask tells
    image = torch.where(photo.covered, 2.0, -1.0).expand(-1, 3, -1, -1).contiguous()
    guide = turned_view(image, photo, turned, torch.zeros(2, 1, *SIZE, device=device))
    torch.testing.assert_close(guide.background, torch.full_like(guide.background, -1.0))
    assert not bool(guide.known[1, 0][worn].any()) and bool(guide.known[0, 0][worn].any())
    assert torch.equal(photo.rows(index.flip(0)).covered, photo.covered.flip(0))
    assert torch.equal(held.rolled(1).seen(index).covered, photo.covered.flip(0))


def test_a_mask_shows_the_person_where_it_is_rather_sure(tmp_path: Path) -> None:
    people, counts = records(tmp_path, [WEAK]), []
    mask = np.zeros(SIZE, np.uint8)
    mask[:5], mask[-5:] = 100, 155
    write_mesh(tmp_path / "mesh/market/train/vertices/0.npz", ellipsoid()[0], WEAK, mask=mask)
    source = open_mesh_source(tmp_path / "mesh", "market1501", "train", SIZE)
    held = Bodies(source, people, progress=lambda *at: counts.append(at))
    assert torch.equal(held.masks[0, 0], torch.from_numpy(mask > 128)) and counts == [(1, 1)]


def test_texture_is_the_body_s_alone_where_a_mask_shows_more(tmp_path: Path) -> None:
    people = records(tmp_path, [WEAK])
    everything = np.full(SIZE, 255, np.uint8)
    write_mesh(tmp_path / "mesh/market/train/vertices/0.npz", ellipsoid()[0], WEAK, mask=everything)
    held = Bodies(open_mesh_source(tmp_path / "mesh", "market1501", "train", SIZE), people)
    photo, turned = held.seen(torch.tensor([0])), held.seen(torch.tensor([0]), torch.tensor([90.0]))
    image = torch.where(photo.silhouette, 2.0, -1.0).expand(-1, 3, -1, -1)
    guide = turned_view(image, photo, turned, torch.zeros(1, 1, *SIZE))
    torch.testing.assert_close(guide.texture, torch.where(turned.silhouette, 2.0, 0.0).expand(-1, 3, -1, -1))


def test_the_photo_s_own_view_shows_its_own_pixels(tmp_path: Path) -> None:
    held = bodies(tmp_path, [WEAK])
    photo = held.seen(torch.tensor([0]))
    image = torch.rand(1, 3, *SIZE, generator=torch.Generator().manual_seed(0))
    guide = turned_view(image, photo, photo, torch.zeros(1, 1, *SIZE))
    inside = guide.visible.bool() & (torch.nn.functional.max_pool2d(1 - photo.silhouette.float(), 3, 1, 1) == 0)
    torch.testing.assert_close(guide.texture * inside, image * inside, atol=2e-3, rtol=0)
    assert not bool(guide.occluded.any())


def test_reconstruction_is_told_only_what_the_other_view_tells(tmp_path: Path) -> None:
    held = bodies(tmp_path, [WEAK])
    index = torch.tensor([0])
    photo, turned = held.seen(index), held.seen(index, torch.tensor([90.0]))
    image = torch.rand(1, 3, *SIZE, generator=torch.Generator().manual_seed(0), requires_grad=True)
    guide = untold_view(image, photo, turned, torch.zeros(1, 1, *SIZE))
    assert 0.2 < float(guide.visible.sum() / photo.silhouette.sum()) < 0.8  # a quarter turn sees half of the front
    assert torch.equal(guide.body > 0, photo.silhouette) and not bool((guide.known.bool() & turned.silhouette).any())
    assert torch.equal(guide.texture * guide.visible, image * guide.visible)  # not blurred by the way there and back
    for source, other in ((photo, turned), (turned, photo)):  # one of them is the wider
        known = untold_view(image, source, other, torch.zeros(1, 1, *SIZE)).known.bool()
        assert not bool((known & (source.silhouette | other.silhouette)).any()) and bool(known.any())
    (told,) = torch.autograd.grad((guide.texture + guide.background).square().sum(), image)
    hidden = guide.occluded.bool() | ~guide.known.bool() & ~photo.silhouette
    inner = hidden & (torch.nn.functional.max_pool2d((~hidden).float(), 5, 1, 2) == 0)  # bilinear reads reach over its edge
    assert inner.sum() > 50 and not bool((told * inner).any()) and bool((told * guide.visible).any())


def test_what_the_photo_does_not_show_is_guessed_from_around() -> None:
    visible = torch.zeros(1, 1, 8, 8)
    visible[..., :4, :4], occluded = 1, torch.zeros(1, 1, 8, 8)
    occluded[..., :4, 4:] = 1  # the lower half is no body
    texture = torch.where(visible > 0, 2.0, 6.0).expand(-1, 3, -1, -1)
    guess = clothed(texture, visible, occluded)
    assert torch.equal(guess * visible, texture * visible) and not bool(guess[..., 4:, :].any())
    beside, far = guess[0, 0, 1, 4], guess[0, 0, 1, 7]
    assert 2 < beside < far < 6  # nearer to the visible colour beside it
    blind = clothed(texture, visible, occluded, torch.zeros_like(occluded))  # nothing lies in front: from around alone
    torch.testing.assert_close(blind[..., :4, :], torch.full((1, 3, 4, 8), 2.0))


def test_a_mix_of_texture_goes_from_body_to_body(tmp_path: Path) -> None:
    held = bodies(tmp_path, [WEAK, WEAK])
    photo = held.seen(torch.arange(2))
    order = torch.tensor([1, 0])
    image = torch.stack([torch.full((3, *SIZE), 1.0), torch.full((3, *SIZE), 3.0)])
    guide = between_photos(image, image[order], photo.rows(order), photo, torch.zeros(2, 1, *SIZE), 0.75)
    for row, value in enumerate((0.75 + 0.75, 0.25 + 2.25)):
        inside = guide.texture[row][:, photo.silhouette[row, 0]]
        torch.testing.assert_close(inside, torch.full_like(inside, value))
    torch.testing.assert_close(guide.background, image)  # nobody else's, also where nobody stood


def test_carried_pixels_have_gradients() -> None:
    rng = torch.Generator().manual_seed(0)
    image = torch.rand(1, 2, 6, 5, generator=rng, dtype=torch.float64, requires_grad=True)
    silhouette = torch.rand(1, 1, 6, 5, generator=rng) < 0.6
    grid = (torch.rand(1, 4, 3, 2, generator=rng, dtype=torch.float64) - 0.5) * 1.8
    assert torch.autograd.gradcheck(lambda x: carry(x, silhouette, grid), image)


def test_a_guided_generator_paints_no_texture_off_the_body(tmp_path: Path) -> None:
    torch.manual_seed(0)
    generator = GuidedGenerator(16, width=4, mlp_width=8).eval()
    held = bodies(tmp_path, [WEAK])
    photo, turned = held.seen(torch.tensor([0])), held.seen(torch.tensor([0]), torch.tensor([45.0]))
    mesh = torch.zeros(1, 1, *SIZE)
    image = torch.randn(1, 3, *SIZE, requires_grad=True)
    guide = turned_view(image, photo, turned, mesh)
    view = generator.paint(generator.encode(mesh), torch.randn(1, 16), guide)
    assert view.shape == (1, 3, *SIZE) and view.dtype == torch.float32
    (gradient,) = torch.autograd.grad(view.sum(), image)
    assert bool(torch.isfinite(gradient).all()) and bool(gradient.abs().sum() > 0)
    with pytest.raises(TypeError, match="use paint"):
        generator.decode(generator.encode(mesh), torch.randn(1, 16))


def test_a_guided_generator_begins_near_the_texture_and_the_background() -> None:
    """With paint of 0: so much of texture (1) and background (3) as their logits at the start say."""
    generator = GuidedGenerator(8, width=2, mlp_width=4)
    last = generator.decoder.image
    assert last.weight[:3].std() > 5 * last.weight[3:].std() > 0
    torch.nn.init.zeros_(last.weight)
    visible, occluded = torch.zeros(1, 1, 40, 40), torch.zeros(1, 1, 40, 40)
    visible[..., :10, :], occluded[..., 10:20, :] = 1, 1
    texture, ground = torch.full((1, 3, 40, 40), 1.0), torch.full((1, 3, 40, 40), 3.0)
    guide = Guide(torch.zeros(1, 1, 40, 40), texture, visible, occluded, ground, 1 - visible - occluded)
    view = generator.paint(generator.encode(guide.mesh), torch.randn(1, 8), guide)
    e = math.exp
    shown = (e(START) + 3 * e(START + ON_BODY)) / (1 + e(START) + e(START + ON_BODY))
    guessed = (e(START + OCCLUDED) + 3 * e(START + ON_BODY)) / (1 + e(START + OCCLUDED) + e(START + ON_BODY))
    behind = 3 * e(START) / (1 + e(START))
    want = torch.tensor([shown] * 10 + [guessed] * 10 + [behind] * 20).view(1, 1, 40, 1).expand(1, 3, 40, 40)
    torch.testing.assert_close(view, want)


def test_what_bodies_cannot_be(tmp_path: Path) -> None:
    _, triangles = ellipsoid()
    people = records(tmp_path / "a", [WEAK, WEAK], [triangles, triangles[::-1].copy()])
    source = open_mesh_source(tmp_path / "a/mesh", "market1501", "train", SIZE)
    with pytest.raises(InputError, match="one set of triangles, but the mesh of .*1.jpg"):
        Bodies(source, people)
    vertices, _ = ellipsoid()
    people = records(tmp_path / "c", [WEAK, WEAK])
    write_mesh(tmp_path / "c/mesh/market/train/vertices/1.npz", np.concatenate([vertices, vertices[:1]]), WEAK)
    with pytest.raises(InputError, match="one set of triangles, but the mesh of .*1.jpg"):
        Bodies(open_mesh_source(tmp_path / "c/mesh", "market1501", "train", SIZE), people)
    (tmp_path / "b/mesh/market/train/render").mkdir(parents=True)
    rendered = open_mesh_source(tmp_path / "b/mesh", "market1501", "train", SIZE)
    with pytest.raises(InputError, match="model.guide 'texture' carries .* use --model.guide mesh"):
        Bodies(rendered, people)
