"""gcl-fast export: the identity encoder for use outside this package."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from gcl_fast.cli.options import parse
from gcl_fast.config.plain_values import positive


@dataclass
class ExportOptions:
    """Write the identity encoder as safetensors weights, torch.export program (.pt2) or ONNX, checked against the checkpoint.

    The .pt2 and .onnx files take RGB in [0, 1] and normalise inside; they give the feature with length 1, for any batch size.
    """

    checkpoint: tyro.conf.Positional[Path]
    """A run folder, one that export wrote, a run's checkpoint, or a weight file of any kind that import-checkpoint knows."""
    out: Path
    """Folder to write to."""
    format: tuple[Literal["safetensors", "torch", "onnx"], ...] = ("safetensors", "torch", "onnx")
    """One or several."""
    height: int | None = None
    """Size of the images; default: the run's, or 256 x 128."""
    width: int | None = None

    def __post_init__(self) -> None:
        positive(self, "height", "width")


def main(argv: list[str]) -> int:
    options = parse(ExportOptions, argv, prog="gcl-fast export")

    from gcl_fast.runs.encoder_export import export_encoder
    from gcl_fast.runs.networks import encoder_of, find_encoder, tell_taken

    path = find_encoder(options.checkpoint)
    encoder, size = encoder_of(path)
    tell_taken(options.checkpoint, path)
    height = size[0] if options.height is None else options.height
    size = (height, size[1] if options.width is None else options.width)
    written = export_encoder(encoder, options.out, options.format, image_size=size, source=str(path.name))
    for name, (file, difference) in written.items():
        print(f"{name}: {file}  (features differ from the checkpoint's by at most {difference:.1e})")
    print(
        f"input: RGB in [0, 1], [B, 3, {size[0]}, {size[1]}]; normalised inside .pt2 and .onnx, not in the weights; "
        f"see {options.out / 'encoder.json'}"
    )
    return 0
