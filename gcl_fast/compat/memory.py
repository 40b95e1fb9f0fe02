"""Drop-ins for the memories of GCL (`Memory`) and of Cluster Contrast (`ClusterMemory`): same names, arguments, buffers,
results and side effects, on any device. New code is better served by `gcl_fast.memory`."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gcl_fast.ops import bank_nce, bank_update_
from gcl_fast.ops.bank import draw_positives
from gcl_fast.ops.centroids import centroid_cross_entropy
from gcl_fast.reference.bank import unit, working_dtype


class Memory(nn.Module):
    """GCL's instance memory. Buffers `features` [num_samples, num_features] and `labels` [num_samples] start at zero and may
    be assigned anew, also with another number of rows.

    `forward(f[B,D], f_nv[B,D], indexes[B])` returns the scalar sum of the three mean cross-entropies (f and f_nv used as
    given: normalise them first), gradient to both, and then updates: features[i] = normalise(momentum * features[i] +
    (1 - momentum) * f).

    As in the original, the label -1 is a label like any other. Three things are better defined: negatives and positives come
    from `seed` and a count of the calls (not saved) instead of the global generator; rows with fewer negatives than K may
    stand in one batch; a repeated index is applied in batch order.
    """

    features: Tensor
    labels: Tensor

    def __init__(
        self, num_features: int, num_samples: int, temp: float = 0.07, momentum: float = 0.2, K: int = 8192, *, seed: int = 0
    ) -> None:
        super().__init__()
        self.num_features, self.num_samples = num_features, num_samples
        self.momentum, self.temp, self.K = momentum, temp, K
        self.register_buffer("features", torch.zeros(num_samples, num_features))
        self.register_buffer("labels", torch.zeros(num_samples, dtype=torch.int64))
        self.register_buffer("next_seed", torch.tensor(seed, dtype=torch.int64), persistent=False)

    def forward(self, f: Tensor, f_nv: Tensor, indexes: Tensor) -> Tensor:
        seed = self.next_seed.clone()
        self.next_seed += 1
        labels = self.labels + 1  # bank_nce reads -1 as "no class"; here it is a class
        positive = torch.cat([indexes[:, None], draw_positives(labels, indexes, seed=seed)], 1)  # [B, 3]
        own = torch.stack([f_nv, f_nv, f], 1)  # [B, 3, D]
        loss = bank_nce(
            f_nv, self.features, labels, positive, positive_query=own, temperature=self.temp, num_negatives=self.K, seed=seed
        )
        bank_update_(self.features, indexes, f, self.momentum)
        return loss.mean(0).sum()


class _MoveInBackward(torch.autograd.Function):
    """The inputs as they are; their backward moves the features: Cluster Contrast updates its memory there."""

    @staticmethod
    def forward(ctx, inputs: Tensor, targets: Tensor, features: Tensor, momentum: float, use_hard: bool) -> Tensor:
        ctx.save_for_backward(inputs, targets)
        ctx.features, ctx.momentum, ctx.use_hard = features, momentum, use_hard  # live: not the version of the forward
        return inputs.view_as(inputs)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
        inputs, targets = ctx.saved_tensors
        bank_update_(ctx.features, targets, inputs, ctx.momentum, hard=ctx.use_hard)
        return grad, None, None, None, None


class ClusterMemory(nn.Module):
    """Cluster Contrast's centroid memory. Buffer `features` [num_samples, num_features] starts at zero and may be assigned
    anew.

    `forward(inputs[B,D], targets[B])` normalises the inputs and returns the scalar mean cross-entropy of
    inputs . features^T / temp. The memory moves in its backward (and only there, once per backward), after the gradient:
    in batch order features[y] = normalise(momentum * features[y] + (1 - momentum) * x), or with use_hard once per cluster,
    by its least similar sample.
    """

    features: Tensor

    def __init__(
        self, num_features: int, num_samples: int, temp: float = 0.05, momentum: float = 0.2, use_hard: bool = False
    ) -> None:
        super().__init__()
        self.num_features, self.num_samples = num_features, num_samples
        self.momentum, self.temp, self.use_hard = momentum, temp, use_hard
        self.register_buffer("features", torch.zeros(num_samples, num_features))

    @torch.compiler.disable  # a side effect in a backward cannot be traced
    def forward(self, inputs: Tensor, targets: Tensor) -> Tensor:
        inputs = unit(inputs.to(working_dtype(inputs, self.features)))
        query = _MoveInBackward.apply(inputs, targets, self.features, self.momentum, self.use_hard)
        return centroid_cross_entropy(query, self.features, targets, self.temp)
