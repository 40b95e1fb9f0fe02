"""On a CUDA run all that has a kernel runs on the GPU, and a training step never waits for it: proven on a pretended one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

pytest.importorskip("torchvision", reason="the backbones need torchvision")

from gcl_fast import _native, ops
from gcl_fast.config import JVTCConfig, TrainConfig, from_dict
from gcl_fast.data.datasets.camstyle import StyledRecords
from gcl_fast.evaluation import evaluate_features, extract_features, top_matches
from gcl_fast.models import IdentityEncoder
from gcl_fast.ops.ranking import nearest_columns
from gcl_fast.pseudo_labels import centroids, cluster, eps_by_rho
from gcl_fast.records import Batch, Record
from gcl_fast.stages.warmup.cluster_contrast import ClusterContrastStage, cluster_means, means_of_rows
from gcl_fast.stages.warmup.jvtc import JVTCStage
from gcl_fast.stages.warmup.mlc import MLCStage
from gcl_fast.stages.warmup.multilabel import multi_labels
from gcl_fast.stages.warmup.recordings import labels_by_rule
from tests.pretended_gpu import GPU, GpuTensor, on_cpu, on_gpu, pretended_gpu
from tests.stage_data import StageData
from tests.test_evaluation import Encoder, Images, images, shots
from tests.test_step import make_batch, make_config, make_networks, make_stage

N = 24


@pytest.fixture
def gpu(monkeypatch):
    """What is seen of a GPU that is not there."""
    monkeypatch.setattr(_native, "has_cuda", _native.loaded)  # the CPU's kernels stand in
    with pretended_gpu() as watch:
        yield watch


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("item", lambda x: x.sum().item()),
        ("condition", lambda x: bool((x > 0).any())),
        ("cpu", lambda x: x.cpu()),
        ("to", lambda x: x.to("cpu")),
        ("tolist", lambda x: x.tolist()),
        ("nonzero", lambda x: (x > 0).nonzero()),
        ("mask", lambda x: x[x > 0]),
        ("unique", lambda x: torch.unique(x)),
        ("bincount", lambda x: torch.bincount(x.long())),
        ("sent", lambda x: x + torch.ones(4).to(x.device)),
        ("sent unpinned", lambda x: x + torch.ones(4).to(x.device, non_blocking=True)),
        ("new", lambda x: x.new_tensor([1.0, 2.0])),
        ("made", lambda x: x + torch.tensor([1.0, 2.0, 3.0, 4.0], device=x.device)),
    ],
)
def test_the_watch_sees_each_way_to_wait(gpu, name, fault):
    fault(torch.ones(4, device="cuda"))
    assert gpu.reads, name


def test_the_watch_sees_work_left_on_the_cpu_and_two_devices(gpu):
    x = torch.ones(4, device="cuda")
    with pytest.raises(RuntimeError, match="same device"):
        x + torch.ones(4)
    with pytest.raises(TypeError, match="numpy"):
        x.numpy()
    gpu.clear()
    torch.ones(4) * 2
    assert gpu.host and not gpu.reads
    pinned = torch.ones(4).pin_memory()
    gpu.clear()
    y = (x[x.long()] * 2 + torch.zeros(4, device=x.device)).masked_fill(x > 1, 0.0) + pinned.to(GPU, non_blocking=True)
    y.requires_grad_().square().sum().backward()
    assert y.device == y.grad.device == GPU and isinstance(y.grad, GpuTensor)
    assert not gpu.host and not gpu.reads


def check_steps(watch, stage, batches):
    """Steps on the pretended GPU: no operation on the CPU, nothing waited for."""
    stage.step(batches[0], 0)  # optimisers make their state
    watch.clear()
    for iteration, batch in enumerate(batches[1:], 1):
        losses = stage.step(batch, iteration)
        assert all(loss.device == GPU for loss in losses.values())
    assert watch.operations and not watch.reads and not watch.host, (watch.reads, watch.host)
    assert all(p.device == GPU for module in stage.modules.values() for p in module.parameters())


@pytest.mark.parametrize("name", ["stage2", "stage3"])
def test_a_step_of_stages_2_and_3_stays_on_the_gpu(gpu, name):
    stage = make_stage(name, make_config(), make_networks(GPU), GPU) if name == "stage2" else _joint()
    check_steps(gpu, stage, [make_batch(GPU, seed) for seed in range(2)])


def _joint():
    from gcl_fast.models.three_networks import Networks
    from gcl_fast.stages.joint import JointStage

    stage = JointStage(make_config(), Networks(**make_networks(GPU)), StageData(torch.zeros(12, dtype=torch.int64), GPU))
    stage.memory.double()
    stage.memory.features.copy_(F.normalize(torch.randn(12, 6, dtype=torch.float64), dim=1))
    stage.memory.labels.copy_(torch.arange(12) % 3)
    stage.centers = torch.randn(3, 6, dtype=torch.float64).to(GPU)
    return stage


def warmup(kind, device=GPU, **settings):
    torch.manual_seed(0)
    encoder = IdentityEncoder("jvtc", "resnet18", width=4, feature_width=6)
    config = from_dict(TrainConfig, {"device": "cpu", "precision": "fp32", "stage1": settings})
    names = [f"{i // 6:04d}_c{i % 2 + 1}s1_{100 * i:06d}_00.jpg" for i in range(N)]
    records = [Record(Path(name), i // 6, i % 2) for i, name in enumerate(names)]
    none = np.zeros(N, dtype=np.int64)
    data = StageData(torch.arange(N) % 2, device, styled_records=StyledRecords(records, np.arange(N), none, none))
    stage = kind(config, encoder, data)
    bank = F.normalize(torch.randn(N, 6, generator=torch.Generator().manual_seed(1)).abs(), dim=1)  # near each other
    if kind is ClusterContrastStage:
        stage.labels = (torch.arange(N) % 4).to(device)
        stage.memory = stage._new_memory(4)
        stage.memory.features.copy_(bank[:4])
    else:
        stage.bank.copy_(bank)
    return stage


def warmup_batches(count=2, size=8, device=GPU):
    rng = torch.Generator().manual_seed(2)
    made = []
    for _ in range(count):
        index = torch.randperm(N, generator=rng)[:size]
        made.append(Batch(torch.randn(size, 3, 56, 40, generator=rng), None, None, index, index, index).to(device))
    return made


@pytest.mark.parametrize("memory", ["each", "hard", "mean"])
def test_a_step_of_cluster_contrast_stays_on_the_gpu(gpu, memory):
    check_steps(gpu, warmup(ClusterContrastStage, memory=memory, batch_size=8, num_instances=2), warmup_batches())


@pytest.mark.parametrize("single_label", [True, False])
def test_a_step_of_mlc_stays_on_the_gpu(gpu, single_label):
    stage = warmup(MLCStage, mlc={"batch_size": 8, "threshold": 0.3, "min_neighbors": 3})
    stage.single_label, stage.momentum = single_label, 0.5
    check_steps(gpu, stage, warmup_batches())


@pytest.mark.parametrize("number", [1, 40])
def test_a_step_of_jvtc_stays_on_the_gpu(gpu, number):
    stage = warmup(JVTCStage, jvtc={"batch_size": 8, "views": 2, "epochs": 98, "temporal_from": 99})
    stage.number = number
    check_steps(gpu, stage, warmup_batches())


@pytest.mark.parametrize("walk", ["mutual", "released"])
def test_multi_labels_on_a_gpu_are_those_of_the_cpu(gpu, walk):
    bank = F.normalize(torch.randn(90, 8, generator=torch.Generator().manual_seed(3)) + 1.2, dim=1)
    index = torch.tensor([0, 5, 89, 5])
    for threshold in (0.2, 0.6, 0.95):  # the walks take several rounds, one, none
        want = multi_labels(bank, index, threshold, 10, walk)
        gpu.clear()
        got = multi_labels(on_gpu(bank), on_gpu(index), threshold, 10, walk)
        assert not gpu.reads
        assert got.device == GPU
        assert torch.equal(on_cpu(got), want)


def test_means_of_rows_are_the_means_of_clusters(gpu):
    features, targets = torch.randn(7, 5, generator=torch.Generator().manual_seed(4)), torch.tensor([3, 1, 3, 0, 1, 3, 9])
    want, present = cluster_means(features, targets)
    got = on_cpu(means_of_rows(on_gpu(features), on_gpu(targets)))
    torch.testing.assert_close(got, want[torch.searchsorted(present, targets)])
    assert torch.equal(got[0], got[2]) and torch.equal(got[0], got[5])


def _features(count, batch_size, watch=None):
    encoder, x = Encoder(), images(count)
    if watch is None:
        return extract_features(encoder, Images(x), count, batch_size=batch_size, device="cpu")
    encoder.to("cuda")
    watch.clear()
    return extract_features(encoder, Images(x), count, batch_size=batch_size, device="cuda")


def test_features_stay_on_the_gpu_and_are_waited_for_once(gpu):
    found, seen = [], []
    for batch_size in (3, 12):
        found.append(_features(24, batch_size, gpu))
        seen.append(sum(gpu.reads.values()))
        assert {place.split()[0] for place in gpu.host} <= {"index", "full_like", "zeros_like"}  # the loader's own
    assert seen == [1, 1]
    assert found[0].device == GPU
    torch.testing.assert_close(on_cpu(found[0]), _features(24, 3))


def test_labels_of_an_epoch_are_made_on_the_gpu(gpu):
    x = F.normalize(torch.randn(60, 8, generator=torch.Generator().manual_seed(5)), dim=1)
    cameras, counts = torch.arange(60) % 3, []
    want = cluster(x, k1=6, k2=2, eps=0.7, min_samples=2, cameras=cameras)
    for rows in (30, 60):
        gpu.clear()
        part = on_gpu(x[:rows])
        found = cluster(part, k1=6, k2=2, eps=0.7, min_samples=2, cameras=cameras[:rows])
        centroids(part, found.labels)
        counts.append(sum(gpu.reads.values()))
        ours = {place for place in gpu.host if not place.endswith((*_host_work(), "a test"))}
        assert {place.split()[0] for place in ours} <= {"randint"}, gpu.host  # D numbers that are the same on every device
    assert counts[1] <= counts[0] + 3, "reads must not grow with the images"
    assert found.labels.device == GPU
    assert torch.equal(on_cpu(found.labels), want.labels) and found.camera_agreement == want.camera_agreement


def _host_work():
    """Of the labels' one copy on the host: their statistics."""
    import inspect

    from gcl_fast.pseudo_labels import described

    lines, first = inspect.getsourcelines(described)
    return tuple(f"pseudo_labels.py:{first + i}" for i in range(len(lines)))


def test_scores_and_ranked_lists_are_made_on_the_gpu(gpu):
    queries, gallery = shots(9, 1), shots(40, 2)
    q, g = _features(9, 4), _features(40, 16)
    want = evaluate_features(q, g, queries, gallery)
    gpu.clear()
    found = evaluate_features(on_gpu(q), on_gpu(g), queries, gallery)
    assert found.mAP == want.mAP and torch.equal(found.cmc, want.cmc)
    assert sum(gpu.reads.values()) < 12, gpu.reads  # the identities, two checks of the features, one copy of the scores
    ids = [torch.arange(9) % 3, torch.arange(40) % 3, torch.zeros(9, dtype=torch.int64), torch.ones(40, dtype=torch.int64)]
    want = top_matches(q, g, *ids, top=5)
    gpu.clear()
    found = top_matches(on_gpu(q), on_gpu(g), *ids, top=5)
    assert {place.split()[0] for place in gpu.host} <= {"randint"}  # D numbers that are the same on every device
    assert sum(count for place, count in gpu.reads.items() if place.startswith("to cpu")) == 3
    assert torch.equal(found.index, want.index)


def copied(watch):
    """Tensors that went to the host, and work that was done there."""
    return [*(place for place in watch.reads if place.startswith("to cpu")), *watch.host]


def test_re_ranking_stays_on_the_gpu(gpu):
    x = F.normalize(torch.randn(60, 8, generator=torch.Generator().manual_seed(7)), dim=1)
    want, counts = ops.rerank(x[:15], x[15:], k1=6, k2=3), []
    for rows in (30, 60):
        query, gallery = on_gpu(x[:15]), on_gpu(x[15:rows])
        gpu.clear()
        found = ops.rerank(query, gallery, k1=6, k2=3)
        assert found.device == GPU and not copied(gpu), copied(gpu)
        counts.append(sum(gpu.reads.values()))
    assert counts[0] == counts[1], "reads must not grow with the images"
    torch.testing.assert_close(on_cpu(found), want, rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_nearest_on_a_gpu_are_those_of_the_cpu_ties_too(gpu, dtype):
    distance = torch.randint(0, 6, (9, 40), generator=torch.Generator().manual_seed(8)).to(dtype) / 7
    want = nearest_columns(distance, 11)
    assert torch.equal(want, distance.sort(dim=1, stable=True).indices[:, :11])
    gpu.clear()
    found = nearest_columns(on_gpu(distance), 11)
    assert found.device == GPU and not gpu.reads and not gpu.host
    assert torch.equal(on_cpu(found), want)


def test_rho_s_radius_is_found_on_the_gpu(gpu):
    x = F.normalize(torch.randn(60, 8, generator=torch.Generator().manual_seed(5)), dim=1)
    distance = ops.jaccard_distance(x, 6, 2)
    there = ops.SparseDistance(*(on_gpu(part) for part in (distance.indptr, distance.indices, distance.values)), distance.shape)
    gpu.clear()
    assert eps_by_rho(there, 0.05) == pytest.approx(eps_by_rho(distance, 0.05), rel=1e-12)
    gpu.clear()
    eps_by_rho(there, 0.05)
    assert not copied(gpu), copied(gpu)
    want = cluster(x, k1=6, k2=2, rho=0.05, min_samples=2)
    found = cluster(on_gpu(x), k1=6, k2=2, rho=0.05, min_samples=2)
    assert torch.equal(on_cpu(found.labels), want.labels) and want.num_clusters > 1


@pytest.mark.parametrize("recordings", [None, torch.arange(N) // 12])
def test_jvtc_s_labels_are_made_on_the_gpu(gpu, recordings):
    features = F.normalize(torch.randn(N, 6, generator=torch.Generator().manual_seed(9)) + 0.5, dim=1)
    known = [features, torch.arange(N) % 3, 40 * torch.arange(N)]
    shares = {"euclidean_share": 0.3, "joint_share": 0.2, "smooth_bins": 2.0, "recording_rho": 0.2}
    rule = from_dict(JVTCConfig, {"cluster": {"k1": 6, "k2": 2, "rho": 0.1, "min_samples": 2}, "candidates": 10, **shares})
    want = labels_by_rule(*known, rule, recordings)
    there = [on_gpu(part) for part in known]
    gpu.clear()
    found = labels_by_rule(*there, rule, None if recordings is None else on_gpu(recordings))
    for ours, theirs in zip(found, want, strict=True):
        assert ours.labels.device == GPU and torch.equal(on_cpu(ours.labels), theirs.labels) and theirs.num_clusters > 1
    ours = {place for place in gpu.host if not place.endswith((*_host_work(), "a test"))}
    assert {place.split()[0] for place in ours} <= {"randint"}, ours
    copies = [place for place in gpu.reads if place.startswith("to cpu") and not place.endswith(_host_work())]
    assert all("temporal.py" in place for place in copies), copies  # the histograms, of cameras and bins


def test_a_camera_whose_images_are_all_outliers_is_no_error():
    x = torch.cat([torch.eye(5)[:4].repeat_interleave(4, 0), torch.eye(5)[4:]])
    x = F.normalize(x + 0.01 * torch.randn(x.shape, generator=torch.Generator().manual_seed(1)), dim=1)
    cameras, frames = torch.cat([torch.arange(16) % 2, torch.tensor([3])]), 10 * torch.arange(17)
    rule = from_dict(JVTCConfig, {"cluster": {"k1": 4, "k2": 1, "eps": 0.5, "rho": None, "min_samples": 3}})
    joint, visual = labels_by_rule(x, cameras, frames, rule)
    assert (visual.labels[:16] >= 0).all() and visual.labels[16] == -1 and joint.num_clusters > 1


def test_products_are_exact_whatever_the_program_asks(monkeypatch):
    seen = []
    real = torch.mm
    monkeypatch.setattr(torch, "mm", lambda *a, **k: (seen.append(torch.get_float32_matmul_precision()), real(*a, **k))[1])
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("high")
        ops.knn(torch.randn(9, 4), 3)
        assert seen and set(seen) == {"highest"}
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision(before)
