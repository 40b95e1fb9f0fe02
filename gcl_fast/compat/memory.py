"""Drop-ins for the memories of GCL (`Memory`) and of Cluster Contrast (`ClusterMemory`): same names, arguments, buffers,
results and side effects, on any device. New code is better served by `gcl_fast.memory`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from gcl_fast.ops import bank_nce, bank_update_, draw_positives
from gcl_fast.ops._check import ANY_FLOATS, INTEGERS, Shapes, check_index, check_rows, integer, working_dtype
from gcl_fast.ops._rows import unit
from gcl_fast.ops.bank import checked_seed
from gcl_fast.ops.centroids import centroid_cross_entropy

NOT_TRACED = "ClusterMemory moves in its backward, which cannot be traced: compile without fullgraph"


def _check(name: str, num_features: int, num_samples: int, temp: float, momentum: float) -> None:
    integer(name, "num_features", num_features, 0)
    integer(name, "num_samples", num_samples, 0)
    Shapes(name).number("temp", temp, 0.0, open_low=True)
    Shapes(name).number("momentum", momentum, 0.0, 1.0)


class Memory(nn.Module):
    """GCL's instance memory. Buffers `features` [num_samples, num_features] and `labels` [num_samples] start at zero and may
    be assigned anew, also with another number of rows.

    As in the original, the label -1 is a label like any other. Three things are better defined: negatives and positives come
    from `seed` and a count of the calls (not saved) instead of the global generator, so that a run is deterministic; rows with
    fewer negatives than K may stand in one batch; a repeated index is applied in batch order.

    Arguments:
        num_features, num_samples: width and number of rows.
        temp: temperature of the contrast, above 0.
        momentum: share of the old row in an update, in [0, 1].
        K: negatives a row, at least 1.
        seed: of all draws, an integer (modulo 2^64).

    Source:
        Chen et al., arXiv 2301.00725 and 2012.09071; `gcl_fast.ops.gcl_memory_loss` has the equations.
    """

    features: Tensor
    labels: Tensor
    next_seed: Tensor

    def __init__(
        self, num_features: int, num_samples: int, temp: float = 0.07, momentum: float = 0.2, K: int = 8192, *, seed: int = 0
    ) -> None:
        super().__init__()
        _check("Memory", num_features, num_samples, temp, momentum)
        integer("Memory", "K", K, 1)
        self.num_features, self.num_samples = num_features, num_samples
        self.momentum, self.temp, self.K = momentum, temp, K
        self.register_buffer("features", torch.zeros(num_samples, num_features))
        self.register_buffer("labels", torch.zeros(num_samples, dtype=torch.int64))
        first = checked_seed(Shapes("Memory"), seed, self.labels.device).clone()  # counted on: not the caller's tensor
        self.register_buffer("next_seed", first, persistent=False)

    def extra_repr(self) -> str:
        return f"{self.num_features}, {self.num_samples}, temp={self.temp}, momentum={self.momentum}, K={self.K}"

    def forward(self, f: Tensor, f_nv: Tensor, indexes: Tensor) -> Tensor:
        """The contrast of a batch; then the memory moves: features[i] = normalise(momentum * features[i] + (1 - momentum) * f).

        Arguments:
            f, f_nv: [B, D] float, features of photos and of their novel views, used as given: normalise them first.
            indexes: [B] integers, the row of each image.

        Returns:
            The scalar sum of the three mean cross-entropies, 0 for an empty batch.

        Gradient:
            To f and f_nv.

        Errors:
            TypeError, ValueError: an argument of the wrong type, shape or device.
            IndexRangeError: an index that is no row, on CPU; nothing has moved then.
        """
        shapes = Shapes("Memory")
        features = ("features", self.features)
        shapes.tensor(*features, ("N", "D"), ANY_FLOATS)  # assigned by the caller, as labels are
        shapes.tensor("labels", self.labels, ("N",), INTEGERS, device_of=features)
        shapes.tensor("f", f, ("B", "D"), ANY_FLOATS, device_of=features)
        shapes.tensor("f_nv", f_nv, ("B", "D"), ANY_FLOATS, device_of=features)
        shapes.tensor("indexes", indexes, ("B",), INTEGERS, device_of=features)
        check_rows("Memory", "indexes", indexes, len(self.labels))
        seed = self.next_seed.clone()
        self.next_seed += 1
        labels = self.labels.long()
        if len(labels):
            labels = labels - labels.min()  # bank_nce reads -1 as "no class"; here it is a class
        positive = torch.cat([indexes[:, None], draw_positives(labels, indexes, seed=seed)], 1)  # [B, 3]
        loss = bank_nce(
            f_nv,
            self.features,
            labels,
            positive,
            positive_query=torch.stack([f_nv, f_nv, f], 1),  # [B, 3, D]
            temperature=self.temp,
            num_negatives=self.K,
            seed=seed,
        )
        bank_update_(self.features, indexes, f, self.momentum)
        return loss.sum(0).div(max(loss.shape[0], 1)).sum()


class _MoveInBackward(torch.autograd.Function):
    """The inputs as they are; their backward moves the features: Cluster Contrast updates its memory there."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, targets: Tensor, features: Tensor, momentum: float, use_hard: bool) -> Tensor:
        ctx.save_for_backward(inputs, targets)
        ctx.features, ctx.momentum, ctx.use_hard = features, momentum, use_hard  # live: not the version of the forward
        return inputs.view_as(inputs)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        inputs, targets = ctx.saved_tensors
        bank_update_(ctx.features, targets, inputs, ctx.momentum, hard=ctx.use_hard)
        return grad, None, None, None, None


class ClusterMemory(nn.Module):
    """Cluster Contrast's centroid memory. Buffer `features` [num_samples, num_features] starts at zero and may be assigned
    anew.

    One thing is better defined: the gradient is that of the loss, whatever moved the memory since. The original multiplies by the
    centroids of the backward, which another loss of the same backward may have moved by then.

    Arguments:
        num_features, num_samples: width and number of centroids.
        temp: temperature, above 0.
        momentum: share of the old centroid in an update, in [0, 1].
        use_hard: a cluster is moved by its least similar sample alone; any value that is true or false.

    Source:
        Dai et al., arXiv 2103.11568.
    """

    features: Tensor

    def __init__(
        self, num_features: int, num_samples: int, temp: float = 0.05, momentum: float = 0.2, use_hard: bool = False
    ) -> None:
        super().__init__()
        _check("ClusterMemory", num_features, num_samples, temp, momentum)
        self.num_features, self.num_samples = num_features, num_samples
        self.momentum, self.temp, self.use_hard = momentum, temp, use_hard
        self.register_buffer("features", torch.zeros(num_samples, num_features))

    def extra_repr(self) -> str:
        hard = ", use_hard=True" if self.use_hard else ""
        return f"{self.num_features}, {self.num_samples}, temp={self.temp}, momentum={self.momentum}{hard}"

    @torch.compiler.disable(reason=NOT_TRACED)  # type: ignore[no-untyped-call, untyped-decorator]  # torch gives it no types
    def forward(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """Mean cross-entropy of normalise(inputs) . features^T / temp.

        The memory moves in the backward (and only there, once per backward), after the gradient: in batch order
        features[y] = normalise(momentum * features[y] + (1 - momentum) * x), or with use_hard once per cluster, by its least
        similar sample. Code that is compiled around it has a graph break here, so fullgraph=True is refused.

        Arguments:
            inputs: [B, D] float, of any length whose square is a number of its type.
            targets: [B] integers, the cluster of each input.

        Returns:
            A scalar.

        Gradient:
            To inputs, once differentiable.

        Errors:
            TypeError, ValueError: an argument of the wrong type, shape or device.
            IndexRangeError: a target that is no cluster, on CPU.
        """
        shapes = Shapes("ClusterMemory")
        features, count = ("features", self.features), len(self.features)
        shapes.tensor(*features, ("C", "D"), ANY_FLOATS)  # assigned by the caller
        shapes.tensor("inputs", inputs, ("B", "D"), ANY_FLOATS, device_of=features)
        shapes.tensor("targets", targets, ("B",), INTEGERS, device_of=features)
        clusters = f"clusters, 0 to {count - 1}" if count else "clusters, of which there are none"
        check_index("ClusterMemory", "targets", targets, count, clusters)
        inputs = unit(inputs.to(working_dtype(inputs, self.features)))
        query = _MoveInBackward.apply(inputs, targets, self.features, self.momentum, bool(self.use_hard))
        return centroid_cross_entropy(query, self.features, targets, self.temp)
