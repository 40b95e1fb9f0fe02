"""What the command line prints when something goes wrong, and with which code it ends."""

from __future__ import annotations

import dataclasses
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("tyro", reason="the command line needs tyro")

from gcl_fast import _native
from gcl_fast.cli import doctor, synth, train
from gcl_fast.cli.main import main
from gcl_fast.config import TrainConfig
from gcl_fast.errors import ConfigError, FileError, FolderInUseError, MissingFileError, RunError
from gcl_fast.stages.checkpoint import save_checkpoint
from gcl_fast.stages.stop_signals import Stopped

SMALL = {"model": {"backbone": "resnet18", "width": 8, "generator_width": 4, "generator_mlp": 8, "discriminator_width": 4}}


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["train", "--height", "130"], "--height and --width must be multiples of 4"),
        (["train", "--stage1.lr", "fast"], "fast"),
        (["train", "--stage1.lr", "0"], "gcl-fast train: --stage1.lr must be above 0, got 0.0\n"),
        (["train", "--stage3.cluster.k1", "0"], "train: --stage3.cluster.k1 must be above 0, got 0\n"),
        (["train", "--stage1.cluster.min-samples=0"], "train: --stage1.cluster.min-samples must be above 0, got 0\n"),
        (["train", "--stage1.augment.flip", "2"], "gcl-fast train: --stage1.augment.flip must be a share, 0 to 1, got 2.0\n"),
        (["train", "--stage1.augment.rotation", "200"], "--stage1.augment.rotation must be 0 to 180 degrees, got 200.0\n"),
        (["train", "--dataset", "market"], "market1501"),
        (["train", "--config"], "--config"),
        (["train", "--lr", "1"], "gcl-fast train: no option --lr; did you mean --stage1.lr?"),
        (["evaluate", "run", "--dataset", "market"], "dukemtmc"),
        (["synth"], "Required options"),
        (["generate", "run", "--angles", "nan"], "--angles must be finite"),
        (["generate", "run", "--num", "0"], "--num must be above 0"),
        (["demo", "--seed", "-1"], "gcl-fast demo: --seed must be at least 0, got -1\n"),
        (["generate", "run", "--seed", "-1"], "gcl-fast generate: --seed must be at least 0, got -1\n"),
        (["generate", "run", "--warp", "--turntable"], "--turntable must be without --warp"),
        (["generate", "run", "--warp", "--scores", "a.json"], "--scores must be without --warp"),
        (["evaluate", "run", "--height", "0"], "--height must be above 0, got 0"),
        (["evaluate", "run", "--ranked-lists", "a.jpg"], "--ranked-lists must be a file named .png, got 'a.jpg'"),
        (["render", "--root", "data", "--height", "0"], "--height must be above 0"),
        (["export", "run", "--out", "out", "--height", "-5"], "--height must be above 0"),
        (["export", "run", "--out", "out", "--width", "0"], "--width must be above 0"),
        (["import-meshes", "--root", "data", "--width", "0"], "--width must be above 0"),
        (["import-meshes", "a.npz", "--root", "data", "--preview", "a.jpg"], "--preview must be a file named .png, got 'a.jpg'"),
        (["import-meshes", "a.npz", "--root", "data", "--preview-count", "0"], "--preview-count must be above 0, got 0"),
        (["estimate-meshes", "--root", "data", "--preview", "a.jpg"], "--preview must be a file named .png, got 'a.jpg'"),
        (["estimate-meshes", "--root", "data", "--batch-size", "0"], "--batch-size must be above 0"),
        (["train", "--stage3.cluster.k1", "0"], "--stage3.cluster.k1 must be above 0, got 0"),
        (["train", "--stage3.cluster.k1=0"], "--stage3.cluster.k1 must be above 0, got 0"),
        (["trian"], "no command 'trian'"),
        (["embed", "photos", "--weights", "w", "--out", "a.csv"], "--out must be a file named .npz or .parquet"),
        (["embed", "photos", "--weights", "w", "--out", "a.npz", "--batch-size", "0"], "--batch-size must be above 0"),
        (["embed", "photos", "--weights", "w", "--out", "a.npz", "--workers", "-1"], "--workers must be at least 0, got -1"),
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
    (tmp_path / "flags.yaml").write_text("stage3.cluster.eps: 0.5\n")
    words = "unknown configuration key stage3.cluster.eps; write stage3: {cluster: {eps: ...}}"
    assert words in one_line(["train", "--config", str(tmp_path / "flags.yaml")], capsys)
    assert "bad.yaml: unknown configuration key stage1.lrr" in one_line(["train", "--config", str(tmp_path / "bad.yaml")], capsys)
    (tmp_path / "bad.yaml").write_text("stage1: {lr: 0}")
    assert "bad.yaml: stage1.lr must be above 0, got 0" in one_line(["train", "--config", str(tmp_path / "bad.yaml")], capsys)


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
        ({"format": 1, "stage": "stage1", "modules": {}}, "no checkpoint of a stage: it has no 'config'"),
        ({"format": 1, "stage": "stage1", "config": {}}, "no checkpoint of a stage: it has no 'modules'"),
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


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"config": None}, "it has no 'config'"),
        ({"modules": None}, "it has no 'modules'"),
        ({"config": {"lr": 1}}, "unknown configuration key lr"),
    ],
)
def test_an_encoder_is_not_taken_from_half_a_checkpoint(
    changed: dict[str, object], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without its settings the size of its images would be guessed."""
    from gcl_fast.models import IdentityEncoder

    encoder = IdentityEncoder("mlc", "resnet18", width=8).state_dict()
    whole = {"stage": "stage1", "config": SMALL, "modules": {"encoder": encoder}, **changed}
    path = tmp_path / "stage1/last.pt"
    save_checkpoint(path, {key: value for key, value in whole.items() if value is not None})
    line = one_line(["export", str(tmp_path), "--out", str(tmp_path / "out")], capsys)
    assert str(path) in line and words in line and not (tmp_path / "out").exists()


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
    save_checkpoint(tmp_path / "run/stage3/last.pt", {"stage": "stage3", "epoch": 19, "config": {}, "modules": {}})
    assert "stage 3 is not finished (19 of 20 epochs): train it in the same call" in one_line([*command, "1", "--resume"], capsys)
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
    assert f"cannot write {tmp_path}: it is a folder" in one_line([*nowhere, "--output", str(tmp_path)], capsys)
    below = str(tmp_path / "file/below.png")
    data = ["--root", str(tmp_path / "nowhere")]
    for argv in (
        [*nowhere, "--output", below],
        [*nowhere, "--ranked-lists", below],
        ["import-meshes", "a.npz", *data, "--preview", below],
        ["estimate-meshes", *data, "--preview", below],
        ["bench", "--json", below],
        ["bench", "--plot", f"{below}.html"],
    ):
        assert f"cannot write {below}" in one_line(argv, capsys)
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


@pytest.mark.parametrize(
    ("flag", "words"),
    [
        (["--train-ids", "0"], "--train-ids must be an integer of at least 1, got 0"),
        (["--cameras", "3"], "--cameras must be an integer from 4 to 9 in the market1501 layout, got 3"),
        (["--width", "8"], "--height and --width must be (height, width), integers of at least 16, got (256, 8)"),
    ],
)
def test_synth_calls_its_limits_by_their_flags(
    flag: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert one_line(["synth", str(tmp_path / "world"), *flag], capsys) == f"gcl-fast synth: {words}\n"


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="needs a place where nothing can be made")
@pytest.mark.parametrize("command", [["synth"], ["demo", "--out"], ["generate", "run", "--out"]])
def test_a_folder_that_cannot_be_made_is_named(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    words = one_line([*command, "/proc/x"], capsys)
    assert f"gcl-fast {command[0]}: cannot make the folder /proc/x" in words and "No such file or directory" in words


def test_weights_that_are_no_pose_model_are_refused_without_photos_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "photo.jpg").write_bytes(b"\xff\xd8\xff\xe0")
    assert "expected a TensorFlow Lite model" in one_line(["estimate-meshes", "--weights", str(tmp_path / "photo.jpg")], capsys)


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


def test_a_stopped_command_says_how_to_go_on(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for module, name, words in ((train, "train", "--resume goes on"), (synth, "synth", "stopped\n")):
        monkeypatch.setattr(module, "main", planted(KeyboardInterrupt()))
        assert main([name, "--flag"]) == 130
        printed = capsys.readouterr().err
        assert words in printed and "Traceback" not in printed


@pytest.mark.parametrize("error", [KeyboardInterrupt(), Stopped(signal.SIGTERM)])
@pytest.mark.parametrize("flag", ["--dry-run", "--dry_run"])
def test_a_stopped_dry_run_has_nothing_to_go_on_with(
    flag: str, error: KeyboardInterrupt, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stopped(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("gcl_fast.runs.dry_run.dry_run", stopped)
    assert main(["train", flag]) == 128 + getattr(error, "signal", signal.SIGINT)
    assert capsys.readouterr().err == "\ngcl-fast train: stopped in the dry run; nothing was written\n"


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


@pytest.mark.parametrize("encoding", ["utf-8:strict", "latin-1", "ascii", "ascii:surrogateescape"])
def test_a_terminal_prints_names_that_it_has_no_letters_for(encoding: str, tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"\xff\xe6\x97\xa5.csv")).write_text("")
    code = (
        "import os; from gcl_fast.cli import doctor, main; "
        f"doctor.main = lambda _: print(*os.listdir({str(tmp_path)!r})); raise SystemExit(main.main(['doctor']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, env={**os.environ, "PYTHONIOENCODING": encoding})
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(b"\\udcff")


@pytest.mark.parametrize(
    ("nvcc", "cuda", "words"),
    [
        ("/opt/cuda/bin/nvcc", "13.0", "GCL_CUDA was 0, or nvcc came later; run: GCL_CUDA=1 "),
        (None, "13.0", "install the CUDA toolkit, then run: GCL_CUDA=1 "),
        ("/opt/cuda/bin/nvcc", None, "install a torch that was built for CUDA, then run: "),
        (None, None, "install a torch that was built for CUDA and the CUDA toolkit, then run: "),
    ],
)
def test_the_doctor_advises_by_what_it_finds(
    nvcc: str | None, cuda: str | None, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = dataclasses.replace(_native.info(), loaded=True, cuda=False)
    monkeypatch.setattr(_native, "info", lambda: built)
    monkeypatch.setattr(torch.version, "cuda", cuda)
    for name in ("CUDACXX", "CUDA_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CUDA_HOME", "/opt/cuda")
    monkeypatch.setattr(doctor.shutil, "which", lambda name: nvcc if name == nvcc else None)
    found = {finding.name: finding.text for finding in doctor.examine()}
    assert found["CUDA kernels"].startswith(f"not built: {words}")
    assert found["nvcc"] == (nvcc or "not found: CUDA kernels cannot be built here")


def test_the_doctor_names_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    (faiss,) = (finding for finding in doctor.examine() if finding.name == "faiss")
    assert faiss.ok is False and faiss.text == "missing (faiss backend of knn): pip install faiss-gpu"


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_a_process_without_streams_does_its_job(closed: str) -> None:
    command = f'exec "{sys.executable}" -m gcl_fast train --dump-config {closed}'
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and done.stderr == ""


@pytest.mark.parametrize("words", ["--help", "--version", "train --dump-config"])
def test_output_that_nobody_reads_ends_without_a_traceback(words: str) -> None:
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-m", "gcl_fast", *words.split()], stdout=write, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(write)
    assert done.returncode == 1 and done.stderr == ""
