"""gpu-check with its parts really run, the CPU in the GPU's place: the smallest tests and benches. The build is the one here,
and compute-sanitizer a script that runs what it is given."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

pytest.importorskip("pytest_benchmark", reason="the benches need pytest-benchmark")
pytest.importorskip("torchvision", reason="the backbones need torchvision")

from gcl_fast import _native
from tests.test_gpu_check import gpu_check

SMALL = ("tests/test_bank_update.py",)
SCOPE = gpu_check.Scope(
    device="cpu", tests=SMALL, sanitized=SMALL, benches=(gpu_check.ROOT / "bench/ranking.py",), train=("-k", "step and stage")
)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)  # pytest-benchmark would not time in a worker's child
    script = tmp_path / "compute-sanitizer"
    script.write_text('#!/bin/sh\necho "========= COMPUTE-SANITIZER"\nshift 12\nexec "$@"\n')
    script.chmod(0o755)
    return gpu_check.Machine(None, "A CPU", "", "3", "2", "none", str(script), 1, False)


def run(tmp_path: Path, machine, *flags: str, scope=SCOPE) -> tuple[int, dict]:
    work, out = tmp_path / "work", tmp_path / "gpu_check.json"

    def runner(step, seconds: float):
        if step.name != "build":
            return gpu_check.run(step, seconds)
        package = Path(_native.__file__).parent
        shutil.copytree(package, work / "site/gcl_fast", ignore=shutil.ignore_patterns("__pycache__"))
        return gpu_check.Outcome(0, 0.1, "")

    code = gpu_check.main([*flags, "--out", str(out)], runner=runner, machine=machine, work=work, scope=scope)
    return code, json.loads(out.read_text())


@pytest.mark.slow
def test_every_part_runs_and_is_told(tmp_path: Path, machine) -> None:
    code, summary = run(tmp_path, machine)
    assert code == 0 and summary["ok"], summary["parts"]
    parts = {part["name"]: part for part in summary["parts"]}
    assert list(parts)[:3] == ["build", "import", "tests"] and {*gpu_check.TOOLS, "bench", "train"} <= parts.keys()
    for name in ("tests", *gpu_check.TOOLS):
        assert parts[name]["tests"]["passed_on_cpu"] > 0 and parts[name]["tests"]["failed"] == 0
    measured = {(entry["op"], entry["implementation"]) for entry in summary["benchmarks"]}
    assert {("step", "native"), ("step", "reference")} <= measured and len({op for op, _ in measured}) > 1
    step = next(entry for entry in summary["benchmarks"] if entry["op"] == "step")
    assert step["images_per_second"] > 0 and step["breakdown"] and "every loss" in step["check"]
    table = (tmp_path / "gpu_check.txt").read_text()
    assert "ok      train" in table and "step stage=3" in table and "A CPU" in table


def test_a_failing_test_fails_the_check(tmp_path: Path, machine) -> None:
    broken = tmp_path / "test_broken.py"
    broken.write_text(
        "import pytest\n@pytest.mark.parametrize('device', ['cpu'])\ndef test_it(device): assert device == 'cuda'\n"
    )
    scope = gpu_check.Scope(device="cpu", tests=(str(broken),))
    code, summary = run(tmp_path, machine, "--only", "build", "--only", "kernels", scope=scope)
    assert code == 1 and not summary["ok"]
    part = summary["parts"][-1]
    assert part["tests"]["failed"] == 1 and part["why"] == "exit code 1" and "test_it" in part["failed_tests"][0]
