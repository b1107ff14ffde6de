"""Exact evaluation of a network at one point, in whole numbers over one denominator for each value."""

import math
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import TypeAlias, assert_never

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from verifier.check.exact import Matrix, assert_ieee_arithmetic
from verifier.check.linear_map import LinearMap, linear_map, pool_windows
from verifier.errors import BadQuery
from verifier.formula import And, holds
from verifier.network import Network, Node
from verifier.ops import AveragePool, Concat, Conv, LeakyRelu, Linear, MaxPool, Relu, Reshape, Scale, Sum, Transpose
from verifier.query import Query
from verifier.region import constraints, exact_bounds, exact_point

Ratio: TypeAlias = tuple[NDArray[np.object_], int]
"""Python integers and the positive denominator they share."""


def replay(network: Network, x: NDArray[np.float64]) -> Mapping[str, tuple[Fraction, ...]]:
    """Every value of the network at input x, exactly, flat in C order.

    x: float64, any shape with the input's number of entries; a float counts as the exact rational it is. Raises BadQuery for
    another number of entries or a number that is not finite.

    >>> from verifier.ops import Relu
    >>> network = Network("x", (2,), (Node("y", Relu(), ("x",)),), "y")
    >>> replay(network, np.array([0.5, -1.0]))["y"]
    (Fraction(1, 2), Fraction(0, 1))
    """
    point = np.asarray(x, dtype=np.float64).reshape(-1)
    expected = network.size(network.input)
    if point.size != expected or not np.isfinite(point).all():
        raise BadQuery(f"a point to replay must have {expected} finite entries, got shape {np.shape(x)}")
    return replay_exact(network, [Fraction(v) for v in point.tolist()])


def replay_exact(network: Network, point: Sequence[Fraction]) -> Mapping[str, tuple[Fraction, ...]]:
    """Every value of the network at a rational input, exactly, flat in C order."""
    assert_ieee_arithmetic()
    shared = math.lcm(*(v.denominator for v in point))
    whole = np.array([v.numerator * (shared // v.denominator) for v in point], dtype=object)
    values: dict[str, Ratio] = {network.input: (whole, shared)}
    for node in network.nodes:
        values[node.output] = _evaluate(network, node, [values[name] for name in node.inputs])
    return {name: tuple(Fraction(n, denominator) for n in whole) for name, (whole, denominator) in values.items()}


def confirms(query: Query, x: NDArray[np.float64]) -> bool:
    """Whether x lies in the query's region and satisfies its assertion, both exactly; False for NaN and infinities.

    x stands for the point `exact_point(query.region, x)`.
    """
    point = np.asarray(x, dtype=np.float64).reshape(-1)
    if point.size != query.region.size:
        raise BadQuery(f"a point to replay must have {query.region.size} finite entries, got shape {np.shape(x)}")
    if not np.isfinite(point).all():
        return False
    values = replay_exact(query.network, exact_point(query.region, point))
    lower, upper = exact_bounds(query.region)
    if not all(lo <= v <= hi for lo, v, hi in zip(lower, values[query.network.input], upper, strict=True)):
        return False
    return holds(And(constraints(query.region)), values) and holds(query.assertion, values)


def _evaluate(network: Network, node: Node, inputs: Sequence[Ratio]) -> Ratio:
    op, (whole, denominator) = node.op, inputs[0]
    match op:
        case Relu():
            return np.maximum(whole, 0), denominator
        case LeakyRelu(slope=slope):
            p, q = float(slope).as_integer_ratio()
            return np.maximum(whole * q, whole * p), denominator * q
        case MaxPool():
            windows = pool_windows(node, network.shapes[node.inputs[0]])
            padded = np.append(whole, whole.min())
            return np.maximum.reduce(padded[windows], axis=1), denominator
        case Linear() | Conv() | Scale() | Sum() | Reshape() | Transpose() | Concat() | AveragePool():
            return _apply(linear_map(node, [network.shapes[name] for name in node.inputs]), inputs)
        case _:
            assert_never(op)


def _apply(mapped: LinearMap, inputs: Sequence[Ratio]) -> Ratio:
    terms = [_product(matrix, x) for matrix, x in zip(mapped.matrices, inputs, strict=True)]
    whole, denominator = _add([*terms, _ratio(mapped.bias)])
    if (mapped.divisor == 1).all():
        return whole, denominator
    parts = [float(d).as_integer_ratio() for d in mapped.divisor]
    shared = math.lcm(*(p for p, _ in parts))
    factors = np.array([q * (shared // p) for p, q in parts], dtype=object)
    return whole * factors, denominator * shared


def _product(matrix: Matrix, x: Ratio) -> Ratio:
    vector, denominator = x
    if not isinstance(matrix, csr_array):
        weights, unit = _ratio(matrix)
        return weights.dot(vector), denominator * unit
    weights, unit = _ratio(matrix.data)
    result = np.zeros(matrix.shape[0], dtype=object)
    rows = np.flatnonzero(np.diff(matrix.indptr))
    if rows.size:
        result[rows] = np.add.reduceat(weights * vector[matrix.indices], matrix.indptr[rows])
    return result, denominator * unit


def _add(terms: Sequence[Ratio]) -> Ratio:
    shared = math.lcm(*(denominator for _, denominator in terms))
    scaled = [whole * (shared // denominator) for whole, denominator in terms]
    return np.sum(scaled, axis=0), shared


def _ratio(values: NDArray[np.float64]) -> Ratio:
    """Floats as whole numbers over a common power of two."""
    mantissas, exponents = np.frexp(values)
    whole = np.ldexp(mantissas, 53).astype(np.int64)
    zeros = np.where(whole == 0, 0, np.frexp((whole & -whole).astype(np.float64))[1] - 1)
    whole, powers = whole >> zeros, np.where(whole == 0, 0, exponents.astype(np.int64) - 53 + zeros)
    finest = min(int(powers.min(initial=0)), 0)
    return whole.astype(object) << (powers - finest).astype(object), 2**-finest
