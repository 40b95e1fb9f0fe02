"""Toy runs of the stages, alone or started by torchrun: python tests/distributed_worker.py OUT [CASE ...] writes what each rank
has at the end. No batch norm: each process has its own statistics, so only networks without them equal the single process."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import nn

from gcl_fast import distributed
from gcl_fast.config import TrainConfig, VarianceConfig, from_dict
from gcl_fast.data.datasets.camstyle import StyledRecords
from gcl_fast.evaluation import extract_features
from gcl_fast.guides import Bodies, GuidedGenerator
from gcl_fast.meshes.mesh_files import write_faces, write_mesh
from gcl_fast.meshes.sources import VertexMeshes
from gcl_fast.models import Discriminator, Generator, IdentityEncoder
from gcl_fast.models.three_networks import Networks
from gcl_fast.records import Batch, Record
from gcl_fast.stages.engine import Engine
from gcl_fast.stages.generative import GenerativeStage
from gcl_fast.stages.joint import JointStage
from gcl_fast.stages.log import RunLog
from gcl_fast.stages.warmup.cluster_contrast import ClusterContrastStage
from gcl_fast.stages.warmup.jvtc import JVTCStage
from gcl_fast.stages.warmup.mlc import MLCStage
from tests.stage_data import StageData
from tests.toy_world import ellipsoid

CASES = ("cluster-contrast", "mlc", "jvtc", "stage2", "stage3", "guided2", "guided3")
RESUMED = ("cluster-contrast", "stage3", "guided3")  # with batch norm, whose running averages differ from rank to rank
PEOPLE, IMAGES, SIZE = 4, 16, (40, 40)
CPU = torch.device("cpu")
CLUSTER = {"k1": 4, "k2": 2, "eps": 0.7, "min_samples": 2}
CONFIG = {
    "height": SIZE[0],
    "width": SIZE[1],
    "device": "cpu",
    "precision": "fp32",
    "stage1": {
        "epochs": 2,
        "iters": 2,
        "batch_size": 8,
        "num_instances": 2,
        "lr": 1e-3,
        "cluster": CLUSTER,
        "mlc": {"epochs": 2, "iters": 2, "batch_size": 8, "lr": 0.05, "single_label_epochs": 1, "min_neighbors": 3},
        "jvtc": {
            "epochs": 2,
            "iters": 2,
            "batch_size": 16,
            "global_from": 1,
            "temporal_from": 9,
            "lr": 0.05,
            "cluster": {**CLUSTER, "rho": None},
        },
    },
    "stage2": {"epochs": 1, "iters": 3, "batch_size": 4},
    "stage3": {"epochs": 2, "iters": 2, "batch_size": 4, "num_negatives": 5, "cluster": CLUSTER, "lr_encoder": 1e-2},
}


class Pictures:
    """A loader of made pictures: people are colours, the new view depends on the row of the joint batch."""

    def __init__(self) -> None:
        rng = torch.Generator().manual_seed(3)
        people = torch.randn(PEOPLE, 3, 1, 1, generator=rng, dtype=torch.float64)
        noise = torch.randn(IMAGES, 3, *SIZE, generator=rng, dtype=torch.float64)
        self.image = 2 * people.repeat(IMAGES // PEOPLE, 1, 1, 1) + 0.2 * noise
        self.mesh = torch.randn(IMAGES, 1, *SIZE, generator=rng, dtype=torch.float64).tanh()

    def epoch(self, plan, epoch, start=0):
        for position in range(start, len(plan)):
            index = torch.from_numpy(plan.batches[position])
            row = plan.first_row(position) + torch.arange(len(index))
            turned = self.mesh[index] * (1 + row + 10 * position)[:, None, None, None].double().cos()
            yield Batch(self.image[index], self.mesh[index], turned, index, index, index, 45.0 * (1 + (row + position) % 7))


def toy_bodies() -> Bodies:
    """An ellipsoid for each picture, all of other sizes."""
    vertices, faces = ellipsoid()
    with tempfile.TemporaryDirectory() as folder:
        for i in range(IMAGES):
            write_mesh(Path(folder) / f"{i}.npz", vertices * (0.7 + 0.02 * i), np.array([1.0, 0.0, 0.0], np.float32))
        write_faces(folder, faces)
        return Bodies(VertexMeshes(folder, "csv", SIZE), [Record(Path(f"{i}.jpg"), -1, 0) for i in range(IMAGES)])


def without_batch_norm(module: nn.Module) -> nn.Module:
    for name, child in module.named_children():
        if isinstance(child, (nn.BatchNorm1d, nn.BatchNorm2d)):
            setattr(module, name, nn.GroupNorm(1, child.num_features))
        else:
            without_batch_norm(child)
    return module


def make_stage(case: str, *, batch_norm: bool = False):
    torch.manual_seed(0)
    config = from_dict(TrainConfig, CONFIG)
    encoder = IdentityEncoder("jvtc", "resnet18", width=4, feature_width=6)
    encoder = (encoder if batch_norm else without_batch_norm(encoder)).double()
    pictures, cameras = Pictures(), torch.arange(IMAGES) % 2

    def features(network: nn.Module) -> torch.Tensor:
        return extract_features(network, pictures, IMAGES, batch_size=4, device=CPU)

    records = [Record(Path(f"{i:04}_c1s1_{i:06}_00.jpg"), -1, int(cameras[i])) for i in range(IMAGES)]
    styled = StyledRecords(records, np.arange(IMAGES), np.full(IMAGES, IMAGES), np.zeros(IMAGES, dtype=np.int64))
    data = StageData(cameras, CPU, pictures, features, styled)
    if case in ("cluster-contrast", "mlc", "jvtc"):
        return {"cluster-contrast": ClusterContrastStage, "mlc": MLCStage, "jvtc": JVTCStage}[case](config, encoder, data)
    kind = Generator
    if case.startswith("guided"):
        kind, data.bodies = GuidedGenerator, toy_bodies()
        config.stage3.variance = VarianceConfig(background=0.5, colour=0.5, occluder=0.5, crop=0.5)
        config.stage3.average_encoder = 0.9
    networks = Networks(encoder, kind(encoder.code_dim, width=2, mlp_width=6).double(), Discriminator(3).double())
    if case in ("stage2", "guided2"):
        stage = GenerativeStage(config, networks, data)
    else:
        stage = JointStage(config, networks, data)
        stage.memory.double()
    # Adam would blow the rounding of a gradient that is zero (a bias before a norm) up to a step.
    stage.optimizers = {k: torch.optim.SGD(getattr(stage, k).parameters(), 1e-3, momentum=0.9) for k in stage.optimizers}
    return stage


class Killed(Exception):
    pass


def run(case: str, folder: Path, *, stop_at: int | None = None, resume: bool = False, fail_on: int | None = None, **options):
    stage = make_stage(case, **options)
    step = stage.step

    def stepping(batch: Batch, iteration: int):
        if iteration == stop_at and fail_on in (None, distributed.rank()):
            raise Killed(f"no iteration {iteration}")
        return step(batch, iteration)

    stage.step = stepping
    log = RunLog(folder, tensorboard=False, write=distributed.first())
    Engine(stage, log, config={}, checkpoint_every=1, log_every=1).run(resume=resume)
    return {
        "modules": {name: module.state_dict() for name, module in stage.modules.items()},
        "optimizers": {name: optimizer.state_dict() for name, optimizer in stage.optimizers.items()},
        "extra": stage.extra_state(),
    }


def main(out: Path, cases: list[str]) -> None:
    torch.set_num_threads(1)
    with distributed.session(CPU) as rank:
        if cases == ["fail"]:
            run("cluster-contrast", out / "fail", stop_at=1, fail_on=1)
        found = {case: run(case, out / case) for case in cases}
        for case in RESUMED:
            try:
                run(case, out / f"{case}_again", stop_at=3, batch_norm=True)
            except Killed:
                distributed.barrier()
            found[f"{case}_again"] = run(case, out / f"{case}_again", resume=True, batch_norm=True)
            found[f"{case}_whole"] = run(case, out / f"{case}_whole", batch_norm=True)
        try:  # goes on alone in the tests
            run("cluster-contrast", out / "stopped", stop_at=3)
        except Killed:
            distributed.barrier()
        half = torch.arange(4, dtype=torch.bfloat16).view(2, 2) + 4 * rank
        found["gathered"] = distributed.gather_rows(half)
        rows, beside = torch.ones(1, 2, requires_grad=True), torch.ones(2, 2, requires_grad=True)
        of_others = 2 * beside  # before the rows, so that its gradient is read after theirs
        ((distributed.gather_rows(rows) + of_others) * (1 + rank)).sum().backward()
        found["gradients"] = rows.grad, beside.grad / (2 + 2 * rank)
        norm = nn.BatchNorm1d(3)
        for own in (norm.weight.data, norm.running_mean):
            own.fill_(1 + rank)
        norm.num_batches_tracked.fill_(2**24 + 1 + rank)
        distributed.join([norm], [])
        found["joined"] = {name: value.clone() for name, value in norm.state_dict().items()}
        norm.running_mean.fill_(1 + rank)
        distributed.average_buffers([norm])
        found["averaged"] = norm.state_dict()
        torch.save(found, out / f"rank{rank}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
