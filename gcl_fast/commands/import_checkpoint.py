"""gcl-fast import-checkpoint: the authors' files as weights of this package's networks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from gcl_fast.commands.options import parse, positional


@dataclass
class ImportOptions:
    """Convert a published checkpoint. Files are read with weights_only: nothing in them is executed."""

    file: Annotated[Path, positional()]
    kind: Literal["gen", "dis", "id_jvtc", "id_mlc", "id_act"]
    """Which of the authors' modules the file holds."""
    out: Path
    """Where the converted weights go (.safetensors); --init of train reads an encoder's."""


def main(argv: list[str]) -> int:
    import os

    from safetensors.torch import save_file

    from gcl_fast.models import convert_official
    from gcl_fast.models.weights import load_weights

    options = parse(ImportOptions, argv, prog="gcl-fast import-checkpoint")
    if options.out.suffix != ".safetensors":
        raise ValueError(f"--out must end in .safetensors, got {options.out}")
    converted = convert_official(load_weights(options.file), kind=options.kind)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    partial = options.out.with_name(options.out.name + ".partial")
    save_file({name: value.contiguous() for name, value in converted.items()}, partial)
    os.replace(partial, options.out)
    print(f"{options.file}: {len(converted)} tensors of {options.kind} -> {options.out}")
    return 0
