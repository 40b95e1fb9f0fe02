"""How much of its picture a body shows: a guide that shows nothing has no gradient that a generator could learn from."""

from __future__ import annotations

import itertools
import pathlib
import statistics
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from gcl_fast.errors import GclError
from gcl_fast.meshes.mesh_files import Mesh
from gcl_fast.meshes.sources import MeshSource
from gcl_fast.ops import render_mesh
from gcl_fast.progress import counted
from gcl_fast.records import Record

# Between the darkest and the lightest grey of a picture, of 1: a body is 0.25 at least on 0, a compressed black picture
# stays below. Instance norms of a picture without any contrast multiply gradients until they are infinite.
LEAST_CONTRAST = 0.1
USUAL = (0.03, 0.9)  # share of its picture that a body covers; outside it is worth a look


def shows_body(grey: Tensor) -> Tensor:
    """Whether something can be seen in each picture: grey [..., H, W] in [0, 1] -> [...] bool. Nothing waits for a device."""
    return grey.amax((-2, -1)) - grey.amin((-2, -1)) > LEAST_CONTRAST


def covered_share(mesh: Mesh, image_size: tuple[int, int]) -> float:
    """The share, 0 to 1, of a picture of image_size (height, width) that a body covers in its photo's own view."""
    assert mesh.faces is not None
    body = (torch.from_numpy(array)[None] for array in (mesh.vertices, mesh.camera))
    vertices, camera = body
    picture = render_mesh(vertices, torch.from_numpy(mesh.faces), camera, [0.0], image_size)
    return float((picture > 0).float().mean())


def coverage_lines(shares: Mapping[pathlib.Path, float]) -> list[str]:
    """What an import says of the shares of their pictures that bodies cover, image by image: the median, and which to look at."""
    if not shares:
        return []
    lines = [f"the bodies cover {statistics.median(shares.values()):.0%} of their pictures (median)"]
    for title, first, last in (
        ("outside the picture (a wrong focal length or camera?): training refuses such a mesh", -1.0, 0.0),
        (f"covering less than {USUAL[0]:.0%} of the picture: --preview shows them", 0.0, USUAL[0]),
        (f"covering more than {USUAL[1]:.0%} of the picture: --preview shows them", USUAL[1], 1.0),
    ):
        doubtful = [f"{path.name} {share:.1%}" for path, share in shares.items() if first < share <= last]
        if doubtful:
            lines.append(
                f"{counted(len(doubtful), 'body')} {title}: " + ", ".join(doubtful[:8]) + (" ..." if len(doubtful) > 8 else "")
            )
    return lines


def find_unusable(
    source: MeshSource, records: Sequence[Record], *, progress: Callable[[int, int], None] | None = None
) -> list[tuple[Record, str]]:
    """Read the mesh of every record in its photo's own view, and list those that cannot guide a generator.

    Arguments:
        source: where the meshes are.
        records: those that have one.
        progress: called with (meshes done, meshes in all) after each.

    Returns: (record, why): files that cannot be read, and pictures in which no body is seen. In the order of the records.
    """
    unusable: list[tuple[Record, str]] = []
    with ThreadPoolExecutor(2) as pool:
        reasons = pool.map(why_unusable, itertools.repeat(source), records)
        for done, (record, reason) in enumerate(zip(records, reasons, strict=True), start=1):
            if reason is not None:
                unusable.append((record, reason))
            if progress is not None:
                progress(done, len(records))
    return unusable


def why_unusable(source: MeshSource, record: Record) -> str | None:
    """Why the mesh of a record cannot guide a generator, or None where it can."""
    try:
        picture = source.render(record, [0.0])[0]  # [H, W]
    except GclError as error:
        return " ".join(str(error).split())
    if bool(shows_body(picture)):
        return None
    name = pathlib.PurePath(record.path).name
    if float(picture.amax()) > LEAST_CONTRAST:
        return (
            f"the mesh of {name} is the same grey everywhere: the camera is inside the body, or the picture is no rendered body"
        )
    return f"the mesh of {name} covers no pixel: the body is beside or behind the picture, or has no triangles"
