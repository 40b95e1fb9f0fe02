"""The data set of a run, opened for its training and for a look at it alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from gcl_fast.config import TrainConfig
from gcl_fast.errors import MissingMeshesError, MissingPackageError, TooLittleMemoryError
from gcl_fast.runs.dataset import OpenedDataset
from gcl_fast.runs.resume_command import started_otherwise


def open_dataset(config: TrainConfig, given: TrainConfig, stages: Sequence[int], *, resume: bool) -> OpenedDataset:
    """The data set, its meshes checked; by another loader where the run's own cannot be had here.

    given: the settings before those of the run so far were kept.
    Errors: as opening it has them; of missing meshes with what else a run that goes on may train.
    """
    with_meshes = any(stage in (2, 3) for stage in stages)
    try:
        return OpenedDataset(config, with_meshes=with_meshes, check_meshes=True)
    except MissingMeshesError as error:
        otherwise = started_otherwise(given, stages) if resume else ""
        raise MissingMeshesError(f"{error}{otherwise}") from None
    except (TooLittleMemoryError, MissingPackageError) as error:
        if config.loader == given.loader:
            raise
        print(f"loader: the run's {config.loader} cannot be used here ({error})")
        return OpenedDataset(replace(config, loader=given.loader), with_meshes=with_meshes, check_meshes=True)
