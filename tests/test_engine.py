"""The engine: resume to the bit, atomic checkpoints, losses that are not finite, best and last."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import nn

from gcl_fast import distributed
from gcl_fast.data.plans import Plan
from gcl_fast.errors import CheckpointError, StageError
from gcl_fast.records import Batch
from gcl_fast.stages import engine
from gcl_fast.stages.checkpoint import load_checkpoint, save_checkpoint
from gcl_fast.stages.engine import Engine
from gcl_fast.stages.finite import not_finite, tensors_in
from gcl_fast.stages.log import RunLog
from gcl_fast.stages.stage import Stage, stepped_lr
from gcl_fast.stages.stop_signals import stops_on_sigterm
from tests.taped_graph import TapedGraph


class Killed(BaseException):
    pass


class ToyStage(Stage):
    """Regression with noise from iteration_rng, state that changes in an epoch, and a plan drawn from torch's random numbers."""

    name = "toy"

    def __init__(self, *, epochs=3, kill_at=None, poison_at=None, poison=None, scores=(), device="cpu"):
        torch.manual_seed(0)
        self.seed, self.epochs, self.device = 5, epochs, torch.device(device)
        self.net = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.3), nn.Linear(8, 1)).to(device)
        self.modules = {"net": self.net}
        self.optimizers = {"net": torch.optim.Adam(self.net.parameters(), lr=1e-2)}
        self.bank = torch.zeros(32, 4, device=device)
        self.data = torch.randn(32, 4)
        self.kill_at, self.poison_at, self.scores = kill_at, poison_at, list(scores)
        self.poison = poison  # what breaks at poison_at: the loss, or a function of the stage after the update

    def plan_epoch(self, epoch):
        order = torch.randperm(32).numpy()
        self.bank += 1
        return Plan(tuple(np.split(order, 8)))

    def batches(self, plan, epoch, start):
        for index in plan.batches[start:]:
            rows = torch.from_numpy(index)
            yield Batch(self.data[rows], None, None, rows, rows, rows)

    def draw(self, batch, iteration):
        return iteration, torch.from_numpy(self.iteration_rng(iteration).normal(size=(len(batch), 4))).float().to(self.device)

    def update(self, batch, drawn):
        iteration, noise = drawn
        if iteration == self.kill_at:
            raise Killed
        loss = (self.net(batch.image + 0.1 * noise + self.bank[batch.index]) - 1).square().mean()
        if iteration == self.poison_at and self.poison is None:
            loss = loss * float("nan")
        self.optimizers["net"].zero_grad()
        loss.backward()
        self.optimizers["net"].step()
        self.bank[batch.index] += batch.image
        if iteration == self.poison_at and self.poison is not None:
            self.poison(self)
        return {"square": loss.detach()}

    def evaluate(self, epoch):
        return {"mAP": self.scores[epoch], "score": self.scores[epoch]} if self.scores else {}

    def extra_state(self):
        return {"bank": self.bank}

    def load_extra_state(self, state):
        self.bank = state["bank"].to(self.device)


def engine_of(stage, run_dir, **options):
    log = RunLog(run_dir, tensorboard=False)
    return Engine(stage, log, config={}, **{"checkpoint_every": 3, "log_every": 2, **options})


@pytest.mark.parametrize("graphs", [False, True])
def test_each_step_of_cuda_graphs_is_announced(graphs, tmp_path, monkeypatch):
    marks = []
    monkeypatch.setattr(torch.compiler, "cudagraph_mark_step_begin", lambda: marks.append(None))
    stage = ToyStage(epochs=2)
    stage.graphs = graphs
    engine_of(stage, tmp_path).run()
    assert len(marks) == (2 * 8 if graphs else 0)


def test_an_epoch_without_a_batch_is_refused(tmp_path, monkeypatch):
    stage = ToyStage()
    monkeypatch.setattr(stage, "plan_epoch", lambda epoch: Plan(()))
    with pytest.raises(StageError, match="toy, epoch 1: no batch to train on; lower batch_size"):
        engine_of(stage, tmp_path).run()


class Slowing(ToyStage):
    """Its learning rate falls each epoch; without dropout, whose draws a tape would repeat."""

    def __init__(self, step_graph):
        super().__init__()
        self.net[2] = nn.Identity()
        self.optimizers = {"net": torch.optim.Adam(self.net.parameters(), fused=True)}
        self.step_graph = step_graph

    def enter_epoch(self, epoch):
        self.optimizers["net"].param_groups[0]["lr"] = 0.1**epoch


def test_steps_of_one_graph_an_epoch_learn_the_same(tmp_path, monkeypatch):
    graphs, streams = [], []

    def taped(device, stream):
        assert device == torch.device("cpu")
        graphs.append(TapedGraph())
        streams.append(stream)
        graphs[-1].stream = stream or "the first graph's"
        return graphs[-1]

    monkeypatch.setattr(engine, "CudaGraph", taped)
    for name, stage in (("plain", plain := Slowing(False)), ("graphed", graphed := Slowing(True))):
        torch.manual_seed(0)  # of the plans
        engine_of(stage, tmp_path / name).run()
    assert [(graph.asides, graph.replays) for graph in graphs] == [(1, 7)] * 3
    assert streams == [None, "the first graph's", "the first graph's"]  # each new one would keep memory
    for name, value in plain.net.state_dict().items():
        assert torch.equal(value, graphed.net.state_dict()[name]), name
    assert torch.equal(plain.bank, graphed.bank)
    history = [(tmp_path / name / "history.jsonl").read_text().splitlines() for name in ("plain", "graphed")]
    squares = [[line["square"] for line in map(json.loads, lines) if "square" in line] for lines in history]
    assert squares[0] == squares[1] and len(squares[0]) > 3


@pytest.mark.parametrize("kill_at", [0, 2, 5, 8, 9, 14, 23])
def test_resume_reaches_the_same_weights(tmp_path, kill_at, device):
    whole = ToyStage(device=device)
    engine_of(whole, tmp_path / "whole").run()
    with pytest.raises(Killed):
        engine_of(ToyStage(kill_at=kill_at, device=device), tmp_path / "killed").run()
    torch.randn(7, device=device)  # whatever the new process did before
    resumed = ToyStage(device=device)
    engine_of(resumed, tmp_path / "killed").run(resume=True)
    for name, value in whole.net.state_dict().items():
        assert torch.equal(value, resumed.net.state_dict()[name]), name
    assert torch.equal(whole.bank, resumed.bank)
    optimizers = (whole.optimizers["net"].state_dict()["state"], resumed.optimizers["net"].state_dict()["state"])
    for key, state in optimizers[0].items():
        for name, value in state.items():
            assert torch.equal(value.cpu(), optimizers[1][key][name].cpu())  # a counter of steps may lie on either


@pytest.mark.parametrize("kill_at", [0, 9, 16])
def test_every_epoch_is_entered_and_planned_once(tmp_path, kill_at):
    """A resumed stage enters the epoch it was killed in anew; it plans it only where no checkpoint has the plan."""
    entered, planned = [], []

    class Watched(ToyStage):
        def enter_epoch(self, epoch):
            entered.append(epoch)

        def plan_epoch(self, epoch):
            assert entered[-1] == epoch
            planned.append(epoch)
            return super().plan_epoch(epoch)

    with pytest.raises(Killed):
        engine_of(Watched(kill_at=kill_at), tmp_path, checkpoint_every=1).run()
    engine_of(Watched(), tmp_path).run(resume=True)
    assert entered == {0: [0, 0, 1, 2], 9: [0, 1, 1, 2], 16: [0, 1, 2, 2]}[kill_at]
    assert planned == {0: [0, 0, 1, 2], 9: [0, 1, 2], 16: [0, 1, 2, 2]}[kill_at]


@pytest.mark.parametrize("kill_at", [0, 8, 13, 16])
def test_history_has_no_gap_and_no_double_after_resume(tmp_path, kill_at):
    class Clustered(ToyStage):
        def epoch_scalars(self):
            return {"clusters": 4.0}

    with pytest.raises(Killed):
        engine_of(Clustered(kill_at=kill_at), tmp_path).run()
    engine_of(Clustered(), tmp_path).run(resume=True)
    lines = [json.loads(line) for line in (tmp_path / "history.jsonl").read_text().splitlines()]
    iterations = [line["iteration"] for line in lines if "square" in line]
    assert iterations == sorted(set(iterations)) and iterations[-1] == 23
    assert [line["epoch"] for line in lines if "clusters" in line] == [0, 1, 2]
    assert {"stage", "epoch", "iteration", "time"} <= set(lines[0])


def test_loss_not_finite_stops_with_its_name_and_keeps_the_good_checkpoint(tmp_path):
    with pytest.raises(StageError, match="square"):
        engine_of(ToyStage(poison_at=10), tmp_path).run()
    state = load_checkpoint(tmp_path / "toy" / "last.pt")
    assert state["iteration"] <= 10
    assert all(torch.isfinite(v).all() for v in state["modules"]["net"].values() if v.is_floating_point())


def break_weight(stage):
    stage.net[0].weight.data[0, 0] = torch.nan


def break_gradient(stage):
    stage.net[3].bias.grad.fill_(torch.inf)


def break_statistics(stage):
    stage.net[1].running_var[2] = torch.inf


def break_memory(stage):
    stage.bank[3, 1] = torch.nan


def break_moment(stage):
    stage.optimizers["net"].state[stage.net[0].weight]["exp_avg_sq"][0, 0] = torch.inf


@pytest.mark.parametrize(
    ("poison", "words"),
    [
        (break_weight, "weights not finite: net.0.weight"),
        (break_gradient, "gradients not finite: net.3.bias"),
        (break_statistics, "weights not finite: net.1.running_var"),
        (break_memory, "extra.bank"),
        (break_moment, "optimizers.net.state.0.exp_avg_sq"),
    ],
)
@pytest.mark.parametrize("poison_at", [8, 11, 15])  # inside an epoch, before a checkpoint there, at an epoch's end
def test_no_checkpoint_that_is_not_finite_replaces_a_finite_one(tmp_path, poison, words, poison_at):
    """The loss of that very step is still finite."""
    stage = ToyStage(poison_at=poison_at, poison=poison, scores=[0.1, 0.2, 0.3])
    with pytest.raises(StageError) as caught:
        engine_of(stage, tmp_path).run()
    message = str(caught.value)
    assert words in message and "--name NEW" in message
    named = tmp_path / "toy" / "last.pt"
    assert f"{named} is good" in message
    for path in (named, tmp_path / "toy" / "best.pt"):
        state = load_checkpoint(path)
        assert not not_finite(tensors_in(state)), path
    assert load_checkpoint(named)["iteration"] in (6, 8, 9, 12, 15)
    whole, resumed = ToyStage(scores=[0.1, 0.2, 0.3]), ToyStage(scores=[0.1, 0.2, 0.3])
    engine_of(whole, tmp_path / "whole").run()
    engine_of(resumed, tmp_path).run(resume=True)  # without the poison the run goes on
    assert all(torch.equal(a, b) for a, b in zip(whole.net.parameters(), resumed.net.parameters(), strict=True))


def test_without_a_checkpoint_no_file_is_named(tmp_path):
    with pytest.raises(StageError, match="no checkpoint of it is good yet"):
        engine_of(ToyStage(poison_at=0, poison=break_weight), tmp_path).run()


@pytest.mark.parametrize("damage", ["cut", "not finite"])
@pytest.mark.parametrize("best", ["good", "missing", "damaged"])
def test_a_last_checkpoint_that_cannot_be_used_says_what_lies_beside_it(tmp_path, damage, best):
    engine_of(ToyStage(scores=[0.2, 0.6, 0.4]), tmp_path).run()
    last, other = tmp_path / "toy" / "last.pt", tmp_path / "toy" / "best.pt"
    if damage == "cut":
        last.write_bytes(last.read_bytes()[:-300])
    else:
        state = load_checkpoint(last)
        state["modules"]["net"]["0.weight"][0, 0] = torch.nan
        save_checkpoint(last, state)
    if best == "missing":
        other.unlink()
    if best == "damaged":
        other.write_bytes(b"")
    words = r"best\.pt beside it is good \(after epoch 2\): copy it" if best == "good" else "remove the folder"
    with pytest.raises(CheckpointError, match=words) as caught:
        engine_of(ToyStage(scores=[0.2, 0.6, 0.4]), tmp_path).run(resume=True)
    assert str(last) in str(caught.value)
    if best == "good":
        last.write_bytes(other.read_bytes())
        engine_of(ToyStage(scores=[0.2, 0.6, 0.4]), tmp_path).run(resume=True)
        assert load_checkpoint(last)["epoch"] == 3


def test_a_checkpoint_of_other_images_is_told(tmp_path):
    with pytest.raises(Killed):
        engine_of(ToyStage(kill_at=9), tmp_path, image_names="then").run()
    fewer = ToyStage()
    fewer.load_extra_state = lambda state: fewer.bank[:-1].copy_(state["bank"])
    for other, names in ((fewer, "then"), (ToyStage(), "now")):  # as many others move the rows, and the plan, to other images
        with pytest.raises(CheckpointError, match="does not fit the training images of now: were images or meshes added"):
            engine_of(other, tmp_path, image_names=names).run(resume=True)
    engine_of(ToyStage(), tmp_path, image_names="then").run(resume=True)
    engine_of(fewer, tmp_path, image_names="now").run(resume=True)  # finished: nothing of it is of images any more


def test_best_is_the_best_and_last_the_last(tmp_path):
    engine_of(ToyStage(scores=[0.2, 0.6, 0.4]), tmp_path).run()
    assert load_checkpoint(tmp_path / "toy" / "best.pt")["epoch"] == 2
    assert load_checkpoint(tmp_path / "toy" / "last.pt")["epoch"] == 3


@pytest.mark.parametrize(("name", "scores"), [("best", [0.2, 0.6]), ("last", [0.2, 0.6]), ("best", []), ("last", [])])
def test_a_kill_between_best_and_last_loses_neither(tmp_path, monkeypatch, name, scores):
    def save(path, state):
        if path.stem == name and state["epoch"] == 2:
            raise Killed
        save_checkpoint(path, state)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr("gcl_fast.stages.engine.save_checkpoint", save)
        engine_of(ToyStage(epochs=2, scores=scores), tmp_path).run()
    engine_of(ToyStage(epochs=2, scores=scores), tmp_path).run(resume=True)
    best, last = (load_checkpoint(tmp_path / "toy" / f"{kept}.pt") for kept in ("best", "last"))
    assert best["epoch"] == last["epoch"] == 2 and best["best"] == last["best"]


def test_checkpoint_is_whole_or_old(tmp_path, monkeypatch):
    path = tmp_path / "a" / "last.pt"
    save_checkpoint(path, {"value": torch.ones(3)})

    def half(state, file):
        file.write(b"half")
        raise Killed

    monkeypatch.setattr(torch, "save", half)
    with pytest.raises(Killed):
        save_checkpoint(path, {"value": torch.zeros(3)})
    assert torch.equal(load_checkpoint(path)["value"], torch.ones(3))


def test_bad_checkpoints_are_named(tmp_path):
    with pytest.raises(CheckpointError, match="no checkpoint at"):
        load_checkpoint(tmp_path / "none.pt")
    damaged = tmp_path / "damaged.pt"
    save_checkpoint(damaged, {"value": torch.ones(300)})
    damaged.write_bytes(damaged.read_bytes()[:-200])
    with pytest.raises(CheckpointError, match=r"damaged\.pt"):
        load_checkpoint(damaged)
    foreign = tmp_path / "foreign.pt"
    torch.save({"state_dict": {}}, foreign)
    with pytest.raises(CheckpointError, match=r"foreign\.pt is no gcl_fast checkpoint"):
        load_checkpoint(foreign)


def test_pickled_code_is_refused_and_not_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    path = tmp_path / "evil.pt"
    torch.save({"format": 1, "x": Evil()}, path)
    with pytest.raises(CheckpointError, match=r"evil\.pt"):
        load_checkpoint(path)
    assert not (tmp_path / "ran").exists()


def equal_stages(one, two):
    assert torch.equal(one.bank, two.bank)
    return all(torch.equal(a, b) for a, b in zip(one.net.state_dict().values(), two.net.state_dict().values(), strict=True))


@pytest.fixture(autouse=True)
def ctrl_c() -> Iterator[None]:
    """Ctrl-C as in a terminal: a shell starts what runs in its background with SIGINT ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("stop_at", [0, 4, 7, 12, 23])  # 7 and 23 end an epoch
def test_a_stop_finishes_and_saves_the_step(tmp_path, number, stop_at, capsys):
    whole = ToyStage(scores=[0.1, 0.2, 0.3])
    engine_of(whole, tmp_path / "whole").run()
    stage = ToyStage(poison_at=stop_at, poison=lambda _: os.kill(os.getpid(), number), scores=[0.1, 0.2, 0.3])
    with stops_on_sigterm(), pytest.raises(KeyboardInterrupt) as caught:
        engine_of(stage, tmp_path, checkpoint_every=1000).run()
    assert caught.value.signal == number and "once more stops at once" in capsys.readouterr().err
    state = load_checkpoint(tmp_path / "toy" / "last.pt")
    assert state["iteration"] == stop_at + 1  # nothing is lost
    resumed = ToyStage(scores=[0.1, 0.2, 0.3])
    assert engine_of(resumed, tmp_path).run(resume=True) == {"mAP": 0.3, "score": 0.3}
    assert equal_stages(whole, resumed)
    assert load_checkpoint(tmp_path / "toy" / "best.pt")["epoch"] == 3


def test_a_second_stop_does_not_wait(tmp_path):
    def twice(_):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        raise AssertionError("not reached")

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        engine_of(ToyStage(poison_at=4, poison=twice), tmp_path).run()
    assert load_checkpoint(tmp_path / "toy" / "last.pt")["iteration"] == 3
    assert signal.getsignal(signal.SIGINT) is before


def test_a_stop_while_scoring_keeps_the_epoch(tmp_path):
    whole = ToyStage(scores=[0.1, 0.2, 0.3])
    engine_of(whole, tmp_path / "whole").run()
    stopped = ToyStage(scores=[0.1, 0.2, 0.3])
    stopped.evaluate = lambda epoch: os.kill(os.getpid(), signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        engine_of(stopped, tmp_path, checkpoint_every=1000).run()
    assert load_checkpoint(tmp_path / "toy" / "last.pt")["iteration"] == 8
    resumed = ToyStage(scores=[0.1, 0.2, 0.3])
    engine_of(resumed, tmp_path).run(resume=True)
    assert equal_stages(whole, resumed)


@pytest.mark.parametrize("during", ["pictures", "best.pt", "last.pt"])
def test_a_stop_after_the_steps_of_an_epoch_keeps_them(during, tmp_path, monkeypatch):
    """Pictures take seconds, and so does a large checkpoint."""
    whole = ToyStage(scores=[0.1, 0.2, 0.3])
    engine_of(whole, tmp_path / "whole").run()

    def stop(*_):
        if during == "pictures":
            os.kill(os.getpid(), signal.SIGTERM)

    def keep(path, state):
        if path.name == during:
            os.kill(os.getpid(), signal.SIGTERM)
        save_checkpoint(path, state)

    stopped = ToyStage(scores=[0.1, 0.2, 0.3])
    stopped.pictures = lambda: {"rows": {}}
    with monkeypatch.context() as patch, stops_on_sigterm(), pytest.raises(KeyboardInterrupt) as caught:
        patch.setattr(engine, "save_checkpoint", keep)
        engine_of(stopped, tmp_path, checkpoint_every=1000, picture_every=1, show_pictures=stop).run()
    assert caught.value.signal == signal.SIGTERM
    state = load_checkpoint(tmp_path / "toy" / "last.pt")
    assert (state["epoch"], state["iteration"]) == (1, 8)
    resumed = ToyStage(scores=[0.1, 0.2, 0.3])
    engine_of(resumed, tmp_path).run(resume=True)
    assert equal_stages(whole, resumed)
    scored = [json.loads(line) for line in (tmp_path / "history.jsonl").read_text().splitlines() if "mAP" in line]
    assert [line["mAP"] for line in scored] == [0.1, 0.2, 0.3]


def test_a_batch_that_leaves_one_image_to_a_process_is_told(tmp_path, monkeypatch):
    """Where there are few clusters it is smaller than asked for, and batch norm of one image is torch's error."""
    stage = ToyStage()
    run = engine_of(stage, tmp_path)
    monkeypatch.setattr(distributed, "world", lambda: 2)
    monkeypatch.setattr(distributed, "rank", lambda: 0)
    words = "toy epoch 1/3: a batch has 3 images, which leaves one to each of 2 processes, .*: --resume with fewer processes"
    with pytest.raises(StageError, match=words):
        run._train_epoch(Plan((np.arange(4), np.arange(3))), 0.0)


def test_a_library_leaves_sigterm_alone(tmp_path):
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    seen = []
    engine_of(ToyStage(poison_at=1, poison=lambda _: seen.append(signal.getsignal(signal.SIGTERM))), tmp_path).run()
    assert seen == [signal.SIG_DFL]


def test_stepped_lr():
    assert [stepped_lr(1.0, 0.1, (10,), e) for e in (0, 9, 10, 19)] == [1.0, 1.0, 0.1, 0.1]


def test_iteration_rng_depends_on_seed_stage_and_iteration_alone():
    one, two = ToyStage(), ToyStage()
    assert one.iteration_rng(3).random() == two.iteration_rng(3).random()
    assert one.iteration_rng(3).random() != one.iteration_rng(4).random()
    two.seed = 6
    assert one.iteration_rng(3).random() != two.iteration_rng(3).random()
    two.seed, two.name = 5, "toys"
    assert one.iteration_rng(3).random() != two.iteration_rng(3).random()
