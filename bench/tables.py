"""The tables of figures in README.md and docs/, made from bench/results/: no figure is typed by hand.

    python bench/tables.py            # write them
    python bench/tables.py --check    # end with 1 where a page differs from the results

A page holds `<!-- table: NAME -->` and `<!-- end -->`; what stands between is replaced.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable
from pathlib import Path
from statistics import mean, stdev

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "bench" / "results"
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
MARK = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def read(name: str) -> dict:
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def markdown(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def percent(share: float) -> str:
    return f"{100 * share:.1f}"


def views(metrics: dict, author: str) -> str:
    return " / ".join(
        [f"{metrics[author + '_psnr']:.2f}", f"{metrics[author + '_psnr_body']:.2f}", f"{metrics[author + '_ssim']:.3f}"]
    )


def demo_scores() -> str:
    result = read("demo_seeds")
    rows = []
    for seed, run in result["seeds"].items():
        shown = [percent(run["untrained"]["mAP"])]
        shown += [f"{percent(run[name]['mAP'])} / {percent(run[name]['rank1'])}" for name in ("stage1", "control", "stage3")]
        rows.append([seed, *shown, f"{100 * (run['stage3']['mAP'] - run['control']['mAP']):+.1f}"])
    head = ["seed", "untrained, mAP", "stage 1, mAP / rank-1", "control", "stage 3", "over the control"]
    gain = result["gain_over_control"]
    return (
        markdown(head, rows) + f"\nOver the control: {gain['mean']:+.1f} points of mAP in the mean, "
        f"standard deviation {gain['stdev']:.1f}.\n"
    )


RUNS = {  # of the demo by precision: its seeds, and the files that have its stage 3 without new views
    "float32": ("demo_seeds", ("demo_variants", "demo_variants_fp32")),
    "bfloat16": ("demo_seeds_bf16", ("demo_variants_bf16",)),
}


def six_seeds(precision: str) -> list[tuple[str, float, float, float]]:
    """Of each seed the mAP of the control, of stage 3 without new views and of stage 3, points."""
    seeds, files = RUNS[precision]
    plain = {seed: run["stage3"] for file in files for seed, run in read(file)["runs"]["unturned"].items()}
    scores = ((seed, run["control"], plain[seed], run["stage3"]) for seed, run in read(seeds)["seeds"].items())
    return [(seed, *(100 * score["mAP"] for score in parts)) for seed, *parts in scores]


def spread(points: list[float]) -> str:
    return f"{mean(points):+.1f} ± {stdev(points):.1f}"


def new_views(precision: str) -> str:
    rows = six_seeds(precision)
    cells = [[seed, f"{c:.1f}", f"{p:.1f}", f"{s:.1f}", f"{s - c:+.1f}", f"{s - p:+.1f}"] for seed, c, p, s in rows]
    means = [spread([s - c for _, c, _, s in rows]), spread([s - p for _, _, p, s in rows])]
    head = ["seed", "control", "stage 3 without new views", "stage 3", "over the control", "by new views"]
    return markdown(head, [*cells, ["mean ± standard deviation", "", "", "", *means]])


def demo_means() -> str:
    """Means over the seeds, in both precisions."""
    rows = []
    for precision, (seeds, _) in RUNS.items():
        runs, scores = read(seeds)["seeds"].values(), six_seeds(precision)
        means = [mean(100 * run[part]["mAP"] for run in runs) for part in ("untrained", "stage1")]
        means += [mean(column) for column in list(zip(*scores, strict=True))[1:]]
        gains = [spread([s - c for _, c, _, s in scores]), spread([s - p for _, _, p, s in scores])]
        rows.append([precision, *(f"{value:.1f}" for value in means), *gains])
    head = ["mAP", "untrained", "stage 1", "control", "stage 3 without new views", "stage 3", "over the control", "by new views"]
    return markdown(head, rows)


def demo_views() -> str:
    """ "Pixels carried": what the guided generator is given, nothing painted."""
    rows = []
    for seed, run in read("demo_seeds")["seeds"].items():
        last = run["stage3"]
        guesses = [views(last, guess) for guess in ("mean_image", "blank_background", "source_image", "carried_pixels")]
        rows.append([seed, views(run["stage2"], "novel_view"), views(last, "novel_view"), *guesses])
    return markdown(
        ["seed", "after stage 2", "after stage 3", "mean training image", "empty scene", "photo, not turned", "pixels carried"],
        rows,
    )


def stage1() -> str:
    result = read("stage1")["mAP"]
    rows = []
    for method in ("cluster-contrast", "mlc", "jvtc"):
        cells = [method]
        for settings in ("published", "demo"):
            row = result[settings][method]
            cells += [f"{row['untrained']:.1f}", f"{row['stage1']:.1f} ± {row['stdev']:.1f}"]
        rows.append(cells)
    return markdown(["method", "published: untrained", "published: trained", "demo's: untrained", "demo's: trained"], rows)


def demo_variants() -> str:
    result = read("demo_variants")
    what = {"shipped": "as the demo ships: background 0.5, average of the encoder's weights", **result["variants"]}
    seeds = sorted(result["runs"]["shipped"])
    control = [percent(result["runs"]["shipped"][seed]["control"]["mAP"]) for seed in seeds]
    rows = [["control", *control, ""]]
    for name, runs in result["runs"].items():
        own = [percent(runs[seed]["control"]["mAP"]) for seed in seeds if "control" in runs[seed] and name != "shipped"]
        if own:
            rows.append([f"control, {what[name]}", *own, ""])
        over = result["points_over_control"][name]
        scores = [percent(runs[seed]["stage3"]["mAP"]) for seed in seeds]
        rows.append([what[name], *scores, f"{over['mean']:+.1f} ± {over['stdev']:.1f}"])
    return markdown(["stage 3", *(f"seed {seed}" for seed in seeds), "over the control"], rows)


MARKET_PARTS = {
    "untrained": "untrained",
    "baseline": "plain PyTorch, published labels",
    "published": "stage 1, published labels",
    "stage1": "stage 1, recommended",
    "control": "control",
    "mesh": "stage 3, `mesh`",
    "texture": "stage 3, `texture`",
}


STARTS = {"imagenet": "ImageNet", "random": "random weights"}


def market1501() -> str:
    runs = read("market1501_small")["runs"]
    columns = [(start, seed) for start in runs for seed in sorted(runs[start])]
    rows = []
    for part, title in MARKET_PARTS.items():
        cells = [runs[start][seed].get(part) for start, seed in columns]
        rows.append([title, *("" if c is None else f"{percent(c['mAP'])} / {percent(c['rank1'])}" for c in cells)])
    return markdown(["mAP / rank-1", *(f"{STARTS[start]}, seed {seed}" for start, seed in columns)], rows)


def market1501_full() -> str:
    """The same encoders on the whole test set."""
    runs = read("market1501_small")["runs"]
    scored = {
        (start, seed): parts["full"] for start, seeds in runs.items() for seed, parts in sorted(seeds.items()) if "full" in parts
    }
    rows = [
        [f"{title}; {STARTS[start]}, seed {seed}", *(percent(scores[part][name]) for name in ("mAP", "rank1", "rank5", "mINP"))]
        for (start, seed), scores in scored.items()
        for part, title in MARKET_PARTS.items()
        if part in scores
    ]
    return markdown(["3,368 queries, gallery of 15,913", "mAP", "rank-1", "rank-5", "mINP"], rows)


def median(name: str, implementation: str, **case: object) -> float:
    """The median seconds of one benchmark of a result file."""
    found = [
        bench["stats"]["median"]
        for bench in read(name)["benchmarks"]
        if bench["extra_info"]["implementation"] == implementation
        and all(bench["extra_info"]["case"].get(key) == value for key, value in case.items())
    ]
    if len(found) != 1:
        raise LookupError(f"{name}.json holds {len(found)} results of {implementation} with {case}, expected one")
    return found[0]


BANK = {"kind": "images", "batch": 16, "rows": 12936, "dim": 2048, "dtype": "float32"}
BODIES = {"batch": 16, "size": [256, 128], "rings": 103}
STEP = {"batch": 4, "backbone": "resnet50", "precision": "fp32"}
MARKET = {"queries": 3368, "gallery": 15913}
SPEED: list[tuple[str, str, str, str, dict]] = [  # work, beside, file, the other's name there, case
    ("memory contrast and update, 16 of 12,936 x 2048, 8,192 negatives", "the official algorithm", "bank_cpu", "official", BANK),
    ("", "product, mask and cross-entropy in PyTorch", "bank_cpu", "eager", BANK),
    ("the same, 1,000,000 x 256", "the official algorithm", "bank_cpu", "official", {**BANK, "rows": 1000000, "dim": 256}),
    ("rasterize, 13,464 faces, 256x128, batch 16", "DRTK", "rasterize_cpu", "drtk", BODIES),
    ("", "Open3D's RaycastingScene", "rasterize_cpu", "open3d", BODIES),
    ("mesh_warp, the same bodies", "gather and grid_sample", "warp_cpu", "pytorch", {**BODIES, "views": 1, "pass": "warp"}),
    ("interpolate, 3 channels", "gather", "interpolate_cpu", "pytorch", {**BODIES, "channels": 3, "pass": "forward"}),
    ("k-nearest neighbours, exact, 12,936 x 2048", "the bare product in blocks", "neighbors_cpu", "reference", {"work": "knn"}),
    ("", "faiss' exhaustive search", "neighbors_cpu", "reference", {"work": "faiss"}),
    ("Jaccard distance after them", "the official dense algorithm", "neighbors_cpu", "reference", {"work": "jaccard"}),
    ("DBSCAN on it", "scikit-learn, dense", "neighbors_cpu", "reference", {"work": "dbscan"}),
    ("mAP, CMC, mINP, 3,368 x 15,913 x 2048", "the official sorting", "ranking_cpu", "official", MARKET),
    ("", "the bare product", "ranking_cpu", "product", MARKET),
    (
        "loading an image and two mesh pictures, cached, once filled",
        "Pillow and torchvision",
        "loader_cpu",
        "reference",
        {"loader": "cached", "meshes": "rendered"},
    ),
    ("the same by DALI", "", "loader_cpu", "reference", {"loader": "dali", "meshes": "rendered"}),
    ("an iteration of stage 3, ResNet-50, 256x128, batch 4", "the plain step", "step_cpu", "reference", {**STEP, "stage": 3}),
    ("of stage 1", "", "step_cpu", "reference", {**STEP, "stage": 1}),
    ("of stage 3 in bfloat16", "the plain one in float32", "step_cpu", "reference", {**STEP, "precision": "bf16", "stage": 3}),
    ("of stage 1 in bfloat16", "", "step_cpu", "reference", {**STEP, "precision": "bf16", "stage": 1}),
]


def times(ratio: float) -> str:
    return f"{ratio:.0f} x" if ratio >= 10 else f"{ratio:.2f} x" if ratio < 2 else f"{ratio:.1f} x"


def speed() -> str:
    rows = []
    for work, beside, name, other, case in SPEED:
        ratio = median(name, other, **case) / median(name, "native", **case)
        rows.append([work, beside, times(ratio), f"`{name}.json`"])
    return markdown(["work", "beside", "faster", "file"], rows)


def speed_line() -> str:
    """The three figures of the README."""
    shown = []
    for what, name, other, case in (
        ("the memory loss", "bank_cpu", "official", BANK),
        ("Jaccard distance", "neighbors_cpu", "reference", {"work": "jaccard"}),
        ("ranking", "ranking_cpu", "official", MARKET),
    ):
        ratio = median(name, other, **case) / median(name, "native", **case)
        shown.append(f"{what} {times(ratio).removesuffix(' x')} times")
    return f"On two CPU cores, beside the official algorithms, faster: {', '.join(shown)}.\n"


def scale() -> str:
    rows = []
    for size in sorted(read("neighbors_scale_cpu")["sizes"], key=lambda size: (size["dim"], size["rows"])):
        exact = size["neighbours"] == "exact"
        seconds = [f"{size[f'{part}_s']:.1f}" if exact or part != "knn" else "*" for part in ("knn", "jaccard", "dbscan")]
        rows.append([f"{size['rows']:,} x {size['dim']}", *seconds, f"{size['peak_rss_mb'] / 1000:.1f} GB"])
    foot = "\n\\* neighbours from nearby clusters instead of the exact ones, for the bench's sake.\n"
    return markdown(["features", "kNN, s", "Jaccard, s", "DBSCAN, s", "peak memory"], rows) + foot


GPU = [RESULTS / f"gpu_nvidia_h100_80gb_hbm3{run}.jsonl" for run in ("_first", "_second", "_third", "")]  # the newest counts
OLDER = {  # the mark of a number that the newest run has not measured, and what it says
    GPU[0]: ("*", "of the first run, before the kernels were tuned"),
    GPU[1]: ("†", "of the second run"),
    GPU[2]: ("‡", "of the third run"),
}
GPU_SPEED: list[tuple[str, str, str, str, str]] = [  # work, number, how it was timed, beside, the rival's name there
    (
        "memory contrast and update, 16 of 12,936 x 2048, 8,192 negatives",
        "bank 16 fp32",
        "call",
        "the official algorithm",
        "official",
    ),
    ("", "bank 16 fp32", "call", "product, mask and cross-entropy in PyTorch", "eager"),
    ("", "bank 16 fp32", "graph", "the same", "eager"),
    ("the same, bfloat16 bank", "bank 16 bf16", "graph", "the same", "eager"),
    ("64 queries, float32 bank", "bank 64 fp32", "graph", "", ""),
    ("64 queries, bfloat16 bank", "bank 64 bf16", "graph", "", ""),
    ("k-nearest neighbours, exact, 12,936 x 2048", "knn 12936", "call", "the bare float32 product in blocks", "product"),
    ("32,621", "knn 32621", "call", "the same", "product"),
    ("200,000", "knn 200000", "call", "the same", "product"),
    ("Jaccard distance after them, 12,936", "jaccard 12936", "call", "", ""),
    ("32,621", "jaccard 32621", "call", "", ""),
    ("200,000", "jaccard 200000", "call", "", ""),
    ("DBSCAN on it, 12,936", "dbscan 12936", "call", "", ""),
    ("32,621", "dbscan 32621", "call", "", ""),
    ("200,000", "dbscan 200000", "call", "", ""),
    ("all three, 12,936", "labels 12936", "call", "", ""),
    ("200,000", "labels 200000", "call", "", ""),
    ("mAP, CMC, mINP, 3,368 x 15,913 x 2048", "ranking market", "call", "product and argsort, no scores", "argsort"),
    ("", "ranking market", "call", "the bare product", "product"),
    ("11,659 x 82,161 x 2048", "ranking msmt17", "call", "product and argsort, no scores", "argsort"),
    ("", "ranking msmt17", "call", "the bare product", "product"),
    ("rasterize, 13,464 faces, 256x128, batch 16", "rasterize 16", "graph", "", ""),
    ("batch 64", "rasterize 64", "graph", "", ""),
    ("batch 512", "rasterize 512", "graph", "", ""),
    ("render_mesh, 16 bodies, 1 view", "render 16x1", "graph", "", ""),
    ("16 bodies, 8 views", "render 16x8", "graph", "", ""),
    ("64 bodies, 8 views", "render 64x8", "graph", "", ""),
    ("mesh_flow, batch 16", "flow 16", "graph", "plain PyTorch", "pytorch"),
    ("mesh_warp, batch 16, 3 channels", "warp 16", "graph", "plain PyTorch", "pytorch"),
    ("interpolate, batch 16, 3 channels", "interpolate 16", "graph", "plain PyTorch", "pytorch"),
]


def gpu_lines() -> list[dict]:
    """The numbers that gpu-check measured, oldest first, each with the file of its run."""
    lines = [{**json.loads(line), "file": path} for path in GPU for line in path.read_text(encoding="utf-8").splitlines()]
    return [line for line in lines if line["kind"] == "number" and line["status"] == "ok"]


def gpu_seconds(key: str, how: str) -> float:
    """Of the newest line of a number: a call after another ("call"), or a replay of its CUDA graph ("graph")."""
    found = [line[{"call": "eager_seconds", "graph": "graph_seconds"}[how]] for line in gpu_lines() if line["key"] == key]
    if not found:
        raise LookupError(f"no results of a GPU hold {key!r}")
    return found[-1]


def duration(seconds: float) -> str:
    unit, size = next((unit, size) for unit, size in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)) if seconds >= size or unit == "us")
    return f"{seconds / size:.3g} {unit}"


def gpu_speed() -> str:
    measured = {line["key"]: line["file"] for line in gpu_lines()}

    def took(key: str, how: str) -> str:
        return " ".join([duration(gpu_seconds(key, how)), *OLDER.get(measured[key], ())[:1]])

    rows = []
    for work, key, how, beside, rival in GPU_SPEED:
        row = [work, how, took(key, how), beside, "", ""]
        if rival:
            theirs = f"{key} / {rival}"
            row[4:] = [took(theirs, how), times(gpu_seconds(theirs, how) / gpu_seconds(key, how))]
        rows.append(row)
    cells = [cell for row in rows for cell in row]
    seen = [(mark, words) for mark, words in OLDER.values() if any(cell.endswith(f" {mark}") for cell in cells)]
    marks = [("\\" if mark == "*" else "") + f"{mark} {words}" for mark, words in seen]
    return markdown(["work", "timed", "ours", "beside", "theirs", "faster"], rows) + (
        f"\n{'; '.join(marks)}: no newer run has measured it.\n" if marks else ""
    )


def gpu_line() -> str:
    """The sentence of the README."""

    def took(key: str, how: str = "call") -> str:
        return duration(float(f"{gpu_seconds(key, how):.2g}"))

    loss, official, pytorch = (took(f"bank 16 fp32{rival}") for rival in ("", " / official", " / eager"))
    ranking, argsort = took("ranking market"), took("ranking market / argsort")
    labels, product, bodies = took("labels 12936"), took("knn 12936 / product"), took("rasterize 64", "graph")
    return (
        f"On an H100, sizes of Market-1501: pseudo-labels {labels} (the bare product for them alone {product}), memory loss with "
        f"its update {loss} (official {official}, PyTorch {pytorch}), ranking {ranking} (product and argsort {argsort}), 64 "
        f"bodies drawn in {bodies}.\n"
    )


WHOLE = {"recommended": "`debias_cameras`, memory of the hardest image", "published": "as published"}


def market_whole() -> str:
    """Stage 1 on all of Market-1501: a row for each way that was scored."""
    runs = read("market1501_stage1_h100")["runs"]
    scored = {name: run for name, run in runs.items() if "scores" in run}
    before = next(iter(runs.values()))["untrained"]
    rows = [["untrained", "", *(f"{100 * before[score]:.1f}" for score in ("mAP", "rank1", "rank5", "mINP"))]]
    for name, run in scored.items():
        figures = [f"{100 * run['scores'][score]:.1f}" for score in ("mAP", "rank1", "rank5", "mINP")]
        rows.append([WHOLE[name], f"{run['seconds'] / 60:.1f}", *figures])
    return markdown(["stage 1", "minutes", "mAP", "rank-1", "rank-5", "mINP"], rows)


def market_line() -> str:
    """The sentence of the README."""
    runs = read("market1501_stage1_h100")["runs"]
    run, scores, published = runs["recommended"], runs["recommended"]["scores"], runs["published"]["scores"]
    return (
        f"\nMarket-1501 without labels: stage 1 alone, EfficientNet-Lite0, {run['seconds'] / 60:.1f} minutes on a shared H100: "
        f"**{100 * scores['mAP']:.1f} mAP, {100 * scores['rank1']:.1f} rank-1**; with Cluster Contrast's published labels and "
        f"memory {100 * published['mAP']:.1f}, {100 * published['rank1']:.1f}.\n"
    )


def estimate_time() -> str:
    found = read("estimate_time")["ms_a_photo"]
    return markdown(
        ["ms a photo", "least", "median"], [[name, f"{row['least']:.1f}", f"{row['median']:.1f}"] for name, row in found.items()]
    )


TABLES: dict[str, Callable[[], str]] = {
    "demo_scores": demo_scores,
    "new_views": lambda: new_views("float32"),
    "new_views_bf16": lambda: new_views("bfloat16"),
    "demo_means": demo_means,
    "demo_views": demo_views,
    "demo_variants": demo_variants,
    "market1501": market1501,
    "market1501_full": market1501_full,
    "stage1": stage1,
    "speed": speed,
    "speed_line": speed_line,
    "scale": scale,
    "gpu_speed": gpu_speed,
    "gpu_line": gpu_line,
    "market_whole": market_whole,
    "market_line": market_line,
    "estimate_time": estimate_time,
}


def filled(text: str) -> str:
    """The page with its tables made anew."""

    def table(match: re.Match[str]) -> str:
        if match[2] not in TABLES:
            raise LookupError(f"there is no table {match[2]!r}: one of {', '.join(TABLES)}")
        return match[1] + TABLES[match[2]]() + match[3]

    return MARK.sub(table, text)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="change nothing, end with 1 where a page differs")
    check = parser.parse_args().check
    stale = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        new = filled(text)
        if new != text:
            stale.append(str(page.relative_to(ROOT)))
            if not check:
                page.write_text(new, encoding="utf-8")
    if stale:
        print(("differ from bench/results: " if check else "written: ") + ", ".join(stale))
    return 1 if check and stale else 0


if __name__ == "__main__":
    raise SystemExit(main())
