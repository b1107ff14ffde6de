"""A network prepared for checking: matrices in slices, pooling windows, who reads what. Kept per network, since many
certificates speak about the same one."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from verifier.check.exact import Matrix, Slices, column, slices, slices_of
from verifier.check.float_model import least_slope
from verifier.check.linear_map import LinearMap, linear_map, pool_windows
from verifier.errors import BadNetwork, UnsupportedOp
from verifier.network import Network
from verifier.ops import ACTIVATION_OPS, LINEAR_OPS, MaxPool

WEIGHT_SLICES = 2


@dataclass(frozen=True, eq=False)
class Weights:
    """A matrix (outputs, inputs) within an entrywise margin: |true - main| <= margin, margin None where main is exact."""

    main: Slices
    margin: Slices | None

    @cached_property
    def positive(self) -> Slices:
        """The positive part of main, transposed: (inputs, outputs)."""
        return slices_of([_positive_part(m.T) for m in self.main.matrices], self.main.exponents)

    @cached_property
    def negative(self) -> Slices:
        """The negative part of main, transposed: (inputs, outputs)."""
        return slices_of([-_positive_part(-m.T) for m in self.main.matrices], self.main.exponents)

    @cached_property
    def margin_forward(self) -> Slices | None:
        """The margin transposed: (inputs, outputs)."""
        if self.margin is None:
            return None
        return slices_of([csr_array(m.T) for m in self.margin.matrices], self.margin.exponents)


@dataclass(frozen=True, eq=False)
class Affine:
    """y = sum_k weights[k] @ x_k + bias; bias is one exact column, (outputs, 1)."""

    weights: tuple[Weights, ...]
    bias: Slices


@dataclass(frozen=True, eq=False)
class Model:
    """affine: the linear nodes by output name; windows: the MaxPool nodes'; activations, readers: positions of nodes,
    by the value they make or read."""

    network: Network
    affine: Mapping[str, Affine]
    windows: Mapping[str, NDArray[np.int64]]
    activations: Mapping[str, int]
    readers: Mapping[str, tuple[int, ...]]


@lru_cache(maxsize=4)
def prepare(network: Network) -> Model:
    """The network ready for checking; BadNetwork where a weight is not finite or a setting is out of its range."""
    affine, windows = {}, {}
    for node in network.nodes:
        shapes = [network.shapes[name] for name in node.inputs]
        if isinstance(node.op, LINEAR_OPS):
            affine[node.output] = _affine(linear_map(node, shapes))
        elif isinstance(node.op, MaxPool):
            windows[node.output] = pool_windows(node, shapes[0])
        elif not isinstance(node.op, ACTIVATION_OPS):
            raise UnsupportedOp(type(node.op).__name__, node.output)
        elif not 0 <= least_slope(node) <= 1:
            raise BadNetwork(f"LeakyRelu at {node.output!r} must have a slope in [0, 1], got {least_slope(node)}")
    readers: dict[str, list[int]] = {name: [] for name in network.shapes}
    for position, node in enumerate(network.nodes):
        for name in dict.fromkeys(node.inputs):
            readers[name].append(position)
    activations = {n.output: position for position, n in enumerate(network.nodes) if isinstance(n.op, ACTIVATION_OPS)}
    return Model(network, affine, windows, activations, {name: tuple(found) for name, found in readers.items()})


def weights(matrix: Matrix, error: Matrix | None = None) -> Weights:
    """A matrix known within an entrywise error: 44 bits below its largest entry, and a margin for the rest."""
    main, rest = slices(matrix, count=WEIGHT_SLICES)
    margin = csr_array(abs(rest))
    if error is not None:
        # sound: the doubling is far more than this sum's rounding.
        margin = csr_array((margin + error) * 2)
    return Weights(main, slices(margin, count=1, rounding=np.ceil)[0] if margin.data.any() else None)


def _affine(mapped: LinearMap) -> Affine:
    divisor = None if (mapped.divisor == 1).all() else mapped.divisor
    assert divisor is None or not mapped.bias.any(), "a divided map has no bias"
    entries = [(matrix, None) if divisor is None else _divide(matrix, divisor) for matrix in mapped.matrices]
    return Affine(tuple(weights(matrix, error) for matrix, error in entries), column(mapped.bias))


def _divide(matrix: Matrix, divisor: NDArray[np.float64]) -> tuple[Matrix, Matrix]:
    """Rows over their divisor in float64, and a bound on the error: none where the divisor is a power of two."""
    sparse = csr_array(matrix)
    divisors = np.repeat(divisor, np.diff(sparse.indptr))
    entries = sparse.data / divisors
    inexact = np.frexp(divisors)[0] != 0.5
    # sound: one division errs by at most 2**-53 of its result, or by half of the smallest float where that is denormal.
    error = np.where(inexact, np.abs(entries) * 2.0**-52 + 5e-324, 0.0)
    layout = (sparse.indices, sparse.indptr)
    divided = csr_array((entries, *layout), shape=sparse.shape)
    return divided, csr_array((error, *layout), shape=sparse.shape)


def _positive_part(matrix: Matrix) -> Matrix:
    return np.maximum(matrix, 0.0) if isinstance(matrix, np.ndarray) else csr_array(csr_array(matrix).maximum(0.0))
