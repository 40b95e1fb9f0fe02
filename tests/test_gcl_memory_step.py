"""gcl_memory_step_: the terms and gradients of gcl_memory_loss, then the rows of bank_update_, in one op."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from gcl_fast import ops, reference
from tests.bank_cases import BOTH, some

KEYS = {"temperature": 0.1, "num_negatives": 9, "seed": 5}


def taken(module, f: Tensor, f_nv: Tensor, bank: Tensor, labels: Tensor, index: Tensor) -> tuple[Tensor, ...]:
    """Terms, gradients and moved bank of one step."""
    a, b, moved = f.clone().requires_grad_(), f_nv.clone().requires_grad_(), bank.clone()
    terms = module.gcl_memory_step_(a, b, moved, labels, index, **KEYS, momentum=0.3)
    return terms.detach(), *torch.autograd.grad(terms @ terms.new_tensor([1.0, -2.0, 3.0]), (a, b)), moved


@BOTH
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_a_step_is_the_loss_and_then_the_update(module, dtype, device):
    f, bank, labels, index = some(
        b=6, n=40, d=24, dtype=torch.float64 if dtype == torch.float64 else torch.float32, device=device
    )
    bank, f_nv, index = bank.to(dtype), f.roll(1, 0) + 0.3, index[[0, 1, 2, 1, 4, 5]]
    a, b, moved = f.clone().requires_grad_(), f_nv.clone().requires_grad_(), bank.clone()
    terms = module.gcl_memory_loss(a, b, bank, labels, index, **KEYS)
    grads = torch.autograd.grad(terms @ terms.new_tensor([1.0, -2.0, 3.0]), (a, b))
    module.bank_update_(moved, index, f, 0.3, normalise=True)
    want = (terms.detach(), *grads, moved)
    for got, value in zip(taken(module, f, f_nv, bank, labels, index), want, strict=True):
        torch.testing.assert_close(got, value, rtol=0, atol=0) if module is ops else torch.testing.assert_close(got, value)


def test_errors_are_at_most_twice_those_of_pytorch(device):
    f, bank, labels, index = some(18, 700, 130, 40, device=device)
    f_nv = f.roll(1, 0) + 0.3
    exact = taken(reference, f, f_nv, bank, labels, index)
    single = [t.float() for t in (f, f_nv, bank)]
    plain, got = (taken(module, *single, labels, index) for module in (reference, ops))
    for a, p, e in zip(got, plain, exact, strict=True):
        floor = torch.finfo(torch.float32).eps * e.abs().max()
        assert (a - e).abs().max() <= 2 * (p - e).abs().max() + floor


def test_banks_that_cannot_be_written_where_they_lie(device):
    f, bank, labels, index = some(dtype=torch.float32, device=device)
    want = taken(ops, f, f + 1, bank, labels, index)
    for layout in (lambda t: t.T.contiguous().T, lambda t: torch.stack([t, t], -1)[..., 0]):
        moved = layout(bank)
        terms = ops.gcl_memory_step_(f, f + 1, moved, labels, index, **KEYS, momentum=0.3)
        torch.testing.assert_close(terms, want[0])
        torch.testing.assert_close(moved, want[3])


def test_two_tensors_are_kept_for_the_backward(device):
    f, bank, labels, index = some(b=3, n=500, d=8, dtype=torch.float32, device=device)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.shape) or t, lambda t: t):
        ops.gcl_memory_step_(f.requires_grad_(), f + 1, bank, labels, index, **KEYS, momentum=0.3)
    assert kept[-2:] == [(3, 3, 8), (3, 8)] and max(shape.numel() for shape in kept) <= 3 * 3 * 8


def test_the_graph_of_a_loss_that_kept_the_bank_finds_out():
    f, bank, labels, index = some(dtype=torch.float32)
    loss = (torch.ones_like(bank).requires_grad_() * bank).sum()
    ops.gcl_memory_step_(f, f, bank, labels, index, seed=0, momentum=0.5)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_a_second_derivative_is_refused(device):
    f, bank, labels, index = some(dtype=torch.float32, device=device)
    terms = ops.gcl_memory_step_(f.requires_grad_(), f + 1, bank, labels, index, seed=0, momentum=0.5)
    with pytest.raises(RuntimeError, match="second derivatives"):
        torch.autograd.grad(terms.sum(), f, create_graph=True)


def test_seeds_of_both_kinds_are_one(device):
    f, bank, labels, index = some(dtype=torch.float32, device=device)
    for seed in (3, -1, 3 + 2**64, 2**63 + 9):
        word = (seed + 2**63) % 2**64 - 2**63
        terms = [ops.gcl_memory_loss(f, f + 1, bank, labels, index, num_negatives=4, seed=s) for s in (seed, torch.tensor(word))]
        assert torch.equal(*terms)


def test_steps_compile_and_transform(device):
    f, bank, labels, index = some(dtype=torch.float32, device=device)
    seed = torch.tensor(5, device=device)

    def step(f: Tensor, bank: Tensor) -> Tensor:
        return ops.gcl_memory_step_(f, f + 1, bank, labels, index, temperature=0.1, num_negatives=9, seed=seed, momentum=0.3)

    banks = [bank.clone(), bank.clone()]
    torch.testing.assert_close(torch.compile(step, backend="aot_eager", fullgraph=True)(f, banks[0]), step(f, banks[1]))
    torch.testing.assert_close(*banks)


def test_the_raw_ops_are_well_formed(device):
    f, bank, labels, index = some(device=device)
    for seed, number in ((torch.tensor(1, device=device), 0), (None, 7)):
        args = (f, f + 1, bank.clone(), labels, index, 0.5, 3, seed, number, True, 0.5)
        torch.library.opcheck(torch.ops.gcl_fast.gcl_memory_step_.default, args)
    gradient = (torch.ones(3, dtype=f.dtype, device=device), torch.stack([f, f, f], 1), f)
    torch.library.opcheck(torch.ops.gcl_fast.gcl_memory_backward.default, gradient)


@pytest.mark.parametrize("name", ["f", "f_nv", "bank", "labels", "index"])
def test_bad_arguments_are_named(name):
    f, bank, labels, index = some(dtype=torch.float32)
    good = {"f": f, "f_nv": f, "bank": bank, "labels": labels, "index": index}
    with pytest.raises(ValueError, match=rf"gcl_memory_step_: {name} must have shape"):
        ops.gcl_memory_step_(**{**good, name: good[name][None]}, seed=0, momentum=0.2)
    before = bank.clone()
    with pytest.raises(ValueError, match="gcl_memory_step_: index.*30"):
        ops.gcl_memory_step_(**{**good, "index": index * 0 + 30}, seed=0, momentum=0.2)
    with pytest.raises(ValueError, match="gcl_memory_step_: momentum"):
        ops.gcl_memory_step_(**good, seed=0, momentum=1.5)
    assert torch.equal(bank, before)
