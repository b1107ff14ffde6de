"""A matrix that many small batches of vectors are multiplied with, from both sides."""

import warnings
from dataclasses import dataclass

import torch
from scipy.sparse import csr_array
from torch import Tensor

from verifier.device import PROCESSOR, tensor_of

SPARSE = 0.1  # the share of entries that are not 0, up to which a sparse product is the faster one
DEAR = 5  # a multiplication of a sparse product, against one of a dense product
LARGE = 20_000  # entries, from which on a sparse product is looked at


@dataclass(frozen=True, eq=False)
class LinearMap:
    """matrix: (rows, columns) in float32, dense; or None and there is it and its transpose in compressed rows.

    work: the multiplications for one vector, in units of a dense product's.
    """

    shape: tuple[int, int]
    matrix: Tensor | None
    compressed: tuple[Tensor, Tensor] | None
    work: int

    def applied(self, vectors: Tensor, to: Tensor) -> Tensor:
        """Vectors (count, columns) to (count, rows), added to something of that shape or one that expands to it."""
        if self.matrix is not None:
            return torch.addmm(to, vectors, self.matrix.T)
        assert self.compressed is not None
        return (self.compressed[0] @ vectors.T).T + to

    def add_transposed(self, weights: Tensor, to: Tensor) -> None:
        """Add weights (count, rows) @ matrix to a tensor (count, columns)."""
        if self.matrix is not None:
            to.addmm_(weights, self.matrix)
        else:
            to.add_(self.transposed(weights))

    def transposed(self, weights: Tensor) -> Tensor:
        """Weights (count, rows) to weights @ matrix (count, columns)."""
        if self.matrix is not None:
            return weights @ self.matrix
        assert self.compressed is not None
        return (self.compressed[1] @ weights.T).T

    def rows(self, places: Tensor) -> Tensor:
        """Some rows (count, columns) of the matrix."""
        if self.matrix is not None:
            return self.matrix[places]
        picked = torch.zeros(len(places), self.shape[0])
        picked[torch.arange(len(places)), places] = 1.0
        return self.transposed(picked)


def linear_map(matrix: csr_array) -> LinearMap:
    """In the layout that is the faster one."""
    if _is_dense(matrix):
        return LinearMap(matrix.shape, tensor_of(matrix.toarray()).float().contiguous(), None, work_of(matrix))
    return LinearMap(matrix.shape, None, (_compressed(matrix), _compressed(csr_array(matrix.T))), work_of(matrix))


def work_of(matrix: csr_array) -> int:
    """The multiplications that its map will take for a vector."""
    rows, columns = matrix.shape
    return rows * columns if _is_dense(matrix) else DEAR * int(matrix.nnz)


def _is_dense(matrix: csr_array) -> bool:
    rows, columns = matrix.shape
    return bool(rows * columns < LARGE or matrix.nnz > SPARSE * rows * columns)


def _compressed(matrix: csr_array) -> Tensor:
    indptr, indices = (torch.from_numpy(part.astype("int32")) for part in (matrix.indptr, matrix.indices))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse")
        rows = torch.sparse_csr_tensor(indptr, indices, torch.from_numpy(matrix.data).float(), matrix.shape, device=PROCESSOR)
        return rows.to(torch.get_default_device())
