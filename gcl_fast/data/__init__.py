"""Datasets, what an epoch reads of them, and the loaders that read it."""

from gcl_fast.constants import DATASETS
from gcl_fast.data.augment import Augment
from gcl_fast.data.datasets.load import load_dataset
from gcl_fast.data.datasets.readable import find_broken, require_readable
from gcl_fast.data.loaders.cached import CachedLoader
from gcl_fast.data.loaders.dali import DaliLoader
from gcl_fast.data.loaders.loader_base import Loader
from gcl_fast.data.loaders.reader import Reader
from gcl_fast.data.loaders.torch_loader import TorchLoader
from gcl_fast.data.plans import Plan, camera_aware_batches, identity_batches, multiple_gallery_batches, sequential, shuffled
from gcl_fast.records import Batch, Record, ReIDData

__all__ = [
    "DATASETS",
    "Augment",
    "Batch",
    "CachedLoader",
    "DaliLoader",
    "Loader",
    "Plan",
    "ReIDData",
    "Reader",
    "Record",
    "TorchLoader",
    "camera_aware_batches",
    "find_broken",
    "identity_batches",
    "load_dataset",
    "multiple_gallery_batches",
    "require_readable",
    "sequential",
    "shuffled",
]
