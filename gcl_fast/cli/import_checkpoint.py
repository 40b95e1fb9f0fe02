"""gcl-fast import-checkpoint: weight files from elsewhere as weights of this package's networks."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import tyro

from gcl_fast.cli.options import parse
from gcl_fast.errors import InputError

if TYPE_CHECKING:
    from gcl_fast.models.published import Part


@dataclass
class ImportOptions:
    """Say what published files hold and convert them. Read as tensors alone: nothing in them is executed.

    The authors' gen_*.pt, dis_*.pt, id_*.pt, JVTC, MLC, ACT/MMCL, and ResNet encoders of cluster-contrast, fast-reid,
    torchreid and torchvision, as far as their keys map.
    """

    files: tyro.conf.Positional[tuple[Path, ...]]
    """One or more weight files."""
    kind: Literal["auto", "gen", "dis", "id_jvtc", "id_mlc", "id_act"] = "auto"
    """What the files must be; auto tells it from their keys."""
    out: Path | None = None
    """A .safetensors file for one network, else a folder; without it the files are only described."""


def targets(out: Path, networks: list[tuple[Path, Part]]) -> list[Path]:
    """Where each network goes: `out` itself, or a file in the folder `out` named after the file it came from.

    Errors: InputError where that is no file of its own, or one that is read.
    """
    written = _written(out, networks)
    read = {os.path.realpath(file) for file, _ in networks}
    over = next((path for path in written if os.path.realpath(path) in read), None)
    if over is not None:
        raise InputError(f"{over} would be written over itself: give another --out")
    return written


def _written(out: Path, networks: list[tuple[Path, Part]]) -> list[Path]:
    if out.suffix == ".safetensors":
        if len(networks) != 1:
            raise InputError(f"--out {out} is one file, but there are {len(networks)} networks: give a folder")
        return [out]
    if out.suffix:
        raise InputError(f"--out must end in .safetensors or be a folder, got {out}")
    files = [file for file, _ in networks]
    stems = [f"{file.stem}_{part.module}" if files.count(file) > 1 else file.stem for file, part in networks]
    if len(set(stems)) < len(stems):
        names = ", ".join(sorted({f"{stem}.safetensors" for stem in stems}))
        raise InputError(f"two of the files would both become one of {names}: convert them one by one")
    return [out / f"{stem}.safetensors" for stem in stems]


def main(argv: list[str]) -> int:
    options = parse(ImportOptions, argv, prog="gcl-fast import-checkpoint")
    if not options.files:
        raise InputError("name at least one weight file")

    from safetensors.torch import save

    from gcl_fast.files import write_whole
    from gcl_fast.models.published import read_published
    from gcl_fast.runs.networks import trained_size

    networks = [(file, part) for file in options.files for part in read_published(file, options.kind)]
    written = targets(options.out, networks) if options.out is not None else [None] * len(networks)
    for (file, part), target in zip(networks, written, strict=True):
        print(f"{file}: {part.report()}")
        if target is not None:
            size = trained_size(file) if part.module == "encoder" else None
            facts = {} if size is None else {"height": str(size[0]), "width": str(size[1])}
            write_whole(target, save({name: value.clone().contiguous() for name, value in part.state.items()}, facts))
            print(f"  -> {target}")
    return 0
