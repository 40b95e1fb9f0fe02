"""The three stages in a row in one run folder, with their scores and pictures."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor, nn

from gcl_fast import distributed
from gcl_fast.config import TrainConfig, to_dict
from gcl_fast.errors import ConfigError, RunError
from gcl_fast.runs.dataset import Workspace
from gcl_fast.runs.device import choose_device
from gcl_fast.runs.folder import read_config, read_metrics, write_config, write_metrics
from gcl_fast.runs.networks import Networks, build_networks, load_module, load_networks
from gcl_fast.stages.checkpoint import load_checkpoint
from gcl_fast.stages.engine import Engine
from gcl_fast.stages.generative import GenerativeStage
from gcl_fast.stages.joint import JointStage
from gcl_fast.stages.log import RunLog
from gcl_fast.stages.stage import Stage
from gcl_fast.stages.warmup import warmup_stage

NOT_TRAINING = (
    "runs",
    "name",
    "device",
    "workers",
    "loader",
    "cache",
    "compile",
    "tensorboard",
    "log_every",
    "checkpoint_every",
    "picture_every",
    "eval_batch_size",
    "skip_broken",
)


def open_run(config: TrainConfig, *, resume: bool, overwrite: bool) -> Path:
    """Make the run folder, or check that an existing one may be gone on with."""
    run_dir = config.run_dir
    if (run_dir / "config.yaml").exists():
        if overwrite:
            shutil.rmtree(run_dir)
        elif not resume:
            raise RunError(
                f"{run_dir} already holds a run: --resume goes on with it, --overwrite starts anew, --name names another"
            )
        else:
            old, new = to_dict(read_config(run_dir)), to_dict(config)
            changed = [key for key in new if key not in NOT_TRAINING and old[key] != new[key]]
            if changed:
                raise RunError(
                    f"{run_dir} was started with other settings ({', '.join(changed)}); resume with the same, "
                    "or use another --name"
                )
    write_config(run_dir, config)
    return run_dir


def check_shares(config: TrainConfig, stages: Sequence[int]) -> None:
    """ConfigError where a stage's batch cannot be shared equally by the processes of this run."""
    count, warmup = distributed.world(), config.stage1
    settings, name = {"mlc": (warmup.mlc, "stage1.mlc"), "jvtc": (warmup.jvtc, "stage1.jvtc")}.get(
        warmup.method, (warmup, "stage1")
    )
    batches = {
        1: (name, settings.batch_size, getattr(settings, "views", 1)),
        2: ("stage2", config.stage2.batch_size, 1),
        3: ("stage3", config.stage3.batch_size, 1),
    }
    for name, size, unit in (batches[stage] for stage in stages):
        if size % (count * unit):
            units = f" of {unit} views" if unit > 1 else ""
            raise ConfigError(
                f"{name}.batch_size, the joint batch, must be a multiple of {count * unit}, so that each of {count} "
                f"processes gets the same number of images{units}, got {size}"
            )
        if count > 1 and size // count < 2 and not config.sync_bn:
            raise ConfigError(
                f"{name}.batch_size must give each of {count} processes 2 images or more for its batch norm, got {size}; "
                "or use --sync-bn"
            )


class Training:
    """One run: each stage starts from what the stage before it left."""

    def __init__(self, config: TrainConfig, stages: Sequence[int], *, resume: bool, overwrite: bool) -> None:
        self.config, self.stages, self.resume = config, tuple(stages), resume
        self.began = time.perf_counter()
        check_shares(config, stages)
        self.space = Workspace(config, with_meshes=any(s in (2, 3) for s in stages))
        self.run_dir = distributed.from_first(lambda: open_run(config, resume=resume, overwrite=overwrite))
        self.seconds_before = float(read_metrics(self.run_dir).get("seconds", 0.0))
        print(self.space.data.table())
        self.log = RunLog(self.run_dir, tensorboard=config.tensorboard, write=distributed.first())
        self.samples = self.space.samples() if self.space.train_meshes is not None else {}

    def _checkpoint(self, stage: str) -> Path:
        return self.run_dir / stage / "last.pt"

    def _init(self, networks: Networks, stage: int) -> set[str]:
        """What --init gives, in the first stage of this call: the later ones start from the stage before them."""
        if not self.config.init or stage != self.stages[0]:
            return set()
        given = load_networks(networks, self.config.init)
        if "encoder" not in given and stage < 3:
            raise RunError(f"--init {self.config.init}: none of the files holds an identity encoder")
        return given

    def _start_encoder(self, networks: Networks) -> None:
        """--init, else what stage 1 of this run left."""
        if self._init(networks, 2):
            return
        path = self._checkpoint("stage1")
        if not path.exists():
            raise RunError(
                f"this stage needs an identity encoder: train stage 1 in this run first ({path} is missing) or give --init FILE"
            )
        load_module(networks.encoder, load_checkpoint(path)["modules"]["encoder"], str(path))

    def _encoder(self, networks: Networks) -> nn.Module:
        """The encoder that learns, with the batch norm asked for."""
        return distributed.sync_batch_norm(networks.encoder, self.space.device) if self.config.sync_bn else networks.encoder

    def _engine(self, stage: Stage) -> Engine:
        config = self.config
        return Engine(
            stage,
            self.log,
            config=to_dict(config),
            checkpoint_every=config.checkpoint_every,
            log_every=config.log_every,
            picture_every=config.picture_every,
            show_pictures=self._show,
        )

    def _show(self, stage: str, pictures: dict[str, dict[str, Tensor]], iteration: int) -> None:
        from gcl_fast.visuals import image_rows, save_png

        for name, rows in pictures.items():
            picture = image_rows(rows)
            save_png(self.run_dir / "pictures" / f"{stage}_{name}.png", picture)
            self.log.picture(f"{stage}/{name}", picture, iteration)

    def _record(self, name: str, scores: dict[str, float]) -> None:
        """Print scores and put them in metrics.json; without a test set there are none. The first process does."""
        shown = {k: v for k, v in scores.items() if k != "score"}
        if shown and distributed.first():
            write_metrics(self.run_dir, {name: shown})
            print(f"{name}: " + "  ".join(f"{k} {v:.1%}" for k, v in shown.items()))

    def _run(self, stage: Stage) -> None:
        engine = self._engine(stage)
        scores = engine.run(resume=self.resume)
        if distributed.first():
            write_metrics(self.run_dir, {"times": {stage.name: round(engine.seconds, 1)}})
        self._record(stage.name, scores)

    def untrained(self) -> None:
        """Score the fresh encoder: what every stage is measured against."""
        if distributed.from_first(lambda: "untrained" in read_metrics(self.run_dir)):
            return
        networks = build_networks(self.config)
        self._record("untrained", self.space.score(networks.encoder.to(self.space.device)))

    def stage1(self) -> None:
        networks = build_networks(self.config)
        self._init(networks, 1)
        self._run(warmup_stage(self.config, self._encoder(networks), self.space))

    def control(self) -> None:
        """Stage 1 continued for as many updates of the encoder as stage 3 made."""
        updates = load_checkpoint(self._checkpoint("stage3"))["iteration"]
        first = load_checkpoint(self._checkpoint("stage1"))
        networks = build_networks(self.config)
        load_module(networks.encoder, first["modules"]["encoder"], str(self._checkpoint("stage1")))
        stage = warmup_stage(
            self.config, self._encoder(networks), self.space, name="control", first_epoch=first["epoch"], updates=updates
        )
        stage.go_on_from(first)
        self._run(stage)

    def stage2(self) -> None:
        networks, space = build_networks(self.config), self.space
        self._start_encoder(networks)
        stage = GenerativeStage(
            self.config,
            networks.encoder,
            networks.generator,
            networks.discriminator,
            space.train_loader(meshes=True),
            len(space.data.train),
            device=space.device,
            samples=self.samples,
        )
        self._run(stage)

    def stage3(self) -> None:
        networks, space = build_networks(self.config), self.space
        start, given = self._checkpoint("stage2"), self._init(networks, 3)
        wanted = {"encoder", "generator", "discriminator"} - given
        if wanted and not start.exists():
            raise RunError(
                f"stage 3 needs the {', '.join(sorted(wanted))} of stage 2: {start} is missing; train --stage 2 first "
                "or give their files to --init, joined by commas"
            )
        for name, weights in load_checkpoint(start)["modules"].items() if wanted else ():
            if name in wanted:
                load_module(getattr(networks, name), weights, str(start))
        stage = JointStage(
            self.config,
            self._encoder(networks),
            networks.generator,
            networks.discriminator,
            space.train_loader(meshes=True),
            space.cameras,
            device=space.device,
            features=space.features,
            score=space.score,
            samples=self.samples,
        )
        self._run(stage)

    def count_seconds(self) -> None:
        """Bring the total in metrics.json up to now."""
        if distributed.first():
            write_metrics(self.run_dir, {"seconds": round(self.seconds_before + time.perf_counter() - self.began, 1)})

    def run(self, *, control: bool = False) -> None:
        steps = {1: (self.untrained, self.stage1), 2: (self.stage2,), 3: (self.stage3,)}
        todo = [step for number in self.stages for step in steps[number]]
        if control:
            todo.append(self.control)
        for step in todo:
            step()
            self.count_seconds()
        self.log.close()


def train(
    config: TrainConfig,
    stages: Sequence[int] = (1, 2, 3),
    *,
    resume: bool = False,
    overwrite: bool = False,
    control: bool = False,
) -> Path:
    """Train the given stages; returns the run folder, with checkpoints, history.jsonl, metrics.json, report.html.

    Started by torchrun, the processes train together; the first then makes scores, pictures and report alone.
    """
    from gcl_fast.report import write_report
    from gcl_fast.runs.pictures import scores_and_pictures

    with distributed.session(choose_device(config.device)) as rank:
        training = Training(config, stages, resume=resume, overwrite=overwrite)
        training.run(control=control)
    if rank != 0:
        return training.run_dir
    scores_and_pictures(training.run_dir, training.space)
    training.count_seconds()
    print(f"report: {write_report(training.run_dir)}")
    return training.run_dir
