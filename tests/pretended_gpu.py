"""A GPU that is not there: tensors that say cuda and lie on the CPU, and a watch over every operation on them.

What runs inside `pretended_gpu()` may ask for device "cuda". Its tensors compute on the CPU, so results are real, but say
`device == cuda:0`; what a GPU would refuse is refused (operands on two devices, NumPy of a GPU tensor), what would make the CPU
wait for it is recorded (reading a number, sizes that depend on data, copies that are not asynchronous), and so is any work that
stays on the CPU. torch's own CUDA kernels do not run here.
"""

from __future__ import annotations

import contextlib
import traceback
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

GPU = torch.device("cuda", 0)
# Operations whose size or flow depends on data: on CUDA each waits for the device.
WAITS = {
    "_local_scalar_dense",
    "equal",
    "nonzero",
    "masked_select",
    "unique_dim",
    "_unique",
    "_unique2",
    "unique_consecutive",
    "bincount",
    "histc",
    "multinomial",
    "_linalg_check_errors",
    "is_nonzero",
}
FREE = {"detach", "alias", "view", "t", "lift_fresh", "is_pinned", "empty", "_pin_memory"}  # no work


class GpuTensor(Tensor):
    """A tensor on the pretended GPU: its numbers lie on the CPU."""

    __torch_function__ = torch._C._disabled_torch_function_impl
    device = property(lambda self: GPU)  # type: ignore[assignment]
    is_cuda = property(lambda self: True)  # type: ignore[assignment]
    is_cpu = property(lambda self: False)  # type: ignore[assignment]

    def get_device(self) -> int:
        return 0

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise AssertionError(f"{func}: a tensor of the pretended GPU is used outside of it")


@dataclass
class Watch:
    """What was seen: `reads` makes the CPU wait, `host` is work on CPU tensors, each "operation at file:line" with its count."""

    reads: Counter[str] = field(default_factory=Counter)
    host: Counter[str] = field(default_factory=Counter)
    operations: int = 0
    making: bool = False  # whether tensors that torch makes inside of the running call are the GPU's

    def clear(self) -> None:
        self.reads.clear()
        self.host.clear()
        self.operations = 0


def _place() -> str:
    """The innermost line of the package that is running."""
    frames = [f for f in traceback.extract_stack() if "/gcl_fast/" in f.filename.replace("\\", "/")]
    return f"{frames[-1].filename.rpartition('/gcl_fast/')[2]}:{frames[-1].lineno}" if frames else "a test"


def on_gpu(value: Any) -> Any:
    """The same numbers as a tensor of the pretended GPU."""
    if not isinstance(value, Tensor) or isinstance(value, GpuTensor):
        return value
    with torch._C._DisableTorchDispatch(), torch._C.DisableTorchFunction():
        return torch.Tensor._make_subclass(GpuTensor, value, value.requires_grad)


def on_cpu(value: Any) -> Any:
    """The same numbers as a plain tensor."""
    if not isinstance(value, GpuTensor):
        return value
    with torch._C._DisableTorchDispatch(), torch._C.DisableTorchFunction():
        return torch.Tensor._make_subclass(Tensor, value.detach())


class _Dispatch(TorchDispatchMode):
    """Sees each operation below autograd, those of the backward pass too."""

    def __init__(self, watch: Watch) -> None:
        super().__init__()
        self.watch = watch

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = func._schema.name.split("::")[1]
        tensors = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
        here = [t for t in tensors if isinstance(t, GpuTensor)]
        plain = [t for t in tensors if not isinstance(t, GpuTensor)]
        self.watch.operations += 1
        if not here:
            with torch._C._DisableTorchDispatch():
                result = func(*args, **kwargs)
            if not tensors and self.watch.making:
                return tree_map_only(Tensor, on_gpu, result)
            if name not in FREE and any(t.numel() > 1 for t in [*plain, *_tensors(result)]):
                self.watch.host[f"{name} at {_place()}"] += 1
            return result
        strangers = [t for t in plain if t.dim()]
        if name == "copy_" and strangers:  # between devices
            to_gpu, waits = isinstance(args[0], GpuTensor), not (kwargs.get("non_blocking") or (len(args) > 2 and args[2]))
            if waits or not to_gpu or not getattr(args[1], "_pinned", False):
                self.watch.reads[f"copy_ between devices at {_place()}"] += 1
        elif strangers:
            shapes = [list(t.shape) for t in strangers]
            raise RuntimeError(f"{name} at {_place()}: all tensors must be on the same device, got cuda:0 and {shapes} on cpu")
        if name in WAITS or _masks(name, args):
            self.watch.reads[f"{name} at {_place()}"] += 1
        if name.startswith("convolution"):  # which of torch's runs depends on the CPU, and not all bear the pretended tensors
            args, kwargs = tree_map_only(GpuTensor, on_cpu, (args, kwargs))
        with torch._C._DisableTorchDispatch():
            result = func(*args, **kwargs)
        if name == "_local_scalar_dense":
            return result
        return tree_map_only(Tensor, lambda t: t if any(t is x for x in tensors) else on_gpu(t), result)


def _tensors(result: Any) -> list[Tensor]:
    return [t for t in tree_leaves(result) if isinstance(t, Tensor)]


def _masks(name: str, args: Any) -> bool:
    """Whether it is an index by a mask, whose True are counted first (setting them to one number is not)."""
    if name not in ("index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index"):
        return False
    masked = any(isinstance(i, Tensor) and i.dtype in (torch.bool, torch.uint8) for i in args[1])
    return masked and not (name != "index" and isinstance(args[2], Tensor) and args[2].numel() == 1)


class _Functions(TorchFunctionMode):
    """Answers what names a device, before torch looks for one."""

    def __init__(self, watch: Watch) -> None:
        super().__init__()
        self.watch = watch

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        name = getattr(func, "__name__", "")
        making, self.watch.making = self.watch.making, any(isinstance(a, GpuTensor) for a in tree_leaves((args, kwargs)))
        try:
            return self._call(func, name, args, kwargs)
        finally:
            self.watch.making = making

    def _call(self, func: Any, name: str, args: Any, kwargs: dict[str, Any]) -> Any:
        special = getattr(self, f"_{name}", None) if args and isinstance(args[0], Tensor) else None
        if special is not None:
            return special(func, *args, **kwargs)
        if name == "_parse_to" or (kwargs.get("device") is None and not kwargs.get("pin_memory")):
            return func(*args, **kwargs)
        device = kwargs.pop("device", None)
        wanted = torch.device(device) if device is not None else None
        pinned = kwargs.pop("pin_memory", False)
        brought = name in ("tensor", "as_tensor", "asarray", "new_tensor")  # made on the CPU, then copied
        self.watch.making = wanted is not None and wanted.type == "cuda" and not brought
        result = func(*args, **kwargs)
        if wanted is not None and wanted.type == "cuda":
            if brought:
                self.watch.reads[f"{name} to the device at {_place()}"] += 1
            return on_gpu(result)
        result = on_cpu(result)
        result._pinned = bool(pinned)
        return result

    def _to(self, func: Any, tensor: Tensor, *args: Any, **kwargs: Any) -> Any:
        other = next((a for a in (*args, kwargs.get("other")) if isinstance(a, Tensor)), None)
        if other is not None:
            left = tuple(a for a in args if a is not other)
            kwargs.pop("other", None)
            return self._to(func, tensor, other.device, other.dtype, *left, **kwargs)
        device, dtype, non_blocking, layout = torch._C._nn._parse_to(*args, **kwargs)
        copy = bool(kwargs.get("copy", False))
        options = {"copy": copy, **({} if layout is None else {"memory_format": layout})}
        wanted = tensor.device if device is None else device
        if wanted.type == tensor.device.type:
            return Tensor.to(tensor, dtype=dtype or tensor.dtype, **options)
        if wanted.type == "cpu":
            if not non_blocking:  # else it is asked for, and an event tells when it is there
                self.watch.reads[f"to cpu at {_place()}"] += 1
            with torch._C._DisableTorchDispatch():
                return on_cpu(tensor).to(dtype=dtype or tensor.dtype, **options).clone()
        if not (non_blocking and getattr(tensor, "_pinned", False)) and tensor.numel():
            self.watch.reads[f"to the device, waiting, at {_place()}"] += 1
        with torch._C._DisableTorchDispatch():
            moved = tensor.detach().to(dtype=dtype or tensor.dtype, **options).clone()
        return on_gpu(moved).requires_grad_(tensor.requires_grad)

    def _new_tensor(self, func: Any, tensor: Tensor, data: Any, dtype: Any = None, **kwargs: Any) -> Any:
        if not isinstance(tensor, GpuTensor):
            return func(tensor, data, dtype=dtype, **kwargs)
        self.watch.reads[f"new_tensor to the device at {_place()}"] += 1
        with torch._C._DisableTorchDispatch():
            return on_gpu(torch.tensor(data, dtype=dtype or tensor.dtype))

    def _cpu(self, func: Any, tensor: Tensor, *args: Any, **kwargs: Any) -> Any:
        return self._to(func, tensor, torch.device("cpu"))

    def _cuda(self, func: Any, tensor: Tensor, *args: Any, **kwargs: Any) -> Any:
        return self._to(Tensor.to, tensor, GPU, non_blocking=kwargs.get("non_blocking", False))

    def _numpy(self, func: Any, tensor: Tensor, *args: Any, **kwargs: Any) -> Any:
        if isinstance(tensor, GpuTensor):
            raise TypeError(f"numpy at {_place()}: can't convert cuda:0 device type tensor to numpy")
        return func(tensor, *args, **kwargs)

    ___array__ = _numpy

    def _tolist(self, func: Any, tensor: Tensor) -> Any:
        if isinstance(tensor, GpuTensor):
            self.watch.reads[f"tolist at {_place()}"] += 1
        return func(on_cpu(tensor))

    def _pin_memory(self, func: Any, tensor: Tensor, *args: Any) -> Any:
        if isinstance(tensor, GpuTensor):
            raise RuntimeError(f"pin_memory at {_place()}: only dense CPU tensors can be pinned")
        with torch._C._DisableTorchDispatch():
            result = tensor.clone()
        result._pinned = True
        return result


class _Event:
    """An event of the one queue that there is: it has always happened."""

    def record(self, stream: object = None) -> None:
        pass

    def synchronize(self) -> None:
        pass


@contextlib.contextmanager
def pretended_gpu() -> Iterator[Watch]:
    """Inside, "cuda" is there."""
    watch, before = Watch(), torch.__future__.get_overwrite_module_params_on_conversion()
    engine = torch.autograd._engine_run_backward

    def backward(*args: Any, **kwargs: Any) -> Any:  # the package's own backward functions are watched, too
        with _Functions(watch):
            return engine(*args, **kwargs)

    torch.__future__.set_overwrite_module_params_on_conversion(True)  # else Module.to keeps the old tensors' type
    torch.autograd._engine_run_backward = backward
    event, stream = torch.cuda.Event, torch.cuda.current_stream
    torch.cuda.Event, torch.cuda.current_stream = _Event, lambda device=None: None
    try:
        with _Functions(watch), _Dispatch(watch):
            yield watch
    finally:
        torch.autograd._engine_run_backward = engine
        torch.cuda.Event, torch.cuda.current_stream = event, stream
        torch.__future__.set_overwrite_module_params_on_conversion(before)
