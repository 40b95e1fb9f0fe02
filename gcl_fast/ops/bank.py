"""Contrast against a memory bank: the loss of a batch against its positives and sampled negatives, and the bank's update.

Each op is a `torch.library` op (names, shapes and gradients fixed), whose body is at present plain PyTorch.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from gcl_fast.ops._check import ANY_FLOATS, INTEGERS, Shapes
from gcl_fast.reference import bank as plain

_BLOCK = 8192  # bank rows converted at a time when the bank's dtype is not the one computed in


def _check_rows(op: str, name: str, rows: Tensor, size: int) -> None:
    """On CPU a bad row number is named; on CUDA that would stall the stream, and torch's own device assertion catches it."""
    if rows.device.type == "cpu" and rows.numel():
        low, high = int(rows.min()), int(rows.max())
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


def _blocks(bank: Tensor, dtype: torch.dtype) -> Iterator[tuple[slice, Tensor]]:
    """The bank in `dtype`: itself where that is its dtype, else converted block by block, never as a whole."""
    step = max(len(bank), 1) if bank.dtype == dtype else _BLOCK
    for start in range(0, len(bank), step):
        rows = slice(start, start + step)
        yield rows, bank[rows].to(dtype)


@torch.library.custom_op(
    "gcl_fast::bank_negative_lse",
    mutates_args=(),
    schema="(Tensor query, Tensor bank, Tensor labels, Tensor positive, float temperature, int? num_negatives, "
    "Tensor seed, bool with_mean) -> (Tensor lse, Tensor mean)",
)
def _negative_lse(
    query: Tensor,
    bank: Tensor,
    labels: Tensor,
    positive: Tensor,
    temperature: float,
    num_negatives: int | None,
    seed: Tensor,
    with_mean: bool,
) -> tuple[Tensor, Tensor]:
    """lse [B] = log sum over the negatives of exp(query . bank / temperature) (-inf without any), and, if asked for,
    mean [B, D], the average negative under that softmax (0 without any): all that the gradient needs. positive [B, P]."""
    _check_rows("bank_nce", "positive", positive, len(bank))
    if not len(query):
        return query.new_empty(0), torch.zeros_like(query)
    with torch.autocast(query.device.type, enabled=False):
        chosen = plain.negative_rows(labels, positive[:, 0].long(), num_negatives, seed)  # [B, N]
        logits = query.new_empty(chosen.shape)  # [B, N]
        for rows, block in _blocks(bank, query.dtype):
            logits[:, rows] = query @ block.T
        logits = logits.div_(temperature).masked_fill_(~chosen, float("-inf"))
        lse = torch.logsumexp(logits, 1)  # [B]
        mean = torch.zeros_like(query, memory_format=torch.contiguous_format)  # [B, D]
        if with_mean:
            weights = logits.sub_(lse[:, None]).exp_().masked_fill_(~chosen, 0)  # [B, N]; a row without any is 0, not NaN
            for rows, block in _blocks(bank, query.dtype):
                mean += weights[:, rows] @ block
    return lse, mean


@_negative_lse.register_fake
def _(query, bank, labels, positive, temperature, num_negatives, seed, with_mean):
    return query.new_empty(query.shape[0]), torch.empty_like(query, memory_format=torch.contiguous_format)


def _negative_lse_setup(ctx, inputs, output) -> None:
    ctx.temperature = inputs[4]
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(output[1])


def _negative_lse_backward(ctx, grad_lse, _):
    if torch.is_grad_enabled():
        raise RuntimeError("bank_nce: second derivatives are not available (the bank is not kept); drop create_graph=True")
    (mean,) = ctx.saved_tensors
    return grad_lse[:, None] * mean / ctx.temperature, None, None, None, None, None, None, None


_negative_lse.register_autograd(_negative_lse_backward, setup_context=_negative_lse_setup)


@torch.library.custom_op(
    "gcl_fast::bank_draw_positives", mutates_args=(), schema="(Tensor labels, Tensor index, Tensor seed) -> Tensor"
)
def _draw_positives(labels: Tensor, index: Tensor, seed: Tensor) -> Tensor:
    """[B, 2]: two independent uniform draws of a row with the label of row `index`."""
    _check_rows("draw_positives", "index", index, len(labels))
    return plain.draw_positives(labels, index.long(), seed)


@_draw_positives.register_fake
def _(labels, index, seed):
    return index.new_empty((index.shape[0], 2), dtype=torch.int64)


@torch.library.custom_op(
    "gcl_fast::bank_update_",
    mutates_args=("bank",),
    schema="(Tensor(a!) bank, Tensor index, Tensor feature, float momentum) -> ()",
)
def _update_(bank: Tensor, index: Tensor, feature: Tensor, momentum: float) -> None:
    """In rounds: the k-th round holds the k-th occurrence of every index, so that no round writes a row twice."""
    _check_rows("bank_update_", "index", index, len(bank))
    if not len(index):
        return
    dtype = plain.working_dtype(bank, feature)
    index, feature = index.long(), feature.to(dtype)
    occurrence = (index[:, None] == index[None]).tril(-1).sum(1)  # [B] how often this index stood before
    for k in range(int(occurrence.max()) + 1):
        turn = occurrence == k
        rows, new = index[turn], feature[turn]
        bank[rows] = plain.normalise(momentum * bank[rows].to(dtype) + (1 - momentum) * new).to(bank.dtype)


@_update_.register_fake
def _(bank, index, feature, momentum):
    return None


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
    Gradient: to query and positive_query, once differentiable. Deterministic.
    Errors: TypeError, ValueError naming the argument; a row number outside the bank is a ValueError on CPU, a device
        assertion on CUDA (no host synchronisation).
    Source: METHOD, memory contrast; InfoNCE of van den Oord et al., arXiv 1807.03748, eq. 4.
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

    dtype = plain.working_dtype(query, bank)
    query, bank = query.to(dtype), bank.detach()
    rows = positive[:, None] if flat else positive  # [B, P]
    with_mean = torch.is_grad_enabled() and query.requires_grad
    seed = plain.seed_tensor(seed, query.device)
    lse, _ = _negative_lse(query, bank, labels, rows, temperature, num_negatives, seed, with_mean)  # [B]

    own = query[:, None]  # [B, 1, D]
    if positive_query is not None:
        own = positive_query.to(dtype).reshape(*rows.shape, shapes["D"])  # [B, P, D]
    pos = (own * bank[rows.long()].to(dtype)).sum(2) / temperature  # [B, P]
    loss = -F.logsigmoid(pos - lse[:, None])  # [B, P] = log(1 + exp(lse - pos)): the cross-entropy
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
    return _draw_positives(labels, index, plain.seed_tensor(seed, labels.device))


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
    Source: METHOD, memory contrast; Chen et al., arXiv 2301.00725 and 2012.09071.
    """
    shapes = Shapes("gcl_memory_loss")
    shapes.tensor("f", f, ("B", "D"), ANY_FLOATS)
    shapes.tensor("f_nv", f_nv, ("B", "D"), ANY_FLOATS, device_of=("f", f))
    shapes.tensor("bank", bank, ("N", "D"), ANY_FLOATS, device_of=("f", f))
    shapes.tensor("labels", labels, ("N",), INTEGERS, device_of=("f", f))
    shapes.tensor("index", index, ("B",), INTEGERS, device_of=("f", f))
    shapes.number("temperature", temperature, 0.0, open_low=True)
    _check_count(shapes, num_negatives)
    _check_seed(shapes, seed)

    dtype = plain.working_dtype(f, f_nv, bank)
    seed = plain.seed_tensor(seed, f.device)
    f, f_nv = plain.normalise(f.to(dtype)), plain.normalise(f_nv.to(dtype))
    positive = torch.cat([index.long()[:, None], draw_positives(labels, index, seed=seed)], 1)  # [B, 3]
    loss = bank_nce(
        f_nv,
        bank,
        labels,
        positive,
        positive_query=torch.stack([f_nv, f_nv, f], 1),  # [B, 3, D]
        temperature=temperature,
        num_negatives=num_negatives,
        seed=seed,
    )  # [B, 3]
    return loss.sum(0) / max(shapes["B"], 1)


@torch.no_grad()
def bank_update_(bank: Tensor, index: Tensor, feature: Tensor, momentum: float) -> Tensor:
    """Move bank rows towards new features, in place: bank[i] = normalise(momentum * bank[i] + (1 - momentum) * feature).

    Arguments: bank [N, D] float; index [B] integers, rows of the bank; feature [B, D] float, used as given (normalise it
        first where the method says so); momentum in [0, 1], the share of the OLD row.
    Returns: bank. A repeated index is applied in batch order, each time on the renormalised row; on CPU the result is that
        of the loop one by one, bit for bit. A sum of length zero is stored as zero. Half-precision banks are computed in
        float32 and rounded when stored. No gradient, also where bank or feature ask for one.
    Errors: as `bank_nce`. Deterministic. Reads the highest repeat count back to the host, so it cannot be captured in a
        CUDA graph yet.
    Source: METHOD, memory contrast.
    """
    shapes = Shapes("bank_update_")
    shapes.tensor("bank", bank, ("N", "D"), ANY_FLOATS)
    shapes.tensor("index", index, ("B",), INTEGERS, device_of=("bank", bank))
    shapes.tensor("feature", feature, ("B", "D"), ANY_FLOATS, device_of=("bank", bank))
    momentum = float(shapes.number("momentum", momentum, 0.0, 1.0))
    _update_(bank.detach(), index, feature.detach(), momentum)
    return bank
