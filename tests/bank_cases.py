"""Formulas of the bank ops on Python's integers and floats, one row at a time, and random problems."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st

from gcl_fast import ops, reference

small = settings(max_examples=25, deadline=None, derandomize=True)
BOTH = pytest.mark.parametrize("module", [ops, reference], ids=["ops", "reference"])


def mix(x):
    x ^= x >> 16
    x = x * 0x7FEB352D % 2**32
    x ^= x >> 15
    x = x * 0x846CA68B % 2**32
    return x ^ x >> 16


def key(seed, stream, row, column):
    def word(t):
        return mix(mix(mix(mix(t * 0x9E3779B9 % 2**32) ^ seed % 2**32) ^ (seed >> 32) % 2**32) ^ row)

    return mix(mix(column ^ word(2 * stream + 1)) ^ word(2 * stream + 2))


def smallest(seed, stream, row, columns, k):
    return sorted(columns, key=lambda column: key(seed, stream, row, column))[:k]


def negatives(labels, first, row, k, seed):
    if labels[first] < 0:
        allowed = [n for n in range(len(labels)) if n != first]
    else:
        allowed = [n for n in range(len(labels)) if labels[n] != labels[first]]
    return allowed if k is None else smallest(seed, 0, row, allowed, k)


def dot(a, b):
    return math.fsum(x * y for x, y in zip(a, b, strict=True))


def cross_entropy(positive, others):
    top = max([positive, *others])
    return top + math.log(math.fsum(math.exp(x - top) for x in [positive, *others])) - positive


def unit(a):
    length = math.sqrt(dot(a, a))
    return [x / length for x in a] if length else a


def nce_by_hand(query, bank, labels, positive, positive_query, temperature, k, seed):
    query, bank, labels, positive = query.tolist(), bank.tolist(), labels.tolist(), positive.tolist()
    own = None if positive_query is None else positive_query.tolist()
    losses = []
    for i, q in enumerate(query):
        others = [dot(q, bank[n]) / temperature for n in negatives(labels, positive[i][0], i, k, seed)]
        pairs = [(q if own is None else own[i][p], bank[n]) for p, n in enumerate(positive[i])]
        losses.append([cross_entropy(dot(a, b) / temperature, others) for a, b in pairs])
    return torch.tensor(losses, dtype=torch.float64).reshape(len(query), -1)


def gcl_by_hand(f, f_nv, bank, labels, index, temperature, k, seed):
    bank, labels, totals = bank.tolist(), labels.tolist(), [0.0, 0.0, 0.0]
    for i, n in enumerate(index.tolist()):
        photo, view = unit(f[i].tolist()), unit(f_nv[i].tolist())
        same = [n] if labels[n] < 0 else [m for m in range(len(labels)) if labels[m] == labels[n]]
        (p,), (q,) = smallest(seed, 1, i, same, 1), smallest(seed, 2, i, same, 1)
        others = [dot(view, bank[m]) / temperature for m in negatives(labels, n, i, k, seed)]
        for t, (a, b) in enumerate([(view, bank[n]), (view, bank[p]), (photo, bank[q])]):
            totals[t] += cross_entropy(dot(a, b) / temperature, others) / len(index)
    return torch.tensor(totals, dtype=torch.float64)


@st.composite
def problems(draw):
    gen = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    b, n, d, p = (draw(st.integers(low, high)) for low, high in ((1, 4), (1, 17), (1, 5), (1, 3)))
    labels = torch.randint(-1, draw(st.integers(0, 6)), (n,), generator=gen)
    return {
        "query": torch.randn(b, d, generator=gen, dtype=torch.float64),
        "bank": torch.randn(n, d, generator=gen, dtype=torch.float64),
        "labels": labels,
        "positive": torch.randint(0, n, (b, p), generator=gen),
        "positive_query": torch.randn(b, p, d, generator=gen, dtype=torch.float64) if draw(st.booleans()) else None,
        "temperature": draw(st.sampled_from([0.04, 0.5, 2.0])),
        "num_negatives": draw(st.sampled_from([None, 1, 3, n, n + 5])),
        "seed": draw(st.integers(-(2**63), 2**63 - 1)),
    }


def some(b=4, n=30, d=8, classes=5, dtype=torch.float64, device="cpu", seed=0):
    """query, bank (unit rows), labels with some -1, positive."""
    gen = torch.Generator().manual_seed(seed)
    query, bank = torch.randn(b, d, generator=gen), torch.nn.functional.normalize(torch.randn(n, d, generator=gen))
    labels = torch.randint(-1, classes, (n,), generator=gen)
    positive = torch.randperm(n, generator=gen)[:b]
    return query.to(device, dtype), bank.to(device, dtype), labels.to(device), positive.to(device)
