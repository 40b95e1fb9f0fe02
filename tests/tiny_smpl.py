"""A body model of SMPL's form at toy size, written as the published files are."""

from __future__ import annotations

import pickle
import sys
from pathlib import Path
from types import ModuleType

import numpy as np

from tests.toy_world import ellipsoid

PARENTS = [-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19, 20, 21]  # SMPL's tree


def tiny_smpl(seed: int = 0) -> dict[str, np.ndarray]:
    """Arrays under the published keys: 80 vertices of an ellipsoid, 24 joints, 10 shapes."""
    rng = np.random.default_rng(seed)
    vertices, faces = ellipsoid()
    count, joints = len(vertices), len(PARENTS)
    weights, regressor = rng.random((count, joints)) ** 8, rng.random((joints, count)) * (rng.random((joints, count)) < 0.3)
    table = np.array([PARENTS, range(joints)], np.int64)
    table[0, 0] = 2**32 - 1
    return {
        "v_template": vertices.astype(np.float64),
        "f": faces.astype(np.uint32),
        "kintree_table": table,
        "shapedirs": 0.01 * rng.standard_normal((count, 3, 10)),
        "posedirs": 0.005 * rng.standard_normal((count, 3, 207)),
        "weights": weights / weights.sum(1, keepdims=True),
        "J_regressor": regressor / regressor.sum(1, keepdims=True),
    }


def write_python2_pickle(path: Path, model: dict[str, np.ndarray]) -> None:
    """As the published pickle: protocol 2, chumpy's arrays, a SciPy matrix, the module names of their day."""
    from scipy.sparse import csc_matrix

    class Ch:
        def __init__(self, **state: object) -> None:
            self.__dict__.update(state)

    class Select(Ch): ...

    class MatVecMult(Ch): ...

    modules = {
        "chumpy": ModuleType("chumpy"),
        "chumpy.ch": ModuleType("chumpy.ch"),
        "chumpy.reordering": ModuleType("chumpy.reordering"),
    }
    for kind, module in ((Ch, "chumpy.ch"), (MatVecMult, "chumpy.ch"), (Select, "chumpy.reordering")):
        kind.__module__, kind.__qualname__ = module, kind.__name__
        setattr(modules[module], kind.__name__, kind)
    known = {name: sys.modules.get(name) for name in modules}
    sys.modules.update(modules)
    try:
        template = model["v_template"]
        order = np.argsort(np.random.default_rng(1).random(template.size))
        whole = np.empty(template.size)
        whole[order] = template.ravel()
        content = model | {
            "J_regressor": csc_matrix(model["J_regressor"]),
            "shapedirs": Ch(x=model["shapedirs"], _itr=None),
            "v_template": Select(a=Ch(x=whole), idxs=order, preferred_shape=template.shape),
            "J": MatVecMult(terms=["mtx", "vec"], _depends_on_deps=None),
            "bs_type": "lrotmin",
            "weights": np.asfortranarray(model["weights"]),
        }
        data = pickle.dumps(content, protocol=2)
    finally:
        for name, module in known.items():
            sys.modules.pop(name) if module is None else sys.modules.update({name: module})
    path.write_bytes(data.replace(b"numpy._core", b"numpy.core").replace(b"scipy.sparse._csc", b"scipy.sparse.csc"))
