"""The raw ops that write an argument, given negated views (`torch.Tensor.is_neg`).

torch's own fallback takes it that an op returns what it writes, as torch's do; of ours, which return something else, it loses
the tensor, and on torch 2.15 the process may die of it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from gcl_fast import _native

WRITING = ("bank_update_", "cross_entropy_rows_", "gcl_memory_step_", "knn_update_", "softmax_rows_")


def _register(library: torch.library.Library, name: str) -> None:
    op = getattr(torch.ops.gcl_fast, name).default
    writes = {a.name for a in op._schema.arguments if a.alias_info is not None and a.alias_info.is_write}

    def run(*args: object, **kwargs: object) -> object:
        given = dict(zip((a.name for a in op._schema.arguments), args, strict=False)) | kwargs
        plain = {key: value.resolve_neg() if isinstance(value, Tensor) else value for key, value in given.items()}
        result = op(**plain)
        for key in writes:
            if plain[key] is not given[key]:
                given[key].copy_(plain[key])
        return result

    library.impl(name, run, "Negative")  # type: ignore[no-untyped-call]


if _native.loaded:
    _library = torch.library.Library("gcl_fast", "IMPL")  # type: ignore[no-untyped-call]  # unregistered when collected
    for _name in WRITING:
        _register(_library, _name)
