"""gcl-fast import-checkpoint: weight files from elsewhere as weights of this package's networks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from gcl_fast.cli.options import parse, positional


@dataclass
class ImportOptions:
    """Say what published files hold and convert them. Read as tensors alone: nothing in them is executed.

    The authors' gen_*.pt, dis_*.pt, id_*.pt, JVTC, MLC, ACT/MMCL, and ResNet encoders of cluster-contrast, fast-reid,
    torchreid and torchvision, as far as their keys map.
    """

    files: Annotated[tuple[Path, ...], positional()]
    """One or more weight files."""
    kind: Literal["auto", "gen", "dis", "id_jvtc", "id_mlc", "id_act"] = "auto"
    """What the files must be; auto tells it from their keys."""
    out: Path | None = None
    """A .safetensors file for one network, else a folder; without it the files are only described."""


def main(argv: list[str]) -> int:
    import os

    from safetensors.torch import save_file

    from gcl_fast.models.published import read_published

    options = parse(ImportOptions, argv, prog="gcl-fast import-checkpoint")
    if not options.files:
        raise ValueError("name at least one weight file")
    found = [(file, part) for file in options.files for part in read_published(file, options.kind)]
    if options.out is None:
        targets = [None] * len(found)
    elif options.out.suffix == ".safetensors":
        if len(found) != 1:
            raise ValueError(f"--out {options.out} is one file, but there are {len(found)} networks: give a folder")
        targets = [options.out]
    elif options.out.suffix:
        raise ValueError(f"--out must end in .safetensors or be a folder, got {options.out}")
    else:
        several = {file for file, _ in found if sum(f == file for f, _ in found) > 1}
        targets = [options.out / (f"{f.stem}_{part.module}" if f in several else f.stem) for f, part in found]
        targets = [t.with_name(t.name + ".safetensors") for t in targets]
        if len(set(targets)) < len(targets):
            raise ValueError(
                f"two of the files would both become one of {', '.join(sorted({t.name for t in targets}))}: "
                "convert them one by one"
            )
    for (file, part), target in zip(found, targets, strict=True):
        print(f"{file}: {part.report()}")
        if target is None:
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(target.name + ".partial")
        save_file({name: value.clone().contiguous() for name, value in part.state.items()}, partial)
        os.replace(partial, target)
        print(f"  -> {target}")
    return 0
