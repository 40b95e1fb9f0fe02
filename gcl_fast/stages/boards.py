"""Where a run shows itself beside its own files: TensorBoard, Weights & Biases."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from gcl_fast.errors import FileError, InputError
from gcl_fast.files import why_not_written
from gcl_fast.packages import missing

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

Settings = Mapping[str, Any]
"""A configuration as plain containers (`config.to_dict`)."""


class Board(Protocol):
    """Scalars, pictures and texts by stage and iteration; `results` once, at the end."""

    def scalars(self, stage: str, iteration: int, values: Mapping[str, float]) -> None: ...

    def picture(self, name: str, image: np.ndarray, iteration: int) -> None:
        """image [H, W, 3] uint8; name: of stage and picture, joined by a slash."""

    def text(self, name: str, words: str, iteration: int) -> None: ...

    def results(self, settings: Settings, scores: Mapping[str, float]) -> None:
        """scores: by names such as stage3/mAP."""

    def close(self) -> None: ...


def flat(settings: Settings, prefix: str = "") -> dict[str, bool | int | float | str]:
    """Settings of all sections under names such as stage1.cluster.eps; what is no number is text, of UTF-8 alone."""
    found: dict[str, bool | int | float | str] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{key}.")
        else:
            known = isinstance(value, (bool, int, float))
            found[prefix + key] = value if known else str(value).encode(errors="backslashreplace").decode()
    return found


def indented(words: str) -> str:
    """Text as a block of code in Markdown."""
    return "".join(f"    {line}\n" for line in words.splitlines())


class TensorBoard:
    """Events below a folder. Errors: MissingPackageError; InputError for a folder whose name is not UTF-8; FileError that names
    it where they cannot be written, such as on a full disk: told by any later call, as the writer is a thread."""

    def __init__(self, folder: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise missing("tensorboard", "writing TensorBoard events", error) from error
        self.folder = folder
        try:
            # no purge_step: it would hide later steps of every stage, and TensorBoard drops repeated ones by itself
            self.writer: SummaryWriter = SummaryWriter(folder)
        except UnicodeEncodeError as error:
            raise InputError(f"TensorBoard's writer takes paths in UTF-8 alone, got {str(folder)!r}") from error

    @contextlib.contextmanager
    def _named(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise FileError(f"cannot write {self.folder}: {why_not_written(self.folder, error)}") from error

    def scalars(self, stage: str, iteration: int, values: Mapping[str, float]) -> None:
        with self._named():
            for name, value in values.items():
                self.writer.add_scalar(f"{stage}/{name}", value, iteration)

    def picture(self, name: str, image: np.ndarray, iteration: int) -> None:
        with self._named():
            self.writer.add_image(name, image, iteration, dataformats="HWC")

    def text(self, name: str, words: str, iteration: int) -> None:
        with self._named():
            self.writer.add_text(name, words, iteration)

    def results(self, settings: Settings, scores: Mapping[str, float]) -> None:
        with self._named():
            self.writer.add_hparams(flat(settings), {f"scores/{name}": value for name, value in scores.items()}, run_name=".")

    def close(self) -> None:
        with self._named():
            self.writer.close()


def wandb_package() -> Any:  # noqa: ANN401 - a package without types
    """Errors: MissingPackageError."""
    try:
        import wandb
    except ImportError as error:
        raise missing("wandb", "--wandb", error) from error
    return wandb


class WandB:
    """A run of Weights & Biases, through the package wandb; its own settings (WANDB_MODE, the login) are its user's.

    Arguments:
        project: its project there.
        run_dir: names the run; wandb keeps its files below.
        run_id: of the run there; the same id goes on with it.
        settings: of the run.

    Errors: MissingPackageError.
    """

    def __init__(self, project: str, run_dir: Path, run_id: str, settings: Settings) -> None:
        self.wandb = wandb_package()
        self.run = self.wandb.init(
            project=project, name=run_dir.name, dir=str(run_dir), id=run_id, resume="allow", config=flat(settings)
        )
        self.axes: set[str] = set()

    def _log(self, stage: str, iteration: int, values: Mapping[str, object]) -> None:
        axis = f"{stage}/iteration"
        if stage not in self.axes:  # each stage counts from 0, wandb's own step only upwards
            self.run.define_metric(axis)
            self.run.define_metric(f"{stage}/*", step_metric=axis)
            self.axes.add(stage)
        self.run.log({axis: iteration, **values})

    def scalars(self, stage: str, iteration: int, values: Mapping[str, float]) -> None:
        self._log(stage, iteration, {f"{stage}/{name}": value for name, value in values.items()})

    def picture(self, name: str, image: np.ndarray, iteration: int) -> None:
        self._log(name.partition("/")[0], iteration, {name: self.wandb.Image(image)})

    def text(self, name: str, words: str, iteration: int) -> None:
        if name != "configuration":  # wandb has the settings already
            self._log(name.partition("/")[0], iteration, {name: words})

    def results(self, settings: Settings, scores: Mapping[str, float]) -> None:
        del settings
        self.run.summary.update(dict(scores))

    def close(self) -> None:
        self.run.finish()
