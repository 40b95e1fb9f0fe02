"""The memory contrast of one iteration: `ops.gcl_memory_step_`, its backward and the moved bank; beside it

reference  `gcl_fast.reference`, plain PyTorch
eager      a product with the bank, a mask of sampled negatives, cross-entropy, by PyTorch as one would write it
compiled   the same through torch.compile
official   the algorithm of the GCL release: the bank cloned, two products with it, a loop over the batch that draws the negatives
           of each row with randperm, a loop of updates
read       one read of the bank (its sum): what memory alone allows

and, with `kind=clusters`, cross-entropy over all centroids (as the cluster memories take it: a product where there are few,
`bank_nce` without sampling where there are many) against a product and cross_entropy (eager). extra_bytes: what a call
allocates beyond its arguments at its peak.
"""

from __future__ import annotations

import ctypes
import gc
import os
import sys
import threading
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from gcl_fast import ops, reference
from gcl_fast.ops.centroids import centroid_cross_entropy

OP = "bank"
IMPLEMENTATIONS = ("native", "reference", "eager", "compiled", "official", "read")
CHECK = "losses and gradients within 1e-5 (relative to the largest) of the reference in float64, the bank after it within 1e-6"
QUICK = {"kind": ["images"], "batch": [16], "rows": [2048], "dim": [256], "negatives": [1024], "dtype": ["float32"]}
FULL = {
    "kind": ["images", "clusters"],
    "batch": [16, 64],
    "rows": [1000, 12936, 1_000_000],
    "dim": [256, 2048],
    "negatives": [8192],
    "dtype": ["float32", "bfloat16"],
}
TEMPERATURE, MOMENTUM = 0.04, 0.2
LARGEST = 1_000_000 * 256  # entries of a bank


def inputs(case: dict, device: torch.device, dtype: torch.dtype | None = None) -> dict[str, Tensor]:
    rows, dim, batch = case["rows"], case["dim"], case["batch"]
    rng = torch.Generator().manual_seed(0)
    bank = F.normalize(torch.randn(rows, dim, generator=rng), dim=1)
    labels = torch.randint(-1, max(rows // 20, 1), (rows,), generator=rng)
    index = torch.randperm(rows, generator=rng)[:batch]
    labels[index] = labels[index].clamp_min(0)
    f, view = (torch.randn(batch, dim, generator=rng) for _ in range(2))
    dtype = dtype or getattr(torch, case["dtype"])
    real = torch.float64 if dtype == torch.float64 else torch.float32
    return {
        "bank": bank.to(device, dtype),
        "labels": labels.to(device),
        "index": index.to(device),
        "f": f.to(device, real),
        "view": view.to(device, real),
    }


def step(module, case: dict, given: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Loss, and the gradients of both features, of one iteration; the bank is updated where images are remembered."""
    f, view = (given[name].detach().requires_grad_() for name in ("f", "view"))
    bank, labels, index = given["bank"], given["labels"], given["index"]
    if case["kind"] == "clusters":
        if module is ops:
            loss = centroid_cross_entropy(f, bank, index, TEMPERATURE)
        else:
            loss = module.bank_nce(f, bank, torch.arange(len(bank), device=bank.device), index, temperature=TEMPERATURE).mean()
        (grad,) = torch.autograd.grad(loss, f)
        return loss.detach(), grad, grad
    arguments = {"temperature": TEMPERATURE, "num_negatives": case["negatives"], "seed": 3, "momentum": MOMENTUM}
    loss = module.gcl_memory_step_(f, view, bank, labels, index, **arguments).sum()
    return loss.detach(), *torch.autograd.grad(loss, (f, view))


def contrast(f: Tensor, view: Tensor, bank: Tensor, allowed: Tensor, rows: Tensor, count: int) -> Tensor:
    """The three terms by a masked product; allowed [B, N], rows [B, 3] the positives. Negatives: the largest of random keys."""
    f, view, bank = F.normalize(f, dim=1), F.normalize(view, dim=1), bank.to(f.dtype)
    logits = view @ bank.T / TEMPERATURE  # [B, N]
    keys = torch.rand_like(logits).masked_fill(~allowed, -1.0)
    chosen = torch.zeros_like(allowed).scatter_(1, keys.topk(min(count, len(bank)), dim=1).indices, True) & allowed
    negative = logits.masked_fill(~chosen, float("-inf"))
    query = torch.stack([view, view, f], 1)  # [B, 3, D]
    positive = (query * bank[rows]).sum(2) / TEMPERATURE  # [B, 3]
    both = torch.cat([positive.unsqueeze(2), negative.unsqueeze(1).expand(-1, 3, -1)], 2)
    return F.cross_entropy(both.flatten(0, 1), torch.zeros(both.shape[0] * 3, dtype=torch.int64, device=f.device)) * 3


def eager_step(function: Callable[..., Tensor], case: dict, given: dict[str, Tensor]) -> Tensor:
    f, view = (given[name].detach().requires_grad_() for name in ("f", "view"))
    bank, labels, index = given["bank"], given["labels"], given["index"]
    if case["kind"] == "clusters":
        loss = F.cross_entropy(f @ bank.to(f.dtype).T / TEMPERATURE, index)
        return torch.autograd.grad(loss, f)[0]
    same = labels[index][:, None] == labels  # [B, N]
    others = torch.multinomial(same.float(), 2, replacement=True)  # [B, 2]
    loss = function(f, view, bank, ~same, torch.cat([index[:, None], others], 1), case["negatives"])
    grads = torch.autograd.grad(loss, (f, view))
    bank[index] = F.normalize(MOMENTUM * bank[index].float() + (1 - MOMENTUM) * F.normalize(f.detach(), dim=1), dim=1).to(
        bank.dtype
    )
    return grads[0]


def official_step(case: dict, given: dict[str, Tensor]) -> Tensor:
    f, view = (given[name].detach().requires_grad_() for name in ("f", "view"))
    labels, index = given["labels"], given["index"]
    kept = given["bank"].clone()  # autograd keeps it, the update comes before the backward
    unit, unit_view = F.normalize(f, dim=1), F.normalize(view, dim=1)
    photo, generated = unit @ kept.T, unit_view @ kept.T  # [B, N]
    losses = [[], [], []]
    for b, row in enumerate(index.tolist()):
        same = (labels == labels[row]).nonzero()[:, 0]
        others = (labels != labels[row]).nonzero()[:, 0]
        negatives = others[torch.randperm(len(others), device=others.device)[: case["negatives"]]]
        draws = same[torch.randint(len(same), (2,), device=same.device)]
        for k, positive in enumerate((generated[b, row], generated[b, draws[0]], photo[b, draws[1]])):
            logits = torch.cat([positive[None], generated[b, negatives]])[None] / TEMPERATURE
            losses[k].append(F.cross_entropy(logits, torch.zeros(1, dtype=torch.int64, device=f.device)))
    loss = sum(torch.stack(part).mean() for part in losses)
    grads = torch.autograd.grad(loss, (f, view))
    for row, new in zip(index.tolist(), unit.detach(), strict=True):
        moved = MOMENTUM * given["bank"][row] + (1 - MOMENTUM) * new
        given["bank"][row] = moved / moved.norm()
    return grads[0]


def left_out(implementation: str, case: dict) -> bool:
    """Other batches and types at Market-1501's size alone; a million rows where they fit; few centroids."""
    unusual = (case["batch"] != 16) + (case["dtype"] != "float32")
    if implementation == "official" and case["dtype"] != "float32":
        return True
    if case["rows"] * case["dim"] > LARGEST or unusual > 1 or (unusual and (case["rows"] != 12936 or case["kind"] == "clusters")):
        return True
    return case["kind"] == "clusters" and (case["rows"] > 12936 or implementation in ("official", "compiled"))


def fits(case: dict) -> bool:
    return case["rows"] * case["dim"] <= 1 << 25


def check(case: dict, device: torch.device) -> None:
    if case["rows"] > 20000:
        case = {**case, "rows": 20000}
    given, exact = inputs(case, device), inputs(case, device, torch.float64)
    exact["bank"] = given["bank"].double()
    got, want = step(ops, case, given), step(reference, case, exact)
    for a, b in zip(got, want, strict=True):
        assert (a - b).abs().max() <= 1e-5 * b.abs().max()
    tolerance = 1e-6 if case["dtype"] == "float32" else 8e-3
    assert (given["bank"].double() - exact["bank"]).abs().max() <= tolerance


def call(implementation: str, case: dict, device: torch.device) -> Callable[[], object]:
    given = inputs(case, device)
    if implementation in ("native", "reference"):
        module = ops if implementation == "native" else reference
        return lambda: step(module, case, given)
    if implementation == "official":
        return lambda: official_step(case, given)
    if implementation == "read":
        return lambda: given["bank"].sum()
    function = torch.compile(contrast) if implementation == "compiled" else contrast
    return lambda: eager_step(function, case, given)


def extra_bytes(run: Callable[[], object], device: torch.device) -> int:
    """What a call adds at its peak: of the CUDA allocator, or of the process's resident memory, sampled while it runs."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        return torch.cuda.max_memory_allocated() - before
    if sys.platform == "linux":  # what earlier calls freed is resident yet, and would hide what this one takes
        ctypes.CDLL(None).malloc_trim(0)
    before = peak = resident()
    done = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.is_set():
            peak = max(peak, resident())
            time.sleep(0.0002)

    watcher = threading.Thread(target=watch)
    watcher.start()
    run()
    done.set()
    watcher.join()
    return peak - before


def resident() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_bank(case, implementation, device, measure, benchmark) -> None:
    measure()
    run = call(implementation, case, device)
    run()
    readings = [extra_bytes(run, device) for _ in range(5)]  # the kernel counts pages in batches
    benchmark.extra_info["extra_bytes"] = sorted(readings)[2]
