"""What a newcomer types wrongly, and the one line that says what to do."""

from __future__ import annotations

import contextlib
import importlib
import io
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("tyro", reason="the command line needs tyro")

from gcl_fast.cli.evaluate import EvaluateOptions
from gcl_fast.cli.flags import flags_of
from gcl_fast.cli.main import main
from gcl_fast.cli.mistyped import mistakes
from gcl_fast.cli.options import default_config, named_png, parse
from gcl_fast.cli.search import SearchOptions
from gcl_fast.cli.train import TrainOptions
from gcl_fast.config import ConfigError, load_shipped, to_dict
from gcl_fast.progress import clock, counted
from gcl_fast.runs.start_summary import settings_summary, stage1_notes
from gcl_fast.stages.checkpoint import save_checkpoint
from tests.toy_world import SETTINGS, SIZE, write_toy_world


def refused(argv: list[str], capsys: pytest.CaptureFixture[str], code: int = 1) -> str:
    """The one line, after the command's name, that a call ends with."""
    try:
        ended = main(argv)
    except SystemExit as end:
        ended = end.code
    printed = capsys.readouterr().err
    start = f"gcl-fast {argv[0]}: "
    assert ended == code and printed.startswith(start) and printed.count("\n") == 1, printed
    return printed.removeprefix(start).strip()


@pytest.mark.parametrize(
    ("kind", "argv", "words"),
    [
        (TrainOptions, "--lr 0.1", "no option --lr; did you mean --stage1.lr? There are also --stage2.lr, --stage3.lr, "),
        (TrainOptions, "--method mlc --lr 0.1", "no option --lr; did you mean --stage1.mlc.lr? "),
        (TrainOptions, "--weights none", "no option --weights; did you mean --model.weights?; it --help lists them"),
        (TrainOptions, "--batch_size=8", "no option --batch-size; did you mean --stage1.batch-size? "),
        (TrainOptions, "--rot photos", "no option --rot; did you mean --root?; it --help lists them"),
        (TrainOptions, "--no-resme", "no option --no-resme; did you mean --resume?; "),
        (TrainOptions, "--zzzz", "no option --zzzz; it --help lists them"),
        (EvaluateOptions, "run --datset csv", "no option --datset; did you mean --dataset?; "),
        (
            TrainOptions,
            "--dataset market",
            "--dataset must be market1501, dukemtmc, msmt17, csv or folder, got 'market'; did you mean market1501?",
        ),
        (EvaluateOptions, "run --dataset=folders", "got 'folders'; did you mean folder?"),
        (TrainOptions, "--stage 4", "--stage must be 1, 2, 3 or all, got '4'"),
        (TrainOptions, "--model.guide textures", "--model.guide must be mesh or texture, got 'textures'; did you mean texture?"),
    ],
)
def test_a_mistyped_flag_or_choice_is_told_with_what_was_meant(kind: type, argv: str, words: str) -> None:
    (line,) = mistakes(kind, argv.split(), prog="it")
    assert words in line


@pytest.mark.parametrize(
    "argv",
    [
        "--no-resume --dataset csv --root -- --height 1 --stage1.method=mlc",
        "--stage3.cluster.no-debias-cameras --method None --dataset",
        "--dataset --root data",  # tyro says that a value is missing
        "--tyro-print-completion bash",
    ],
)
def test_what_is_right_is_no_mistake(argv: str) -> None:
    assert mistakes(TrainOptions, argv.split(), prog="it") == []


def test_mistakes_end_the_command_with_2_and_a_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    assert "did you mean --sheet?" in refused(["search", "a.jpg", "photos", "--weights", "w", "--shet", "a.png"], capsys, code=2)
    with pytest.raises(SystemExit):
        main(["evaluate", "run", "--datset", "csv", "--dataset", "cvs"])
    first, second = capsys.readouterr().err.splitlines()
    assert "no option --datset" in first and "got 'cvs'; did you mean csv?" in second
    words = "--height and --width must be multiples of 4 and at least 40, got (8, 128)"
    assert refused(["train", "--height", "8"], capsys, code=2) == words


def test_endings_in_capitals_are_endings() -> None:
    named_png("--sheet", Path("A.PNG"))
    with pytest.raises(ConfigError, match="--sheet must be a file named .png, got 'png'"):
        named_png("--sheet", Path("png"))


@pytest.mark.parametrize("kind", [TrainOptions, EvaluateOptions, SearchOptions])
def test_the_flags_that_are_looked_through_are_those_of_the_help(kind: type) -> None:
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown), pytest.raises(SystemExit):
        parse(kind, ["--help"], prog="it", default=TrainOptions(default_config([])) if kind is TrainOptions else None)
    listed = set(re.findall(r"^\W*(--[a-z][\w.-]*)", shown.getvalue(), re.MULTILINE)) - {"--traceback"}
    flags = {f"--{flag.name}" for flag in flags_of(kind)}
    assert listed == flags and len(flags) > 5


def test_a_configuration_that_is_not_there_comes_with_the_nearest_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "no configuration file at recomended; did you mean recommended?; shipped" in refused(
        ["train", "--config", "recomended"], capsys
    )
    (tmp_path / "mine.yaml").write_text("seed: 1")
    words = refused(["train", "--config", str(tmp_path / "mine.yml")], capsys)
    assert f"did you mean {tmp_path / 'mine.yaml'}?" in words


def test_estimate_meshes_asks_for_the_photos(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    asked: list[str] = []
    module = importlib.import_module("gcl_fast.estimation.pose_weights")  # the package has a function of this name
    monkeypatch.setattr(module, "pose_weights", lambda name: asked.append(name) or "weights.tflite")
    words = refused(["estimate-meshes", "--dataset", "folder", "--split=train"], capsys)
    assert words.startswith("--root is missing") and "--dataset, --split" in words and not asked
    assert main(["estimate-meshes", "--weights", "download"]) == 0 and asked == ["download"]
    assert "--root PHOTOS estimates" in capsys.readouterr().out


def test_a_photo_in_the_place_of_its_folder_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in (1, 2):
        (tmp_path / f"img00{number}.jpg").write_bytes(b"photo")
    words = refused(["train", "--dataset", "folder", "--root", str(tmp_path / "img001.jpg"), "--stage", "1"], capsys)
    assert words.endswith(f"{tmp_path / 'img001.jpg'} is a file: give its folder {tmp_path}")


def test_features_that_are_not_there_do_not_exist(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photo, missing = tmp_path / "a.jpg", tmp_path / "missing.npz"
    photo.write_bytes(b"photo")
    words = refused(["search", str(photo), str(missing), "--weights", "run", "--sheet", str(tmp_path / "sheet.png")], capsys)
    assert f"{missing} does not exist" in words and "gcl-fast embed" in words and "Errno" not in words


def test_without_torch_a_command_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise ModuleNotFoundError(\"No module named 'torch'\", name='torch')\n")
    program = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from gcl_fast.cli.main import main; sys.exit(main())"
    done = subprocess.run([sys.executable, "-c", program, "train"], capture_output=True, text=True, check=False)
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr == "gcl-fast train: gcl_fast needs torch, which is not installed: pip install torch\n"


def test_numbers_have_their_plurals_and_long_times_are_days() -> None:
    words = ((1, "epoch"), (2, "epoch"), (1, "identity"), (1200, "identity"), (2, "mesh"))
    assert [counted(number, noun) for number, noun in words] == [
        "1 epoch",
        "2 epochs",
        "1 identity",
        "1,200 identities",
        "2 meshes",
    ]
    assert clock(48 * 3600) == "48:00:00" and clock(5681 * 3600 + 67) == "236.7 days"
    config = load_shipped("folder")
    stage1 = replace(config.stage1, epochs=1, iters=1, batch_size=16)
    words = settings_summary(replace(config, stage1=stage1), (1,))
    assert "1 identity x 16 images" in words and "1 epoch of 1 iteration ·" in words


@pytest.mark.parametrize(
    ("batch", "instances", "words"),
    [
        (16, 16, "1 identity, which teaches little: try --stage1.num-instances 4 or a larger --stage1.batch-size"),
        (36, 12, "3 identities, which teaches little: try --stage1.num-instances 9 or a larger --stage1.batch-size"),
        (6, 3, "2 identities, which teaches little: try a larger --stage1.batch-size"),
        (64, 16, ""),
    ],
)
def test_batches_of_few_identities_are_noted(batch: int, instances: int, words: str) -> None:
    config = load_shipped("folder")
    few = replace(config, stage1=replace(config.stage1, batch_size=batch, num_instances=instances))
    assert stage1_notes(few, (1, 2, 3)) == ([f"a batch of stage 1 shows {words}"] if words else [])
    assert not stage1_notes(few, (2, 3))
    assert not stage1_notes(replace(few, stage1=replace(few.stage1, method="mlc")), (1,))


def test_scores_of_mlc_that_do_not_compare_with_stage_3_are_noted() -> None:
    config = load_shipped("folder", method="mlc")
    (words,) = stage1_notes(config, (1, 2, 3))
    assert "before the batch norm" in words and "--stage1.mlc.test-feature after-norm" in words
    after = replace(config, stage1=replace(config.stage1, mlc=replace(config.stage1.mlc, test_feature="after-norm")))
    assert not stage1_notes(after, (1, 2, 3)) and not stage1_notes(config, (2, 3))


@pytest.mark.parametrize("flags", [[], ["--dry-run"]])
def test_a_stage_without_the_one_before_it_is_known_before_any_data(
    flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["train", "--root", "/nowhere", "--runs", str(tmp_path), "--name", "mine", *flags, "--stage"]
    words = refused([*command, "2"], capsys)
    assert words.startswith(
        f"stage 2 starts from an identity encoder, and {tmp_path / 'mine/stage1/last.pt'} is missing: train --stage 1"
    )
    assert "stage2/last.pt is missing: train --stage 2 in this run first (--name mine;" in refused([*command, "3"], capsys)
    assert "/nowhere" in refused([*command, "all"], capsys)
    assert "/nowhere" in refused([*command, "2", "--init", "encoder.pth"], capsys)


@pytest.mark.parametrize("flags", [[], ["--dry-run"]])
def test_meshes_that_cannot_guide_are_refused_by_a_dry_run_too(
    flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, settings = write_toy_world(tmp_path / "data"), tmp_path / "toy.yaml"
    settings.write_text(SETTINGS)
    size = ["--height", str(SIZE[0]), "--width", str(SIZE[1])]
    assert main(["render", "--root", str(root), "--out", str(tmp_path / "rendered"), *size]) == 0
    capsys.readouterr()
    command = ["train", "--config", str(settings), "--root", str(root), "--mesh-root", str(tmp_path / "rendered")]
    command += ["--runs", str(tmp_path / "runs"), "--model.guide", "texture", *flags]
    assert "these meshes are rendered pictures: use --model.guide mesh" in refused(command, capsys)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("flag", ["--stage1.lr", "--stage2.weight-decay"])
def test_a_number_that_is_not_finite_is_refused_as_in_a_file(flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["train", "--config", "demo", "--root", "/nowhere", flag, "1e400"]
    assert refused(command, capsys, code=2) == f"{flag} must be finite, got inf"


def test_variance_that_a_mesh_alone_cannot_make_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    command = ["train", "--config", "demo", "--root", "/nowhere", "--model.guide", "mesh"]
    words = "--stage3.variance.background must be 0 with model.guide mesh, got 0.5"
    assert words in refused(command, capsys, code=2)


@pytest.mark.parametrize("flags", [[], ["--dry-run"]])
@pytest.mark.parametrize(
    ("stage", "state", "words"),
    [
        ("2", {"stage": "stage1", "epoch": 7}, "stage 1 of this run, which is not finished (7 of 50 epochs): --stage 1 --resume"),
        ("3", {"stage": "stage2", "epoch": 1}, "stage 2 of this run, which is not finished (1 of 40 epochs): --stage 2 --resume"),
        ("3", {"stage": "stage2", "epoch": 40}, "/nowhere"),
    ],
)
def test_a_stage_does_not_start_from_one_that_is_not_finished(
    flags: list[str], stage: str, state: dict[str, object], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = replace(load_shipped("market1501"), root="/nowhere", runs=str(tmp_path), name="mine")
    folder = tmp_path / "mine" / str(state["stage"])
    for number in range(1, int(stage)):  # the run began with stage 1
        earlier = {"config": to_dict(config), "modules": {}, "stage": f"stage{number}", "epoch": 50}
        save_checkpoint(tmp_path / f"mine/stage{number}/last.pt", earlier | (state if number == int(stage) - 1 else {}))
    command = ["train", "--dataset", "market1501", "--root", "/nowhere", "--runs", str(tmp_path), "--name", "mine", *flags]
    line = refused([*command, "--resume", "--stage", stage], capsys)
    assert words in line
    if words != "/nowhere":
        assert f"--init {folder}" in line
        assert "/nowhere" in refused([*command, "--resume", "--stage", "all"], capsys)
        save_checkpoint(tmp_path / f"mine/stage{stage}/last.pt", {"stage": f"stage{stage}"})
        assert "/nowhere" in refused([*command, "--resume", "--stage", stage], capsys)  # it goes on, whatever it began from
