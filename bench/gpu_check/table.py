"""The results of gpu-check for people: `python -m bench.gpu_check.table bench/results/gpu_<device>.jsonl [--kernels]`.

Markdown from the JSON lines: parts, then each number beside its goal, its floor and its rivals; --kernels adds the GPU's kernels
of each, with their registers and instructions where the build's machine code was counted.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.gpu_check.records import Line, latest, read_lines

HEAD = ("number", "time", "an image", "goal", "to goal", "floor", "of floor", "eager", "queued", "busy", "ours is")
LEGEND = (
    "time: of a call, the median of 50 replays of a CUDA graph over inputs larger than the cache; of eager calls where an op",
    "reads back to the host; in a queue where it is an iteration or a loader. floor: counted bytes and operations",
    "(`bench/floors.py`) over this GPU's measured ceilings. Every number was checked before it was timed; the JSON lines say",
    "against what.",
)


def time_text(seconds: float | None) -> str:
    if seconds is None:
        return ""
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if abs(seconds) >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds * 1e9:.3g} ns"


def row(line: Line, ours: Line | None) -> tuple[str, ...]:
    """The cells of a number; ours: the native one beside a rival."""
    if line["status"] != "ok":
        return (line["key"], f"{line['status'].replace('_', ' ')}: {line.get('why', '')}", *[""] * (len(HEAD) - 2))
    seconds = line["seconds"]
    rate = line.get("images_per_second")
    beside = ours is not None and ours.get("status") == "ok" and ours is not line
    return (
        line["key"],
        time_text(seconds),
        time_text(1 / rate) if rate else "",
        time_text(line.get("goal_seconds")),
        f"{line['times_goal']:.2f} x" if "times_goal" in line else "",
        time_text(line.get("floor_seconds")),
        f"{line['share_of_floor']:.0%}" if "share_of_floor" in line else "",
        time_text(line.get("eager_seconds")),
        time_text(line.get("queued_seconds")),
        f"{line['busy_share']:.0%}" if "busy_share" in line else "",
        f"{seconds / ours['seconds']:.2f} x as fast" if beside and ours is not None else "",
    )


def native_of(line: Line, lines: Mapping[str, Line]) -> Line | None:
    """What a rival stands beside: "knn 12936 / faiss" beside "knn 12936", "stage3 batch 16 plain" beside "... fast"."""
    key = line["key"]
    if " / " in key:
        return lines.get(key.partition(" / ")[0])
    return lines.get(key.replace(" plain", " fast")) if key.endswith(" plain") else None


def grid(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    cells = [[cell.replace("|", "\\|").replace("\n", " ") for cell in each] for each in rows]
    return [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}", *(f"| {' | '.join(each)} |" for each in cells)]


def markdown(lines: Sequence[Line], summary: Mapping[str, Any] | None = None, *, kernels: bool = False) -> str:
    """The whole report of a file's lines; summary: of the run that writes it, else only what the lines say."""
    ended = latest(list(lines))
    numbers = {key: line for key, line in ended.items() if line["kind"] == "number"}
    said: Mapping[str, Any] = summary or (list(ended.values())[-1] if ended else {})
    text = [f"# gpu-check: {said.get('device', 'no results')}", ""]
    names = [name for name in ("driver", "torch", "torch_cuda", "python", "commit") if name in said]
    text += [", ".join(f"{name.replace('_', ' ')} {said[name]}" for name in names) + ".", ""]
    if said.get("toy"):
        text += ["**A rehearsal at toy sizes: no figure here says how fast anything is.**", ""]
    if summary is not None:
        text += [f"`{summary['command']}`", "", "All is well." if summary["ok"] else "Not all is well, or not all is done.", ""]
        text += [*grid(("part", "state", ""), [(p["part"], p["status"], p.get("why", "")) for p in summary["parts"]]), ""]
    if numbers:
        text += [*grid(HEAD, [row(line, native_of(line, numbers)) for line in numbers.values()]), "", *LEGEND, ""]
        others = sorted({line["commit"] for line in numbers.values()} - {said.get("commit")})
        text += [f"Some numbers are of other commits: {', '.join(others)}.", ""] if others else []
    if kernels:
        for key, line in numbers.items():
            text += kernel_section(key, line)
    return "\n".join(text)


def kernel_section(key: str, line: Line) -> list[str]:
    rows = []
    for kernel in line.get("kernels", []):
        counted = [str(kernel[name]) if name in kernel else "" for name in ("registers", "spills", "instructions")]
        rows.append((kernel["kernel"][:100], f"{kernel['calls']:g}", f"{kernel['microseconds']:.1f}", *counted))
    head = ("kernel", "launches", "us", "registers", "spills", "instructions")
    return [f"## {key}", "", *grid(head, rows), ""] if rows else []


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, help="a .jsonl that gpu-check wrote")
    parser.add_argument("--kernels", action="store_true", help="the kernels of each number too")
    options = parser.parse_args(argv)
    if not options.file.is_file():
        print(f"table: no file {options.file}", file=sys.stderr)
        return 1
    print(markdown(read_lines(options.file), kernels=options.kernels))
    return 0


if __name__ == "__main__":
    sys.exit(main())
