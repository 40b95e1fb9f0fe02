"""One run in several processes, one per device, as torchrun starts them. In a single process every function gives back what it
was given and nothing is sent.

The joint batch is the single-process batch; each rank takes an equal, contiguous share. A loss that is a mean over the share
averages over the ranks to the joint mean, and so does its gradient. Where a loss needs the other shares (mixtures, memory
contrast), `gather_rows` brings them, with gradient.
"""

from __future__ import annotations

import contextlib
import datetime
import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar, cast

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from gcl_fast.errors import ConfigError, PeerError

T = TypeVar("T")
Rows = TypeVar("Rows", Tensor, np.ndarray)
Network = TypeVar("Network", bound=nn.Module)
TIMEOUT = datetime.timedelta(hours=2)  # others wait while the first rank clusters and scores


def launched() -> int:
    """How many processes torchrun started; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def world() -> int:
    """Processes that work together now."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    return dist.get_rank() if world() > 1 else 0


def first() -> bool:
    """Whether this process writes the run's files."""
    return rank() == 0


def own_gpu() -> torch.device:
    """The GPU of this process among those of its machine."""
    index, count = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    if index >= count:
        raise ConfigError(f"torchrun --nproc-per-node must be at most the {count} GPUs of this machine, got process {index + 1}")
    return torch.device("cuda", index)


@contextlib.contextmanager
def session(device: torch.device) -> Iterator[int]:
    """The processes that torchrun started work together inside, and part at its end; only the first prints. `device` is this
    process's; gives its rank."""
    if launched() == 1 and world() == 1:
        yield 0
        return
    if not dist.is_initialized():
        absent = [name for name in ("RANK", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
        if absent:
            raise ConfigError(
                f"WORLD_SIZE={launched()} asks for several processes, but {', '.join(absent)} is not set: "
                "start them with torchrun"
            )
        if device.type == "cuda":
            torch.cuda.set_device(device)
        dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo", timeout=TIMEOUT)
    with contextlib.ExitStack() as stack:
        if not first():
            stack.enter_context(contextlib.redirect_stdout(stack.enter_context(open(os.devnull, "w"))))
        yield rank()
    barrier()
    dist.destroy_process_group()  # after an error the group ends with the process, which no peer can hold up


@contextlib.contextmanager
def _peers() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise PeerError("another process of this run ended; its own message says why") from error


def barrier() -> None:
    sum_(torch.zeros(()))  # on the CPU: no GPU is waited for


def sum_(x: Tensor) -> Tensor:
    """The sum over the ranks, in place."""
    if world() > 1:
        with _peers():
            dist.all_reduce(x)
    return x


def mean(x: Tensor) -> Tensor:
    """The mean over the ranks."""
    return x if world() == 1 else sum_(x.clone()) / world()


def from_first(make: Callable[[], T]) -> T:
    """What `make` gives on the first rank, the only one that calls it. Its error ends the others with a PeerError."""
    if world() == 1:
        return make()
    box: list[Any] = [None, True]  # what `make` gave, and whether it failed
    failed: Exception | None = None
    if first():
        try:
            box = [make(), False]
        except Exception as error:
            failed = error
    with _peers():
        dist.broadcast_object_list(box, src=0, device=torch.device("cpu"))
    if failed is not None:
        raise failed
    if box[1]:
        raise PeerError("the first process of this run ended; its own message says why")
    return cast(T, box[0])


class _GatherRows(torch.autograd.Function):
    """Backward: each rank's loss may depend on every row, so the gradient of a row is the sum over the ranks."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        every = rows.new_empty(world() * len(rows), *rows.shape[1:])
        with _peers():
            dist.all_gather(list(every.chunk(world())), rows.contiguous())
        return every

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return own_rows(sum_(grad.contiguous().clone()))


def gather_rows(rows: Tensor) -> Tensor:
    """This rank's share [b, ...] -> the joint batch [world * b, ...], the same on every rank."""
    return rows if world() == 1 else cast(Tensor, _GatherRows.apply(rows))


def gather_uneven(rows: Tensor) -> Tensor:
    """This rank's share [n, ...], of any length -> the shares of all in the order of the ranks, without gradient."""
    if world() == 1:
        return rows
    sizes = share_sizes(rows)
    padded = rows.new_zeros(max(sizes), *rows.shape[1:])
    padded[: len(rows)] = rows
    every = [torch.empty_like(padded) for _ in sizes]
    with _peers():
        dist.all_gather(every, padded)
    return torch.cat([share[:size] for share, size in zip(every, sizes, strict=True)])


def share_sizes(rows: Tensor) -> list[int]:
    """The length of every rank's share."""
    size = torch.tensor([len(rows)], device=rows.device)
    every = [torch.empty_like(size) for _ in range(world())]
    with _peers():
        dist.all_gather(every, size)
    return [int(n) for n in torch.cat(every)]


def exchange(rows: Tensor, to: int, source: int, size: int) -> Tensor:
    """Sends rows to rank `to` while `size` rows of the same kind come from rank `source`. All ranks do it together."""
    received = rows.new_empty(size, *rows.shape[1:])
    with _peers():
        pending = dist.batch_isend_irecv(
            [dist.P2POp(dist.isend, rows.contiguous(), to), dist.P2POp(dist.irecv, received, source)]
        )
        for work in pending:
            work.wait()
    return received


def fair_share(count: int) -> slice:
    """This rank's run of `count` rows, cut as evenly as can be."""
    return slice(rank() * count // world(), (rank() + 1) * count // world())


def own_rows(rows: Rows) -> Rows:
    """This rank's share of something with a row (or entry) for each of the joint batch."""
    size = len(rows) // world()
    return rows[rank() * size : (rank() + 1) * size]


def _flat(tensors: Iterable[Tensor]) -> Iterator[tuple[list[Tensor], Tensor]]:
    """By dtype: the tensors, and their values in a row."""
    kinds: dict[torch.dtype, list[Tensor]] = {}
    for tensor in tensors:
        kinds.setdefault(tensor.dtype, []).append(tensor)
    for group in kinds.values():
        yield group, torch.cat([t.detach().reshape(-1) for t in group])


@torch.no_grad()
def _put(group: list[Tensor], flat: Tensor) -> None:
    for tensor, values in zip(group, torch.split(flat, [t.numel() for t in group]), strict=True):
        tensor.copy_(values.view(tensor.shape))


def _average_gradients(optimizer: torch.optim.Optimizer, *_: object) -> None:
    learning = (p for group in optimizer.param_groups for p in group["params"])
    for gradients, flat in _flat(p.grad for p in learning if p.grad is not None):
        _put(gradients, sum_(flat).div_(world()))


def join(modules: Iterable[nn.Module], optimizers: Iterable[torch.optim.Optimizer]) -> None:
    """Start from the first rank's weights; from now on a step averages the gradients first."""
    if world() == 1:
        return
    for group, flat in _flat(t for m in modules for t in (*m.parameters(), *m.buffers())):
        with _peers():
            dist.broadcast(flat, src=0)
        _put(group, flat)
    for optimizer in optimizers:
        optimizer.register_step_pre_hook(_average_gradients)


def average_buffers(modules: Iterable[nn.Module]) -> None:
    """Running averages of batch norm, each rank's own until here, become their mean: features and checkpoints need one."""
    if world() == 1:
        return
    floating = (b for m in modules for b in m.buffers() if b.is_floating_point())
    for group, flat in _flat(floating):
        _put(group, sum_(flat.double()) / world())  # in float64: what is equal on all ranks stays so, and the same


def check_sync_batch_norm(device: torch.device) -> None:
    """Errors: ConfigError where batch statistics cannot be those of the joint batch."""
    if world() > 1 and device.type != "cuda":
        raise ConfigError(f"sync_bn must be false on {device.type}: torch.nn.SyncBatchNorm runs on CUDA only")


def sync_batch_norm(module: Network, device: torch.device) -> Network:
    """`module` with batch statistics over the joint batch."""
    if world() == 1:
        return module
    check_sync_batch_norm(device)
    synced = nn.SyncBatchNorm.convert_sync_batchnorm(module)  # type: ignore[no-untyped-call]  # torch has no type for it
    return cast(Network, synced)  # itself, its layers exchanged
