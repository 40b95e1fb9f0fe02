"""Results of the ops and their error, which an op and its plain definition share.

It lies beside `gcl_fast.ops` and not in it: importing a module of a package runs the package, and `gcl_fast.ops` registers
every op (fake kernels, autograd) when it is imported, which whoever calls `torch.ops.gcl_fast` relies on. `gcl_fast.reference`
imports this module and the errors alone, so that no mistake of an op can reach its oracle: no mathematics belongs here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix


class IndexRangeError(IndexError, ValueError):
    """An index that names a row, vertex or face which is not there. The message names the op, the argument, the range, the
    first such index and its place."""


class Rasterized(NamedTuple):
    """What the camera sees in each pixel.

    face_id  [B, H, W] int32, -1 where there is nothing
    bary     [B, H, W, 3] float, 0 where there is nothing
    depth    [B, H, W] float, +inf where there is nothing
    """

    face_id: Tensor
    bary: Tensor
    depth: Tensor


class MeshFlow(NamedTuple):
    """Where each pixel of a view lies in another view of the same mesh.

    grid        [B, H, W, 2] float in `grid_sample(align_corners=False)` units, -2 on background
    visibility  [B, H, W] uint8: 0 background, 1 visible, 2 occluded in the source
    """

    grid: Tensor
    visibility: Tensor


class MeshWarp(NamedTuple):
    """An image carried to another view.

    warped      [B, C, H, W] in the dtype of the image
    visibility  [B, H, W] uint8, as in `MeshFlow`
    """

    warped: Tensor
    visibility: Tensor


class Neighbors(NamedTuple):
    """The nearest rows of each row, itself first.

    similarity  [N, k] float32 or float64, cosines, descending after the first column
    index       [N, k] int64
    """

    similarity: Tensor
    index: Tensor  # type: ignore[assignment]  # the public field's name; it hides tuple.index


@dataclass(eq=False, repr=False)
class SparseDistance:
    """A symmetric distance matrix in compressed rows: row i holds indices[indptr[i]:indptr[i+1]], ascending.

    indptr        [N + 1] int64
    indices       [nnz] int32 or int64, column numbers; the diagonal is stored (0)
    values        [nnz] float32 or float64, distances; a pair that is not stored is taken for 1.0 apart (0.0 from itself)
    shape         (N, N)
    max_distance  pairs farther apart than this are not stored, even where they are less than 1.0 apart
    """

    indptr: Tensor
    indices: Tensor
    values: Tensor
    shape: tuple[int, int]
    max_distance: float = 1.0

    def __repr__(self) -> str:
        dtype, pairs = str(self.values.dtype).removeprefix("torch."), len(self.values)
        within = "" if self.max_distance >= 1 else f", max_distance={self.max_distance:g}"
        return f"SparseDistance({list(self.shape)}, {pairs:,} stored, {dtype} on {self.values.device}{within})"

    def to(self, device: torch.device | str) -> SparseDistance:
        """The same on another device."""
        indptr, indices, values = (part.to(device) for part in (self.indptr, self.indices, self.values))
        return SparseDistance(indptr, indices, values, self.shape, self.max_distance)

    def rows(self) -> Tensor:
        """[nnz] int64, the row of each stored entry."""
        return torch.repeat_interleave(torch.arange(self.shape[0], device=self.indptr.device), self.indptr.diff())

    def to_dense(self) -> Tensor:
        """[N, N], dtype and device of values."""
        dense = torch.ones(self.shape, dtype=self.values.dtype, device=self.values.device)
        dense.fill_diagonal_(0.0)
        dense[self.rows(), self.indices] = self.values
        return dense

    def to_scipy(self) -> csr_matrix:
        """scipy.sparse.csr_matrix of the stored entries, zeros included; SciPy reads what is not stored as 0, not as 1."""
        try:
            from scipy.sparse import csr_matrix
        except ImportError as error:
            from gcl_fast.packages import missing  # not above: the oracle imports this file, and as little else as can be

            raise missing("scipy", "SparseDistance.to_scipy", error) from error
        parts = (self.values, self.indices, self.indptr)
        return csr_matrix(tuple(part.detach().cpu().numpy() for part in parts), shape=self.shape)


class _RankScores(NamedTuple):
    mAP: float
    cmc: Tensor
    mINP: float
    num_valid: int


class RankMetrics(_RankScores):
    """Scores of a retrieval, fractions of 1, means over the queries that have a match; nan where none has.

    mAP        mean average precision
    cmc        [max_rank] float64 on CPU: share of queries with a match among the first 1, 2, ... max_rank
    mINP       mean inverse negative penalty: number of matches / rank of the last (Ye et al., TPAMI 2021)
    num_valid  number of queries that have a match

    It unpacks into these. Each query's own scores are attributes beside them, [Q] float64 on CPU, nan where it has no match:

    AP         average precision
    INP        inverse negative penalty
    """

    AP: Tensor
    INP: Tensor
