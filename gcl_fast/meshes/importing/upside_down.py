"""Whether a body was read with its y axis the wrong way round."""

from __future__ import annotations

import numpy as np

ELONGATED = 1.4  # height by width of a body that stands
MARGIN = 0.03  # of the height
SMPL_NOSE, SMPL_HEELS = 332, (3387, 6787)  # among 6890 vertices; numbers as in the vertex_ids of the package smplx


def stands_on_its_head(vertices: np.ndarray) -> bool:
    """Whether the head lies below the feet of a body [V, 3] in axes with y down.

    SMPL's vertices are known by number. Of other bodies the end with more vertices is the head's, as face and hands need many;
    a body that does not stand, or whose ends are alike, is not judged.
    """
    y = vertices[:, 1]
    if len(vertices) == 6890:
        return bool(y[SMPL_NOSE] > y[list(SMPL_HEELS)].mean())
    low, high = vertices.min(0), vertices.max(0)
    height = high[1] - low[1]
    if not height > ELONGATED * (high[0] - low[0]):
        return False
    return bool(np.mean(y) - (low[1] + high[1]) / 2 > MARGIN * height)
