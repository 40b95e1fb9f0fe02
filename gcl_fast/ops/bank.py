"""Contrast against a memory bank: the loss of a batch against its positives and sampled negatives, and the bank's update.

The kernels read the bank once for each 16 queries: a block of its rows gives the logits of all of them, the softmax so far and
the weighted sum of the rows, which is the gradient (attention whose keys are its values). Nothing of the size of the bank is made
or kept.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from gcl_fast import _native
from gcl_fast.ops import _bank_autograd
from gcl_fast.ops._check import ANY_FLOATS, INTEGERS, WHOLE, Shapes, check_memory, check_rows, flag, no_tangent, working_dtype


def checked_seed(shapes: Shapes, seed: int | Tensor, device: torch.device) -> Tensor:
    """The seed as a 0-d int64 tensor on `device`; a Python integer counts modulo 2^64."""
    if isinstance(seed, Tensor):
        shapes.tensor("seed", seed, (), INTEGERS)
        return seed.to(device, torch.int64, non_blocking=True).reshape(())
    if isinstance(seed, np.integer):
        seed = int(seed)
    if isinstance(seed, bool) or not isinstance(seed, (int, torch.SymInt)):
        raise TypeError(f"{shapes.op}: seed must be an integer or a 0-d int64 tensor, got {type(seed).__name__}")
    return torch.full((), (seed + (1 << 63)) % (1 << 64) - (1 << 63), dtype=torch.int64, device=device)


def _checked_count(shapes: Shapes, num_negatives: int | None) -> int:
    """As the kernels take it: -1 for all."""
    if num_negatives is None:
        return -1
    if isinstance(num_negatives, bool) or not isinstance(num_negatives, WHOLE):
        raise TypeError(f"{shapes.op}: num_negatives must be an integer or None, got {type(num_negatives).__name__}")
    if num_negatives < 1:
        raise ValueError(f"{shapes.op}: num_negatives must be at least 1, or None for all, got {num_negatives}")
    return min(int(num_negatives), (1 << 63) - 1)


def bank_nce(
    query: Tensor,
    bank: Tensor,
    labels: Tensor,
    positive: Tensor,
    *,
    positive_query: Tensor | None = None,
    temperature: float,
    num_negatives: int | None = None,
    seed: int | Tensor = 0,
) -> Tensor:
    """InfoNCE of each query against bank rows: cross-entropy of one positive row among sampled negative rows.

        loss[i, p] = -log( exp(a_ip / T) / (exp(a_ip / T) + sum over n in Neg(i) of exp(query_i . bank_n / T)) )
        a_ip = positive_query_ip . bank[positive_ip], where positive_query_ip is query_i if none is given

    Neg(i): the bank rows whose label differs from that of the row's first positive. Rows of no class (a label below 0) are
    negatives of every class; if the first positive itself has none its negatives are all rows but itself. With K, a uniform
    sample of K of them without replacement (all when fewer), the same for all P positives, and a function of (seed, i, labels)
    alone, hence the same on every device: `gcl_fast.reference.bank` defines it. A row without negatives has loss 0.

    One read of the bank serves loss and gradient; the workspace is some B x D, kept for the backward are B x (P + 1) x D. CUDA
    graphs may capture it.

    Deterministic: the same bits for any number of threads, and on one GPU from run to run; CPU and GPU draw the same negatives
    and differ by rounding.

    Arguments:
        query: [B, D] float32, float64, bfloat16 or float16, used as given: normalise it first where cosines are meant.
        bank: [N, D] float, may differ in dtype from the query; a constant (no gradient). It is neither copied nor kept for the
            backward, so it may be updated between the two.
        labels: [N] integers, the class of each bank row; below 0 (-1): no class.
        positive: [B] or [B, P] integers, bank rows.
        positive_query: [B, P, D] ([B, D] where positive is [B]), replaces the query in the positive term only.
        temperature: T above 0.
        num_negatives: K at least 1, or None for all.
        seed: integer (modulo 2^64), or a 0-d integer tensor, which needs no new trace or graph when it changes.

    Returns:
        loss: [B] or [B, P] as positive, at least 0; float64 if query or bank is, else float32.

    Gradient:
        To query and positive_query, once differentiable.

    Errors:
        TypeError, ValueError: an argument of the wrong type, shape or device; the message names it.
        IndexRangeError: a row of positive outside the bank, on CPU. Compiled CPU code raises RuntimeError; on CUDA, where nothing
            is read back, the loss is NaN.

    Source:
        InfoNCE of van den Oord et al., arXiv 1807.03748, equation 4.
    """
    shapes = Shapes("bank_nce")
    shapes.tensor("query", query, ("B", "D"), ANY_FLOATS)
    shapes.tensor("bank", bank, ("N", "D"), ANY_FLOATS, device_of=("query", query))
    shapes.tensor("labels", labels, ("N",), INTEGERS, device_of=("query", query))
    flat = isinstance(positive, Tensor) and positive.dim() == 1
    shapes.tensor("positive", positive, ("B",) if flat else ("B", "P"), INTEGERS, device_of=("query", query))
    if positive_query is not None:
        shape = ("B", "D") if flat else ("B", "P", "D")
        shapes.tensor("positive_query", positive_query, shape, ANY_FLOATS, device_of=("query", query))
    if not flat and shapes["P"] == 0:
        raise ValueError("bank_nce: positive must hold at least one row per query, got shape [B, 0]")
    temperature = float(shapes.number("temperature", temperature, 0.0, open_low=True))
    count = _checked_count(shapes, num_negatives)
    seed = checked_seed(shapes, seed, query.device)
    check_rows("bank_nce", "positive", positive, shapes["N"])
    no_tangent("bank_nce", query=query, positive_query=positive_query)
    _native.require("bank_nce", query.device)

    dtype = working_dtype(query, bank)
    rows = (positive[:, None] if flat else positive).long()  # [B, P]
    if positive_query is not None:
        positive_query = positive_query.to(dtype).reshape(*rows.shape, shapes["D"])  # [B, P, D]
    query = query.to(dtype)
    with_grad = torch.is_grad_enabled() and (query.requires_grad or (positive_query is not None and positive_query.requires_grad))
    arguments = query, bank.detach(), labels.long(), rows, positive_query, temperature, count, seed, with_grad
    loss: Tensor = torch.ops.gcl_fast.bank_nce(*arguments)[0]  # [B, P]
    return loss[:, 0] if flat else loss


def draw_positives(labels: Tensor, index: Tensor, *, seed: int | Tensor) -> Tensor:
    """Random bank rows of the same class as row index[i]: the P and P' of `gcl_memory_loss`.

    Deterministic: a function of (seed, i, labels) alone, the same on every device.

    Arguments:
        labels: [N] integers, the class of each bank row; below 0 (-1): no class, only the row itself.
        index: [B] integers, bank rows.
        seed: integer (modulo 2^64), or a 0-d integer tensor.

    Returns:
        [B, 2] int64, two independent uniform draws; each may be the row itself.

    Gradient:
        None: not differentiable.

    Errors:
        TypeError, ValueError: an argument of the wrong type, shape or device; the message names it.
        IndexRangeError: a row of index outside the bank, on CPU. Compiled CPU code raises RuntimeError; on CUDA, where nothing is
            read back, it draws itself.
    """
    shapes = Shapes("draw_positives")
    shapes.tensor("labels", labels, ("N",), INTEGERS)
    shapes.tensor("index", index, ("B",), INTEGERS, device_of=("labels", labels))
    seed = checked_seed(shapes, seed, labels.device)
    check_rows("draw_positives", "index", index, shapes["N"])
    _native.require("draw_positives", labels.device)
    rows: Tensor = torch.ops.gcl_fast.bank_draw_positives(labels.long(), index.long(), seed)
    return rows


def gcl_memory_loss(
    f: Tensor,
    f_nv: Tensor,
    bank: Tensor,
    labels: Tensor,
    index: Tensor,
    *,
    temperature: float = 0.04,
    num_negatives: int | None = 8192,
    seed: int | Tensor,
) -> Tensor:
    """The memory (rotation) contrast of GCL: three cross-entropies of photo and novel view against the bank.

    With f and f_nv L2-normalised here (a zero vector stays zero), n(i) = index[i], P and P' two random rows with the label
    of n(i) (maybe itself; itself alone if it has no class), Neg the sampled negatives of `bank_nce`, per row

        self                     CE(f_nv . bank[n(i)];  f_nv . bank[Neg])
        class                    CE(f_nv . bank[P];     f_nv . bank[Neg])
        class without generator  CE(f    . bank[P'];    f_nv . bank[Neg])

    Deterministic as `bank_nce` is: everything random is a function of (seed, position in the batch, labels), the same on every
    device.

    Arguments:
        f, f_nv: [B, D] float, features of photos and of their novel views, of any length.
        bank: [N, D] float, rows of length 1; a constant that may be updated before the backward.
        labels: [N] integers, the class of each bank row; below 0 (-1): no class.
        index: [B] integers, the bank row of each image.
        temperature, num_negatives, seed: as in `bank_nce`.

    Returns:
        [3], the means of the three terms over the batch (0 for an empty batch); their sum is the paper's loss. float64 if f, f_nv
        or bank is, else float32.

    Gradient:
        To f (third term's positive only) and f_nv, once differentiable.

    Errors:
        TypeError, ValueError: an argument of the wrong type, shape or device; the message names it.
        IndexRangeError: a row of index outside the bank, on CPU; compiled as `bank_nce`; on CUDA all terms are NaN.

    Source:
        Chen et al., arXiv 2301.00725 and 2012.09071.
    """
    return _memory_terms("gcl_memory_loss", f, f_nv, bank, labels, index, temperature, num_negatives, seed, None)


def gcl_memory_step_(
    f: Tensor,
    f_nv: Tensor,
    bank: Tensor,
    labels: Tensor,
    index: Tensor,
    *,
    temperature: float = 0.04,
    num_negatives: int | None = 8192,
    seed: int | Tensor,
    momentum: float,
) -> Tensor:
    """The terms of `gcl_memory_loss`, and then the bank moves in place: row index[i] towards f[i], as by
    `bank_update_(bank, index, f, momentum, normalise=True)`. One op: on a GPU three launches, and one for the backward.

    Deterministic as the two ops are; the terms and gradients are those of the bank as it was.

    Arguments:
        f, f_nv, bank, labels, index, temperature, num_negatives, seed: as in `gcl_memory_loss`; bank is changed.
        momentum: in [0, 1], the share of the OLD row.

    Returns:
        [3], the terms.

    Gradient:
        To f and f_nv, of the terms alone; none through the moved bank.

    Errors:
        As the two ops; where an index is out of range on the CPU, nothing has moved.
    """
    return _memory_terms("gcl_memory_step_", f, f_nv, bank, labels, index, temperature, num_negatives, seed, momentum)


def _is_plain(f: Tensor, f_nv: Tensor, bank: Tensor, labels: Tensor, index: Tensor) -> bool:
    """Whether the arguments are the usual ones, which need no message and no conversion: float32, int64, one device."""
    if not (type(f) is type(f_nv) is type(bank) is type(labels) is type(index) is Tensor):
        return False
    shape, device = f.shape, f.device
    return (
        len(shape) == 2
        and f.dtype == f_nv.dtype == torch.float32
        and bank.dtype in _HALF_OR_SINGLE
        and labels.dtype == index.dtype == torch.int64
        and f_nv.shape == shape
        and bank.dim() == 2
        and bank.shape[1] == shape[1]
        and labels.shape == bank.shape[:1]
        and index.shape == shape[:1]
        and device == f_nv.device == bank.device == labels.device == index.device
        and f.layout == f_nv.layout == bank.layout == labels.layout == index.layout == torch.strided
    )


_HALF_OR_SINGLE = (torch.float32, torch.bfloat16, torch.float16)


def _check_memory(op: str, f: Tensor, f_nv: Tensor, bank: Tensor, labels: Tensor, index: Tensor) -> None:
    shapes = Shapes(op)
    shapes.tensor("f", f, ("B", "D"), ANY_FLOATS)
    shapes.tensor("f_nv", f_nv, ("B", "D"), ANY_FLOATS, device_of=("f", f))
    shapes.tensor("bank", bank, ("N", "D"), ANY_FLOATS, device_of=("f", f))
    shapes.tensor("labels", labels, ("N",), INTEGERS, device_of=("f", f))
    shapes.tensor("index", index, ("B",), INTEGERS, device_of=("f", f))


def _memory_terms(
    op: str,
    f: Tensor,
    f_nv: Tensor,
    bank: Tensor,
    labels: Tensor,
    index: Tensor,
    temperature: float,
    num_negatives: int | None,
    seed: int | Tensor,
    momentum: float | None,
) -> Tensor:
    """The terms, and the moved bank where there is a momentum; in eager code with as few steps as can be."""
    plain = _is_plain(f, f_nv, bank, labels, index)
    if not plain:
        _check_memory(op, f, f_nv, bank, labels, index)
    shapes = Shapes(op)
    temperature = float(shapes.number("temperature", temperature, 0.0, open_low=True))
    momentum = None if momentum is None else float(shapes.number("momentum", momentum, 0.0, 1.0))
    count = _checked_count(shapes, num_negatives)
    no_tangent(op, f=f, f_nv=f_nv)
    _native.require(op, f.device)
    with_grad = torch.is_grad_enabled() and (f.requires_grad or f_nv.requires_grad)
    usual = plain and not torch.compiler.is_compiling() and not torch._C._are_functorch_transforms_active()
    if not usual or not _moves_in_place(bank, momentum):
        return _memory_terms_in_steps(op, f, f_nv, bank, labels, index, temperature, count, seed, momentum, with_grad)
    number, drawn = 0, None
    if type(seed) is int:
        number = (seed + (1 << 63)) % (1 << 64) - (1 << 63)
    else:
        drawn = checked_seed(shapes, seed, f.device)
    arguments = bank.detach(), labels, index, temperature, count, drawn, number, with_grad, momentum
    try:
        if with_grad:
            terms: Tensor = _bank_autograd.MemoryStep.apply(f, f_nv, arguments)
        else:
            terms = torch.ops.gcl_fast.gcl_memory_step_.default(f, f_nv, *arguments)[0]
    except RuntimeError:
        check_rows(op, "index", index, len(bank))  # names it
        raise
    if momentum is not None:
        torch.autograd.graph.increment_version(bank)  # a graph that kept the bank finds out
    return terms


def _moves_in_place(bank: Tensor, momentum: float | None) -> bool:
    """Whether the kernels can write the bank's rows where they lie, if they are to."""
    return momentum is None or (bank.stride(1) == 1 and bank.stride(0) >= bank.shape[1])


def _memory_terms_in_steps(
    op: str,
    f: Tensor,
    f_nv: Tensor,
    bank: Tensor,
    labels: Tensor,
    index: Tensor,
    temperature: float,
    count: int,
    seed: int | Tensor,
    momentum: float | None,
    with_grad: bool,
) -> Tensor:
    """The same of any types, and for graphs: an op without side effects, then the update."""
    seed = checked_seed(Shapes(op), seed, f.device)
    check_rows(op, "index", index, bank.shape[0])  # len would fix the number of rows in an export
    dtype = working_dtype(f, f_nv, bank)
    arguments = f.to(dtype), f_nv.to(dtype), bank.detach(), labels.long(), index.long(), temperature, count, seed, with_grad
    terms: Tensor = torch.ops.gcl_fast.gcl_memory_loss(*arguments)[0]
    if momentum is not None:
        bank_update_(bank, index, f, momentum, normalise=True)
    return terms


@torch.no_grad()
def bank_update_(
    bank: Tensor, index: Tensor, feature: Tensor, momentum: float, *, normalise: bool = False, hard: bool = False
) -> Tensor:
    """Move bank rows towards new features, in place: bank[i] = normalise(momentum * bank[i] + (1 - momentum) * feature).

    A repeated index is applied in batch order, each time on the renormalised row. A sum of length zero is stored as zero.
    Half-precision banks are computed in float32 and rounded each time a row is stored.

    Deterministic: the same bits for any number of threads. Nothing waits for the GPU.

    Arguments:
        bank: [N, D] float, changed in place.
        index: [B] integers, rows of the bank.
        feature: [B, D] float.
        momentum: in [0, 1], the share of the OLD row.
        normalise: bring features to length 1 first (a zero feature stays zero); else they are used as given.
        hard: of the features that share a row only the one least similar to the row as it was (dot product; the first of
            equals) moves it, cluster-contrast's "hard" rule.

    Returns:
        bank itself.

    Gradient:
        None, also where bank or feature ask for one.

    Errors:
        TypeError, ValueError: an argument of the wrong type, shape or device; the message names it.
        IndexRangeError: a row of index outside the bank, on CPU. Compiled CPU code raises RuntimeError; CUDA passes over it.

    Source:
        Momentum memory of Chen et al., arXiv 2012.09071; hard: Dai et al., arXiv 2103.11568.
    """
    shapes = Shapes("bank_update_")
    shapes.tensor("bank", bank, ("N", "D"), ANY_FLOATS)
    shapes.tensor("index", index, ("B",), INTEGERS, device_of=("bank", bank))
    shapes.tensor("feature", feature, ("B", "D"), ANY_FLOATS, device_of=("bank", bank))
    momentum = float(shapes.number("momentum", momentum, 0.0, 1.0))
    normalise, hard = flag("bank_update_", "normalise", normalise), flag("bank_update_", "hard", hard)
    check_rows("bank_update_", "index", index, shapes["N"])
    _native.require("bank_update_", bank.device)
    target = bank.detach()
    if not torch.compiler.is_compiling():
        check_memory("bank_update_", "bank", target)
    rows = target if target.stride(1) == 1 else target.contiguous()  # the kernel writes rows where they lie
    feature = feature.detach().to(working_dtype(bank, feature))
    torch.ops.gcl_fast.bank_update_(rows, index.long(), feature, momentum, normalise, hard)
    if rows is not target:
        target.copy_(rows)
    elif not torch.compiler.is_compiling():
        torch.autograd.graph.increment_version(bank)  # a graph that kept the bank finds out
    return bank
