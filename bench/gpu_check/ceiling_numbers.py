"""The ceilings of this GPU, measured: a copy, a read, products in float32, TF32 and bfloat16. All else stands beside them."""

from __future__ import annotations

import torch

from bench.floors import Work
from bench.gpu_check.catalogue import Number
from bench.gpu_check.measuring import Prepared


def prepare(number: Number, device: torch.device) -> Prepared:
    what, size = number.case["what"], number.case["bytes"]
    if what in ("copy", "read"):
        source = torch.ones(size // 8 if what == "copy" else size // 4, device=device)
        target = torch.empty_like(source)

        def check_memory() -> str:
            if what == "copy":
                target.copy_(source)
                assert torch.equal(target, source)
                return "the copy equals its source"
            assert float(source.sum()) == source.numel() or source.numel() > 1 << 24
            return "the sum of ones"

        call = (lambda: target.copy_(source)) if what == "copy" else (lambda: source.sum())
        moved = (2 if what == "copy" else 1) * source.numel() * 4
        return Prepared([call], check_memory, Work(moved), exact=None, extra={"bytes_per_call": moved})
    side = number.case["side"]
    kind = what.split()[0]
    dtype = torch.bfloat16 if kind == "bf16" else torch.float32
    a, b = (torch.randn(side, side, device=device, generator=_rng(device, n)).to(dtype) for n in range(2))
    out = torch.empty_like(a)

    matmul = torch.backends.cuda.matmul
    setting = "fp32_precision" if hasattr(matmul, "fp32_precision") else "allow_tf32"
    chosen = {"fp32_precision": "tf32" if kind == "tf32" else "ieee", "allow_tf32": kind == "tf32"}[setting]

    def product() -> torch.Tensor:
        before = getattr(matmul, setting)
        setattr(matmul, setting, chosen)
        try:
            return torch.mm(a, b, out=out)
        finally:
            setattr(matmul, setting, before)

    def check_product() -> str:
        rows = slice(0, min(side, 16))
        want = a[rows].double() @ b.double()
        got = product()[rows].double()
        tolerance = {"fp32": 1e-5, "tf32": 5e-3, "bf16": 2e-2}[kind]
        assert float((got - want).abs().max()) <= tolerance * float(want.abs().max())
        return f"16 rows within {tolerance} of float64"

    operations = 2.0 * side**3
    work = Work(3 * a.numel() * a.element_size(), **{"bf16" if kind == "bf16" else "fp32": operations})
    return Prepared(
        [product], check_product, None if kind == "tf32" else work, exact=None, extra={"operations_per_call": operations}
    )


def _rng(device: torch.device, seed: int) -> torch.Generator:
    return torch.Generator(device).manual_seed(seed)
