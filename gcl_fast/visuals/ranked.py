"""Ranked lists: a query and its best gallery images, right ones framed green, wrong ones red."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gcl_fast.images import load_uint8
from gcl_fast.visuals.canvas import BLUE, GREEN, RED, compose


def ranked_lists(
    query_images: Sequence[np.ndarray],
    match_images: Sequence[Sequence[np.ndarray]],
    correct: Sequence[Sequence[bool]],
    similarities: Sequence[Sequence[float]] | None = None,
    *,
    query_labels: Sequence[str] | None = None,
    match_labels: Sequence[Sequence[str]] | None = None,
    title: str | None = None,
    scale: int | None = None,
) -> np.ndarray:
    """One row a query: its image (blue frame), then its matches, best first (green: same person, red: another).

    query_images  Q uint8 pictures [H, W, 3];  match_images  for each query up to K of them, all of one size
    correct       [Q][K] true where the match shows the query's person;  similarities  [Q][K], written below the match
    query_labels  Q texts;  match_labels  [Q][K] texts such as "pid 12  cam 3"
    Returns uint8 [H', W', 3].
    """
    count = len(query_images)
    if count == 0:
        raise ValueError("query_images: expected at least one query, got none")
    given = {"match_images": match_images, "correct": correct, "similarities": similarities, "match_labels": match_labels}
    for name, lists in given.items():
        if lists is None:
            continue
        if len(lists) != count:
            raise ValueError(f"{name}: expected one list for each of {count} queries, got {len(lists)}")
        for q, row in enumerate(lists):
            if len(row) != len(match_images[q]):
                raise ValueError(f"{name}[{q}]: expected {len(match_images[q])} entries, got {len(row)}")
    if query_labels is not None and len(query_labels) != count:
        raise ValueError(f"query_labels: expected {count} labels, got {len(query_labels)}")

    cells, borders, captions = [], [], []
    for q in range(count):
        cells.append([query_images[q], *match_images[q]])
        borders.append([BLUE, *(GREEN if c else RED for c in correct[q])])
        texts = [query_labels[q] if query_labels is not None else ""]
        for k in range(len(match_images[q])):
            parts = [match_labels[q][k]] if match_labels is not None else []
            parts += [f"{float(similarities[q][k]):.3f}"] if similarities is not None else []
            texts.append("\n".join(parts))
        captions.append(texts)
    longest = max(len(row) for row in match_images)
    columns = ["query", *(str(k + 1) for k in range(longest))]
    return compose(cells, column_titles=columns, captions=captions, borders=borders, title=title, scale=scale, gap_after_column=0)


def ranked_lists_from_features(
    query_features: Tensor,
    gallery_features: Tensor,
    query: Sequence[Any],
    gallery: Sequence[Any],
    *,
    num_queries: int = 8,
    top: int = 10,
    image_size: tuple[int, int] = (256, 128),
    seed: int = 0,
    title: str | None = None,
) -> np.ndarray:
    """Ranked lists of queries drawn at random (by `seed`, so not the flattering ones) by the evaluation's rules.

    query_features [Q, D], gallery_features [G, D], L2-normalised; query, gallery: their records (path, pid, camera).
    Gallery images of the query's person from the query's camera, and junk (pid -1), are left out, as in mAP and CMC;
    only queries with at least one right gallery image are drawn. Returns uint8 [H', W', 3]. Deterministic.
    """
    for name, features, records in (("query", query_features, query), ("gallery", gallery_features, gallery)):
        if features.dim() != 2 or features.shape[0] != len(records):
            raise ValueError(f"{name}_features: expected shape [{len(records)}, D], got {list(features.shape)}")
    pids = np.array([r.pid for r in gallery], dtype=np.int64)
    cameras = np.array([r.camera for r in gallery], dtype=np.int64)
    answerable = [q for q, r in enumerate(query) if r.pid != -1 and bool(((pids == r.pid) & (cameras != r.camera)).any())]
    if not answerable:
        raise ValueError("query: expected at least one with its person in the gallery under another camera, got none")
    order = np.random.Generator(np.random.Philox(seed)).permutation(len(answerable))[:num_queries]
    chosen = sorted(answerable[i] for i in order)

    similarity = query_features[torch.tensor(chosen)].float().cpu() @ gallery_features.float().cpu().T  # [chosen, G]
    photos, matches, correct, scores, labels, match_labels = [], [], [], [], [], []
    for row, q in enumerate(chosen):
        record = query[q]
        allowed = np.flatnonzero(~((pids == record.pid) & (cameras == record.camera)) & (pids != -1))
        values = similarity[row].numpy()[allowed]
        best = np.argsort(-values, kind="stable")[:top]
        found = [gallery[allowed[i]] for i in best]
        photos.append(load_uint8(record.path, image_size))
        matches.append([load_uint8(g.path, image_size) for g in found])
        correct.append([g.pid == record.pid for g in found])
        scores.append([float(values[i]) for i in best])
        labels.append(f"pid {record.pid}\ncam {record.camera + 1}")
        match_labels.append([f"pid {g.pid}\ncam {g.camera + 1}" for g in found])
    return ranked_lists(photos, matches, correct, scores, query_labels=labels, match_labels=match_labels, title=title)
