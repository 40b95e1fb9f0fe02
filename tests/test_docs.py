"""The documentation says what is there: its code runs, its commands parse, its links lead somewhere, its figures are real."""

from __future__ import annotations

import importlib
import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bench import tables, training_sources
from gcl_fast.cli.main import COMMANDS
from tests.toy_world import SETTINGS, write_toy_world

ROOT = Path(__file__).resolve().parent.parent
PAGES = [*(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "bench/README.md")), *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^( *)```(\w+)( title=)?[^\n]*\n(.*?)^ *```", re.DOTALL | re.MULTILINE)
INDENTED = re.compile(r"^ {4,}(gcl-fast .*)$", re.MULTILINE)
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")


def blocks(language: str, *pages: Path) -> list[pytest.param]:
    """The code of a language on these pages (all), named by page and line; a title names a file of another project."""
    found = []
    for page in pages or PAGES:
        text = page.read_text(encoding="utf-8")
        for match in BLOCK.finditer(text):
            if match[2] == language and not match[3]:
                code = "\n".join(line.removeprefix(match[1]) for line in match[4].splitlines())
                line = text[: match.start()].count("\n") + 1
                found.append(pytest.param(code, id=f"{page.name}:{line}"))
    return found


@pytest.fixture(scope="module")
def folder_of_a_user(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the pages' code asks for: runs/market1501 and two photos."""
    pytest.importorskip("torchvision", reason="the backbones need torchvision")
    from gcl_fast.cli.main import main

    folder = tmp_path_factory.mktemp("docs")
    world = write_toy_world(folder / "toy")
    (folder / "toy.yaml").write_text(f"dataset: market1501\nname: market1501\nroot: {world}\n{SETTINGS}")
    assert main(["train", "--config", str(folder / "toy.yaml"), "--runs", str(folder / "runs"), "--stage", "1"]) == 0
    for name, photo in zip(("a.jpg", "b.jpg"), sorted((world / "market1501/bounding_box_train").iterdir()), strict=False):
        shutil.copy(photo, folder / name)
    np.savez(folder / "features.npz", paths=np.array(["a.jpg", "b.jpg"]), features=np.eye(2, dtype=np.float32))
    return folder


@pytest.mark.parametrize("page", [page for page in PAGES if blocks("python", page)], ids=lambda page: page.name)
def test_python_runs(page: Path, folder_of_a_user: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All blocks of a page, one after another, as a reader types them."""
    monkeypatch.chdir(folder_of_a_user)
    typed = {"__name__": "docs"}
    for block in blocks("python", page):
        exec(compile(block.values[0], str(block.id), "exec"), typed)


def commands() -> list[pytest.param]:
    lines, texts = [], blocks("sh")
    for page in PAGES:  # blocks without a language stand four spaces in
        plain = BLOCK.sub("", page.read_text(encoding="utf-8")).replace("\\\n", " ")
        texts.append(pytest.param("\n".join(INDENTED.findall(plain)), id=page.name))
    for block in texts:
        text = block.values[0].replace("\\\n", " ")
        for number, line in enumerate(text.splitlines()):
            words = shlex.split(line, comments=True)
            if "gcl_fast" in words and words[0] == "torchrun":
                words = ["gcl-fast", *words[words.index("gcl_fast") + 1 :]]
            if words and words[0] == "gcl-fast":
                lines.append(pytest.param(words[1:], id=f"{block.id}+{number}"))
    return lines


class ParsedError(Exception):
    """Raised in the place of the command's work."""


@pytest.mark.parametrize("words", commands())
def test_commands_parse(words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every flag and value of a command on the pages is one that the command takes."""
    monkeypatch.chdir(tmp_path)
    for word in words:
        if word.endswith("config.yaml"):  # of a run that a command before it made
            (tmp_path / word).parent.mkdir(parents=True)
            (tmp_path / word).write_text("name: mine3\n")
    assert words[0] in COMMANDS
    command = importlib.import_module("gcl_fast.cli." + words[0].replace("-", "_"))
    if words[0] == "doctor":  # has no flags
        assert words == ["doctor"]
        return
    plain = command.parse

    def parse_alone(*arguments: object, **options: object) -> None:
        plain(*arguments, **options)
        raise ParsedError

    monkeypatch.setattr(command, "parse", parse_alone)
    with pytest.raises(ParsedError):
        command.main(words[1:])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in LINK.findall(page.read_text(encoding="utf-8")):
        if target.startswith(("http://", "https://", "#")):
            continue
        name, _, anchor = target.partition("#")
        path = page.parent / name
        assert path.exists(), f"{page.name} links to {target}"
        if anchor:
            titles = HEADING.findall(path.read_text(encoding="utf-8"))
            anchors = [re.sub(r"[^\w -]", "", title).strip().lower().replace(" ", "-") for title in titles]
            assert anchor in anchors, f"{page.name} links to {target}"


@pytest.mark.parametrize(("page", "module"), [("ops.md", "gcl_fast.ops"), ("dropins.md", "gcl_fast.compat")])
def test_every_public_name_is_on_its_page(page: str, module: str) -> None:
    described = re.findall(r"^::: (\S+)$", (ROOT / "docs" / page).read_text(encoding="utf-8"), re.MULTILINE)
    names = importlib.import_module(module).__all__
    assert {name.rsplit(".", 1)[1] for name in described if name.startswith(module)} == set(names)


def test_tables_are_made_from_the_results() -> None:
    found = subprocess.run([sys.executable, ROOT / "bench/tables.py", "--check"], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout + found.stderr + "\nrun python bench/tables.py"


def test_the_readme_has_no_figure_typed_by_hand() -> None:
    text = re.sub(r"<!-- table: .*?<!-- end -->", "", (ROOT / "README.md").read_text(encoding="utf-8"), flags=re.DOTALL)
    text = re.sub(
        r"```.*?```|arXiv [\d.]+|https?://\S+|Python [\d.]+|torch [\d.]+|Apache-[\d.]+|Market-1501", "", text, flags=re.DOTALL
    )
    assert not re.findall(r"\d+\.\d+|\d+ ?%|\d+ times", text)


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").split()) <= 900


def test_the_demo_s_table_is_of_this_training_code() -> None:
    """Whoever changes how training goes measures the demo anew, or says how he knows that it trains as before."""
    result = json.loads((ROOT / "bench/results/demo_seeds.json").read_text())
    known = {result["training_code"], *result.get("trains_as_before", {})}
    assert training_sources.fingerprint() in known, (
        "the training code is not the one that bench/results/demo_seeds.json was measured with: run python bench/demo_seeds.py, "
        "or python bench/training_sources.py --as-before REASON"
    )


def test_a_fingerprint_sees_code_and_not_words() -> None:
    plain = 'def f(x):\n    """What it does."""\n    return x + 1\n'
    code = training_sources.code_alone
    assert (
        code(plain)
        == code(plain.replace("What", "All that").replace("x + 1", "x + 1  # one") + "\n")
        == "def f(x):\n    return x + 1"
    )
    assert code(plain) != code(plain.replace("+ 1", "+ 2"))
    assert training_sources.settings_alone("# a\nlr: 1  # b\n") == "lr: 1" != training_sources.settings_alone("lr: 2")


def test_a_figure_of_an_older_gpu_run_carries_the_mark_of_that_run() -> None:
    run = {line["key"]: line["file"] for line in tables.gpu_lines()}
    rows = [row.split(" | ") for row in tables.gpu_speed().splitlines()[2:]]
    for (_, key, _, _, rival), cells in zip(tables.GPU_SPEED, rows, strict=False):
        for name, figure in ((key, cells[2]), (f"{key} / {rival}", cells[4])):
            if name in run:
                assert figure.split()[2:] == list(tables.OLDER.get(run[name], ()))[:1], (name, figure)
