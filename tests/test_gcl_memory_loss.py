"""gcl_memory_loss against the formula as plain Python loops over float64."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given

from gcl_fast import ops, reference
from tests.bank_cases import BOTH, gcl_by_hand, problems, small, some


@BOTH
@small
@given(problem=problems())
def test_gcl_memory_loss_is_the_formula(module, problem):
    f, bank, labels, k, seed = (problem[name] for name in ("query", "bank", "labels", "num_negatives", "seed"))
    f_nv, index = f.flip(1) + 0.3, problem["positive"][:, 0]
    got = module.gcl_memory_loss(f, f_nv, bank, labels, index, temperature=0.1, num_negatives=k, seed=seed)
    torch.testing.assert_close(got, gcl_by_hand(f, f_nv, bank, labels, index, 0.1, k, seed), rtol=1e-12, atol=1e-12)


def test_autocast_does_not_lower_the_precision(device):
    query, bank, labels, positive = some(dtype=torch.float32, device=device)
    grads = []
    for enabled in (False, True):
        q = query.clone().requires_grad_()
        with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=enabled):
            loss = ops.gcl_memory_loss(q, q + 1, bank, labels, positive, num_negatives=9, seed=1)
        grads.append((loss.detach(), *torch.autograd.grad(loss.sum(), q)))
    assert torch.equal(grads[0][0], grads[1][0]) and torch.equal(grads[0][1], grads[1][1])


def test_gcl_memory_loss_gradcheck(device):
    f, bank, labels, index = some(device=device)
    f_nv = f.roll(1, 0) + 0.5

    def loss(a, b):
        return ops.gcl_memory_loss(a, b, bank, labels, index, temperature=0.5, num_negatives=7, seed=2)

    assert torch.autograd.gradcheck(loss, (f.requires_grad_(), f_nv.requires_grad_()))


def test_f_enters_the_third_positive_only(device):
    f, bank, labels, index = some(device=device)
    f.requires_grad_()
    terms = ops.gcl_memory_loss(f, f.detach() + 1, bank, labels, index, seed=2)
    for term, reaches in zip(terms, (False, False, True), strict=True):
        assert bool(torch.autograd.grad(term, f, retain_graph=True)[0].any()) == reaches


def test_zero_features_have_a_finite_gradient(device):
    f, bank, labels, index = some(dtype=torch.float32, device=device)
    f, f_nv = torch.zeros_like(f).requires_grad_(), torch.zeros_like(f).requires_grad_()
    terms = ops.gcl_memory_loss(f, f_nv, bank, labels, index, num_negatives=6, seed=0)
    torch.testing.assert_close(terms, torch.full_like(terms, math.log(7)))  # all seven logits are 0
    grads = torch.autograd.grad(terms.sum(), (f, f_nv))
    assert all(g.isfinite().all() and g.abs().max() < 1e3 for g in grads)


def test_a_bank_of_any_size_is_exported(device):
    class Loss(torch.nn.Module):
        def forward(self, f, bank, labels, index):
            return ops.gcl_memory_loss(f, f + 1, bank, labels, index, num_negatives=4, seed=0)

    batch, rows = torch.export.Dim("batch", min=2), torch.export.Dim("rows", min=2)
    sizes = ({0: batch}, {0: rows}, {0: rows}, {0: batch})
    exported = torch.export.export(Loss(), some(device=device), dynamic_shapes=sizes).module()
    other = some(b=7, n=50, device=device)
    torch.testing.assert_close(exported(*other), Loss()(*other))


def test_nothing_as_large_as_the_bank_is_kept_for_the_backward(device):
    f, bank, labels, index = some(b=3, n=500, d=8, device=device)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):
        ops.gcl_memory_loss(f.requires_grad_(), f + 1, bank, labels, index, seed=2)
    assert kept and max(kept) <= 3 * 3 * 8


@pytest.mark.parametrize("name", ["f", "f_nv", "bank", "labels", "index"])
def test_gcl_memory_loss_names_bad_arguments(name):
    f, bank, labels, index = some()
    good = {"f": f, "f_nv": f, "bank": bank, "labels": labels, "index": index}
    with pytest.raises(ValueError, match=rf"gcl_memory_loss: {name} must have shape"):
        ops.gcl_memory_loss(**{**good, name: good[name][None]}, seed=0)
    with pytest.raises(ValueError, match="index.*30"):
        ops.gcl_memory_loss(**{**good, "index": index * 0 + 30}, seed=0)


def test_the_op_is_well_formed(device):
    f, bank, labels, index = some(device=device)
    seed = torch.tensor(1, device=device)
    for dtype in (torch.float64, torch.float32):
        for a in (f.to(dtype).requires_grad_(), f.to(dtype)):
            args = (
                a,
                (a.detach() + 1).requires_grad_(a.requires_grad),
                bank.to(dtype),
                labels,
                index,
                0.5,
                3,
                seed,
                a.requires_grad,
            )
            torch.library.opcheck(torch.ops.gcl_fast.gcl_memory_loss.default, args)
    torch.library.opcheck(torch.ops.gcl_fast.bank_draw_positives.default, (labels, index, seed))


def test_errors_are_at_most_twice_those_of_pytorch(device):
    f, bank, labels, index = some(18, 700, 130, 40, device=device)
    f_nv = f.roll(1, 0) + 0.3

    def run(module, dtype):
        a, b = f.to(dtype).requires_grad_(), f_nv.to(dtype).requires_grad_()
        terms = module.gcl_memory_loss(a, b, bank.to(dtype), labels, index, num_negatives=400, seed=5)
        return terms.detach(), *torch.autograd.grad(terms.sum(), (a, b))

    exact, plain, got = run(reference, torch.float64), run(reference, torch.float32), run(ops, torch.float32)
    for a, p, e in zip(got, plain, exact, strict=True):
        floor = torch.finfo(torch.float32).eps * e.abs().max()
        assert (a - e).abs().max() <= 2 * (p - e).abs().max() + floor
