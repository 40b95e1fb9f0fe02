"""Stage 2: structure encoder, generator and discriminator learn; the identity encoder is frozen in eval mode."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from gcl_fast import distributed
from gcl_fast.config import Stage2Config, TrainConfig
from gcl_fast.data.loaders.loader_base import Loader
from gcl_fast.data.plans import Plan, shuffled
from gcl_fast.records import Batch
from gcl_fast.stages.adversarial import discriminator_loss, fake_terms, real_terms
from gcl_fast.stages.amp import autocast, use_bfloat16
from gcl_fast.stages.layout import prepare
from gcl_fast.stages.stage import Stage, send, set_lr, stepped_lr
from gcl_fast.stages.views import Views, draw_mix, generate_views, generative_losses


def adam(module: nn.Module, config: Stage2Config) -> torch.optim.Adam:
    return torch.optim.Adam(
        module.parameters(), lr=config.lr, betas=(float(config.beta1), config.beta2), weight_decay=config.weight_decay, fused=True
    )


@contextmanager
def frozen(module: nn.Module):
    """No gradient to the parameters; gradients still pass through to the input."""
    states = [p.requires_grad for p in module.parameters()]
    module.requires_grad_(False)
    try:
        yield
    finally:
        for parameter, state in zip(module.parameters(), states, strict=True):
            parameter.requires_grad_(state)


class GenerativeStage(Stage):
    """One update: discriminator first on detached fakes, then the generator against the updated discriminator."""

    name = "stage2"

    def __init__(
        self,
        config: TrainConfig,
        encoder: nn.Module,
        generator: nn.Module,
        discriminator: nn.Module,
        loader: Loader,
        num_images: int,
        *,
        device: torch.device,
        samples: dict[str, Batch] | None = None,
    ) -> None:
        """samples: batches by name (train, test) whose generated rows are pictured."""
        self.settings: Stage2Config = config.stage2
        self._set_up(config, encoder, generator, discriminator, loader, num_images, device, samples)
        self.encoder.eval().requires_grad_(False)

    def _set_up(self, config, encoder, generator, discriminator, loader, num_images, device, samples) -> None:
        self.seed, self.device, self.epochs = config.seed, device, self.settings.epochs
        self.encoder, self.generator, self.discriminator = encoder, generator, discriminator
        self.loader, self.num_images, self.samples = loader, num_images, samples or {}
        self.bf16 = use_bfloat16(config.precision, device)
        self.modules = {"encoder": encoder, "generator": generator, "discriminator": discriminator}
        self.memory_format = prepare(self.modules, config, device)
        self.graphs = config.compile == "graphs"
        self.optimizers = {"generator": adam(generator, self.settings), "discriminator": adam(discriminator, self.settings)}

    def plan(self, candidates: np.ndarray, epoch: int) -> Plan:
        """Random batches of the candidates, the last incomplete one dropped; exactly `iters` batches where that is set."""
        size = min(self.settings.batch_size, len(candidates))
        return shuffled(candidates, size, seed=(self.seed, epoch), drop_last=True, num_batches=self.settings.iters or None)

    def begin_epoch(self, epoch: int) -> Plan:
        self.set_rates(epoch)
        return self.plan(np.arange(self.num_images), epoch)

    def set_rates(self, epoch: int) -> None:
        """Learning rates of the epoch: stepped alike for every optimiser of the stage."""
        settings = self.settings
        for optimizer in self.optimizers.values():
            base = optimizer.defaults["lr"]
            set_lr(optimizer, stepped_lr(base, settings.lr_gamma, settings.lr_steps, epoch))

    def batches(self, plan: Plan, epoch: int, start: int) -> Iterable[Batch]:
        return self.loader.epoch(plan, epoch, start=start)

    def views(self, batch: Batch, iteration: int, *, encoder_grad: bool) -> Views:
        joint = distributed.world() * len(batch)
        weight, permutation = draw_mix(joint, self.settings.loss.mixup_alpha, self.iteration_rng(iteration))
        order = send(distributed.own_rows(permutation), self.device)
        return generate_views(
            self.encoder,
            self.generator,
            batch,
            weight,
            order,
            encoder_grad=encoder_grad,
            encode_generated=self.encode_generated,
            gather=distributed.gather_rows,
        )

    def encode_generated(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """The encoder's pass over generated images."""
        return self.encoder(image)

    def update_discriminator(self, batch: Batch, views: Views) -> dict[str, Tensor]:
        # The regulariser needs second derivatives: always float32.
        weight = self.settings.loss.penalty
        real, penalty = real_terms(self.discriminator, batch.image, with_penalty=weight > 0)
        with autocast(self.bf16, self.device):
            terms = fake_terms(self.discriminator, views.fakes)
        loss = discriminator_loss(terms, real, penalty, weight)
        self.optimizers["discriminator"].zero_grad(set_to_none=True)
        loss.backward()
        self.optimizers["discriminator"].step()
        return {**{f"dis_{name}": term for name, term in terms.items()}, "dis_real": real, "dis_penalty": penalty}

    def step(self, batch: Batch, iteration: int) -> dict[str, Tensor]:
        self.generator.train()
        self.discriminator.train()
        with autocast(self.bf16, self.device):
            views = self.views(batch, iteration, encoder_grad=False)
        losses = self.update_discriminator(batch, views)
        with frozen(self.discriminator), autocast(self.bf16, self.device):
            total, generative = generative_losses(self.encode_generated, self.discriminator, batch, views, self.settings.loss)
        self.optimizers["generator"].zero_grad(set_to_none=True)
        total.backward()
        self.optimizers["generator"].step()
        return {name: loss.detach().float() for name, loss in {**losses, **generative, "total": total}.items()}

    @torch.no_grad()
    def pictures(self) -> dict[str, dict[str, Tensor]]:
        """Rows as the official code shows them: photo, meshes, reconstruction, new view, cycle."""
        training = {name: module.training for name, module in self.modules.items()}
        pictures = {}
        for module in self.modules.values():
            module.eval()
        for name, sample in self.samples.items():
            batch = sample.to(self.device)
            order = torch.arange(len(batch), device=self.device)
            views = generate_views(self.encoder, self.generator, batch, 1.0, order, encoder_grad=False)
            rows = {
                "photo": batch.image,
                "mesh": batch.mesh,
                "reconstruction": views.reconstruction,
                "new mesh": batch.mesh_novel,
                "new view": views.novel,
                "cycle": views.cycle,
            }
            pictures[name] = {title: row.float().cpu() for title, row in rows.items()}
        for name, module in self.modules.items():
            module.train(training[name])
        return pictures
