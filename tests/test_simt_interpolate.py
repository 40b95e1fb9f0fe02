"""The CUDA source of interpolate on emulated threads: the bits of the CPU op in every thread order, no sanitizer finding."""

from __future__ import annotations

import pytest
import torch

from gcl_fast import ops
from gcl_fast.ops.interpolate import _entries_by_row
from tests.simt.harness import KERNEL_ORDERS, run
from tests.test_simt import same_bits
from tests.test_simt_rasterize import soup

every_order = pytest.mark.parametrize("order", KERNEL_ORDERS)

CASES = {
    "float": (2, 40, 60, (13, 11), torch.float32, 3, False),
    "double": (2, 40, 60, (11, 13), torch.float64, 5, False),
    "shared": (3, 24, 150, (9, 7), torch.float32, 2, True),
    "many channels": (2, 20, 60, (5, 6), torch.float32, 6, False),
    "one pixel": (3, 12, 20, (1, 1), torch.float64, 1, True),
    "no face": (2, 12, 0, (5, 4), torch.float32, 3, False),
    "no vertex": (2, 0, 0, (5, 4), torch.float32, 3, True),
    "no pixel": (2, 12, 8, (0, 4), torch.float32, 3, False),
    "no image": (0, 12, 8, (5, 4), torch.float64, 3, False),
    "no channel": (2, 12, 8, (3, 4), torch.float64, 0, False),
}


def inputs(case: str) -> dict[str, torch.Tensor]:
    batch, num_verts, num_faces, size, dtype, channels, shared = CASES[case]
    generator = torch.Generator().manual_seed(4)
    if num_verts:
        verts, faces = soup(batch, num_verts, num_faces, size, 1, dtype, torch.int32)
        raster = ops.rasterize(verts, faces, size)
        face_id, bary = raster.face_id, raster.bary
    else:
        faces, face_id = torch.zeros(0, 3, dtype=torch.int32), torch.ones(batch, *size, dtype=torch.int32)
        bary = torch.ones(batch, *size, 3, dtype=dtype)
    shape = (num_verts, channels) if shared else (batch, num_verts, channels)
    attributes = torch.randn(shape, generator=generator, dtype=dtype)
    return {"attributes": attributes, "faces": faces, "face_id": face_id, "bary": bary}


def arrays(tensors: dict[str, torch.Tensor], case: str) -> dict:
    return {name: value.numpy() for name, value in tensors.items()} | {"shared": int(CASES[case][-1])}


@every_order
@pytest.mark.parametrize(("case", "race"), [*((name, False) for name in CASES), ("float", True), ("shared", True)])
def test_interpolate_gives_the_bits_of_the_cpu_op(case: str, race: bool, order: str) -> None:
    tensors = inputs(case)
    want = ops.interpolate(**tensors)
    out = run("interpolate", "forward", order, 7, race=race, **arrays(tensors, case))
    same_bits("out", out["out"], want)
    if case == "float":
        assert (want != 0).any() and (want == 0).any()


@every_order
@pytest.mark.parametrize(("case", "race"), [*((name, False) for name in CASES), ("float", True), ("shared", True)])
def test_its_backward_gives_the_bits_of_the_cpu_op(case: str, race: bool, order: str) -> None:
    tensors = inputs(case)
    generator = torch.Generator().manual_seed(5)
    grad_out = torch.randn(ops.interpolate(**tensors).shape, generator=generator, dtype=tensors["bary"].dtype)
    entry_order, entry_begin = _entries_by_row(tensors["attributes"], tensors["faces"], tensors["face_id"])
    more = {"grad_out": grad_out, "entry_order": entry_order, "entry_begin": entry_begin}
    want = torch.ops.gcl_fast.interpolate_backward(grad_out, *tensors.values(), entry_order, entry_begin, True, True)
    out = run("interpolate", "backward", order, 7, race=race, **arrays(tensors | more, case))
    same_bits("grad_attributes", out["grad_attributes"].reshape(want[0].shape), want[0])
    same_bits("grad_bary", out["grad_bary"].reshape(want[1].shape), want[1])
    if case == "float":
        assert (want[0] != 0).any() and (want[1] != 0).any()
