"""The benches' frame: every bench has what it must have, and `gcl-fast bench` shows its numbers or says why it cannot."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

from gcl_fast.cli import bench

ROOT = Path(__file__).resolve().parent.parent


def entry(implementation: str, median: float) -> dict:
    info = {"op": "knn", "case": {"rows": 3, "size": [4, 5]}, "implementation": implementation, "device": "A CPU, 2 cores"}
    info |= {"torch": "2.15", "cuda": None, "commit": "abc", "threads": 1}
    return {"group": "knn rows=3 cpu", "extra_info": info, "stats": {"median": median}}


def test_a_row_sets_native_beside_reference() -> None:
    rows = bench.rows({"benchmarks": [entry("native", 0.002), entry("reference", 0.5)]})
    assert rows == [("knn", "rows=3 size=4x5", "cpu", "2 ms", "500 ms", "250.0x")]
    assert bench.rows({"benchmarks": [entry("native", 3.1e-6)]}) == [("knn", "rows=3 size=4x5", "cpu", "3.1 us", "", "")]


def test_the_command_prints_and_writes(monkeypatch, tmp_path: Path, capsys) -> None:
    def fake(op: str, full: bool, into: Path) -> int:
        assert op == "neighbors" and full
        into.write_text(json.dumps({"benchmarks": [entry("native", 0.002), entry("reference", 0.5)]}))
        return 0

    monkeypatch.setattr(bench, "run", fake)
    monkeypatch.setattr(bench, "ROOT", ROOT)  # the package may be installed elsewhere
    out = tmp_path / "new" / "out.json"
    plot = tmp_path / "new" / "out.html"
    assert bench.main(["--op", "neighbors", "--full", "--json", str(out), "--plot", str(plot)]) == 0
    said = capsys.readouterr().out
    assert "250.0x" in said and "A CPU, 2 cores" in said and "commit abc" in said
    assert len(json.loads(out.read_text())["benchmarks"]) == 2
    html = plot.read_text()
    assert html.count("<tr>") == 3 and 'class="own" style="width:0.4%"' in html and "500 ms" in html and "commit abc" in html


def test_a_failed_bench_is_an_error(monkeypatch) -> None:
    monkeypatch.setattr(bench, "run", lambda op, full, into: 1)
    monkeypatch.setattr(bench, "ROOT", ROOT)
    with pytest.raises(RuntimeError, match="exit code 1"):
        bench.main([])


def test_outside_of_a_checkout_it_says_so(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setattr(bench, "ROOT", tmp_path)
    with pytest.raises(FileNotFoundError, match="clone the repository"):
        bench.main([])


def test_every_bench_is_found_with_both_implementations() -> None:
    files = [f"bench/{name}.py" for name in bench.OPS]
    others = ["bench/guided_step.py"]  # one way of training beside another: no plain definition of the same
    assert sorted(files + others) == sorted(
        f"bench/{p.name}" for p in (ROOT / "bench").glob("*.py") if "\nOP = " in p.read_text()
    )
    for flags in ([], ["--full"]):
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", *files, *flags],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        for file in files:
            names = [line for line in done.stdout.splitlines() if line.startswith(file)]
            assert any("native" in n for n in names) and any("reference" in n for n in names), file


def test_committed_results_name_device_commit_and_command_and_no_folder() -> None:
    for path in (ROOT / "bench" / "results").glob("*_cpu.json"):
        text = path.read_text()
        report = json.loads(text)
        if "machine_info" not in report:  # of another tool than pytest-benchmark
            continue
        assert report["benchmarks"] and "node" not in report["machine_info"]
        for measured in report["benchmarks"]:
            info = measured["extra_info"]
            assert all(info[name] for name in ("device", "commit", "command", "check", "torch"))
            assert "dirty" not in info["commit"] and "/" not in info["command"].replace("bench/", "")


def defined(tree: ast.Module) -> set[str]:
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            names.add(node.name)
        elif isinstance(node, ast.Assign):
            names |= {name.id for target in node.targets for name in ast.walk(target) if isinstance(name, ast.Name)}
    return names


def test_benches_take_of_each_other_what_is_there() -> None:
    trees = {path.stem: ast.parse(path.read_text()) for path in (ROOT / "bench").glob("*.py")}
    taken = [
        (stem, node.module, name.name)
        for stem, tree in trees.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module in trees
        for name in node.names
    ]
    assert len(taken) > 10
    assert [entry for entry in taken if entry[2] not in defined(trees[entry[1]])] == []
