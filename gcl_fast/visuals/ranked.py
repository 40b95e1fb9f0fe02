"""Ranked lists: a query and its best gallery images, right ones framed green, wrong ones red."""

from __future__ import annotations

from collections.abc import Callable, Sequence, Sized

import numpy as np
from torch import Tensor

from gcl_fast.errors import InputError
from gcl_fast.evaluation import answerable, identities, top_matches
from gcl_fast.images import load_uint8
from gcl_fast.records import Record
from gcl_fast.visuals.canvas import BLUE, GREEN, RED, Colour, compose

ROWS = 8  # queries drawn at most


def ranked_lists(
    query_images: Sequence[np.ndarray],
    match_images: Sequence[Sequence[np.ndarray]],
    correct: Sequence[Sequence[bool]],
    similarities: Sequence[Sequence[float]] | None = None,
    *,
    query_labels: Sequence[str] | None = None,
    match_labels: Sequence[Sequence[str]] | None = None,
    title: str | None = None,
) -> np.ndarray:
    """One row a query: its image (blue frame), then its matches, best first (green: same person, red: another).

    Arguments:
        query_images: Q uint8 pictures [H, W, 3].
        match_images: for each query up to K pictures, all of one size.
        correct: [Q][K], true where the match shows the query's person.
        similarities: [Q][K], written below the match.
        query_labels: Q texts; match_labels: [Q][K] texts such as "pid 12  cam 3".
        title: as `compose`.

    Returns: [H', W', 3] uint8.
    """
    if len(query_images) == 0:
        raise ValueError("query_images: expected at least one query, got none")
    counts = [len(pictures) for pictures in match_images]
    for name, lists in {
        "match_images": match_images,
        "correct": correct,
        "similarities": similarities,
        "match_labels": match_labels,
    }.items():
        _check_lists(name, lists, len(query_images), counts)
    if query_labels is not None and len(query_labels) != len(query_images):
        raise ValueError(f"query_labels: expected {len(query_images)} labels, got {len(query_labels)}")

    captions: list[list[str]] = []
    for q, count in enumerate(counts):
        lines = [[match_labels[q][k]] if match_labels is not None else [] for k in range(count)]
        if similarities is not None:
            for k, similarity in enumerate(similarities[q]):
                lines[k].append(f"{float(similarity):.3f}")
        captions.append([query_labels[q] if query_labels is not None else "", *("\n".join(parts) for parts in lines)])
    borders: list[list[Colour | None]] = [[BLUE, *(GREEN if right else RED for right in row)] for row in correct]
    return compose(
        [[query, *matches] for query, matches in zip(query_images, match_images, strict=True)],
        column_titles=["query", *(str(k + 1) for k in range(max(counts)))],
        captions=captions,
        borders=borders,
        title=title,
        gap_after_column=0,
    )


def _check_lists(name: str, lists: Sequence[Sized] | None, queries: int, counts: Sequence[int]) -> None:
    """One list a query, as long as that query has matches."""
    if lists is None:
        return
    if len(lists) != queries:
        raise ValueError(f"{name}: expected one list for each of {queries} queries, got {len(lists)}")
    for q, row in enumerate(lists):
        if len(row) != counts[q]:
            raise ValueError(f"{name}[{q}]: expected {counts[q]} entries, got {len(row)}")


def ranked_lists_from_features(
    query_features: Tensor,
    gallery_features: Tensor,
    query: Sequence[Record],
    gallery: Sequence[Record],
    *,
    top: int = 10,
    image_size: tuple[int, int] = (256, 128),
    seed: int = 0,
    title: str | None = None,
    same_camera: bool = False,
    label: Callable[[Record], str] | None = None,
) -> np.ndarray:
    """Ranked lists of queries drawn at random (by `seed`, so not the flattering ones), as `evaluation.top_matches` ranks.

    Only queries with at least one right gallery image are drawn. Deterministic.

    Arguments:
        query_features, gallery_features: [Q, D], [G, D] floating.
        query, gallery: their records.
        top: matches shown of each; image_size: (H, W) of the pictures.
        label: what stands below an image, such as `ReIDData.caption`; default: its person, and its camera counted from 1.

    Returns: [H', W', 3] uint8.
    Errors: InputError where no query has its person under another camera in the gallery; MissingFileError for an image.
    """
    for name, features, records in (("query", query_features, query), ("gallery", gallery_features, gallery)):
        if features.dim() != 2 or features.shape[0] != len(records):
            raise ValueError(f"{name}_features: expected shape [{len(records)}, D], got {list(features.shape)}")
    label = label or _label
    chosen = _drawn(answerable(query, gallery, same_camera=same_camera), seed)
    queries = [query[q] for q in chosen]
    ids = identities(queries, gallery, same_camera=same_camera)
    matches = top_matches(query_features[chosen], gallery_features, *ids, top=top)
    photos, match_photos, match_labels, correct, similarities = [], [], [], [], []
    for row, record in enumerate(queries):
        ranked = matches.index[row] >= 0
        shown = [gallery[g] for g in matches.index[row][ranked].tolist()]
        photos.append(load_uint8(record.path, image_size))
        match_photos.append([load_uint8(match.path, image_size) for match in shown])
        match_labels.append([label(match) for match in shown])
        correct.append(matches.correct[row][ranked].tolist())
        similarities.append(matches.similarity[row][ranked].tolist())
    query_labels = [label(record) for record in queries]
    return ranked_lists(
        photos, match_photos, correct, similarities, query_labels=query_labels, match_labels=match_labels, title=title
    )


def _drawn(candidates: Sequence[int], seed: int) -> list[int]:
    """Up to ROWS of the queries that have a right gallery image, in their own order."""
    if not candidates:
        raise InputError("query: expected at least one with its person in the gallery under another camera, got none")
    order = np.random.Generator(np.random.Philox(seed)).permutation(len(candidates))[:ROWS]
    return sorted(candidates[i] for i in order)


def _label(record: Record) -> str:
    return f"pid {record.pid}" + (f"\ncam {record.camera + 1}" if record.camera >= 0 else "")
