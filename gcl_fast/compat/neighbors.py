"""`compute_jaccard_distance` as SpCL, cluster-contrast, ICE and GCL call it."""

from __future__ import annotations

import time

import numpy as np
import torch
from torch import Tensor

from gcl_fast.ops._check import FLOATS, Shapes, integer
from gcl_fast.ops.neighbors import jaccard_distance, nearest_by_distance


def compute_jaccard_distance(
    target_features: Tensor, k1: int = 20, k2: int = 6, print_flag: bool = True, search_option: int = 0, use_float16: bool = False
) -> np.ndarray:
    """Dense k-reciprocal Jaccard distance of features.

    Features are used as they are, as in those projects: neighbours by Euclidean distance, weights by softmax of
    -(2 - 2 x.y); they pass L2-normalised ones. Of fewer than k1 images all are neighbours, where faiss fills up with -1 and the
    originals take that for the last image. Only the result is N x N: `gcl_fast.ops.jaccard_distance` does without.
    Deterministic.

    Arguments:
        target_features: [N, D] numbers, a tensor on any device or an array.
        k1: neighbours that sets are made of.
        k2: rows averaged around each.
        print_flag: print the two lines that the originals print.
        search_option: accepted, changes nothing: the search is always exact and needs no faiss.
        use_float16: halve the result; what leads to it stays in float32.

    Errors:
        TypeError, ValueError: an argument of the wrong type, shape or range.

    Returns:
        [N, N] float32, or float16 where asked for.

    Source:
        Zhong et al., CVPR 2017, section 3.
    """
    begin = time.time()
    if print_flag:
        print("Computing jaccard distance...")
    del search_option
    try:
        given = np.ascontiguousarray(target_features) if isinstance(target_features, np.ndarray) else target_features
        features = (given if isinstance(given, Tensor) else torch.as_tensor(given)).detach().resolve_neg()
        features = features.to(torch.promote_types(features.dtype, torch.float32))
    except (RuntimeError, ValueError) as error:  # of objects, lists of tensors, or of a type that torch cannot turn into float32
        kind = getattr(target_features, "dtype", type(target_features).__name__)
        raise TypeError(f"compute_jaccard_distance: target_features must be [N, D] numbers, got {kind}: {error}") from error
    shapes = Shapes("compute_jaccard_distance")
    shapes.tensor("target_features", features, ("N", "D"), FLOATS)
    k1, k2 = integer(shapes.op, "k1", k1, 1), integer(shapes.op, "k2", k2, 1)
    if not bool(torch.isfinite(features.square().sum(dim=1)).all()):
        raise ValueError(f"{shapes.op}: target_features must be finite, and their squares; bring the rows to length 1")
    index = nearest_by_distance(features, min(k1, len(features)))
    dense = jaccard_distance(index, k1, k2, features=features).to_dense()
    result = dense.cpu().numpy().astype(np.float16 if use_float16 else np.float32)
    if print_flag:
        print(f"Jaccard distance computing time cost: {time.time() - begin}")
    return result
