"""The frame of the stages that train a generator against a discriminator: stages 2 and 3."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from gcl_fast import distributed
from gcl_fast.config import Stage2Config, TrainConfig
from gcl_fast.data.plans import Plan, shuffled
from gcl_fast.guides import Bodies, GuidedGenerator, Variance
from gcl_fast.models.modes import evaluating
from gcl_fast.models.three_networks import Networks
from gcl_fast.progress import counted
from gcl_fast.records import Batch
from gcl_fast.stages.amp import use_bfloat16
from gcl_fast.stages.guided_views import both_views, generate_guided_views
from gcl_fast.stages.layout import prepare
from gcl_fast.stages.losses import pixel_weights
from gcl_fast.stages.stage import Stage, set_lr, stepped_lr
from gcl_fast.stages.training_data import TrainingData
from gcl_fast.stages.views import Mix, Views, generate_views, told_rows


def adam(module: nn.Module, config: Stage2Config) -> torch.optim.Adam:
    return torch.optim.Adam(
        module.parameters(), lr=config.lr, betas=(float(config.beta1), config.beta2), weight_decay=config.weight_decay, fused=True
    )


class AdversarialStage(Stage):
    """Three networks on their device, Adam for generator and discriminator, random batches of photos with meshes, pictures."""

    settings: Stage2Config

    def __init__(self, config: TrainConfig, settings: Stage2Config, networks: Networks, data: TrainingData) -> None:
        self.settings, self.data = settings, data
        self.seed, self.device, self.epochs = config.seed, data.device, settings.epochs
        self.encoder, self.generator, self.discriminator = networks.encoder, networks.generator, networks.discriminator
        self.modules = {"encoder": self.encoder, "generator": self.generator, "discriminator": self.discriminator}
        self.memory_format = prepare(self.modules, config, self.device)
        self.bf16, self.graphs = use_bfloat16(config.precision, self.device), config.compile == "graphs"
        self.step_graph = config.step_graph
        self.optimizers = {"generator": adam(self.generator, settings), "discriminator": adam(self.discriminator, settings)}
        self.loader = data.train_loader(meshes=True)
        self.bodies = data.bodies
        self.people = data.people if settings.loss.foreground else None
        self.untold = torch.zeros((), dtype=torch.int64, device=self.device)  # rows left out in this epoch

    def enter_epoch(self, epoch: int) -> None:
        """Learning rates of the epoch."""
        for name, optimizer in self.optimizers.items():
            set_lr(optimizer, stepped_lr(optimizer.defaults["lr"], self.settings.lr_gamma, self.lr_steps(name), epoch))

    def lr_steps(self, name: str) -> tuple[int, ...]:
        """Epochs after which the rate of the optimiser of this name falls."""
        del name
        return self.settings.lr_steps

    def plan_of(self, images: np.ndarray, epoch: int) -> Plan:
        """Random batches of the images, the last incomplete one dropped; exactly `iters` batches where that is set."""
        size = min(self.settings.batch_size, len(images))
        return shuffled(images, size, seed=(self.seed, epoch), drop_last=True, num_batches=self.settings.iters or None)

    def batches(self, plan: Plan, epoch: int, start: int) -> Iterable[Batch]:
        return self.loader.epoch(plan, epoch, start=start)

    def pictures(self) -> dict[str, dict[str, Tensor]]:
        """Rows as the official code shows them: photo, meshes, reconstruction, new view, cycle."""
        with evaluating(*self.modules.values()):
            return {name: self._rows(name, sample.to(self.device)) for name, sample in self.data.samples.items()}

    def views(
        self, batch: Batch, code: Tensor, mix: Mix | None, bodies: Bodies | None, variance: Variance | None = None
    ) -> Views:
        """The four generated views, guided by the bodies where the generator is; mix: None mixes each row with itself."""
        seen = None
        if bodies is not None:
            batch, seen = both_views(bodies, batch)
        batch, told = told_rows(batch) if self.generator.training else (batch, None)  # pictures are made by one process alone
        mixed_code = code if mix is None else mix.of(code)
        if isinstance(self.generator, GuidedGenerator):
            assert bodies is not None and seen is not None
            views = generate_guided_views(self.encoder, self.generator, bodies, seen, batch, code, mixed_code, mix, variance)
        else:
            views = generate_views(self.encoder, self.generator, batch, code, mixed_code)
        if told is None:
            return views
        self.untold += (told == 0).sum()
        return replace(views, told=told)

    def pixel_weights(self, batch: Batch) -> Tensor | None:
        """What each pixel of the photos counts in the image losses; None: all alike."""
        return None if self.people is None else pixel_weights(self.people[batch.index], self.settings.loss.foreground)

    def evaluate(self, epoch: int) -> dict[str, float]:
        """As `Stage.evaluate`; says how many rows of the epoch had no guide."""
        count = int(distributed.sum_(self.untold))
        if count and distributed.first():
            print(
                f"{self.name}, epoch {epoch + 1}: {counted(count, 'new view')} left out of the losses, where no body is seen "
                "(it is beside the picture once turned, or its mesh is blank)"
            )
        self.untold.zero_()
        return super().evaluate(epoch)

    def _rows(self, name: str, batch: Batch) -> dict[str, Tensor]:
        code = self.encoder(batch.image)[0]
        views = self.views(batch, code, None, self.data.sample_bodies.get(name))
        rows = {
            "photo": batch.image,
            "mesh": batch.mesh,
            "reconstruction": views.reconstruction,
            "new mesh": batch.mesh_novel,
            "new view": views.novel,
            "cycle": views.cycle,
        }
        return {title: row.float().cpu() for title, row in rows.items() if row is not None}
