"""Fake kernels and gradients of the bank ops. The forward has made the gradient already: the backward scales it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from gcl_fast import _native
from gcl_fast.ops._check import no_tangent

Gradients = tuple[Tensor | None, ...]  # one for each argument of the op


def no_second_derivative(op: str) -> None:
    if torch.is_grad_enabled():
        raise RuntimeError(f"{op}: second derivatives are not available (the bank is not kept); drop create_graph=True")


def _nce_fake(
    query: Tensor,
    bank: Tensor,
    labels: Tensor,
    positive: Tensor,
    positive_query: Tensor | None,
    temperature: float,
    num_negatives: int,
    seed: Tensor,
    with_grad: bool,
) -> tuple[Tensor, ...]:
    batch, dim = query.shape
    kept, positives = batch if with_grad else 0, positive.shape[1]
    folded = positives == 1 and positive_query is None
    return (
        query.new_empty(positive.shape),
        query.new_empty((kept, dim)),
        query.new_empty((kept, positives)),
        query.new_empty((kept, 0 if folded else positives, dim)),
    )


def _nce_setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.temperature, ctx.has_positive_query = inputs[5], inputs[4] is not None
    ctx.mark_non_differentiable(*output[1:])
    ctx.save_for_backward(*output[1:])


def _nce_backward(ctx: Any, grad: Tensor, *_: Tensor | None) -> Gradients:
    no_second_derivative("bank_nce")
    mean, weight, rows = ctx.saved_tensors  # [B, D], [B, P], [B, P, D]
    scale = grad * weight / ctx.temperature  # [B, P]
    if rows.shape[1] == 0:  # the positive row is in the mean already
        return scale * mean, None, None, None, None, None, None, None, None
    grad_query, grad_positive_query = scale.sum(1)[:, None] * mean, -scale[:, :, None] * rows  # [B, D], [B, P, D]
    if not ctx.has_positive_query:
        return grad_query + grad_positive_query.sum(1), None, None, None, None, None, None, None, None
    return grad_query, None, None, None, grad_positive_query, None, None, None, None


def _gcl_outputs(f: Tensor, with_grad: bool) -> tuple[Tensor, Tensor, Tensor]:
    batch, dim = f.shape
    kept = batch if with_grad else 0
    return f.new_empty((3,)), f.new_empty((kept, 3, dim)), f.new_empty((kept, dim))


def _gcl_fake(
    f: Tensor,
    f_nv: Tensor,
    bank: Tensor,
    labels: Tensor,
    index: Tensor,
    temperature: float,
    num_negatives: int,
    seed: Tensor,
    with_grad: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    return _gcl_outputs(f, with_grad)


def _gcl_setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.mark_non_differentiable(*output[1:])
    ctx.save_for_backward(*output[1:])


def _gcl_backward(ctx: Any, grad: Tensor, *_: Tensor | None) -> Gradients:
    no_second_derivative("gcl_memory_loss")
    no_tangent("gcl_memory_loss", gradient=grad)
    photo, view = torch.ops.gcl_fast.gcl_memory_backward(grad, *ctx.saved_tensors)  # [B, D] both
    return photo, view, None, None, None, None, None, None, None


def _step_fake(
    f: Tensor,
    f_nv: Tensor,
    bank: Tensor,
    labels: Tensor,
    index: Tensor,
    temperature: float,
    num_negatives: int,
    seed: Tensor | None,
    seed_value: int,
    with_grad: bool,
    momentum: float | None,
) -> tuple[Tensor, Tensor, Tensor]:
    return _gcl_outputs(f, with_grad)


def _gcl_backward_fake(grad: Tensor, view_grad: Tensor, photo_grad: Tensor) -> tuple[Tensor, Tensor]:
    return photo_grad.new_empty(photo_grad.shape), photo_grad.new_empty(photo_grad.shape)


class MemoryStep(torch.autograd.Function):
    """`gcl_memory_step_` with its gradient, for eager code: what torch.library makes of an op costs several times as much."""

    @staticmethod
    def forward(ctx: Any, f: Tensor, f_nv: Tensor, arguments: tuple[Any, ...]) -> Tensor:
        terms: Tensor
        terms, *kept = torch.ops.gcl_fast.gcl_memory_step_.default(f, f_nv, *arguments)
        ctx.save_for_backward(*kept)  # [B, 3, D], [B, D]
        return terms

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Gradients:
        no_second_derivative("gcl_memory_loss")
        no_tangent("gcl_memory_loss", gradient=grad)
        photo, view = torch.ops.gcl_fast.gcl_memory_backward.default(grad, *ctx.saved_tensors)
        return photo, view, None


def _draw_fake(labels: Tensor, index: Tensor, seed: Tensor) -> Tensor:
    return index.new_empty((index.shape[0], 2))


def _update_fake(bank: Tensor, index: Tensor, feature: Tensor, momentum: float, unit: bool, hard: bool) -> None:
    return None


if _native.loaded:
    torch.library.register_fake("gcl_fast::bank_nce", _nce_fake)
    torch.library.register_autograd("gcl_fast::bank_nce", _nce_backward, setup_context=_nce_setup)
    torch.library.register_fake("gcl_fast::gcl_memory_loss", _gcl_fake)
    torch.library.register_autograd("gcl_fast::gcl_memory_loss", _gcl_backward, setup_context=_gcl_setup)
    torch.library.register_fake("gcl_fast::gcl_memory_step_", _step_fake)
    torch.library.register_fake("gcl_fast::gcl_memory_backward", _gcl_backward_fake)
    torch.library.register_fake("gcl_fast::bank_draw_positives", _draw_fake)
    torch.library.register_fake("gcl_fast::bank_update_", _update_fake)
