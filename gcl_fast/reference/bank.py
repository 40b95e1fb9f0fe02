"""Memory-bank contrast, as plainly as it can be said: the oracle of the tests and the baseline of the benches.

Sampling. Whatever is drawn at random is drawn by *keys*: every (seed, stream, row, column) has a 32-bit integer key, and
a sample of K of the allowed columns of a row is the K columns with the smallest keys. `row` is the position in the batch,
`column` the row of the bank. With all arithmetic modulo 2^32:

    mix(x):   x ^= x >> 16;  x *= 0x7feb352d;  x ^= x >> 15;  x *= 0x846ca68b;  x ^= x >> 16        (a bijection)
    word(t):  mix(mix(mix(mix(t * 0x9e3779b9) ^ low half of seed) ^ high half of seed) ^ row)
    key:      mix(mix(column ^ word(2 * stream + 1)) ^ word(2 * stream + 2))

`word` depends on the row alone, so a kernel pays two `mix` for a (row, column). For a fixed row `key` is a bijection of
`column`: there are no ties, and the sample is exactly {allowed columns with key <= the K-th smallest allowed key}. Streams:
0 the negatives, 1 and 2 the two random positives. Integers only, hence the same on every device and thread count.
"""

from __future__ import annotations

import torch
from torch import Tensor

NEGATIVES, POSITIVE, POSITIVE_WITHOUT_GENERATOR = 0, 1, 2  # streams

_MASK = 0xFFFFFFFF
_NO_KEY = 1 << 32  # above every key
_MULTIPLIERS = (0x7FEB352D, 0x846CA68B - (1 << 32))  # the second as a negative number: products stay inside int64


def _working_dtype(*tensors: Tensor) -> torch.dtype:
    """float64 if anything is, else float32: half precision is for storage only."""
    return torch.float64 if any(tensor.dtype == torch.float64 for tensor in tensors) else torch.float32


def _mix(x: Tensor) -> Tensor:
    """Bijection of 32-bit words held in int64."""
    x = x ^ (x >> 16)
    x = (x * _MULTIPLIERS[0]) & _MASK
    x = x ^ (x >> 15)
    x = (x * _MULTIPLIERS[1]) & _MASK
    return x ^ (x >> 16)


def sampling_keys(seed: int | Tensor, stream: int, rows: int, columns: int, device: torch.device) -> Tensor:
    """Keys [rows, columns] int64 in [0, 2^32) as the module's docstring defines them; distinct within a row."""
    number = int(seed) % (1 << 64)
    row = torch.arange(rows, device=device)[:, None]  # [B, 1]
    column = torch.arange(columns, device=device)[None]  # [1, N]

    def word(t: int) -> Tensor:  # [B, 1]
        start = torch.full((), (t * 0x9E3779B9) & _MASK, dtype=torch.int64, device=device)
        return _mix(_mix(_mix(_mix(start) ^ (number & _MASK)) ^ (number >> 32)) ^ row)

    return _mix(_mix(column ^ word(2 * stream + 1)) ^ word(2 * stream + 2))  # [B, N]


def _keys_of(allowed: Tensor, seed: int | Tensor, stream: int) -> Tensor:
    """Keys [B, N] of the allowed columns; above every key elsewhere."""
    rows, columns = allowed.shape
    return sampling_keys(seed, stream, rows, columns, allowed.device).masked_fill(~allowed, _NO_KEY)


def negative_rows(labels: Tensor, first: Tensor, num_negatives: int | None, seed: int | Tensor) -> Tensor:
    """Which bank rows are the negatives of each batch row: [B, N] bool, at most `num_negatives` of them a row.

    labels [N]; first [B], the first positive of each row. Allowed are the rows whose label differs from that of `first`.
    A negative label (-1) means "no class": such rows are allowed for everyone but themselves, and where `first` itself has
    no class every other row is allowed.
    """
    label = labels[first][:, None]  # [B, 1]
    itself = first[:, None] == torch.arange(len(labels), device=labels.device)  # [B, N]
    allowed = torch.where(label < 0, ~itself, labels[None] != label)  # [B, N]
    if num_negatives is None or num_negatives >= len(labels):
        return allowed
    keys = _keys_of(allowed, seed, NEGATIVES)
    last = keys.topk(num_negatives, dim=1, largest=False, sorted=False).values.amax(1, keepdim=True)  # [B, 1]
    return allowed & (keys <= last)


def draw_positives(labels: Tensor, index: Tensor, seed: int | Tensor) -> Tensor:
    """See `gcl_fast.ops.draw_positives`."""
    label = labels[index][:, None]  # [B, 1]
    itself = index[:, None] == torch.arange(len(labels), device=labels.device)  # [B, N]
    same = torch.where(label < 0, itself, labels[None] == label)  # [B, N]
    if not len(index):
        return index.new_zeros((0, 2), dtype=torch.int64)
    draws = []
    for stream in (POSITIVE, POSITIVE_WITHOUT_GENERATOR):
        draws.append(_keys_of(same, seed, stream).argmin(1))
    return torch.stack(draws, 1)


def unit(x: Tensor) -> Tensor:
    """Rows of length 1; a zero row stays zero, and its gradient stays finite."""
    norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    return x / torch.where(norm > 0, norm, torch.ones_like(norm))


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
    """See `gcl_fast.ops.bank_nce`. This one lets autograd keep the bank: do not update it before the backward."""
    dtype = _working_dtype(query, bank)
    query, bank = query.to(dtype), bank.detach().to(dtype)
    rows = positive if positive.dim() == 2 else positive[:, None]  # [B, P]
    chosen = negative_rows(labels, rows[:, 0], num_negatives, seed)  # [B, N]

    near = query[:, None] if positive_query is None else positive_query.to(dtype).reshape(*rows.shape, query.shape[1])
    pos = (near * bank[rows]).sum(2) / temperature  # [B, P], near [B, 1 or P, D]
    neg = (query @ bank.T / temperature).masked_fill(~chosen, float("-inf"))  # [B, N]
    logits = torch.cat([pos[:, :, None], neg[:, None].expand(-1, rows.shape[1], -1)], 2)  # [B, P, 1 + N]
    return (torch.logsumexp(logits, 2) - pos).reshape(positive.shape)


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
    """See `gcl_fast.ops.gcl_memory_loss`."""
    dtype = _working_dtype(f, f_nv, bank)
    f, f_nv = unit(f.to(dtype)), unit(f_nv.to(dtype))
    positive = torch.cat([index[:, None], draw_positives(labels, index, seed)], 1)  # [B, 3]: itself, P, P'
    loss = bank_nce(
        f_nv,
        bank,
        labels,
        positive,
        positive_query=torch.stack([f_nv, f_nv, f], 1),
        temperature=temperature,
        num_negatives=num_negatives,
        seed=seed,
    )  # [B, 3]
    return loss.sum(0) / max(len(f), 1)


def hardest(feature: Tensor, index: Tensor, bank: Tensor) -> Tensor:
    """Which rows of a batch are the least similar to their bank row among those that share it: [B] bool.

    feature [B, D], index [B], bank [N, D]. The first wins a tie, so each row of the bank named has exactly one.
    """
    similarity = (feature * bank[index].to(feature.dtype)).sum(1)  # [B]
    order = torch.arange(len(index), device=index.device)
    harder = similarity[None] < similarity[:, None]  # [B, B]: column is harder than row
    harder |= (similarity[None] == similarity[:, None]) & (order[None] < order[:, None])
    return ~(harder & (index[None] == index[:, None])).any(1)


@torch.no_grad()
def bank_update_(
    bank: Tensor, index: Tensor, feature: Tensor, momentum: float, *, normalise: bool = False, hard: bool = False
) -> Tensor:
    """See `gcl_fast.ops.bank_update_`."""
    dtype = _working_dtype(bank, feature)
    feature = unit(feature.to(dtype)) if normalise else feature.to(dtype, copy=True)  # they may be rows of the bank
    if hard:
        keep = hardest(feature, index, bank)
        index, feature = index[keep], feature[keep]
    for row, new in zip(index.tolist(), feature, strict=True):
        bank[row] = unit(momentum * bank[row].to(dtype) + (1 - momentum) * new).to(bank.dtype)
    return bank


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
    """See `gcl_fast.ops.gcl_memory_step_`."""
    kept = bank.detach().clone()  # autograd keeps it, and the bank moves before the backward
    terms = gcl_memory_loss(f, f_nv, kept, labels, index, temperature=temperature, num_negatives=num_negatives, seed=seed)
    bank_update_(bank, index, f.detach(), momentum, normalise=True)
    return terms
