"""The CUDA source of render_mesh on emulated threads: the bits of the CPU op in every thread order, no sanitizer finding."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gcl_fast import ops  # noqa: F401  registers the operator
from tests.simt.harness import KERNEL_ORDERS, run
from tests.test_simt import same_bits
from tests.toy_meshes import EYE, WEAK, ellipsoid

every_order = pytest.mark.parametrize("order", KERNEL_ORDERS)

F4, F8 = torch.float32, torch.float64
CASES = {  # type, index, camera, views, size
    "weak": (F4, torch.int32, WEAK, 2, (20, 11)),
    "weak double": (F8, torch.int64, WEAK, 2, (20, 11)),
    "eye": (F4, torch.int64, EYE, 3, (17, 23)),
    "eye double": (F8, torch.int32, EYE, 1, (17, 23)),
    "many views": (F4, torch.int32, WEAK, 35, (5, 3)),
    "one pixel": (F4, torch.int32, EYE, 2, (1, 1)),
    "no middle": (F4, torch.int32, WEAK, 2, (20, 11)),
    "no face": (F8, torch.int32, WEAK, 2, (5, 4)),
    "no vertex": (F4, torch.int32, WEAK, 2, (5, 4)),
    "no view": (F4, torch.int32, WEAK, 0, (5, 4)),
    "no pixel": (F4, torch.int32, WEAK, 2, (0, 4)),
    "no body": (F8, torch.int32, EYE, 2, (5, 4)),
}
RACE = ("weak", "eye double")


def inputs(case: str) -> dict[str, torch.Tensor]:
    dtype, index, camera, views, _ = CASES[case]
    verts, faces = ellipsoid()
    bodies = torch.stack((verts, 0.8 * verts + 0.05))
    bodies[1, 4, 1] = float("nan")  # its faces drop out
    bodies[1, 7] *= 100  # large faces
    if case == "no middle":
        bodies[1, 5, 0] = float("nan")
    angle = torch.arange(views, dtype=torch.float64) * 0.6
    bodies = bodies[:0] if case == "no body" else bodies[:, :0] if case == "no vertex" else bodies
    return {
        "verts": bodies.to(dtype),
        "faces": (faces[:0] if case in ("no face", "no vertex") else faces).to(index),
        "camera": camera.expand(len(bodies), -1).to(dtype).contiguous(),
        "turns": torch.stack((angle.cos(), angle.sin()), -1).to(dtype),
    }


# How pictures are drawn: fused or not, shared memory of a block, bodies at once.
WAYS = {"plain": (0, 0, 2), "body by body": (0, 0, 1), "fused": (1, 227 << 10, 2), "strips": (1, (18 << 10) + 1200, 1)}


def emulated(
    tensors: dict[str, torch.Tensor], size: tuple[int, int], order: str, way: str, on_host: bool, race: bool = False
) -> np.ndarray:
    sizes = {"height": size[0], "width": size[1], "turns_on_host": int(on_host)}
    sizes |= dict(zip(("fused", "shared_bytes", "bodies_at_once"), WAYS[way], strict=True))
    return run("render", "render", order, 7, race=race, **{n: t.numpy() for n, t in tensors.items()}, **sizes)["image"]


@every_order
@pytest.mark.parametrize(("on_host", "way"), [(False, "plain"), (True, "body by body"), (True, "fused"), (False, "strips")])
@pytest.mark.parametrize(("case", "race"), [*((name, False) for name in CASES), *((name, True) for name in RACE)])
def test_render_gives_the_bits_of_the_cpu_op(case: str, race: bool, on_host: bool, way: str, order: str) -> None:
    tensors, size = inputs(case), CASES[case][4]
    want = torch.ops.gcl_fast.render_mesh(*tensors.values(), *size)
    same_bits("image", emulated(tensors, size, order, way, on_host, race), want)
    if not case.startswith(("no ", "one ")):
        assert all(0.05 < (body > 0).double().mean() < 0.95 for body in want)
    if case == "no middle":
        assert want[0].any() and not want[1].any()


@every_order
def test_a_face_that_names_no_vertex_is_skipped(order: str) -> None:
    tensors = inputs("weak")
    want = torch.ops.gcl_fast.render_mesh(*tensors.values(), 20, 11)
    wrong = torch.tensor([[0, 1, tensors["verts"].shape[1]], [-1, 2, 3], [2**31 - 1, 0, 1]], dtype=torch.int32)
    tensors["faces"] = torch.cat((tensors["faces"], wrong))
    same_bits("image", emulated(tensors, (20, 11), order, "plain", True), want)
