"""The demo over several seeds: does stage 1 beat an untrained network, does stage 3 beat stage 1 and its control?

    .venv/bin/python bench/demo_seeds.py --seeds 1 2 3 --out bench/results/demo_seeds.json

A demo that is finished in --runs is read, not repeated.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from statistics import mean, stdev

import torch
from provenance import command, commit, device_name
from training_sources import fingerprint

from gcl_fast.runs.synthetic_demo import run_demo, summary

GUESSES = ("mean_image", "blank_background", "source_image")
KEEP = ("untrained", "stage1", "stage2", "stage3", "control", "times", "seconds")


def verdict(runs: dict[str, dict]) -> dict[str, int]:
    """On how many seeds each comparison held."""

    def views_beat_guesses(metrics: dict, stage: str) -> bool:
        scores = metrics[stage]
        return scores["novel_view_psnr"] > max(scores[f"{guess}_psnr"] for guess in GUESSES)

    pairs = {
        "stage1_beats_untrained_by_5_points": lambda m: m["stage1"]["mAP"] - m["untrained"]["mAP"] >= 0.05,
        "stage3_beats_stage1": lambda m: m["stage3"]["mAP"] > m["stage1"]["mAP"],
        "stage3_beats_control_by_2_points": lambda m: m["stage3"]["mAP"] - m["control"]["mAP"] >= 0.02,
        "views_beat_every_guess_after_stage2": lambda m: views_beat_guesses(m, "stage2"),
        "views_beat_every_guess_after_stage3": lambda m: views_beat_guesses(m, "stage3"),
    }
    return {name: sum(bool(holds(m)) for m in runs.values()) for name, holds in pairs.items()}


def gain(runs: dict[str, dict]) -> dict[str, float]:
    """Points of mAP that stage 3 has over its control: mean and standard deviation over the seeds."""
    gains = [100 * (m["stage3"]["mAP"] - m["control"]["mAP"]) for m in runs.values()]
    return {"mean": round(mean(gains), 2), "stdev": round(stdev(gains), 2) if len(gains) > 1 else 0.0}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", choices=["auto", "fp32", "bf16"], default="auto")
    parser.add_argument("--runs", type=Path, default=Path("runs/demo_seeds"))
    parser.add_argument("--out", type=Path, default=Path("bench/results/demo_seeds.json"))
    parser.add_argument("--note", default="", help="how the runs were made, where not one after the other by this command")
    options = parser.parse_args()
    runs = {}
    for seed in options.seeds:
        metrics = run_demo(options.runs / f"seed{seed}", seed=seed, device=options.device, precision=options.precision)
        print(f"seed {seed}\n{summary(metrics)}\n", flush=True)
        runs[str(seed)] = {name: metrics[name] for name in KEEP if name in metrics}
    result = {
        "command": command(),
        "commit": commit(),
        "training_code": fingerprint(),
        "device": f"{device_name(options.device)}, {torch.get_num_threads()} threads",
        "torch": torch.__version__,
        "note": options.note,
        "gain_over_control": gain(runs),
        "held_on_seeds": {"of": len(runs), **verdict(runs)},
        "seeds": runs,
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps({name: result[name] for name in ("gain_over_control", "held_on_seeds")}, indent=2))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
