"""What a CUDA graph does, on the CPU: operations are noted once and done again in the same memory, with the same numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

Result = TypeVar("Result")
# Read values, or have shapes that depend on them: the host would wait for a GPU, and no graph can hold it.
WAITING = ("_local_scalar_dense", "nonzero", "unique_dim", "_unique2", "masked_select", "equal", "bincount", "is_nonzero")


class TapedGraph(TorchDispatchMode):
    """In place of `step_graph.CudaGraph`."""

    def __init__(self) -> None:
        super().__init__()
        self.asides, self.replays = 0, 0
        self._calls: list[tuple[Any, Any, Any, list[Tensor]]] = []  # function, arguments, and what it made
        self._before: dict[int, tuple[Tensor, Tensor]] = {}  # memory that was there, and its content
        self._made: set[int] = set()

    def aside(self, run: Callable[[], Result]) -> Result:
        self.asides += 1
        return run()

    def record(self, run: Callable[[], Result]) -> Result:
        with self:
            result = run()
        for memory, content in self._before.values():  # as if nothing had been computed
            memory.copy_(content)
        for *_, made in self._calls:
            for tensor in made:
                if tensor.is_floating_point():
                    tensor.detach().fill_(float("nan"))
        return result

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, name = kwargs or {}, func._schema.name.split("::")[1]
        assert name not in WAITING, f"{name}: the host reads a number while a graph is recorded"
        given = _tensors((args, kwargs))
        for tensor in given:
            place = _place(tensor)
            if place not in self._made and place not in self._before:
                memory = _memory(tensor)
                self._before[place] = memory, memory.clone()
        result = func(*args, **kwargs)
        made = _new(result, given)
        self._made |= {_place(tensor) for tensor in made}
        self._calls.append((func, args, kwargs, made))  # held: memory is not given out twice
        return result

    @torch.no_grad()
    def replay(self) -> None:
        self.replays += 1
        for func, args, kwargs, made in self._calls:
            again = _new(func(*args, **kwargs), _tensors((args, kwargs)))
            for tensor, value in zip(made, again, strict=True):
                tensor.copy_(value)


def _tensors(value: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(value) if isinstance(leaf, Tensor)]


def _new(result: Any, given: list[Tensor]) -> list[Tensor]:
    """The tensors of a result that have memory of their own."""
    places = {_place(tensor) for tensor in given}
    return [tensor for tensor in _tensors(result) if _place(tensor) not in places]


def _place(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _memory(tensor: Tensor) -> Tensor:
    """All of the memory that a tensor lies in."""
    storage = tensor.untyped_storage()
    return torch.empty(0, dtype=tensor.dtype).set_(storage, 0, (storage.nbytes() // tensor.element_size(),), (1,))
