"""A data set opened for a run: records, meshes, loaders, features and scores on one device."""

from __future__ import annotations

import shlex
import warnings
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from gcl_fast.config import TrainConfig
from gcl_fast.constants import OWN_DATA
from gcl_fast.data.augment import Augment
from gcl_fast.data.datasets.camstyle import FOLDER as CAMSTYLE
from gcl_fast.data.datasets.camstyle import StyledRecords, with_camstyle
from gcl_fast.data.datasets.load import load_dataset
from gcl_fast.data.datasets.readable import find_broken, name_files, require_readable
from gcl_fast.data.loaders.loader_base import Loader
from gcl_fast.data.loaders.reader import Reader
from gcl_fast.data.loaders.torch_loader import TorchLoader
from gcl_fast.data.plans import Plan
from gcl_fast.errors import ConfigError, FileError, GclError, MissingFileError, MissingMeshesError
from gcl_fast.evaluation import answerable, evaluate, extract_features, scores, scoring_note
from gcl_fast.guides import Bodies
from gcl_fast.meshes.coverage import find_unusable
from gcl_fast.meshes.foreground import read_people
from gcl_fast.meshes.sources import MeshSource, RenderedFolders, VertexMeshes, open_mesh_source
from gcl_fast.progress import counted, counting
from gcl_fast.records import Batch, Record, ReIDData, spread
from gcl_fast.runs.device import choose_device
from gcl_fast.runs.resolved import Resolved, name_digest, resolve
from gcl_fast.stages.amp import use_bfloat16

SAMPLES = 8  # pictured images of train and of test


class OpenedDataset:
    """A data set opened for one configuration; what a stage asks of it: `stages.training_data.TrainingData`.

    data                      records of train, query and gallery
    train_meshes, test_meshes None where they were not asked for, or the test images have none
    """

    def __init__(self, config: TrainConfig, *, with_meshes: bool, check_meshes: bool = False, at_most: int = 0) -> None:
        """check_meshes: read every training image's mesh now, and refuse those that cannot guide the generator; at_most: so many
        of the training images, and no others."""
        self.config, self.check_meshes = config, check_meshes
        self.device = choose_device(config.device)
        self.bf16 = use_bfloat16(config.precision, self.device)
        listed = load_dataset(config.dataset, config.root)
        if at_most:
            listed = replace(listed, train=spread(listed.train, at_most), query=[], gallery=[])
        self._listed = listed.train
        self.data: ReIDData = require_readable(listed, skip_broken=config.skip_broken)
        self.train_meshes = self._meshes("train", self.data.train) if with_meshes else None
        self.test_meshes = self._optional_test_meshes() if with_meshes else None
        self._reader = self._new_reader(self.data.train, meshes=None if self.guided else self.train_meshes)
        self._plain = self._reader.loader()
        self._test_loaders: tuple[Loader, Loader] | None = None

    def _new_reader(self, records: list[Record], *, meshes: MeshSource | None = None, taken: int = 0) -> Reader:
        config = self.config
        return Reader(
            config.loader,
            records,
            config.image_size,
            meshes=meshes,
            yaws=config.yaws,
            workers=config.workers,
            seed=config.seed,
            device=self.device,
            cache=config.cache,
            taken=taken,
        )

    def _meshes(self, split: str, records: list[Record]) -> MeshSource:
        config = self.config
        try:
            source = open_mesh_source(config.mesh_dir, config.dataset, split, config.image_size, kind=config.meshes)
        except MissingFileError as error:
            raise MissingMeshesError(f"{self._how_to_get_meshes()}: {error}" if split == "train" else str(error)) from None
        missing = source.missing(records)
        if missing:
            shown = ", ".join(record.path.name for record in missing[:5]) + (" ..." if len(missing) > 5 else "")
            words = f"{len(missing)} of {len(records)} {split} images have no mesh under {config.mesh_dir}: {shown}"
            records = self._leave_out(split, records, missing, words)
        if self.check_meshes:
            checked = records if split == "train" else spread(self.data.query, SAMPLES)
            with counting("check meshes") as progress:
                unusable = find_unusable(source, checked, progress=progress if split == "train" else None)
            if unusable:
                title = f"{len(unusable)} of {len(checked)} {split} meshes cannot guide the generator"
                words = name_files(title, [why for _, why in unusable])
                self._leave_out(split, records, [record for record, _ in unusable], words)
        return source

    def _leave_out(self, split: str, records: list[Record], unmeshed: list[Record], words: str) -> list[Record]:
        """The training images without those that have no mesh to train with, if --skip-unmeshed allows it."""
        if split != "train" or not self.config.skip_unmeshed or len(unmeshed) == len(records):
            advice = "; repair or import them anew, or give --skip-unmeshed to leave their images out" if split == "train" else ""
            raise ConfigError(words + advice)
        print(f"left out: {words}")
        without = {record.path for record in unmeshed}
        self.data.train = [record for record in records if record.path not in without]
        return self.data.train

    def _how_to_get_meshes(self) -> str:
        mesh_root = ["--mesh-root", self.config.mesh_root] if self.config.mesh_root else []
        place = shlex.join(["--root", self.config.root, "--dataset", self.config.dataset, *mesh_root])
        return (
            "stages 2 and 3 need a mesh of the body in each photo, and this data set has no meshes. "
            f"gcl-fast estimate-meshes {place} makes them from the photos alone, gcl-fast import-meshes from what a body "
            "estimator wrote; --stage 1 trains without. Looked for"
        )

    def _optional_test_meshes(self) -> MeshSource | None:
        """Meshes of the test images only make pictures and scores: without them training goes on."""
        records = self.data.query + self.data.gallery
        if not records:
            return None
        try:
            return self._meshes("test", records)
        except GclError as error:
            warnings.warn(f"no pictures of test images: {error}", stacklevel=2)
            return None

    def _bodies(self, meshes: MeshSource | None, records: list[Record]) -> Bodies | None:
        """Vertices for a generator that is guided by the photos' pixels."""
        if not self.guided or meshes is None:
            return None
        with counting("read bodies") as progress:
            return Bodies(meshes, records, self.device, progress=progress)

    @property
    def guided(self) -> bool:
        """Whether the generator reads the photos' pixels: then views are made from `bodies`, and loaders give no meshes."""
        return self.config.model.guide != "mesh"

    @cached_property
    def bodies(self) -> Bodies | None:
        """Of the training images, where the generator is guided by the photos' pixels; read when first asked for."""
        return self._bodies(self.train_meshes, self.data.train)

    @cached_property
    def people(self) -> Tensor | None:
        """Where the training images show their person, where a loss weighs it; read when first asked for."""
        stages = (self.config.stage2, self.config.stage3)
        if self.train_meshes is None or not any(stage.loss.foreground for stage in stages):
            return None
        with counting("read masks") as progress:
            return read_people(self.train_meshes, self.data.train, progress=progress).to(self.device)

    def resolved(self) -> Resolved:
        """What `auto` became, and which images these are."""
        meshes = {VertexMeshes: "vertices", RenderedFolders: "rendered"}.get(type(self.train_meshes), "none")
        root = Path(self.config.root)
        return resolve(self.config, loader=self._reader.kind, meshes=meshes, listed=self._listed, root=root)

    @cached_property
    def image_names(self) -> str:
        """A fingerprint of the images that are trained on."""
        return name_digest(self.data.train, Path(self.config.root))

    @cached_property
    def scoring_note(self) -> str:
        """Which queries cannot be scored, and why; empty where all can."""
        return scoring_note(self.data.query, self.data.gallery, same_camera=self.config.same_camera)

    @cached_property
    def can_score(self) -> bool:
        return bool(answerable(self.data.query, self.data.gallery, same_camera=self.config.same_camera))

    def table(self) -> str:
        """The data set's table, and a line where not every query can be scored."""
        return self.data.table() + (f"\n  {self.scoring_note}" if self.scoring_note else "")

    @property
    def cameras(self) -> Tensor:
        return torch.tensor([record.camera for record in self.data.train], dtype=torch.int64)

    def train_loader(
        self, *, augment: Augment | None = None, meshes: bool = False, records: list[Record] | None = None
    ) -> Loader:
        """records: what to read in the place of the training images."""
        config, turns = self.config, meshes and self.guided
        source = self.train_meshes if meshes and not turns else None
        if records is None:
            return self._reader.loader(meshes=source, augment=augment, turns=turns)
        return TorchLoader(
            records,
            config.image_size,
            meshes=source,
            turns=turns,
            augment=augment,
            seed=config.seed,
            workers=config.workers,
            yaws=config.yaws,
            cache=config.cache,
        )

    def styled(self, *, use: bool = True) -> StyledRecords:
        """The training images and, unless use is False, their camera-styled copies on disk."""
        styled = with_camstyle(self.data.train, self.config.root, use=use)
        if styled.num_styled:
            broken = find_broken(styled.records[len(self.data.train) :])
            if broken:
                lines = [f"{path}: {why}" for path, why in broken]
                raise FileError(name_files(f"{counted(len(broken), 'camera-styled image')} cannot be read", lines))
            print(counted(styled.num_styled, "camera-styled image"))
        elif use and self.config.dataset not in OWN_DATA:
            print(f"no camera-styled images (a folder {CAMSTYLE}): the published {self.config.stage1.method} trains with them")
        return styled

    def features(self, encoder: nn.Module) -> Tensor:
        """L2-normalised features [N, D] of the training images."""
        with counting("read features") as progress:
            return extract_features(
                encoder,
                self._plain,
                len(self.data.train),
                batch_size=self.config.eval_batch_size,
                device=self.device,
                amp=self.bf16,
                progress=progress,
            )

    def test_loaders(self) -> tuple[Loader, Loader]:
        if self._test_loaders is None:
            taken, loaders = self._reader.host_bytes, []
            for records in (self.data.query, self.data.gallery):
                reader = self._new_reader(records, taken=taken)
                taken += reader.host_bytes
                loaders.append(reader.loader())
            self._test_loaders = (loaders[0], loaders[1])
        return self._test_loaders

    def score(self, encoder: nn.Module, *, rerank: bool = False) -> dict[str, float]:
        """mAP, CMC and mINP on the held-out people as fractions; {} where no query can be scored."""
        if not self.can_score:
            return {}
        query_loader, gallery_loader = self.test_loaders()
        with counting("evaluate") as progress:
            metrics = evaluate(
                encoder,
                query_loader,
                gallery_loader,
                self.data.query,
                self.data.gallery,
                batch_size=self.config.eval_batch_size,
                device=self.device,
                amp=self.bf16,
                rerank=rerank,
                same_camera=self.config.same_camera,
                progress=progress,
            )
        values = scores(metrics)
        return {**values, "score": values["mAP"]}

    @cached_property
    def samples(self) -> dict[str, Batch]:
        """A few fixed images of train and test with their meshes, spread over the records; none without meshes."""
        config, batches = self.config, {}
        for name, (records, meshes) in self._sampled.items():
            loader = TorchLoader(records, config.image_size, meshes=meshes, seed=config.seed, yaws=config.yaws)
            batches[name] = next(iter(loader.epoch(Plan((np.arange(len(records)),)), 0)))
        return batches

    @cached_property
    def sample_bodies(self) -> dict[str, Bodies]:
        """Row i of a sample's batch is body i."""
        sampled = {name: self._bodies(meshes, records) for name, (records, meshes) in self._sampled.items()}
        return {name: bodies for name, bodies in sampled.items() if bodies is not None}

    @property
    def _sampled(self) -> dict[str, tuple[list[Record], MeshSource]]:
        sampled = {}
        for name, records, meshes in (("train", self.data.train, self.train_meshes), ("test", self.data.query, self.test_meshes)):
            if meshes is not None and records:
                sampled[name] = (spread(records, SAMPLES), meshes)
        return sampled
