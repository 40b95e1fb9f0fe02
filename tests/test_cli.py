"""The command line: its flags, and where settings come from."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

pytest.importorskip("tyro", reason="the command line needs tyro")

from gcl_fast.cli import evaluate, train
from gcl_fast.cli.main import COMMANDS, main
from gcl_fast.cli.options import default_config, parse
from gcl_fast.cli.train import TrainOptions
from gcl_fast.config import TrainConfig, load_shipped

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
def test_every_command_is_looked_at() -> None:
    assert set(FLAGS) | {"doctor"} == set(COMMANDS)


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
        assert "[False]" not in text and "[None]" not in text  # of switches that are off nothing is said
        assert now in text and len(lines) <= 100 and max(map(len, lines)) <= 100
        assert set(re.findall(r"--[a-z][\w.-]*\w", text)) <= every | {"--help-all"}
        assert lines[-1].startswith("--help-all lists every setting")


def test_the_short_help_of_train_names_what_notes_and_docs_advise(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--dataset", "folder", "--help"]) == 0
    text = capsys.readouterr().out
    for flag, now in (("stage1.cluster.k1", "30"), ("stage1.cluster.eps", "0.6"), ("stage1.iters", "-1"), ("threads", "0")):
        assert re.search(rf"^  --{flag} .*\[{now}\]$", text, re.MULTILINE), flag


@pytest.mark.parametrize("command", ["embed", "search", "evaluate"])
def test_sizes_say_what_they_are_by_themselves(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit):
        main([command, "--help"])
    words = " ".join(capsys.readouterr().out.replace("│", " ").split())
    for side in ("height", "width"):
        assert f"--{side} INT {side.capitalize()} that images are resized to. (default: as trained; 256 x 128 for" in words


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


def test_another_data_set_brings_its_own_meshes() -> None:
    config = TrainConfig(mesh_root="/meshes", root="/data")
    assert evaluate.on_data(config, None, None, "cpu") == dataclasses.replace(config, device="cpu")
    moved = evaluate.on_data(config, "msmt17", "/other", "cpu")
    assert (moved.dataset, moved.root, moved.mesh_root) == ("msmt17", "/other", None)
    assert evaluate.on_data(config, None, "/other", "cpu").mesh_root is None
