"""The demo: the whole system on a synthetic world that it makes first."""

from __future__ import annotations

import os
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from gcl_fast.config import TrainConfig, load_shipped
from gcl_fast.errors import RunError
from gcl_fast.runs.folder import holds_run, read_config, read_metrics, write_metrics
from gcl_fast.runs.lock import RunLock
from gcl_fast.runs.run_files import remove_run

WORLD: dict[str, Any] = {"num_train_ids": 48, "num_test_ids": 24, "images_per_id": 16, "num_cameras": 6}


def finished(out: Path) -> bool:
    """Whether the demo in this folder is whole: its last part is scored, and the last picture after it is there."""
    return "control" in read_metrics(out) and (out / "pictures" / "stage3_ranked_lists.png").exists()


def demo_config(seed: int, out: Path) -> TrainConfig:
    """The shipped demo.yaml, with its data beside the run's results."""
    place = Path(os.path.abspath(out)) if out.name in ("", "..") else out  # `.` has a name, too
    return replace(load_shipped("demo"), seed=seed, runs=str(place.parent), name=place.name, root=str(out / "data"))


def run_demo(
    out: Path = Path("runs/demo"),
    *,
    seed: int = 1,
    fresh: bool = False,
    device: str = "auto",
    precision: Literal["auto", "fp32", "bf16"] = "auto",
) -> dict[str, Any]:
    """Make the world, train all three stages and the control, write the report; returns metrics.json.

    A finished demo is not repeated unless `fresh`, which removes its run and its world first; a stopped one goes on where it
    stopped. Errors: RunError where `out` holds the demo of another seed.
    """
    from gcl_fast.progress import counting
    from gcl_fast.runs.training import train
    from gcl_fast.synthetic import write_world

    config = replace(demo_config(seed, out), device=device, precision=precision)
    if fresh and out.exists():
        if not (out / "config.yaml").exists():
            raise RunError(
                f"{out} is no demo's folder (no config.yaml in it): not deleted; remove it yourself or give another --out"
            )
        lock = RunLock(out)  # refused where another process works on it
        try:
            remove_run(out)
            if (out / "data" / "world.json").exists():  # another seed has another world
                shutil.rmtree(out / "data")
        finally:
            lock.release()
    elif holds_run(out) and (made := read_config(out).seed) != seed:
        raise RunError(
            f"{out} holds the demo of seed {made}: --fresh removes it and makes that of seed {seed}, --out names another"
        )
    if not finished(out):
        began = time.perf_counter()
        with counting("write the world") as progress:
            root, size = Path(config.root), config.image_size
            world = write_world(root, layout="market1501", image_size=size, seed=seed, progress=progress, **WORLD)
        if world.created:
            seconds = round(time.perf_counter() - began, 1)
            write_metrics(out, {"times": {"world": seconds}, "seconds": seconds})
        train(config, (1, 2, 3), resume=True, control=True)
    return read_metrics(out)


def summary(metrics: dict[str, Any]) -> str:
    """The scores as a small table."""
    lines = [f"{'':12}{'mAP':>8}{'rank-1':>8}"]
    for name in ("untrained", "stage1", "control", "stage3"):
        if name in metrics:
            lines.append(f"{name:12}{metrics[name]['mAP']:8.1%}{metrics[name]['rank1']:8.1%}")
    lines += view_scores(metrics)
    if "seconds" in metrics:
        lines.append(f"{metrics['seconds']:.0f} seconds")
    return "\n".join(lines)


def view_scores(metrics: dict[str, Any]) -> list[str]:
    """Lines of a table: novel views of new people after each stage, beside guesses that need no generator."""
    stages = [name for name in ("stage2", "stage3") if "novel_view_psnr" in metrics.get(name, {})]
    if not stages:
        return []
    rows = {f"after {stage}": (metrics[stage], "novel_view") for stage in stages}
    for guess in ("mean_image", "blank_background", "source_image", "carried_pixels"):
        if f"{guess}_psnr" in metrics[stages[-1]]:
            rows[f"guess: {guess.replace('_', ' ')}"] = (metrics[stages[-1]], guess)
    lines = ["", f"{'novel views of new people':28}{'PSNR':>10}{'body':>10}{'SSIM':>8}"]
    for title, (scores, author) in rows.items():
        decibels = [scores.get(f"{author}_{measure}") for measure in ("psnr", "psnr_body")]
        cells = [f"{value:.2f} dB" if value is not None else "" for value in decibels]
        ssim = scores.get(f"{author}_ssim")
        lines.append(f"{title:28}{cells[0]:>10}{cells[1]:>10}{'' if ssim is None else f'{ssim:.3f}':>8}".rstrip())
    return [*lines, ""]
