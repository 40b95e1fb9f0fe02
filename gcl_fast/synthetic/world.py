"""The writer of a whole synthetic data set: images, meshes and true novel views, in one of the published layouts."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch

from gcl_fast.constants import ALL_YAWS, LAYOUTS
from gcl_fast.errors import InputError
from gcl_fast.files import make_folder, write_whole
from gcl_fast.meshes.mesh_files import read_mesh, write_faces, write_image_size, write_mesh
from gcl_fast.meshes.render_folders import write_picture
from gcl_fast.meshes.sources import view_folder
from gcl_fast.ops import render_mesh
from gcl_fast.synthetic.cameras import Camera, develop, make_cameras, photograph
from gcl_fast.synthetic.garments import Dressed, dress
from gcl_fast.synthetic.layouts import MOST_CAMERAS, Layout
from gcl_fast.synthetic.people import Person, make_person
from gcl_fast.synthetic.plan import JUNK, Entry, groups, make_plan, own_identities
from gcl_fast.synthetic.renderer import Figure, compose, crop_lens, occluder_for, place_behind, pose_figures, render_layers
from gcl_fast.synthetic.seeds import stream
from gcl_fast.synthetic.template import load_template
from gcl_fast.synthetic.truth import write_truth
from gcl_fast.synthetic.world_config import WorldConfig
from gcl_fast.synthetic.world_folder import WorldSummary, existing_world, finish, partial_folder

VERSION = 1  # of what is drawn; raise it when the same parameters give other pictures
BATCH = 16
MOST_TRUTH = 20


def write_world(
    out: str | Path,
    *,
    layout: str = "market1501",
    num_train_ids: int = 40,
    num_test_ids: int = 20,
    images_per_id: int = 16,
    image_size: tuple[int, int] = (128, 64),
    num_cameras: int = 4,
    seed: int = 0,
    rendered_meshes: bool = False,
    novel_views: bool = True,
    config: WorldConfig | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> WorldSummary:
    """Write a synthetic world to the folder `out`, which must be new, empty, or hold this very world.

    The same arguments give the same bytes on the same machine. The world is written beside `out` and moved there when it
    is whole, so a killed run leaves no folder that could be taken for one.

    Arguments:
        out: becomes the dataset root: `<out>/market1501/...`, `<out>/mesh/...`, `<out>/truth/...`, `<out>/world.json`.
        layout: "market1501", "dukemtmc" or "msmt17".
        num_train_ids, num_test_ids: people in train, and other people in query and gallery; any number from 1.
        images_per_id: images of each of them, from 2.
        image_size: (height, width) in pixels.
        num_cameras: 4 or more; 9 at most in the Market-1501 and DukeMTMC-reID layouts, whose names have one digit for it.
        seed: of everything that is drawn.
        rendered_meshes: also write the `render*/` folders that the authors of GCL used.
        novel_views: also write true novel views of up to 20 test people.
        config: difficulty, see WorldConfig.
        progress: called with (images done, images in all).

    Returns: what was written, or what was there already.
    Errors: InputError for a bad argument, FolderInUseError (a FileExistsError) when `out` holds something else.
    """
    out, config = Path(out), config or WorldConfig()
    size = _check(layout, num_train_ids, num_test_ids, images_per_id, image_size, num_cameras, seed)
    parameters = {
        "version": VERSION,
        "layout": layout,
        "num_train_ids": num_train_ids,
        "num_test_ids": num_test_ids,
        "images_per_id": images_per_id,
        "image_size": list(size),
        "num_cameras": num_cameras,
        "seed": seed,
        "rendered_meshes": rendered_meshes,
        "novel_views": novel_views,
        "config": json.loads(json.dumps(asdict(config))),
    }
    existing = existing_world(out, parameters)
    if existing is not None:
        return existing
    partial = partial_folder(out)
    writer = _WorldWriter(partial, Layout(layout), size, make_cameras(seed, num_cameras, config), seed, config, progress)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # nearly all of it is NumPy: threads between its small steps cost more than they give
    try:
        counts = writer.write(num_train_ids, num_test_ids, images_per_id, novel_views)
        if rendered_meshes:
            writer.write_rendered_meshes()
    finally:
        torch.set_num_threads(threads)
    summary = WorldSummary(out, layout, *counts, num_train_ids, num_test_ids, num_cameras, writer.truth_images)
    finish(partial, parameters, summary)
    return summary


class _WorldWriter:
    """One run of writing; keeps what the parts share."""

    def __init__(
        self,
        root: Path,
        layout: Layout,
        size: tuple[int, int],
        cameras: list[Camera],
        seed: int,
        config: WorldConfig,
        progress: Callable[[int, int], None] | None,
    ) -> None:
        self.root, self.layout, self.size, self.cameras = root, layout, size, cameras
        self.seed, self.config, self.progress = seed, config, progress
        self.people: list[Person] = []
        self.clothes: list[Dressed] = []
        self.entries: list[Entry] = []
        self.names: list[str] = []
        self.test_people: set[int] = set()
        self.truth_images = 0

    def write(self, train_ids: int, test_ids: int, images_per_id: int, novel_views: bool) -> tuple[int, int, int]:
        market = self.layout.name == "market1501"
        plan = make_plan(self.seed, train_ids, test_ids, images_per_id, self.cameras, market, self.config)
        plan = plan if market else own_identities(plan)
        self.entries, self.names = plan.entries, self.layout.file_names(plan.entries)
        self.test_people = {e.shot.person for e in plan.entries if e.split == "query"}
        self.people = [make_person(self.seed, n, self.config) for n in range(plan.people)]
        for part in groups(plan.people, BATCH):
            self.clothes += dress([self.people[n] for n in part])
        for split in ("train", "query", "gallery"):
            make_folder(self.root / self.layout.folder(split))
            vertices = self.root / self.layout.meshes(split) / "vertices"
            write_faces(vertices, load_template().faces)
            write_image_size(vertices, self.size)
        truth_of: dict[int, int] = {}  # person -> position of the image that has true views
        for part in groups(len(self.entries), BATCH):
            self._write_batch(part, truth_of)
            if self.progress is not None:
                self.progress(part[-1] + 1, len(self.entries))
        self.layout.write_lists(self.root, self.entries, self.names)
        if novel_views:
            self._write_truth(sorted(truth_of.values())[:MOST_TRUTH])
        train, query, gallery = (sum(e.split == s for e in self.entries) for s in ("train", "query", "gallery"))
        return train, query, gallery

    def _figures(self, part: list[int]) -> tuple[list[Figure], list[bool]]:
        """Figures of these entries with their crops, and whether a crop misses a part of the person."""
        shots = [self.entries[i].shot for i in part]
        numbers = [s.person for s in shots]
        figures = pose_figures(shots, [self.people[n] for n in numbers], [self.clothes[n] for n in numbers], self.cameras)
        done, missing = [], []
        for i, shot, figure in zip(part, shots, figures, strict=True):
            rng = stream(self.seed, "crop", shot.person, shot.index)
            aspect = self.size[1] / self.size[0]
            lens, cut = crop_lens(figure, rng, self.config, aspect, junk=self.entries[i].pid == JUNK)
            done.append(replace(figure, lens=lens))
            missing.append(cut)
        return done, missing

    def _write_batch(self, part: list[int], truth_of: dict[int, int]) -> None:
        figures, missing = self._figures(part)
        accompanied = [(i, f) for i, f in zip(part, figures, strict=True) if self.entries[i].companion >= 0]
        beside = {i: self._companion(i, figure) for i, figure in accompanied}
        drawn = figures + list(beside.values())
        owners = [self.cameras[self.entries[i].shot.camera] for i in part + list(beside)]
        layers = render_layers(drawn, owners, self.size)
        companions = dict(zip(beside, zip(beside.values(), layers[len(part) :], strict=True), strict=True))
        for i, figure, layer, cut in zip(part, figures, layers, missing, strict=False):
            entry, camera = self.entries[i], self.cameras[self.entries[i].shot.camera]
            place, over = place_behind(camera, figure, entry.shot.stretch, self.size), []
            if i in companions:
                other, other_layer = companions[i]
                if other.lens[2] > figure.lens[2]:
                    place = np.where(other_layer.cover[..., None], other_layer.linear, place)
                else:
                    over.append((other_layer.linear, other_layer.cover.astype(np.float64)))
            if entry.occluded:
                over.append(occluder_for(self.seed, entry.shot, self.size))
            picture = develop(camera, compose(layer, place, over), entry.shot.stops)
            noise = stream(self.seed, "sensor", entry.shot.person, entry.shot.index)
            self._save(i, photograph(camera, picture, noise), figure)
            if entry.shot.person in self.test_people and entry.pid != JUNK and not (cut or over):
                truth_of.setdefault(entry.shot.person, i)

    def _companion(self, i: int, figure: Figure) -> Figure:
        """A passer-by beside, before or behind the figure, in its crop."""
        entry = self.entries[i]
        rng = stream(self.seed, "companion", entry.shot.person, entry.shot.index)
        aside, deeper = rng.choice((-1, 1)) * rng.uniform(0.45, 0.75), rng.choice((-0.5, 0.6, 1.2))
        place = (entry.shot.place[0] + aside, entry.shot.place[1] + deeper)
        shot = replace(entry.shot, place=place, phase=float(rng.uniform()), yaw=float(entry.shot.yaw + rng.normal(0, 15)))
        other = pose_figures([shot], [self.people[entry.companion]], [self.clothes[entry.companion]], self.cameras)[0]
        lens = figure.lens.copy()
        lens[:3] = other.lens[:3]
        return replace(other, lens=lens)

    def _save(self, i: int, jpeg: bytes, figure: Figure) -> None:
        entry, name = self.entries[i], self.names[i]
        image = self.root / self.layout.folder(entry.split) / name
        mesh = (self.root / self.layout.meshes(entry.split) / "vertices" / name).with_suffix(".npz")
        write_whole(image, jpeg, flush=False)
        write_mesh(mesh, figure.naked, figure.lens)

    def _write_truth(self, chosen: list[int]) -> None:
        rows = []
        for i in chosen:
            figure, entry = self._figures([i])[0][0], self.entries[i]
            image = (self.layout.folder(entry.split) / self.names[i]).as_posix()
            rows += write_truth(self.root, image, entry.shot, figure, self.cameras[entry.shot.camera], self.size)
        self.truth_images = len(chosen)
        text = io.StringIO()
        table = csv.DictWriter(text, ("source", "yaw", "image", "background"), lineterminator="\n")
        table.writeheader()
        table.writerows(rows)
        write_whole(self.root / "truth" / "index.csv", text.getvalue())

    def write_rendered_meshes(self) -> None:
        """The render/ and render_45/ ... render_315/ folders, from the mesh files just written."""
        faces = torch.from_numpy(load_template().faces)
        for entry, name in zip(self.entries, self.names, strict=True):
            folder = self.root / self.layout.meshes(entry.split)
            mesh = read_mesh((folder / "vertices" / name).with_suffix(".npz"))
            verts, camera = torch.from_numpy(mesh.vertices), torch.from_numpy(mesh.camera)
            guides = render_mesh(verts[None], faces, camera[None], [float(y) for y in ALL_YAWS], self.size)[0, :, 0]
            for yaw, guide in zip(ALL_YAWS, guides, strict=True):
                write_picture(folder / view_folder(yaw) / name, guide)


def _check(
    layout: str, train_ids: int, test_ids: int, images_per_id: int, image_size: tuple[int, int], cameras: int, seed: int
) -> tuple[int, int]:
    if layout not in LAYOUTS:
        raise InputError(f"write_world: layout must be one of {', '.join(LAYOUTS)}, got {layout!r}")
    people = (("num_train_ids", train_ids, 1), ("num_test_ids", test_ids, 1), ("images_per_id", images_per_id, 2))
    for name, value, low in (*people, ("seed", seed, 0)):
        if isinstance(value, bool) or not isinstance(value, int) or value < low:
            raise InputError(f"write_world: {name} must be an integer of at least {low}, got {value!r}")
    most = MOST_CAMERAS[layout]
    if isinstance(cameras, bool) or not isinstance(cameras, int) or not 4 <= cameras <= most:
        raise InputError(f"write_world: num_cameras must be an integer from 4 to {most} in the {layout} layout, got {cameras!r}")
    good = isinstance(image_size, (tuple, list)) and len(image_size) == 2
    if not good or not all(isinstance(n, int) and not isinstance(n, bool) and n >= 16 for n in image_size):
        raise InputError(f"write_world: image_size must be (height, width), integers of at least 16, got {image_size!r}")
    return int(image_size[0]), int(image_size[1])
