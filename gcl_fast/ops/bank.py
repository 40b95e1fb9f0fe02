"""Contrast against a memory bank: the loss of a batch against its positives and sampled negatives, and the bank's update.

The kernels read the bank once: a block of its rows gives the logits of all queries, the softmax so far and the weighted sum of
the rows, which is the gradient (attention whose keys are its values). Nothing of the size of the bank is made or kept.
"""

from __future__ import annotations

import torch
from torch import Tensor

from gcl_fast import _native
from gcl_fast.ops._check import ANY_FLOATS, INTEGERS, Shapes
from gcl_fast.reference.bank import seed_tensor, working_dtype


def _check_rows(op: str, name: str, rows: Tensor, size: int) -> None:
    """On CPU a bad row number is named; on CUDA that would stall the stream, and the kernels pass over it instead."""
    readable = not torch.compiler.is_compiling() and type(rows) is Tensor and rows.device.type == "cpu"
    if readable and rows.numel():
        low, high = (int(n) for n in torch.aminmax(rows))
        if low < 0 or high >= size:
            raise ValueError(f"{op}: {name} must be rows of the bank, 0 to {size - 1}, got {low if low < 0 else high}")


def _check_seed(shapes: Shapes, seed: int | Tensor) -> None:
    if isinstance(seed, Tensor):
        shapes.tensor("seed", seed, (), INTEGERS)
    elif isinstance(seed, bool) or not isinstance(seed, (int, torch.SymInt)):
        raise TypeError(f"{shapes.op}: seed must be an integer or a 0-d int64 tensor, got {type(seed).__name__}")


def _check_count(shapes: Shapes, num_negatives: int | None) -> None:
    if num_negatives is None:
        return
    if isinstance(num_negatives, bool) or not isinstance(num_negatives, int):
        raise TypeError(f"{shapes.op}: num_negatives must be an integer or None, got {type(num_negatives).__name__}")
    if num_negatives < 1:
        raise ValueError(f"{shapes.op}: num_negatives must be at least 1, or None for all, got {num_negatives}")


def _no_second_derivative(op: str) -> None:
    if torch.is_grad_enabled():
        raise RuntimeError(f"{op}: second derivatives are not available (the bank is not kept); drop create_graph=True")


def _nce_fake(query, bank, labels, positive, positive_query, temperature, num_negatives, seed, with_grad):
    batch, dim = query.shape
    kept, positives = batch if with_grad else 0, positive.shape[1]
    folded = positives == 1 and positive_query is None
    return (
        query.new_empty(positive.shape),
        query.new_empty((kept, dim)),
        query.new_empty((kept, positives)),
        query.new_empty((kept, 0 if folded else positives, dim)),
    )


def _nce_setup(ctx, inputs, output) -> None:
    ctx.temperature, ctx.own = inputs[5], inputs[4] is not None
    ctx.mark_non_differentiable(*output[1:])
    ctx.save_for_backward(*output[1:])


def _nce_backward(ctx, grad, *_):
    _no_second_derivative("bank_nce")
    mean, weight, rows = ctx.saved_tensors  # [B, D], [B, P], [B, P, D]
    scale = grad * weight / ctx.temperature  # [B, P]
    if rows.shape[1] == 0:  # the positive row is in the mean already
        return scale * mean, None, None, None, None, None, None, None, None
    grad_query, grad_own = scale.sum(1)[:, None] * mean, -scale[:, :, None] * rows  # [B, D], [B, P, D]
    if not ctx.own:
        grad_query, grad_own = grad_query + grad_own.sum(1), None
    return grad_query, None, None, None, grad_own, None, None, None, None


def _gcl_fake(f, f_nv, bank, labels, index, temperature, num_negatives, seed, with_grad):
    batch, dim = f.shape
    kept = batch if with_grad else 0
    return f.new_empty((batch, 3)), f.new_empty((kept, 3, dim)), f.new_empty((kept, dim))


def _gcl_setup(ctx, inputs, output) -> None:
    ctx.mark_non_differentiable(*output[1:])
    ctx.save_for_backward(*output[1:])


def _gcl_backward(ctx, grad, *_):
    _no_second_derivative("gcl_memory_loss")
    view_grad, photo_grad = ctx.saved_tensors  # [B, 3, D], [B, D]
    grad_view = grad[:, :1] * view_grad[:, 0]  # [B, D]
    for k in (1, 2):
        grad_view = torch.addcmul(grad_view, grad[:, k : k + 1], view_grad[:, k])
    return grad[:, 2:] * photo_grad, grad_view, None, None, None, None, None, None, None


def _draw_fake(labels, index, seed):
    return index.new_empty((index.shape[0], 2))


def _update_fake(bank, index, feature, momentum, unit, hard):
    return None


if _native.loaded:
    torch.library.register_fake("gcl_fast::bank_nce", _nce_fake)
    torch.library.register_autograd("gcl_fast::bank_nce", _nce_backward, setup_context=_nce_setup)
    torch.library.register_fake("gcl_fast::gcl_memory_loss", _gcl_fake)
    torch.library.register_autograd("gcl_fast::gcl_memory_loss", _gcl_backward, setup_context=_gcl_setup)
    torch.library.register_fake("gcl_fast::bank_draw_positives", _draw_fake)
    torch.library.register_fake("gcl_fast::bank_update_", _update_fake)


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

    Arguments:
        query: [B, D] float (32, 64, bf16 or 16), used as given: normalise it first where cosines are meant.
        bank: [N, D] float, may differ in dtype from the query; a constant (no gradient). It is neither copied nor kept
            for the backward, so it may be updated between the two.
        labels: [N] integers, the class of each bank row; -1 = no class.
        positive: [B] or [B, P] integers, bank rows.
        positive_query: [B, P, D] ([B, D] where positive is [B]), replaces the query in the positive term only.
        temperature: T above 0.
        num_negatives: K at least 1, or None for all.
        seed: integer (modulo 2^64), or a 0-d integer tensor, which needs no new trace or graph when it changes.

    Neg(i): the bank rows whose label differs from that of the row's first positive. Rows labelled -1 are negatives of every
    class; if the first positive itself is labelled -1 its negatives are all rows but itself. With K, a uniform sample of
    K of them without replacement (all when fewer), the same for all P positives, and a function of (seed, i, labels) alone,
    hence the same on every device: `gcl_fast.reference.bank` defines it. A row without negatives has loss 0.

    Returns: loss [B] or [B, P] as positive, in float64 if query or bank is, else float32; at least 0.
    Gradient: to query and positive_query, once differentiable. Deterministic: the same bits for any number of threads, and on
        one GPU from run to run; CPU and GPU draw the same negatives and differ by rounding.
    Cost: one read of the bank for loss and gradient together; workspace of some B x D, kept for the backward B x (P + 1) x D.
        CUDA graphs may capture it.
    Errors: TypeError, ValueError naming the argument; a row number outside the bank is a ValueError on CPU (RuntimeError in
        compiled code) and a NaN loss on CUDA, where nothing is read back.
    Source: InfoNCE of van den Oord et al., arXiv 1807.03748, eq. 4.
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
    _check_count(shapes, num_negatives)
    _check_seed(shapes, seed)

    _check_rows("bank_nce", "positive", positive, shapes["N"])
    _native.require("bank_nce", query.device)

    dtype = working_dtype(query, bank)
    rows = (positive[:, None] if flat else positive).long()  # [B, P]
    own = None if positive_query is None else positive_query.to(dtype).reshape(*rows.shape, shapes["D"])  # [B, P, D]
    query = query.to(dtype)
    with_grad = torch.is_grad_enabled() and (query.requires_grad or (own is not None and own.requires_grad))
    count = -1 if num_negatives is None else num_negatives
    seed = seed_tensor(seed, query.device)
    loss = torch.ops.gcl_fast.bank_nce(query, bank.detach(), labels.long(), rows, own, temperature, count, seed, with_grad)[
        0
    ]  # [B, P]
    return loss[:, 0] if flat else loss


def draw_positives(labels: Tensor, index: Tensor, *, seed: int | Tensor) -> Tensor:
    """Random bank rows of the same class as row index[i]: the P and P' of `gcl_memory_loss`.

    labels [N] integers (-1 = no class: only the row itself), index [B] integers -> [B, 2] int64, two independent uniform
    draws (may be the row itself), a function of (seed, i, labels) alone. Not differentiable. Errors: as `bank_nce`.
    """
    shapes = Shapes("draw_positives")
    shapes.tensor("labels", labels, ("N",), INTEGERS)
    shapes.tensor("index", index, ("B",), INTEGERS, device_of=("labels", labels))
    _check_seed(shapes, seed)
    _check_rows("draw_positives", "index", index, shapes["N"])
    _native.require("draw_positives", labels.device)
    return torch.ops.gcl_fast.bank_draw_positives(labels.long(), index.long(), seed_tensor(seed, labels.device))


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
    of n(i) (maybe itself; itself alone if that label is -1), Neg the sampled negatives of `bank_nce`, per row

        self                     CE(f_nv . bank[n(i)];  f_nv . bank[Neg])
        class                    CE(f_nv . bank[P];     f_nv . bank[Neg])
        class without generator  CE(f    . bank[P'];    f_nv . bank[Neg])

    Arguments: f, f_nv [B, D] float; bank [N, D] float, rows of length 1; labels [N] integers (-1 = no class); index [B]
        integers, the bank row of each image; temperature, num_negatives, seed as in `bank_nce`.
    Returns: [3], the means of the three terms over the batch (0 for an empty batch); their sum is the paper's loss.
    Gradient: to f (third term's positive only) and f_nv, once differentiable. The bank is a constant and may be updated
        before the backward. Everything random is a function of (seed, position in the batch, labels): deterministic and the
        same on every device.
    Errors: as `bank_nce`.
    Source: Chen et al., arXiv 2301.00725 and 2012.09071.
    """
    shapes = Shapes("gcl_memory_loss")
    shapes.tensor("f", f, ("B", "D"), ANY_FLOATS)
    shapes.tensor("f_nv", f_nv, ("B", "D"), ANY_FLOATS, device_of=("f", f))
    shapes.tensor("bank", bank, ("N", "D"), ANY_FLOATS, device_of=("f", f))
    shapes.tensor("labels", labels, ("N",), INTEGERS, device_of=("f", f))
    shapes.tensor("index", index, ("B",), INTEGERS, device_of=("f", f))
    temperature = float(shapes.number("temperature", temperature, 0.0, open_low=True))
    _check_count(shapes, num_negatives)
    _check_seed(shapes, seed)
    _check_rows("gcl_memory_loss", "index", index, shapes["N"])
    _native.require("gcl_memory_loss", f.device)

    dtype = working_dtype(f, f_nv, bank)
    f, f_nv = f.to(dtype), f_nv.to(dtype)
    with_grad = torch.is_grad_enabled() and (f.requires_grad or f_nv.requires_grad)
    count = -1 if num_negatives is None else num_negatives
    seed = seed_tensor(seed, f.device)
    loss = torch.ops.gcl_fast.gcl_memory_loss(
        f, f_nv, bank.detach(), labels.long(), index.long(), temperature, count, seed, with_grad
    )[0]  # [B, 3]
    return loss.sum(0) / max(shapes["B"], 1)


@torch.no_grad()
def bank_update_(
    bank: Tensor, index: Tensor, feature: Tensor, momentum: float, *, normalise: bool = False, hard: bool = False
) -> Tensor:
    """Move bank rows towards new features, in place: bank[i] = normalise(momentum * bank[i] + (1 - momentum) * feature).

    Arguments: bank [N, D] float; index [B] integers, rows of the bank; feature [B, D] float; momentum in [0, 1], the share of
        the OLD row; normalise: features are brought to length 1 first (a zero feature stays zero), else used as given;
        hard: of the features that share a row only the one least similar to the row as it was (dot product; the first of
        equals) moves it, cluster-contrast's "hard" rule.
    Returns: bank. A repeated index is applied in batch order, each time on the renormalised row. A sum of length zero is
        stored as zero. Half-precision banks are computed in float32 and rounded each time a row is stored. No gradient, also
        where bank or feature ask for one.
    Errors: TypeError, ValueError naming the argument; a row number outside the bank is a ValueError on CPU and passed over on
        CUDA (no host synchronisation). Deterministic: the same bits for any number of threads.
    Source: Dai et al., arXiv 2103.11568 (hard).
    """
    shapes = Shapes("bank_update_")
    shapes.tensor("bank", bank, ("N", "D"), ANY_FLOATS)
    shapes.tensor("index", index, ("B",), INTEGERS, device_of=("bank", bank))
    shapes.tensor("feature", feature, ("B", "D"), ANY_FLOATS, device_of=("bank", bank))
    momentum = float(shapes.number("momentum", momentum, 0.0, 1.0))
    for name, flag in (("normalise", normalise), ("hard", hard)):
        if not isinstance(flag, bool):
            raise TypeError(f"bank_update_: {name} must be a bool, got {type(flag).__name__}")
    _check_rows("bank_update_", "index", index, shapes["N"])
    _native.require("bank_update_", bank.device)
    to = bank.detach()
    rows = to if to.stride(1) == 1 else to.contiguous()  # the kernel writes rows where they lie
    feature = feature.detach().to(working_dtype(bank, feature))
    torch.ops.gcl_fast.bank_update_(rows, index.long(), feature, momentum, normalise, hard)
    if rows is not to:
        to.copy_(rows)
    elif not torch.compiler.is_compiling():
        torch.autograd.graph.increment_version(bank)  # a graph that kept the bank finds out
    return bank
