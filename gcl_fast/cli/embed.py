"""gcl-fast embed: features of every photo in a folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro

from gcl_fast.cli.options import SizeOption, parse
from gcl_fast.config.plain_values import not_negative, positive, require


@dataclass
class PhotoOptions:
    """How photos are read."""

    weights: Path
    """A run folder, a run's checkpoint, or a weight file of any kind that import-checkpoint knows."""
    batch_size: int = 64
    """Images that go through the network at once."""
    workers: int = 4
    """Processes that read ahead; 0: none."""
    height: SizeOption = None
    """Height that images are resized to."""
    width: SizeOption = None
    """Width that images are resized to."""
    skip_broken: bool = False
    """Name photos that cannot be read, and go on without them (reads each photo twice)."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""

    def __post_init__(self) -> None:
        positive(self, "batch_size", "height", "width")
        not_negative(self, "workers")


@dataclass
class EmbedOptions:
    """Write the features of every photo in a folder, and in the folders inside it: cosines between them say who looks alike."""

    photos: tyro.conf.Positional[Path]
    """A folder, or one photo."""
    out: Path
    """File to write: .npz (arrays paths, features [N, D] of length 1, folder, encoder) or .parquet (columns path and feature;
    needs pyarrow)."""
    reading: tyro.conf.OmitArgPrefixes[PhotoOptions]

    def __post_init__(self) -> None:
        require(self.out.suffix in (".npz", ".parquet"), "--out", "a file named .npz or .parquet", str(self.out))


def main(argv: list[str]) -> int:
    options = parse(EmbedOptions, argv, prog="gcl-fast embed")

    from gcl_fast.files import check_writable
    from gcl_fast.models.fingerprint import fingerprint
    from gcl_fast.packages import missing
    from gcl_fast.progress import counted, counting
    from gcl_fast.runs.device import choose_device
    from gcl_fast.runs.feature_files import write_features
    from gcl_fast.runs.photo_features import Reading, encoder_and_size, photo_features, photos_at

    check_writable(options.out)
    if options.out.suffix == ".parquet":
        try:
            import pyarrow  # noqa: F401  # whether it imports is the question, before the work
        except ImportError as error:
            raise missing("pyarrow", "writing .parquet", error) from error
    given = options.reading
    paths = photos_at(options.photos)
    encoder, size = encoder_and_size(given.weights, given.height, given.width)
    made_by = fingerprint(encoder, size)
    reading = Reading(size, choose_device(given.device), given.batch_size, given.workers, given.skip_broken)
    with counting("embed") as progress:
        found = photo_features(paths, encoder, reading, progress)
    written = write_features(options.out, found, options.photos, made_by)
    height, width = size
    print(
        f"{counted(len(found.paths), 'photo')}, {found.features.shape[1]} features each, images at {height} x {width}: {written}"
    )
    return 0
