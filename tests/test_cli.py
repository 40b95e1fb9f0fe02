"""The command line: its flags, where settings come from, and what is printed when something goes wrong."""

from __future__ import annotations

import dataclasses
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("tyro", reason="the command line needs tyro")

from gcl_fast.cli import doctor, evaluate, synth, train
from gcl_fast.cli.main import COMMANDS, main
from gcl_fast.cli.options import default_config, parse
from gcl_fast.cli.train import TrainOptions
from gcl_fast.config import TrainConfig, load_shipped
from gcl_fast.errors import ConfigError, FileError, FolderInUseError, MissingFileError, RunError
from gcl_fast.stages.checkpoint import save_checkpoint

SMALL = {"model": {"backbone": "resnet18", "width": 8, "generator_width": 4, "generator_mlp": 8, "discriminator_width": 4}}

# Every flag that a commit had; none may go.
FLAGS = {
    "report": "",
    "demo": """
        --fresh --no-fresh --out --seed
    """,
    "synth": """
        --cameras --height --images-per-id --layout --no-novel-views --no-rendered-meshes --novel-views --rendered-meshes
        --seed --test-ids --train-ids --width
    """,
    "render": """
        --angles --dataset --height --mesh-root --no-overwrite --out --overwrite --root --width
    """,
    "train": """
        --cache --channels-last --checkpoint-every --compile --control --dataset --device --dry-run --dump-config
        --eval-batch-size --height --init --no-dry-run --no-dump-config --wandb
        --loader --log-every --mesh-root --meshes --method --model.backbone --model.discriminator-width
        --model.generator-mlp --model.generator-width --model.variant --model.weights --model.width --name --no-cache
        --no-control --no-overwrite --no-resume --no-skip-broken --no-skip-unmeshed --no-sync-bn --no-tensorboard
        --overwrite --picture-every --precision --resume --root --runs --seed --skip-broken --skip-unmeshed --stage
        --stage1.augment.color-jitter --stage1.augment.erase --stage1.augment.flip --stage1.augment.pad --stage1.batch-size
        --stage1.camera-aware --stage1.cluster.debias-cameras --stage1.cluster.eps --stage1.cluster.k1 --stage1.cluster.k2
        --stage1.cluster.min-samples --stage1.cluster.no-debias-cameras --stage1.cluster.rho --stage1.epochs
        --stage1.eval-every --stage1.iters --stage1.jvtc.backbone-lr --stage1.jvtc.batch-size --stage1.jvtc.bin-frames
        --stage1.jvtc.camstyle --stage1.jvtc.candidates --stage1.jvtc.cluster.debias-cameras --stage1.jvtc.cluster.eps
        --stage1.jvtc.cluster.k1 --stage1.jvtc.cluster.k2 --stage1.jvtc.cluster.min-samples
        --stage1.jvtc.cluster.no-debias-cameras --stage1.jvtc.cluster.rho --stage1.jvtc.epochs --stage1.jvtc.eps-scale
        --stage1.jvtc.global-from --stage1.jvtc.global-temperature --stage1.jvtc.global-weight --stage1.jvtc.iters
        --stage1.jvtc.label-every --stage1.jvtc.local-temperature --stage1.jvtc.lr --stage1.jvtc.lr-gamma
        --stage1.jvtc.lr-steps --stage1.jvtc.momentum-max --stage1.jvtc.momentum-step --stage1.jvtc.no-camstyle
        --stage1.jvtc.sgd-momentum --stage1.jvtc.smooth-bins --stage1.jvtc.temporal-from --stage1.jvtc.views
        --stage1.jvtc.weight-decay --stage1.lr --stage1.lr-gamma --stage1.lr-steps --stage1.memory --stage1.method
        --stage1.mlc.backbone-lr --stage1.mlc.batch-size --stage1.mlc.camstyle --stage1.mlc.epochs --stage1.mlc.hard-share
        --stage1.mlc.iters --stage1.mlc.lr --stage1.mlc.lr-gamma --stage1.mlc.lr-steps --stage1.mlc.min-neighbors
        --stage1.mlc.momentum --stage1.mlc.momentum-epochs --stage1.mlc.no-camstyle --stage1.mlc.positive-weight
        --stage1.mlc.sgd-momentum --stage1.mlc.single-label-epochs --stage1.mlc.threshold --stage1.mlc.weight-decay
        --stage1.momentum --stage1.no-camera-aware --stage1.num-instances --stage1.temperature --stage1.weight-decay
        --stage2.batch-size --stage2.beta1 --stage2.beta2 --stage2.epochs --stage2.iters --stage2.loss.adversarial
        --stage2.loss.code --stage2.loss.foreground --stage2.loss.image --stage2.loss.mixup-alpha --stage2.loss.penalty
        --stage2.lr --stage2.lr-gamma --stage2.lr-steps --stage2.weight-decay --stage3.bank-momentum --stage3.batch-size
        --stage3.beta1 --stage3.beta2 --stage3.cluster.debias-cameras --stage3.cluster.eps --stage3.cluster.k1
        --stage3.cluster.k2 --stage3.cluster.min-samples --stage3.cluster.no-debias-cameras --stage3.cluster.rho
        --stage3.epochs --stage3.eval-every --stage3.id-w --stage3.iters --stage3.loss.adversarial --stage3.loss.code
        --stage3.loss.foreground --stage3.loss.image --stage3.loss.mixup-alpha --stage3.loss.penalty --stage3.lr
        --stage3.lr-encoder --stage3.lr-gamma --stage3.lr-steps --stage3.memory-w --stage3.momentum-encoder
        --stage3.num-negatives --stage3.running-stats --stage3.temperature --stage3.weight-decay
        --sync-bn --tensorboard --width --workers --yaws
    """,
    "evaluate": """
        --dataset --device --no-rerank --output --ranked-lists --rerank --root
    """,
    "generate": """
        --angles --dataset --device --fid-weights --no-turntable --no-warp --num --out --root --scores --seed --split --turntable
        --warp --what
    """,
    "import-checkpoint": """
        --kind --out
    """,
    "estimate-meshes": """
        --batch-size --dataset --device --height --mesh-root --mirror --missing --no-mirror --no-overwrite --overwrite --preview
        --preview-count --root --split --weights --width
    """,
    "import-meshes": """
        --axes --dataset --faces --fit --focal --format --height --mesh-root --missing --no-fit --no-rendered --preview
        --preview-count --rendered --root --smpl --width
    """,
    "export": """
        --format --height --out --width
    """,
    "bench": """
        --full --json --no-full --op --plot
    """,
    "embed": """
        --batch-size --device --height --no-skip-broken --out --skip-broken --weights --width --workers
    """,
    "search": """
        --batch-size --device --height --no-skip-broken --rows --sheet --skip-broken --top --weights --width --workers
    """,
}


# --config was read, but not listed by --help; the other stands in the words of a help text
def flags_in_help(command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> set[str]:
    monkeypatch.setenv("COLUMNS", "120")
    with pytest.raises(SystemExit) as end:
        main([command, "--help-all" if command == "train" else "--help"])
    assert end.value.code == 0
    return set(re.findall(r"--[a-z][\w.-]*\w", capsys.readouterr().out))


@pytest.mark.parametrize("command", FLAGS)
def test_every_flag_is_still_there(command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    before, now = set(FLAGS[command].split()), flags_in_help(command, capsys, monkeypatch)
    assert before <= now, before - now
    assert "--traceback" in now


def test_every_setting_has_a_flag(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def names(section: object, prefix: str) -> set[str]:
        flags: set[str] = set()
        for field in dataclasses.fields(section):  # type: ignore[arg-type]  # an instance of a dataclass
            value, name = getattr(section, field.name), prefix + field.name.replace("_", "-")
            flags |= names(value, name + ".") if dataclasses.is_dataclass(value) else {f"--{name}"}
        return flags

    assert names(TrainConfig(), "") <= flags_in_help("train", capsys, monkeypatch)


def test_the_short_help_of_train_fits_two_screens_and_names_what_exists(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    every = flags_in_help("train", capsys, monkeypatch)
    for argv, now in (
        (["--help"], "[market1501]"),
        (["--help"], "[imagenet]"),
        (["--config", "demo", "-h"], "[demo]"),
        (["--method", "mlc", "-h"], "[mlc]"),
    ):
        assert main(["train", *argv]) == 0
        text = capsys.readouterr().out
        lines = text.splitlines()
        assert now in text and len(lines) <= 100 and max(map(len, lines)) <= 100
        assert set(re.findall(r"--[a-z][\w.-]*\w", text)) <= every | {"--help-all"}
        assert lines[-1].startswith("--help-all lists every setting")


def test_dumped_settings_read_back_equal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--method", "jvtc", "--stage1.lr", "1e-5", "--yaws", "10", "20", "--wandb", "mine", "--stage3.lr-steps-encoder", "4"]
    for argv in (flags, ["--config", "demo", "--stage1.cluster.rho", "0.001"], ["--config", "gcl_duke"], ["--dataset", "folder"]):
        assert main(["train", *argv, "--dump-config"]) == 0
        file = tmp_path / "dumped.yaml"
        file.write_text(capsys.readouterr().out)
        assert settings("--config", str(file)) == settings(*argv)


def test_typing_errors_are_answered_with_what_is_near(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["trian"]) == 2
    assert "no command 'trian'; did you mean train?" in capsys.readouterr().err
    for argv, near in (
        (["train", "--stage1.batchsize", "4"], "--stage1.batch-size"),
        (["train", "--overwite"], "--overwrite"),
        (["evaluate", "run", "--ranked-list", "x.png"], "--ranked-lists"),
        (["demo", "--freshh"], "--fresh"),
        (["embed", "photos", "--weight", "w", "--out", "a.npz"], "--weights"),
    ):
        with pytest.raises(SystemExit) as end:
            main(argv)
        assert end.value.code == 2 and near in capsys.readouterr().err, argv


def settings(*argv: str) -> TrainConfig:
    options = parse(TrainOptions, list(argv), prog="train", default=TrainOptions(default_config(list(argv))))
    return options.settings


def test_settings_come_from_yaml_and_flags_change_them(tmp_path: Path) -> None:
    assert settings() == settings("--dataset", "market1501") == load_shipped("market1501")  # what help says --dataset is
    assert settings("--dataset", "msmt17") == settings("--dataset=msmt17") == load_shipped("msmt17")
    assert settings("--config", "demo") == settings("--config=demo") == load_shipped("demo")
    on_msmt17 = dataclasses.replace(load_shipped("demo"), dataset="msmt17")
    assert settings("--config", "demo", "--dataset", "msmt17") == on_msmt17  # the file's settings, the flag's data set
    file = tmp_path / "mine.yaml"
    file.write_text("seed: 7\nstage1: {jvtc: {views: 2}}\n")
    changed = settings("--config", str(file), "--stage1.lr", "0.5", "--yaws", "10", "20", "--cache", "--mesh_root", "m")
    assert (changed.seed, changed.stage1.jvtc.views, changed.stage1.lr) == (7, 2, 0.5)
    assert changed.yaws == (10, 20) and changed.cache and changed.mesh_root == "m"
    assert changed.stage1.jvtc.epochs == TrainConfig().stage1.jvtc.epochs


def test_a_method_sets_its_recipe_and_flags_win() -> None:
    for flag in (["--method", "mlc"], ["--stage1.method", "mlc"], ["--stage1.method=mlc"], ["--method=mlc"]):
        chosen = settings(*flag)
        assert (chosen.model.variant, chosen.model.pooling, chosen.stage1.augment.rotation) == ("mlc", "avg", 10.0)
    mixed = settings("--dataset", "market1501", "--method", "mlc", "--model.pooling", "gem", "--stage1.augment.rotation", "0")
    assert (mixed.model.variant, mixed.model.pooling, mixed.stage1.augment.rotation) == ("mlc", "gem", 0.0)
    assert mixed.stage1.augment.crop_smallest == 0.64 and mixed.model.weights == "imagenet"
    assert settings("--config", "gcl_market").stage1.method == "jvtc"
    assert settings("--config", "gcl_market", "--stage1.method", "mlc").model.variant == "jvtc"  # written there


def test_train_gets_settings_and_stages(monkeypatch: pytest.MonkeyPatch) -> None:
    from gcl_fast.runs import training

    calls: list[tuple[object, ...]] = []
    monkeypatch.setattr(training, "train", lambda config, stages, **options: calls.append((config, stages, options)))
    assert train.main(["--dataset", "csv", "--stage", "2", "--method", "jvtc", "--resume"]) == 0
    assert train.main(["--control"]) == 0
    jvtc = load_shipped("csv", method="jvtc")
    assert jvtc.stage1.method == "jvtc" and jvtc.model.variant == "jvtc" and jvtc.stage1.augment.erase_largest == 0.2
    assert calls[0] == (jvtc, (2,), {"resume": True, "overwrite": False, "control": False})
    assert calls[1] == (load_shipped("market1501"), (1, 2, 3), {"resume": False, "overwrite": False, "control": True})


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["train", "--height", "130"], "height and width must be multiples of 4"),
        (["train", "--stage1.lr", "fast"], "fast"),
        (["train", "--stage1.lr", "0"], "Stage1Config.lr must be above 0"),
        (["train", "--dataset", "market"], "market1501"),
        (["train", "--config"], "--config"),
        (["train", "--lr", "1"], "--lr"),
        (["evaluate", "run", "--dataset", "market"], "dukemtmc"),
        (["synth"], "Required options"),
        (["generate", "run", "--angles", "nan"], "--angles must be finite"),
        (["generate", "run", "--num", "0"], "--num must be above 0"),
        (["generate", "run", "--warp", "--turntable"], "--turntable must be without --warp"),
        (["render", "--root", "data", "--height", "0"], "--height must be above 0"),
        (["export", "run", "--out", "out", "--height", "-5"], "--height must be above 0"),
        (["export", "run", "--out", "out", "--width", "0"], "--width must be above 0"),
        (["import-meshes", "--root", "data", "--width", "0"], "--width must be above 0"),
        (["estimate-meshes", "--root", "data", "--batch-size", "0"], "--batch-size must be above 0"),
        (["trian"], "no command 'trian'"),
        (["embed", "photos", "--weights", "w", "--out", "a.csv"], "--out must be a file named .npz or .parquet"),
        (["embed", "photos", "--weights", "w", "--out", "a.npz", "--batch-size", "0"], "--batch-size must be above 0"),
        (["search", "a.jpg", "photos", "--weights", "w", "--top", "0"], "--top must be above 0"),
    ],
)
def test_a_bad_flag_or_value_ends_with_2(argv: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        code = main(argv)
    except SystemExit as end:
        code = end.code
    printed = capsys.readouterr()
    assert code == 2 and words in printed.err and "Traceback" not in printed.err


def one_line(argv: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """What a command that the user can mend prints: its name and one line, no traceback."""
    assert main(argv) == 1
    printed = capsys.readouterr().err
    assert printed.startswith(f"gcl-fast {argv[0]}: ") and "Traceback" not in printed and "please report" not in printed
    return printed


def test_a_missing_data_folder_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert "/nowhere/at/all" in one_line(["train", "--dataset", "market1501", "--root", "/nowhere/at/all"], capsys)


def test_a_missing_or_bad_configuration_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "nowhere.yaml" in one_line(["train", "--config", "nowhere.yaml"], capsys)
    (tmp_path / "bad.yaml").write_text("stage1: {lrr: 1}")
    assert "bad.yaml: unknown configuration key stage1.lrr" in one_line(["train", "--config", str(tmp_path / "bad.yaml")], capsys)


def test_a_checkpoint_that_is_none_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    broken = tmp_path / "broken.pt"
    broken.write_bytes(b"PK\x03\x04 no checkpoint")
    for command in ("evaluate", "generate"):
        assert "broken.pt" in one_line([command, str(broken)], capsys)
        assert "no checkpoint in" in one_line([command, str(tmp_path)], capsys)
    assert "no checkpoint in" in one_line(["export", str(tmp_path), "--out", str(tmp_path / "out")], capsys)
    torch.save({"weights": torch.zeros(2)}, tmp_path / "other.pt")
    assert "no gcl_fast checkpoint" in one_line(["evaluate", str(tmp_path / "other.pt")], capsys)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("text", "text.pt is truncated or no torch checkpoint"),
        ("", "is empty"),
        ({"format": 1}, "no checkpoint of a stage: it has no 'stage'"),
        ({"format": 1, "stage": "stage1", "config": 3}, "'config' must hold settings, got int"),
        ({"format": 1, "stage": "stage1", "config": {}, "modules": 3}, "'modules' must hold networks, got int"),
        ({"format": 1, "stage": "stage1", "config": {}, "modules": {"encoder": {"a": 1}}}, "something else at 'encoder'"),
        ({"format": 1, "stage": "stage1", "config": {"lr": 1}, "modules": {}}, "unknown configuration key lr"),
        ({"format": 1, "stage": "s", "config": SMALL, "modules": {"teacher": {}}}, "must be of encoder, .*got 'teacher'"),
        (
            {"format": 1, "stage": "s", "config": SMALL, "modules": {"encoder": {"a": torch.zeros(2)}}},
            "missing.* and .*unknown a$",
        ),
    ],
)
def test_what_is_wrong_with_a_checkpoint_is_said(
    content: object, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "text.pt"
    path.write_text(content) if isinstance(content, str) else torch.save(content, path)
    line = one_line(["evaluate", str(path)], capsys)
    assert "text.pt" in line and line.count("\n") == 1 and re.search(words, line.strip()), line


def test_a_truncated_checkpoint_is_damaged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "cut.pt"
    save_checkpoint(path, {"value": torch.ones(3000)})
    path.write_bytes(path.read_bytes()[:9000])
    assert "cut.pt is a truncated or damaged torch checkpoint" in one_line(["evaluate", str(path)], capsys)


@pytest.mark.parametrize("device", ["mps", "meta", "tpu"])
def test_a_device_that_cannot_be_is_named(device: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert f"'cuda:N', got '{device}'" in one_line(["train", "--device", device], capsys)


def test_an_export_into_a_file_is_refused(tmp_path: Path) -> None:
    from gcl_fast.models import IdentityEncoder
    from gcl_fast.runs.encoder_export import export_encoder

    (tmp_path / "file").write_text("")
    encoder = IdentityEncoder("mlc", "resnet18", width=8)
    with pytest.raises(FolderInUseError, match="file is a file: name another folder"):
        export_encoder(encoder, tmp_path / "file", ("torch",))
    with pytest.raises(FileError, match="cannot write to"):
        export_encoder(encoder, tmp_path / "file/below", ("torch",))


def test_settings_and_scores_that_cannot_be_read_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from gcl_fast.runs.folder import read_metrics

    file = tmp_path / "mine.yaml"
    for content, words in [
        (b"\xff\xfe\x00", "mine.yaml is no text in UTF-8"),
        (b"seed: 1\nstage1: [1,\n", "mine.yaml is not valid YAML: line 3, column 1: "),
        (b"a: b: c", "mine.yaml is not valid YAML: line 1, column 5: mapping values are not allowed here"),
        (b"- 1", "must hold keys and values, got list"),
    ]:
        file.write_bytes(content)
        line = one_line(["train", "--config", str(file)], capsys)
        assert words in line and line.count("\n") == 1
    for content, words in [(b"\xff\x00", "is damaged"), (b"[1]", "must hold names and scores, got list"), (b"{", "is damaged")]:
        (tmp_path / "metrics.json").write_bytes(content)
        with pytest.raises(RunError, match=f"metrics.json {words}"):
            read_metrics(tmp_path)


def test_a_control_run_without_what_it_starts_from_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["train", "--control", "--runs", str(tmp_path), "--name", "run", "--stage"]
    assert "stage3/last.pt is missing: train stage 3 in the same call" in one_line([*command, "1"], capsys)
    assert "stage1/last.pt is missing" in one_line([*command, "3"], capsys)
    save_checkpoint(tmp_path / "run/stage3/last.pt", {"stage": "stage3"})
    assert "about to be deleted" in one_line([*command, "1", "--overwrite"], capsys)
    assert not (tmp_path / "run/config.yaml").exists()


def test_a_missing_jinja2_is_known_before_training(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from gcl_fast.runs import training

    class Stopped(training.Training):
        def __init__(self, *_: object, **__: object) -> None:
            self.run_dir, self.dataset = Path("run"), None
            printed.append(capsys.readouterr().err)

        def run(self, *, control: bool = False) -> None: ...

        def count_seconds(self) -> None: ...

        def show_results(self) -> None: ...

    printed: list[str] = []
    monkeypatch.setattr(training, "Training", Stopped)
    monkeypatch.setattr("gcl_fast.runs.run_pictures.complete_run", lambda *_: None)
    monkeypatch.setattr("gcl_fast.report.write_report", lambda run: pytest.fail("there is no jinja2"))
    monkeypatch.setitem(sys.modules, "jinja2", None)
    assert training.train(dataclasses.replace(TrainConfig(), device="cpu")) == Path("run")
    assert printed == ["no report.html will be written: it needs jinja2: pip install jinja2\n"]


def test_where_results_cannot_be_written_is_known_before_the_work(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    nowhere = ["evaluate", str(tmp_path / "nowhere.pt")]
    for flag in ("--output", "--ranked-lists"):
        assert f"cannot write {tmp_path}: it is a folder" in one_line([*nowhere, flag, str(tmp_path)], capsys)
        assert "cannot write" in one_line([*nowhere, flag, str(tmp_path / "file/below.json")], capsys)
    assert "no checkpoint at" in one_line([*nowhere, "--output", str(tmp_path / "new/scores.json")], capsys)
    assert not list((tmp_path / "new").iterdir())


def test_an_option_that_the_doctor_or_traceback_does_not_take_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--foo"]) == 2
    printed = capsys.readouterr()
    assert "got --foo" in printed.err and not printed.out
    for argv in (["--traceback=True", "doctor"], ["doctor", "--traceback=1"]):
        assert main(argv) == 2
        printed = capsys.readouterr()
        assert "--traceback takes no value, got --traceback=" in printed.err and not printed.out


def test_what_commands_ask_for_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "at least one weight file" in one_line(["import-checkpoint"], capsys)
    assert "at least one file or folder" in one_line(["import-meshes", "--root", str(tmp_path)], capsys)
    assert "--fid-weights needs --scores" in one_line(["generate", str(tmp_path), "--fid-weights", "f"], capsys)
    state = {"stage": "stage1", "config": {"model": {"backbone": "resnet18", "width": 8}}, "modules": {}}
    save_checkpoint(tmp_path / "stage1.pt", state)
    assert "has no generator: it is a checkpoint of stage1" in one_line(["generate", str(tmp_path / "stage1.pt")], capsys)


def test_a_missing_package_comes_with_its_pip_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def no_pillow(**_: object) -> None:
        raise ModuleNotFoundError("No module named 'PIL'", name="PIL")

    monkeypatch.setattr("gcl_fast.synthetic.write_world", lambda out, **options: no_pillow(**options))
    assert "PIL, which is not installed: pip install pillow" in one_line(["synth", str(tmp_path)], capsys)
    monkeypatch.delitem(sys.modules, "gcl_fast.cli.synth")
    monkeypatch.delitem(sys.modules, "gcl_fast.cli.options")
    monkeypatch.setitem(sys.modules, "tyro", None)  # an import of it now fails
    assert "tyro, which is not installed: pip install tyro" in one_line(["synth", str(tmp_path)], capsys)


def planted(error: BaseException):
    def command(argv: list[str]) -> int:
        assert argv == ["--flag"]
        raise error

    return command


def test_a_programming_error_shows_its_traceback(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(synth, "main", planted(TypeError("planted")))
    assert main(["synth", "--flag"]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "Traceback (most recent call last):" and "TypeError: planted" in lines
    assert lines[-1].startswith("gcl-fast synth: ") and "please report it" in lines[-1]


@pytest.mark.parametrize(
    "argv", [["--traceback", "synth", "--flag"], ["synth", "--traceback", "--flag"], ["synth", "--flag", "--traceback"]]
)
def test_traceback_shows_where_the_users_error_came_from(
    argv: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(synth, "main", planted(MissingFileError("no such world")))
    assert main(argv) == 1
    printed = capsys.readouterr().err
    assert printed.startswith("Traceback") and "in command" in printed
    assert printed.splitlines()[-1] == "gcl-fast synth: no such world"
    assert main(["synth", "--flag"]) == 1
    assert capsys.readouterr().err == "gcl-fast synth: no such world\n"


def test_every_command_knows_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0 and "--traceback" in capsys.readouterr().out
    assert main(["doctor", "--help"]) == 0 and "--traceback" in capsys.readouterr().out
    assert main(["doctor", "--traceback"]) == 0
    assert main(["--traceback"]) == 2 and main(["--traceback", "--version"]) == 0
    assert set(FLAGS) | {"doctor"} == set(COMMANDS)


def test_a_stopped_command_says_how_to_go_on(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for module, name, words in ((train, "train", "--resume goes on"), (synth, "synth", "stopped\n")):
        monkeypatch.setattr(module, "main", planted(KeyboardInterrupt()))
        assert main([name, "--flag"]) == 130
        printed = capsys.readouterr().err
        assert words in printed and "Traceback" not in printed


def test_only_train_runs_in_several_processes(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    assert main(["doctor"]) == 1
    assert capsys.readouterr().err == "gcl-fast doctor (rank 1): only train runs in several processes, torchrun started 2\n"
    monkeypatch.setattr(train, "main", planted(ConfigError("bad share")))
    assert main(["train", "--flag"]) == 1
    assert capsys.readouterr().err == "gcl-fast train (rank 1): bad share\n"


def test_a_reader_that_leaves_is_no_error() -> None:
    command = f"{sys.executable} -m gcl_fast doctor --help | true"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, env=os.environ, check=False)
    assert done.stderr == ""


def test_the_doctor_names_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    (faiss,) = (finding for finding in doctor.examine() if finding.name == "faiss")
    assert faiss.ok is False and faiss.text == "missing (faiss backend of knn): pip install faiss-gpu"


def test_another_data_set_brings_its_own_meshes() -> None:
    config = TrainConfig(mesh_root="/meshes", root="/data")
    assert evaluate.on_data(config, None, None, "cpu") == dataclasses.replace(config, device="cpu")
    moved = evaluate.on_data(config, "msmt17", "/other", "cpu")
    assert (moved.dataset, moved.root, moved.mesh_root) == ("msmt17", "/other", None)
    assert evaluate.on_data(config, None, "/other", "cpu").mesh_root is None
