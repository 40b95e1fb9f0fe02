"""The CUDA source of reflect_pad on emulated threads: the bits of the CPU op in every thread order, no sanitizer finding."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from gcl_fast import ops
from tests.simt.harness import KERNEL_ORDERS, run

every_order = pytest.mark.parametrize("order", KERNEL_ORDERS)

CASES = {  # shape, pad, dtype, channels last, elements before the first: vectors and elements, counted in 32 and in 64 bits
    "float vectors": ((2, 8, 5, 4), 2, torch.float32, True, 0),
    "float, many vectors": ((2, 24, 12, 9), 3, torch.float32, True, 0),
    "half vectors": ((2, 16, 6, 5), 1, torch.float16, True, 0),
    "bfloat16 vectors": ((1, 32, 7, 9), 3, torch.bfloat16, True, 0),
    "bfloat16, off the vectors": ((1, 16, 4, 5), 3, torch.bfloat16, True, 1),
    "double": ((2, 3, 5, 4), 3, torch.float64, True, 0),
    "double vectors": ((2, 4, 5, 4), 2, torch.float64, True, 0),
    "channels first": ((2, 3, 6, 7), 2, torch.float32, False, 0),
    "channels first, many": ((3, 4, 11, 9), 2, torch.bfloat16, False, 0),
    "half elements": ((2, 5, 4, 3), 2, torch.float16, True, 0),
    "one pixel": ((2, 8, 1, 1), 0, torch.float32, True, 0),
    "no image": ((0, 8, 4, 4), 1, torch.float32, True, 0),
}
cases = pytest.mark.parametrize(
    ("case", "race"), [*((name, False) for name in CASES), ("float vectors", True), ("channels first", True)]
)


def emulated(kernel: str, case: str, x: Tensor, want: Tensor, order: str, race: bool) -> None:
    """Compares with what `kernel` makes of x."""
    _, pad, dtype, last, shift = CASES[case]

    def stored(t: Tensor) -> Tensor:
        flat = (t.permute(0, 2, 3, 1) if last else t).reshape(-1)
        return flat.view(torch.uint16) if dtype.itemsize == 2 else flat

    batch, channels, rows, columns = x.shape
    sizes = {"outer": batch, "inner": channels} if last else {"outer": batch * channels, "inner": 1}
    numbers = torch.cat([stored(x)[:0].new_zeros(shift), stored(x)])
    sizes |= {"rows": rows, "columns": columns, "pad": pad, "shift": shift, "bfloat16": int(dtype == torch.bfloat16)}
    out = run("reflect_pad", kernel, order, 7, race=race, **{"from": numbers.numpy()}, **sizes)["to"][shift:]
    expected = stored(want).numpy()
    assert out.dtype == expected.dtype and out.tobytes() == expected.tobytes(), f"{(out != expected).sum()} differ"


def drawn(*shape: int, dtype: torch.dtype, last: bool) -> Tensor:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(3)).to(dtype)
    return x.contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)


@every_order
@cases
def test_padding_gives_the_bits_of_the_cpu_op(case: str, race: bool, order: str) -> None:
    shape, pad, dtype, last, _ = CASES[case]
    x = drawn(*shape, dtype=dtype, last=last)
    emulated("forward", case, x, ops.reflect_pad(x, pad), order, race)


@every_order
@cases
def test_its_backward_gives_the_bits_of_the_cpu_op(case: str, race: bool, order: str) -> None:
    (*some, height, width), pad, dtype, last, _ = CASES[case]
    grad = drawn(*some, height + 2 * pad, width + 2 * pad, dtype=dtype, last=last)
    emulated("backward", case, grad, torch.ops.gcl_fast.reflect_pad_backward(grad, pad), order, race)
