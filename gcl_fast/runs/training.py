"""The three stages in a row in one run folder, with their scores and pictures."""

from __future__ import annotations

import contextlib
import secrets
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from gcl_fast import distributed
from gcl_fast.config import TrainConfig, to_dict, yaml_text
from gcl_fast.images import load_photo
from gcl_fast.models.identity import IdentityEncoder
from gcl_fast.models.three_networks import Networks
from gcl_fast.packages import missing
from gcl_fast.runs.batch_shares import check_shares
from gcl_fast.runs.cpu_threads import choose_threads
from gcl_fast.runs.device import choose_device
from gcl_fast.runs.folder import prepare_run, read_metrics, read_resolved, stage_checkpoint, write_config, write_metrics
from gcl_fast.runs.live_page import LivePage
from gcl_fast.runs.lock import RunLock
from gcl_fast.runs.networks import build_networks, load_module
from gcl_fast.runs.open_dataset import open_dataset
from gcl_fast.runs.photo_count import check_count, check_frames, count_notes, with_iterations
from gcl_fast.runs.resolved import Resolved, keep_choices, line_of
from gcl_fast.runs.resume_command import stage_flag
from gcl_fast.runs.run_checks import check_control, check_control_images, check_images, check_run, check_start
from gcl_fast.runs.run_files import STAGES, last_iterations
from gcl_fast.runs.same_settings import with_absolute_paths
from gcl_fast.runs.stage_start import load_start, look_at_init, starts_from_init
from gcl_fast.runs.start_summary import settings_summary, stage1_notes, start_box
from gcl_fast.runs.work_ahead import batches_after
from gcl_fast.stages.boards import Board, WandB, indented, wandb_package
from gcl_fast.stages.checkpoint import load_trained
from gcl_fast.stages.engine import Engine, other_images
from gcl_fast.stages.generative import GenerativeStage
from gcl_fast.stages.joint import JointStage
from gcl_fast.stages.log import RunLog
from gcl_fast.stages.stage import Stage
from gcl_fast.stages.warmup.methods import stage_of_method
from gcl_fast.stages.warmup.warmup_stage import Continuation


class Training:
    """One run: each stage starts from what the stage before it left. Holds the run folder until `close`."""

    lock: RunLock | None = None
    log: RunLog
    page: LivePage | None = None
    trained: frozenset[str] = frozenset()
    """Stages that this call trained; a finished run goes on with none."""

    def __init__(
        self, config: TrainConfig, stages: Sequence[int], *, resume: bool, overwrite: bool, control: bool = False
    ) -> None:
        self.stages, self.resume, self.run_dir, self.with_control = tuple(stages), resume, config.run_dir, control
        self.began = time.perf_counter()
        if config.wandb:
            wandb_package()  # missing, it is missed before a run folder is touched
        distributed.from_first(lambda: check_run(config, stages, resume=resume, overwrite=overwrite))
        distributed.from_first(lambda: check_start(config, stages, overwrite=overwrite))
        check_shares(config, stages)
        before = distributed.from_first(lambda: read_resolved(self.run_dir) if resume else {})
        self.given, self.config = with_absolute_paths(config), keep_choices(config, before)
        if words := choose_threads(config.threads, before):
            print(words)
        self.dataset = open_dataset(self.config, config, stages, resume=resume)
        count = len(self.dataset.data.train)
        check_count(config, stages, count)
        check_frames(config, stages, self.dataset.data.train)
        _ = self.dataset.bodies  # read now: meshes that cannot guide are refused before a run folder is touched
        if control:
            distributed.from_first(lambda: check_control_images(config, self.dataset.image_names, overwrite=overwrite))
        self.resolved = self.dataset.resolved()
        self.config = with_iterations(self.config, self.resolved["images"])
        self.start = self._announce_start(overwrite=overwrite)
        try:
            distributed.from_first(lambda: self._take_folder(before, overwrite=overwrite))
            self.seconds_before = float(read_metrics(self.run_dir).get("seconds", 0.0))
            print(self.dataset.table())
            print(line_of(self.resolved))
            if distributed.first():
                print(settings_summary(self.config, self.stages))
                notes = stage1_notes(self.config, self.stages)
                notes += count_notes(self.config, self.stages, count, iters=config.stage1.iters)
                for note in notes:
                    print(f"note: {note}")
            self.log = self._open_log()
            _ = self.dataset.samples  # read now: a broken mesh must not end stage 1 hours later
        except BaseException:
            self.close()
            raise

    def _open_log(self) -> RunLog:
        config, settings = self.config, to_dict(self.given)
        boards: list[Board] = []
        if config.wandb and distributed.first():
            run_id = str(read_metrics(self.run_dir).get("wandb") or secrets.token_hex(4))
            boards.append(WandB(config.wandb, self.run_dir, run_id, settings))
            write_metrics(self.run_dir, {"wandb": run_id})
        log = RunLog(self.run_dir, tensorboard=config.tensorboard, boards=boards, write=distributed.first())
        log.text("configuration", indented(yaml_text(settings)))
        return log

    def _announce_start(self, *, overwrite: bool) -> bool:
        """Say what the encoder starts from, and look whether it can be had: weights that cannot are refused before a run folder
        is touched, where they would be in the way of the mended command. Returns whether networks are to be built from
        model.weights; False: they are loaded, and those weights are not asked for."""
        goes_on = self._goes_on(self.stages[0])
        given = distributed.from_first(lambda: starts_from_init(self.config, self.stages, self.stages[0], removed=overwrite))
        begins = 1 in self.stages and not goes_on and not given
        if distributed.first():
            print(start_box(self.config, self.stages, goes_on=goes_on, given=given))
        if begins and self.config.model.weights != "none":
            distributed.from_first(lambda: build_networks(self.config).encoder.backbone_name)
        if given and not goes_on:
            distributed.from_first(lambda: look_at_init(self.config, self.stages, overwrite=overwrite))
        return begins

    def _take_folder(self, before: Resolved, *, overwrite: bool) -> None:
        """Lock the run folder and write down with what the run works. Errors: RunError."""
        check_images(self.config, before, self.resolved)
        if self.resolved["meshes"] == "none":  # of this call alone
            self.resolved["meshes"] = before.get("meshes", "none")
        self.lock = RunLock(self.run_dir)
        prepare_run(self.config, overwrite=overwrite)
        write_config(self.run_dir, self.given, self.resolved)
        write_metrics(self.run_dir, {"resolved": self.resolved, "stages": list(self.stages), "with_control": self.with_control})

    def close(self) -> None:
        """Let others have the run folder."""
        try:
            if hasattr(self, "log"):
                self.log.close()
        finally:  # a board may fail, on a full disk for one
            if self.lock is not None:
                self.lock.release()

    def run(self) -> None:
        steps = {1: (self.untrained, self.stage1), 2: (self.stage2,), 3: (self.stage3,)}
        todo = [step for number in self.stages for step in steps[number]]
        if self.with_control:
            todo.append(self.control)
        for step in todo:
            step()
            self.count_seconds()

    def untrained(self) -> None:
        """Score the encoder as stage 1 gets it: what every stage is measured against."""
        if distributed.from_first(lambda: "untrained" in read_metrics(self.run_dir)):
            return
        loaded = bool(self.config.init) or self.config.model.weights != "none"
        if loaded and self._goes_on(1):  # what it started from is not asked for again, and random weights are not it
            return
        self._record_scores("untrained", self.dataset.score(self._networks(1).encoder.to(self.dataset.device)))

    def stage1(self) -> None:
        networks = self._networks(1)
        self._train(stage_of_method(self.config, self._learning(networks.encoder), self.dataset))

    def stage2(self) -> None:
        self._train(GenerativeStage(self.config, self._networks(2), self.dataset))

    def stage3(self) -> None:
        networks = self._networks(3)
        networks.encoder = self._learning(networks.encoder)
        self._train(JointStage(self.config, networks, self.dataset))

    def control(self) -> None:
        """Stage 1 continued for as many updates of the encoder as stage 3 made, its weights averaged as there."""
        updates = load_trained(self._checkpoint("stage3"))["iteration"]
        path = self._checkpoint("stage1")
        finished = load_trained(path)
        encoder = build_networks(self.config, start=False).encoder
        load_module(encoder, finished["modules"]["encoder"], str(path))
        continuation = Continuation("control", finished["epoch"], updates, self.config.stage3.average_encoder)
        stage = stage_of_method(self.config, self._learning(encoder), self.dataset, continuation)
        try:
            stage.go_on_from(finished)
        except RuntimeError as error:  # a memory of another number of images
            raise other_images(path) from error
        self._train(stage)

    def count_seconds(self) -> None:
        """Bring the total in metrics.json up to now: at least what the stages took, also in calls that were killed."""
        if distributed.first():
            counted = self.seconds_before + time.perf_counter() - self.began
            stages = sum(read_metrics(self.run_dir).get("times", {}).values())
            write_metrics(self.run_dir, {"seconds": round(max(counted, stages), 1)})

    def show_results(self) -> None:
        """What the finished run gave, for the boards: ranked lists, novel views, and the scores beside the settings."""
        metrics, iterations = read_metrics(self.run_dir), last_iterations(self.run_dir)
        for stage in STAGES if self.log.boards else ():
            for name in ("ranked_lists", "novel_views"):
                path = self.run_dir / "pictures" / f"{stage}_{name}.png"
                if path.is_file():
                    self.log.picture(f"{stage}/{name}", load_photo(path), iterations.get(stage, 0))
        parts = [(name, part) for name, part in metrics.items() if name in ("untrained", *STAGES) and isinstance(part, dict)]
        scores = {f"{name}/{key}": float(v) for name, part in parts for key, v in part.items() if isinstance(v, (int, float))}
        self.log.results(to_dict(self.given), scores)

    def _networks(self, stage: int) -> Networks:
        """With what the stage starts from; where it goes on, all comes from its own checkpoint."""
        networks = build_networks(self.config, start=self.start and stage == 1)
        if not self._goes_on(stage):
            load_start(networks, self.config, self.stages, stage)
        return networks

    def _goes_on(self, stage: int) -> bool:
        return self.resume and distributed.from_first(self._checkpoint(f"stage{stage}").exists)

    def _checkpoint(self, stage: str) -> Path:
        return stage_checkpoint(self.run_dir, stage)

    def _learning(self, encoder: IdentityEncoder) -> IdentityEncoder:
        """The encoder with the batch norm asked for."""
        return distributed.sync_batch_norm(encoder, self.dataset.device) if self.config.sync_bn else encoder

    def _train(self, stage: Stage) -> None:
        config = self.config
        engine = Engine(
            stage,
            self.log,
            config=to_dict(self.given),
            checkpoint_every=config.checkpoint_every,
            log_every=config.log_every,
            picture_every=config.picture_every,
            show_pictures=self._save_pictures,
            after_epoch=None if self.page is None else self.page.after_epoch,
            batches_later=self._batches_later(stage.name),
            image_names=self.dataset.image_names,
        )
        scores = engine.run(resume=self.resume)
        if engine.trained:
            self.trained |= {stage.name}
        if distributed.first():
            write_metrics(self.run_dir, {"times": {stage.name: round(engine.seconds, 1)}})
        self._record_scores(stage.name, scores)

    def _batches_later(self, name: str) -> tuple[float, float]:
        """Of the stage of this name: as many of its batches as what comes after it takes the time of, at least and at most."""
        number = {"stage1": 1, "stage2": 2, "stage3": 3}.get(name)
        if number is None:
            return 0.0, 0.0
        images, on_cpu = len(self.dataset.data.train), self.dataset.device.type == "cpu"
        return batches_after(self.config, number, self.stages, images, control=self.with_control, on_cpu=on_cpu)

    def _save_pictures(self, stage: str, pictures: dict[str, dict[str, Tensor]], iteration: int) -> None:
        from gcl_fast.visuals import image_rows, save_png

        for name, rows in pictures.items():
            picture = image_rows(rows)
            save_png(self.run_dir / "pictures" / f"{stage}_{name}.png", picture)
            self.log.picture(f"{stage}/{name}", picture, iteration)

    def _record_scores(self, name: str, scores: dict[str, float]) -> None:
        """Print scores and put them in metrics.json; without a test set there are none. The first process does."""
        shown = {k: v for k, v in scores.items() if k != "score"}
        if shown and distributed.first():
            write_metrics(self.run_dir, {name: shown})
            print(f"{name}: " + "  ".join(f"{k} {v:.1%}" for k, v in shown.items()))


def _can_report() -> bool:
    """Whether the report can be written at the end; says so now where it cannot."""
    try:
        import jinja2  # noqa: F401  # whether it imports is the question
    except ImportError as error:
        print(f"no report.html will be written: {missing('jinja2', 'it', error)}", file=sys.stderr)
        return False
    return True


def train(
    config: TrainConfig,
    stages: Sequence[int] = (1, 2, 3),
    *,
    resume: bool = False,
    overwrite: bool = False,
    control: bool = False,
) -> Path:
    """Train stages in one run folder. Deterministic by the configuration's seed on a CPU with the same number of threads
    (config.threads, else the cores that are free; a resumed run keeps its number).

    Started by torchrun, the processes train together; the first then makes scores, pictures and report alone.

    Arguments:
        config: of the whole run.
        stages: of 1, 2, 3, in this order.
        resume: go on with the run that the folder holds, with the same settings.
        overwrite: remove what the run in the folder wrote, and nothing else.
        control: after them, continue stage 1 for as many updates as stage 3 made, to compare with.

    Returns: the run folder, with checkpoints, history.jsonl, metrics.json, and report.html where jinja2 is installed.
    Errors: RunError where the folder holds a run already, or a stage lacks what it starts from; ConfigError and the other
        kinds of `errors` for settings, files and data that cannot be used.
    """
    from gcl_fast.report import write_report
    from gcl_fast.runs.run_pictures import complete_run

    if control:
        check_control(config, stages, overwrite=overwrite)
    with contextlib.ExitStack() as stack:
        stack.callback(torch.set_num_threads, torch.get_num_threads())
        with distributed.session(choose_device(config.device)) as rank:
            with_report = rank == 0 and _can_report()
            training = Training(config, stages, resume=resume, overwrite=overwrite, control=control)
            stack.callback(training.close)
            if with_report:
                training.page = LivePage(training.run_dir)
            training.run()
        if rank != 0:
            return training.run_dir
        complete_run(training.run_dir, training.dataset, training.trained)
        training.count_seconds()
        training.show_results()
        if not training.trained:
            print(f"nothing was left to train: --stage {stage_flag(stages)} is finished")
        if with_report:
            print(f"report: {write_report(training.run_dir)}")
    return training.run_dir
