"""Builds, checks and measures the package on a machine with a CUDA GPU, in ten minutes:

    make gpu-check PYTHON=...          or          python -m bench.gpu_check [--wheels DIR] [--seconds 540]

from the repository's root. It uses the Python that runs it (3.10 or newer, torch >= 2.10, nvcc, cmake), no network, and installs
nothing; what this Python lacks (pytest, cmake, Pillow, ...) can be carried as wheels in a folder: --wheels DIR. Parts, in order:

    build      setup.py into build/gpu-check/site, for this GPU's architecture; then imports it
    kernels    the tests of the native ops on CUDA, a minute
    targets    ceilings (copy, read, products), then each op at its sizes beside its goal and its floor
    train      an iteration of stages 1 to 3, plain and fast, eager and as CUDA graphs, with the GPU's busy share
    sanitizer  compute-sanitizer (memcheck, racecheck, initcheck, synccheck) over as many tests of each native op as fit in
    (numbers)  what did not fit into targets and train: the largest sizes, torch.compile
    suite      the whole suite on CPU and CUDA; tests that need an optional package that is missing are listed

Each number is checked against its definition first, then timed, then written as one line of bench/results/gpu_<device>.jsonl
at once; .json and .md beside it are the summary. What is done is not done again: the same command goes on where the last run
was cut, as long as source, driver and versions are the same (--fresh begins anew). Exit code 0 only when every part is well and
nothing is left. GCL_COMMIT names the commit where there is no git. `--device cpu --toy` rehearses all of it without a GPU.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from bench.gpu_check.catalogue import numbers
from bench.gpu_check.checking import NUMBERS, PARTS, Check
from bench.gpu_check.commands import TOY_SCOPE, Commands, Runner, Scope, full_scope, run
from bench.gpu_check.machine import ROOT, Machine, file_name, inspect, plain
from bench.gpu_check.records import Records


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="gpu-check", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=PARTS, action="append", help="one part (may be repeated); the build must be there")
    parser.add_argument("--numbers", metavar="WORD", help="measure again the numbers whose name holds this, and no others")
    parser.add_argument("--seconds", type=float, default=540, help="for everything together (540)")
    parser.add_argument("--fresh", action="store_true", help="forget this device's results and begin anew")
    parser.add_argument("--wheels", type=Path, metavar="DIR", help="a folder of wheels of what this Python lacks")
    parser.add_argument(
        "--results", type=Path, metavar="DIR", help="where results go (bench/results; a toy's to build/gpu-check)"
    )
    parser.add_argument("--work", type=Path, metavar="DIR", help="where it builds (build/gpu-check)")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu, with --toy: a rehearsal without a GPU")
    parser.add_argument("--toy", action="store_true", help="the same numbers at sizes of a toy, few tests")
    options = parser.parse_args(argv)
    if options.device == "cpu" and not options.toy:
        parser.error("--device cpu is a rehearsal: give --toy too (gcl-fast bench times the ops on a CPU)")
    if options.wheels is not None and not options.wheels.is_dir():
        parser.error(f"--wheels: {options.wheels} is no folder")
    return options


def main(
    argv: Sequence[str] | None = None, *, runner: Runner = run, machine: Machine | None = None, scope: Scope | None = None
) -> int:
    options = parse(argv)
    machine = machine or inspect(options.device)
    if machine.why_not is not None:
        print(f"gpu-check: {machine.why_not}", file=sys.stderr)
        return 1
    work = (options.work or ROOT / "build/gpu-check").resolve()
    work.mkdir(parents=True, exist_ok=True)
    name = ("toy_" if options.toy else "") + file_name(machine.device)
    folder = (options.results or (work / "toy" if options.toy else ROOT / "bench/results")).resolve()
    records = Records(folder / f"{name}.jsonl", machine.identity(options.toy), machine.commit)
    if options.fresh:
        records.clear()
    chosen = numbers(toy=options.toy)
    if options.numbers is not None:
        chosen = [number for number in chosen if options.numbers in number.key]
        if not chosen:
            print(
                f"gpu-check: no number's name holds {options.numbers!r}; some: rasterize, bank 16, knn, stage3", file=sys.stderr
            )
            return 1
        for number in chosen:
            records.add("forgotten", number.key)
    commands = Commands(
        machine, work, scope or (TOY_SCOPE if options.toy else full_scope()), options.wheels and options.wheels.resolve()
    )
    check = Check(commands, records, chosen, seconds=options.seconds, toy=options.toy, runner=runner)
    command = plain(" ".join(["python -m bench.gpu_check", *(sys.argv[1:] if argv is None else argv)]))
    asked = {number.part for number in chosen}
    wanted = options.only or (["build", *(part for part in NUMBERS if part in asked)] if options.numbers else PARTS)
    ok = check.run(wanted, command)
    states = {part: check.state_of(part)["status"] for part in PARTS if part in wanted}
    print(f"gpu-check: results in {plain(str(records.path.with_suffix('.md')))}")
    if ok:
        print("gpu-check: all is well")
    elif "failed" in states.values():
        print(f"gpu-check: FAILED: {', '.join(part for part, status in states.items() if status == 'failed')}")
    else:
        left = ", ".join(part for part, status in states.items() if status == "left")
        print(f"gpu-check: NOT DONE: {left}; the same command goes on from here")
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
