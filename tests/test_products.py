"""Products in full precision: what they set aside of the program's own settings, and that all of it comes back."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from gcl_fast import ops
from gcl_fast.ops._products import COLUMNS, exact_product, exact_products

BACKENDS = torch.backends
FOLLOWERS = ("cuda.matmul", "mkldnn.matmul")


def backend(name: str) -> object:
    module, _, part = name.partition(".")
    return getattr(getattr(BACKENDS, module), part)


def precisions() -> list[str]:
    """Of the backends, and in torch's old words, which it refuses to answer in where the new ones were used."""
    try:
        old = torch.get_float32_matmul_precision()
    except RuntimeError:
        old = "refused"
    return [*(backend(name).fp32_precision for name in FOLLOWERS), old]


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    yield
    torch.set_float32_matmul_precision("highest")
    BACKENDS.fp32_precision = "none"
    for name in FOLLOWERS:
        backend(name).fp32_precision = "none"
    BACKENDS.cuda.matmul.allow_fp16_accumulation = False


def set_all() -> None:
    BACKENDS.fp32_precision = "tf32"


def set_one() -> None:
    BACKENDS.cuda.matmul.fp32_precision = "tf32"


@pytest.mark.parametrize("allow", [set_all, set_one, lambda: torch.set_float32_matmul_precision("medium"), lambda: None])
def test_products_are_float32_s_and_settings_come_back(allow) -> None:
    allow()
    before = precisions()
    with exact_products(torch.device("cpu")), pytest.raises(ValueError, match="inside"), exact_products(torch.device("cpu")):
        assert not set(precisions()) & {"tf32", "bf16"} and torch.get_float32_matmul_precision() == "highest"
        raise ValueError("inside")
    assert precisions() == before


def test_a_setting_that_was_followed_is_followed_again() -> None:
    BACKENDS.fp32_precision = "tf32"
    ops.knn(torch.rand(9, 4), 3)
    assert precisions()[:2] == ["tf32", "tf32"]
    BACKENDS.fp32_precision = "ieee"
    assert precisions()[:2] == ["ieee", "ieee"]


def test_who_leaves_first_leaves_the_settings_to_the_others() -> None:
    """Two threads may multiply at once, and the settings are the process's."""
    torch.set_float32_matmul_precision("medium")
    BACKENDS.cuda.matmul.allow_fp16_accumulation = True
    first, second = exact_products(torch.device("cpu")), exact_products(torch.device("cpu"))
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert torch.get_float32_matmul_precision() == "highest" and not BACKENDS.cuda.matmul.allow_fp16_accumulation
    second.__exit__(None, None, None)
    assert torch.get_float32_matmul_precision() == "medium" and BACKENDS.cuda.matmul.allow_fp16_accumulation


@pytest.mark.parametrize("allowed", [False, True])
def test_halves_are_summed_in_float32(allowed: bool) -> None:
    """torch refuses products of halves with float32 results where sums in half precision are allowed."""
    BACKENDS.cuda.matmul.allow_fp16_accumulation = allowed
    with exact_products(torch.device("cuda")):
        assert not BACKENDS.cuda.matmul.allow_fp16_accumulation
    assert BACKENDS.cuda.matmul.allow_fp16_accumulation == allowed


def test_neighbours_are_found_where_halves_may_be_summed_in_half_precision(device: torch.device) -> None:
    x = torch.randn(4200, 16, generator=torch.Generator().manual_seed(0)).to(device)
    want = ops.knn(x, 5)
    BACKENDS.cuda.matmul.allow_fp16_accumulation = True
    got = ops.knn(x, 5)
    assert torch.equal(got.index, want.index) and torch.equal(got.similarity, want.similarity)


def test_autocast_is_set_aside() -> None:
    x = torch.randn(5, 7)
    with torch.autocast("cpu", torch.bfloat16):
        assert exact_product(x, x).dtype == torch.float32


def test_wide_products_in_pieces_are_the_whole(device: torch.device) -> None:
    left, right = torch.randn(3, 8).to(device), torch.randn(2 * COLUMNS + 5, 8).to(device)
    assert (exact_product(left, right) - (left.double() @ right.double().T)).abs().max() < 1e-5
