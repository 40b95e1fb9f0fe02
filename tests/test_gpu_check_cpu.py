"""gpu-check driven from end to end, the CPU in the GPU's place: toy sizes, the smallest tests; killed half way and continued."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("torchvision", reason="the backbones need torchvision")
pytest.importorskip("PIL", reason="the loaders need Pillow")

from bench.gpu_check import __main__ as gpu_check
from bench.gpu_check import machine, records
from bench.gpu_check.catalogue import numbers

TOY = ("--device", "cpu", "--toy", "--seconds", "3000")
EARLY = 6  # numbers measured before the kill


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("gpu_check")


def results(work: Path) -> Path:
    (file,) = (work / "toy").glob("toy_*.jsonl")
    return file


def measured(lines: list[dict]) -> list[dict]:
    return [line for line in lines if line["kind"] == "number"]


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_killed_half_way_it_goes_on_and_every_part_is_told(work: Path, capfd, monkeypatch) -> None:
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)
    command = [sys.executable, "-m", "bench.gpu_check", *TOY, "--work", str(work)]
    with (work / "said.txt").open("w") as said:
        first = subprocess.Popen(command, cwd=machine.ROOT, stdout=said, stderr=said, start_new_session=True)
        try:
            while not (list((work / "toy").glob("*.jsonl")) and len(measured(records.read_lines(results(work)))) >= EARLY):
                assert first.poll() is None, (work / "said.txt").read_text()
                time.sleep(0.05)
        finally:
            os.kill(first.pid, signal.SIGKILL)
            first.wait()
    summary = json.loads(results(work).with_suffix(".json").read_text())
    assert not summary["ok"] and "left" in {part["status"] for part in summary["parts"]}
    seen = len(records.read_lines(results(work)))
    for _ in range(100):  # the process that measures notices that nobody waits for it, and ends
        time.sleep(0.3)
        now = len(records.read_lines(results(work)))
        if now == seen:
            break
        seen = now
    before = records.read_lines(results(work))
    assert EARLY <= len(measured(before)) < len(numbers(toy=True)), "the kill came too late to show anything"

    assert gpu_check.main([*TOY, "--work", str(work)]) == 0, results(work).with_suffix(".md").read_text()
    out = capfd.readouterr().out
    assert "build: done before" in out and "kernels: done before" in out and "all is well" in out
    after = records.read_lines(results(work))
    assert after[: len(before)] == before  # what was there is kept as it was
    keys = [line["key"] for line in measured(after)]
    assert sorted(keys) == sorted(number.key for number in numbers(toy=True))  # each once
    everything_is_told(json.loads(results(work).with_suffix(".json").read_text()), after)
    text = results(work).with_suffix(".md").read_text()
    assert "All is well." in text and "A rehearsal at toy sizes" in text and "| stage3 batch 4 fast |" in text


def everything_is_told(summary: dict, lines: list[dict]) -> None:
    assert summary["ok"] and {part["status"] for part in summary["parts"]} == {"ok"}
    steps = {step["name"]: step for part in summary["parts"] for step in part.get("steps", [])}
    assert {"import", "kernels", "suite"} <= steps.keys()
    for name in ("kernels", "suite"):
        assert steps[name]["tests"]["passed"] > 0 and steps[name]["tests"]["failed"] == 0
    assert steps["kernels"]["tests"]["passed_on_cpu"] > 0
    for line in measured(lines):
        assert line["commit"] and line["source"] == machine.digest() and line["toy"]
        if line["status"] == "left_out":
            assert line["why"].startswith("needs ") and " / " in line["key"]  # rivals alone
            continue
        assert line["status"] == "ok" and line["check"] and line["seconds"] > 0 and line["eager_seconds"] > 0, line
        assert line["not_captured"] and "graph_seconds" not in line
    by_key = {line["key"]: line for line in measured(lines)}
    assert by_key["bank 2 fp32"]["floor_seconds"] > 0 and by_key["bank 2 fp32"]["kernels"]
    assert by_key["stage3 batch 4 fast"]["images_per_second"] > 0
    assert by_key["loader cached rendered"]["images_per_second"] > 0


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_wrong_op_is_no_success(work: Path, capfd) -> None:
    """Planted in the build: an op whose values are off by a ten-thousandth."""
    if not (work / "built.json").is_file():
        pytest.skip("the test before it built nothing")
    file = work / "site/gcl_fast/ops/interpolate.py"
    text = file.read_text()
    assert text.count("def interpolate(") == 1
    wrong = "\n\n_right = interpolate\n\n\ndef interpolate(*arguments):\n    return _right(*arguments) * 1.0001\n"
    file.write_text(text + wrong)
    assert gpu_check.main([*TOY, "--work", str(work), "--numbers", "interpolate 2"]) == 1
    assert "FAILED: targets" in capfd.readouterr().out
    line = records.latest(records.read_lines(results(work)))["interpolate 2"]
    assert line["status"] == "failed" and "AssertionError" in line["why"] and "seconds" not in line
