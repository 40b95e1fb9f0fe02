"""The drop-ins behave as the classes they replace: values, gradients and side effects, told again as plain loops."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from gcl_fast.compat import ClusterMemory, Memory


def randn(*shape, seed=0, device="cpu"):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(device)


def unit(*shape, seed=0, device="cpu"):
    return F.normalize(randn(*shape, seed=seed), dim=1).to(device)


def gcl_memory(device, labels, d=6, **options):
    memory = Memory(d, len(labels), **options).to(device)
    memory.features = unit(len(labels), d, seed=9, device=device)  # assigned, as the trainer does
    memory.labels = torch.tensor(labels, device=device)
    return memory


def gcl_loss(memory, f, f_nv, indexes, positives):
    """The sum of the three mean cross-entropies with every row of another label as negative; positives[i] = (P, P')."""
    bank, labels, total = memory.features.double().cpu(), memory.labels.tolist(), 0.0
    f, f_nv = f.double().cpu(), f_nv.double().cpu()
    for i, n in enumerate(indexes.tolist()):
        real, view = bank @ f[i] / memory.temp, bank @ f_nv[i] / memory.temp
        others = [float(view[m]) for m in range(len(labels)) if labels[m] != labels[n]]
        p, q = positives[i]
        for own in (float(view[n]), float(view[p]), float(real[q])):
            total += math.log(math.fsum(math.exp(x - own) for x in [own, *others])) / len(indexes)
    return total


# --- GCL ---


def test_memory_keeps_the_originals_face():
    memory = Memory(num_features=6, num_samples=9)
    assert (memory.temp, memory.momentum, memory.K) == (0.07, 0.2, 8192)
    assert (memory.num_features, memory.num_samples) == (6, 9)
    assert {name: (value.shape, value.dtype) for name, value in memory.state_dict().items()} == {
        "features": ((9, 6), torch.float32),
        "labels": ((9,), torch.int64),
    }
    assert not memory.features.any() and not memory.labels.any()


def test_memory_loss_and_update(device):
    memory = gcl_memory(device, [0, 1, 2, 3, 4, 5, 5, -1, -1])  # in the batch each label has one row
    f, f_nv = unit(3, 6, device=device), unit(3, 6, seed=1, device=device)
    indexes = torch.tensor([4, 0, 2], device=device)
    want = gcl_loss(memory, f, f_nv, indexes, [(n, n) for n in (4, 0, 2)])
    rows = F.normalize(0.2 * memory.features[indexes] + 0.8 * f)
    others = memory.features[[1, 3, 5, 6, 7, 8]].clone()
    f.requires_grad_(), f_nv.requires_grad_()
    loss = memory(f, f_nv, indexes)
    assert loss.shape == () and float(loss.detach()) == pytest.approx(want, rel=1e-5)
    torch.testing.assert_close(memory.features[indexes], rows)  # already, before any backward
    assert torch.equal(memory.features[[1, 3, 5, 6, 7, 8]], others) and not memory.features.requires_grad
    loss.backward()  # although the bank has moved
    assert f.grad.any() and f_nv.grad.any()


def test_memory_uses_features_as_given():
    memory = gcl_memory("cpu", [0, 1, 2, 3])
    f, f_nv, indexes = 2 * unit(1, 6), 3 * unit(1, 6, seed=1), torch.tensor([2])
    want = gcl_loss(memory, f, f_nv, indexes, [(2, 2)])
    assert float(memory(f, f_nv, indexes)) == pytest.approx(want, rel=1e-5)


def test_memory_draws_both_positives_anew_at_each_call():
    """-1 is a label like any other; every pair of its rows must come up, and nothing else."""
    labels = [0, -1, -1, -1, 1]
    memory = gcl_memory("cpu", labels, momentum=1.0)  # the bank stays
    f, f_nv, indexes = unit(1, 6), unit(1, 6, seed=1), torch.tensor([2])
    possible = {(p, q): gcl_loss(memory, f, f_nv, indexes, [(p, q)]) for p in (1, 2, 3) for q in (1, 2, 3)}
    seen = set()
    for _ in range(80):
        loss = float(memory(f, f_nv, indexes))
        pair = min(possible, key=lambda k: abs(possible[k] - loss))
        assert loss == pytest.approx(possible[pair], rel=1e-5)
        seen.add(pair)
    assert seen == set(possible)


def test_memory_samples_k_negatives_and_is_repeatable(device):
    labels = list(range(40))
    f, indexes = unit(2, 6, device=device), torch.tensor([3, 8], device=device)

    def losses(**options):
        memory = gcl_memory(device, labels, momentum=1.0, **options)
        return [float(memory(f, f, indexes)) for _ in range(3)]

    sampled = losses(K=5)
    assert len(set(sampled)) == 3 and sampled == losses(K=5) and sampled != losses(K=5, seed=1)
    everything = losses(K=39)
    assert len(set(everything)) == 1 and everything == losses() and max(sampled) < everything[0]


def test_memory_takes_another_number_of_rows_and_unequal_negatives():
    memory = Memory(6, 4)
    memory.features, memory.labels = unit(9, 6), torch.tensor([0, 0, 0, 0, 0, 1, 2, 2, 1])
    loss = memory(unit(2, 6, seed=1), unit(2, 6, seed=2), torch.tensor([0, 8]))  # 4 and 7 negatives
    assert loss.isfinite()


def test_memory_of_an_empty_batch():
    memory, f = gcl_memory("cpu", [0, 1, 2]), unit(0, 6).requires_grad_()
    before = memory.features.clone()
    loss = memory(f, f, torch.zeros(0, dtype=torch.int64))
    loss.backward()
    assert float(loss.detach()) == 0 and f.grad.shape == (0, 6) and torch.equal(memory.features, before)


def test_memory_names_what_was_assigned():
    memory, f = gcl_memory("cpu", [0, 1, 2]), unit(1, 6)
    memory.features = unit(5, 6)  # and no labels
    with pytest.raises(ValueError, match=r"Memory: labels must have shape \[N=5\], got \[3\]"):
        memory(f, f, torch.tensor([0]))
    assert memory.next_seed == 0


def test_memory_checks_its_seed():
    for seed in (None, 1.5):
        with pytest.raises(TypeError, match="Memory: seed must be an integer"):
            Memory(6, 4, seed=seed)
    assert Memory(6, 4, seed=2**64 + 3).next_seed == 3
    given = torch.tensor(7)
    Memory(6, 4, seed=given).next_seed.add_(1)
    assert given == 7


@pytest.mark.parametrize("kind", [Memory, ClusterMemory])
def test_numbers_that_are_none_are_named(kind):
    for options, words in (
        ({"temp": 0.0}, "temp must be above 0"),
        ({"temp": -0.07}, "temp must be above 0"),
        ({"momentum": 1.5}, "momentum must be at least 0.0 and at most 1"),
        ({"momentum": -0.1}, "momentum must be at least 0.0 and at most 1"),
    ):
        with pytest.raises(ValueError, match=f"{kind.__name__}: {words}"):
            kind(6, 4, **options)
    with pytest.raises(ValueError, match="Memory: K must be at least 1, got 0"):
        Memory(6, 4, K=0)


# --- Cluster Contrast ---


def cluster_memory(device, **options):
    memory = ClusterMemory(6, 4, **options).to(device)
    memory.features = unit(4, 6, seed=9, device=device)
    return memory


def test_cluster_memory_keeps_the_originals_face():
    memory = ClusterMemory(num_features=6, num_samples=4)
    assert (memory.temp, memory.momentum, memory.use_hard) == (0.05, 0.2, False)
    assert (memory.num_features, memory.num_samples) == (6, 4)
    assert list(memory.state_dict()) == ["features"] and not memory.features.any() and memory.features.shape == (4, 6)


@pytest.mark.parametrize("use_hard", [False, True, 0, 1])  # of a parser that counts, too
def test_cluster_memory_moves_in_its_backward(use_hard, device):
    memory = cluster_memory(device, use_hard=use_hard)
    inputs, targets = 3 * randn(5, 6, device=device), torch.tensor([2, 0, 2, 2, 3], device=device)
    before = memory.features.clone()

    exact = inputs.double().requires_grad_()
    want = F.cross_entropy(F.normalize(exact) @ before.double().T / 0.05, targets)
    want.backward()

    inputs.requires_grad_()
    loss = memory(inputs, targets)
    assert loss.shape == () and torch.equal(memory.features, before)  # not yet
    torch.testing.assert_close(loss.double(), want, rtol=1e-5, atol=1e-5)
    loss.backward()
    torch.testing.assert_close(inputs.grad.double(), exact.grad, rtol=1e-4, atol=1e-5)  # of the centroids before the move

    rows, samples = before.double(), F.normalize(inputs.detach().double())
    for y in (0, 2, 3):
        mine = [b for b in range(5) if int(targets[b]) == y]
        if use_hard:
            mine = [min(mine, key=lambda b: float(samples[b] @ before[y].double()))]
        for b in mine:
            rows[y] = 0.2 * rows[y] + 0.8 * samples[b]
            rows[y] /= rows[y].norm()
    torch.testing.assert_close(memory.features.double(), rows, rtol=0, atol=1e-6)
    assert torch.equal(memory.features[1], before[1])


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_cluster_memory_computes_in_the_wider_of_the_two_types(dtype):
    memory, other = cluster_memory("cpu"), cluster_memory("cpu")
    targets, inputs = torch.tensor([0, 3]), (100 * randn(2, 6)).to(dtype).requires_grad_()
    wide = torch.promote_types(dtype, torch.float32)
    exact = inputs.detach().to(wide).requires_grad_()
    losses = memory(inputs, targets), other(exact, targets)
    assert losses[0].dtype == wide and torch.equal(*losses)
    for loss in losses:
        loss.backward()
    assert torch.equal(inputs.grad, exact.grad.to(dtype)) and torch.equal(memory.features, other.features)


def test_cluster_memory_rests_without_a_backward(device):
    memory = cluster_memory(device)
    before = memory.features.clone()
    with torch.no_grad():
        memory(randn(2, 6, device=device), torch.tensor([0, 1], device=device))
    memory(randn(2, 6, device=device).requires_grad_(), torch.tensor([0, 1], device=device))
    assert torch.equal(memory.features, before)


def test_cluster_memory_moves_once_per_backward(device):
    memory, other = cluster_memory(device), cluster_memory(device)
    inputs, targets = randn(2, 6, device=device).requires_grad_(), torch.tensor([0, 0], device=device)
    (memory(inputs, targets) + memory(inputs, targets)).backward()
    for _ in range(2):
        other(inputs, targets).backward()
    torch.testing.assert_close(memory.features, other.features)


def test_cluster_memory_gradient_flows_through_a_compiled_caller(device):
    memory, plain = cluster_memory(device), cluster_memory(device)
    inputs, targets = randn(2, 6, device=device).requires_grad_(), torch.tensor([0, 3], device=device)
    compiled = torch.compile(lambda x: memory(2 * x, targets) * 3, backend="aot_eager")
    grads = [torch.autograd.grad(loss(inputs), inputs)[0] for loss in (compiled, lambda x: plain(2 * x, targets) * 3)]
    torch.testing.assert_close(*grads)
    torch.testing.assert_close(memory.features, plain.features)


def test_cluster_memory_says_why_it_is_not_traced_whole():
    memory = cluster_memory("cpu")
    compiled = torch.compile(lambda x: memory(x, torch.tensor([0])), backend="eager", fullgraph=True)
    with pytest.raises(Exception, match="moves in its backward"):
        compiled(randn(1, 6))


def test_cluster_memory_names_what_does_not_fit():
    memory, x = ClusterMemory(6, 0), randn(1, 6)
    with pytest.raises(IndexError, match="targets must be clusters, of which there are none, got 0"):
        memory(x, torch.tensor([0]))
    memory.features = unit(1, 6)[0]
    with pytest.raises(ValueError, match=r"ClusterMemory: features must have shape \[C, D\], got \[6\]"):
        memory(x, torch.tensor([0]))


def test_any_label_is_a_class_of_the_memory() -> None:
    features, indexes = torch.randn(8, 5, generator=torch.Generator().manual_seed(0)), torch.arange(30, 38)
    losses = []
    for names in ((3, 7), (-1, 0), (-2, -1), (-9, -2)):
        memory = Memory(5, 60)
        memory.features = torch.nn.functional.normalize(torch.randn(60, 5, generator=torch.Generator().manual_seed(1)), dim=1)
        memory.labels = torch.tensor(names).repeat_interleave(30)
        losses.append(memory(features, features, indexes))
    assert all(torch.equal(loss, losses[0]) for loss in losses)
