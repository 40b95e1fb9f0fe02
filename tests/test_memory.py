"""InstanceMemory and ClusterMemory: losses and updates against plain loops, and their state dicts."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from gcl_fast import ops
from gcl_fast.memory import ClusterMemory, InstanceMemory
from gcl_fast.reference.bank import hardest
from tests.bank_cases import dot, unit


def updated(bank, rows, features, momentum):
    """One by one, in batch order, on Python floats."""
    bank = bank.double().tolist()
    for row, feature in zip(rows, features.double().tolist(), strict=True):
        new = unit(feature)
        bank[row] = unit([momentum * a + (1 - momentum) * b for a, b in zip(bank[row], new, strict=True)])
    return torch.tensor(bank, dtype=torch.float64)


def hardest_by_hand(bank, targets, features):
    """Batch position of the least similar sample of each cluster present, clusters in any order."""
    bank, features, chosen = bank.double().tolist(), features.double().tolist(), {}
    for b, y in enumerate(targets):
        if y not in chosen or dot(unit(features[b]), bank[y]) < dot(unit(features[chosen[y]]), bank[y]):
            chosen[y] = b
    return sorted(chosen.values())


def randn(*shape, seed=0, device="cpu"):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(device)


def instance_memory(device, n=12, d=6):
    memory = InstanceMemory(d, n, num_negatives=5).to(device)
    memory.features.copy_(F.normalize(randn(n, d, seed=9)))
    memory.labels.copy_(torch.arange(n) % 4 - 1)
    return memory


def cluster_memory(device, c=5, d=6, **options):
    memory = ClusterMemory(d, c, **options).to(device)
    memory.reset(randn(c, d, seed=9, device=device))
    return memory


# --- instances ---


def test_instance_loss_is_gcls_with_the_methods_numbers(device):
    memory = instance_memory(device)
    f, f_nv, index = randn(4, 6, device=device), randn(4, 6, seed=1, device=device), torch.tensor([3, 0, 7, 3], device=device)
    before = memory.features.clone()
    terms = memory(f, f_nv, index, seed=5)
    want = ops.gcl_memory_loss(f, f_nv, before, memory.labels, index, temperature=0.04, num_negatives=5, seed=5)
    assert torch.equal(terms, want) and terms.shape == (3,)
    assert torch.equal(memory.features, before)  # the loss does not update
    assert InstanceMemory(6, 12).num_negatives == 8192


def test_instance_update_normalises_and_follows_the_batch_order(device):
    memory = instance_memory(device)
    f, index = 5 * randn(4, 6, device=device), torch.tensor([3, 0, 7, 3], device=device)
    want = updated(memory.features, index.tolist(), f, 0.2)
    memory.update(index, f.requires_grad_())
    torch.testing.assert_close(memory.features.double().cpu(), want, rtol=0, atol=1e-6)
    assert not memory.features.requires_grad


def test_update_between_loss_and_backward_changes_no_gradient(device):
    grads = []
    for between in (False, True):
        memory = instance_memory(device)
        f, index = randn(4, 6, device=device).requires_grad_(), torch.tensor([3, 0, 7, 3], device=device)
        loss = memory(f, f + 1, index, seed=5).sum()
        if between:
            memory.update(index, f)
        grads.append(torch.autograd.grad(loss, f)[0])
    assert torch.equal(*grads) and grads[0].any()


def test_instance_step_is_the_loss_and_then_the_update(device):
    one, two = instance_memory(device), instance_memory(device)
    f, f_nv = (randn(4, 6, seed=seed, device=device).requires_grad_() for seed in (0, 1))
    index = torch.tensor([3, 0, 7, 3], device=device)
    apart = one(f, f_nv, index, seed=5)
    want = torch.autograd.grad(apart.sum(), (f, f_nv))
    one.update(index, f)
    together = two.step(f, f_nv, index, seed=5)
    got = torch.autograd.grad(together.sum(), (f, f_nv))
    assert torch.equal(together, apart) and torch.equal(two.features, one.features)
    assert all(map(torch.equal, got, want)) and not two.features.requires_grad


def test_instance_memory_starts_without_classes_and_is_saved_whole(device):
    fresh = InstanceMemory(6, 12).to(device)
    assert (fresh.labels == -1).all() and not fresh.features.any()
    memory = instance_memory(device)
    fresh.load_state_dict(memory.state_dict())
    assert torch.equal(fresh.features, memory.features) and torch.equal(fresh.labels, memory.labels)
    assert set(memory.state_dict()) == {"features", "labels"}
    with pytest.raises(RuntimeError, match="size mismatch"):
        InstanceMemory(6, 13).load_state_dict(memory.state_dict())


# --- clusters ---


@settings(max_examples=20, deadline=None, derandomize=True)
@given(targets=st.lists(st.integers(0, 4), min_size=1, max_size=9), temperature=st.sampled_from([0.05, 1.0]))
def test_cluster_loss_is_cross_entropy_over_all_centroids(targets, temperature):
    memory = cluster_memory("cpu", temperature=temperature).double()
    f, bank = randn(len(targets), 6, seed=len(targets)).double(), memory.features.tolist()
    losses = []
    for feature, y in zip(f.tolist(), targets, strict=True):
        logits = [dot(unit(feature), row) / temperature for row in bank]
        losses.append(math.log(math.fsum(math.exp(x - logits[y]) for x in logits)))
    loss = memory(f, torch.tensor(targets))
    assert loss.shape == () and float(loss) == pytest.approx(math.fsum(losses) / len(losses), rel=1e-12)


def test_the_cluster_memory_has_the_published_numbers():
    """Cluster Contrast, section 4.2: temperature 0.05, momentum 0.1; every sample updates unless asked otherwise."""
    one, other = ClusterMemory(6, 5), ClusterMemory(6, 5, temperature=0.05, momentum=0.1, use_hard=False)
    f, targets = randn(4, 6), torch.tensor([1, 1, 0, 1])
    losses = []
    for memory in (one, other):
        memory.reset(randn(5, 6, seed=9))
        losses.append(memory(f, targets))
        memory.update(f, targets)
    assert torch.equal(*losses) and torch.equal(one.features, other.features)


def test_cluster_loss_gradcheck(device):
    memory = cluster_memory(device, temperature=0.5).double()
    targets = torch.tensor([4, 0, 4], device=device)
    assert torch.autograd.gradcheck(lambda f: memory(f, targets), randn(3, 6, device=device).double().requires_grad_())


@settings(max_examples=20, deadline=None, derandomize=True)
@given(targets=st.lists(st.integers(0, 4), max_size=9), use_hard=st.booleans())
def test_cluster_update_is_the_loop(targets, use_hard):
    memory = cluster_memory("cpu", use_hard=use_hard)
    f = 3 * randn(len(targets), 6, seed=len(targets))
    keep = hardest_by_hand(memory.features, targets, f) if use_hard else range(len(targets))
    want = updated(memory.features, [targets[b] for b in keep], f[list(keep)], 0.1)
    memory.update(f, torch.tensor(targets, dtype=torch.int64))
    torch.testing.assert_close(memory.features.double(), want, rtol=0, atol=1e-6)


def test_the_first_of_equally_hard_samples_is_kept(device):
    features = torch.tensor([[0.0, 1], [0, -1], [0, -1], [1, 0], [1, 0]], device=device)
    targets, bank = torch.tensor([1, 1, 1, 0, 0], device=device), torch.tensor([[1.0, 0], [0, 1]], device=device)
    assert hardest(features, targets, bank).tolist() == [False, True, False, True, False]
    want = ops.bank_update_(bank.clone(), targets[[1, 3]], features[[1, 3]], 0.3)
    assert torch.equal(ops.bank_update_(bank, targets, features, 0.3, hard=True), want)


def test_cluster_update_may_precede_the_backward(device):
    grads = []
    for between in (False, True):
        memory, targets = cluster_memory(device), torch.tensor([4, 0, 4], device=device)
        f = randn(3, 6, device=device).requires_grad_()
        loss = memory(f, targets)
        if between:
            memory.update(f, targets)
        grads.append(torch.autograd.grad(loss, f)[0])
    assert torch.equal(*grads) and grads[0].any()


def test_zero_features_and_empty_batches(device):
    memory = cluster_memory(device)
    before = memory.features.clone()
    f = torch.zeros(2, 6, device=device, requires_grad=True)
    loss = memory(f, torch.tensor([0, 1], device=device))
    assert float(loss.detach()) == pytest.approx(math.log(5)) and torch.autograd.grad(loss, f)[0].isfinite().all()
    memory.update(f, torch.tensor([0, 1], device=device))
    torch.testing.assert_close(memory.features, before)
    nobody = torch.zeros(0, dtype=torch.int64, device=device)
    assert memory(f[:0], nobody).item() == 0
    memory.update(f[:0], nobody)
    torch.testing.assert_close(memory.features, before)


@pytest.mark.parametrize(("stored", "fresh"), [(7, 3), (3, 7), (0, 3)])
def test_the_number_of_clusters_is_loaded(stored, fresh, device):
    memory = cluster_memory(device, c=stored)
    holder = torch.nn.ModuleDict({"memory": ClusterMemory(6, fresh).to(device)})
    holder.load_state_dict({f"memory.{name}": value for name, value in memory.state_dict().items()})
    loaded = holder["memory"]
    assert loaded.num_clusters == stored and torch.equal(loaded.features, memory.features)
    assert loaded.features.device == memory.features.device
    with pytest.raises(RuntimeError, match="size mismatch"):
        ClusterMemory(5, stored).load_state_dict(memory.state_dict())


def test_reset_takes_another_number_of_normalised_centroids(device):
    memory = cluster_memory(device)
    memory.reset(4 * torch.ones(3, 6, device=device, dtype=torch.float64))
    assert memory.features.dtype == torch.float32
    torch.testing.assert_close(memory.features, torch.full((3, 6), 6**-0.5, device=device))
    assert "features" in memory.state_dict()


@pytest.mark.parametrize("size", [1e-30, 1e20, 1e38])
def test_reset_normalises_centroids_of_any_length(size, device):
    """Once squares that float32 does not hold made zeros of them."""
    memory, centroids = cluster_memory(device), torch.nn.functional.normalize(randn(4, 6), dim=1)
    memory.reset((size * centroids).to(device))
    torch.testing.assert_close(memory.features.cpu(), centroids)
    with pytest.raises(ValueError, match="ClusterMemory.reset: centroids must be finite, got NaN or infinity in 1 rows"):
        memory.reset(torch.tensor([[1.0] * 6, [float("nan")] * 6], device=device))


@pytest.mark.parametrize("count", [4, 3000])
def test_the_device_meta_gives_shapes(count):
    with torch.device("meta"):
        memory, f, targets = ClusterMemory(6, count), torch.zeros(3, 6, requires_grad=True), torch.zeros(3, dtype=torch.int64)
    loss = memory(f, targets)
    loss.backward()
    memory.update(f, targets)
    assert loss.is_meta and loss.shape == () and f.grad.shape == (3, 6)


def test_bad_arguments_are_named():
    instances, clusters = instance_memory("cpu"), cluster_memory("cpu")
    f, rows = randn(3, 6), torch.tensor([0, 1, 2])
    for call, word in [
        (lambda: instances(f, f[:2], rows, seed=0), "f_nv"),
        (lambda: instances.update(rows, f[:, :5]), "f must have shape"),
        (lambda: instances.update(rows[:2], f), "feature"),
        (lambda: clusters(f[:, :5], rows), "f must have shape"),
        (lambda: clusters(f, rows[:2]), "targets"),
        (lambda: clusters(f, rows + 3), "rows of the bank"),
        (lambda: clusters.update(f, rows + 3), "rows of the bank"),
        (lambda: clusters.update(f, rows[:2]), "targets"),
        (lambda: clusters.reset(f[:, :5]), "centroids"),
    ]:
        with pytest.raises(ValueError, match=word):
            call()
