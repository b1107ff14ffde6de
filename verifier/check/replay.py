"""Evaluation of a network at one point: exactly, in whole numbers over one denominator for each value, or, where a network has
functions such as sin whose values are irrational, within float64 bounds."""

import math
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import TypeAlias, assert_never, overload

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from verifier.check.boxes import first_boxes
from verifier.check.exact import Matrix, assert_ieee_arithmetic
from verifier.check.float_model import prepare_floats
from verifier.check.linear_map import LinearMap, linear_map, pool_windows
from verifier.check.masks import beaten_mask
from verifier.check.whole import BITS, digits_of, product
from verifier.errors import BadQuery, UnsupportedOp
from verifier.formula import And, Atom, Formula, Or, holds
from verifier.network import Network, Node, mask_nodes
from verifier.ops import (
    TRANSCENDENTAL_OPS,
    Array,
    AveragePool,
    Concat,
    Conv,
    Cos,
    Erf,
    Exp,
    Floor,
    LeakyRelu,
    Linear,
    MaxPool,
    Power,
    Product,
    Reciprocal,
    Relu,
    Reshape,
    Scale,
    Select,
    Sigmoid,
    Sign,
    Sin,
    Sqrt,
    Sum,
    Tanh,
    Transpose,
)
from verifier.query import Query
from verifier.region import constraints, exact_bounds, exact_point, round_down, round_up

FEW_ENTRIES = 2**10
"""In a matrix: too few to be worth cutting into digits."""

Ratio: TypeAlias = tuple[NDArray[np.object_], int]
"""Python integers and the positive denominator they share."""


def replay(network: Network, x: NDArray[np.float64]) -> Mapping[str, tuple[Fraction, ...]]:
    """Every value of the network at input x, exactly, flat in C order.

    x: float64, any shape with the input's number of entries; a float counts as the exact rational it is. Raises BadQuery for
    another number of entries, a number that is not finite or a division by zero, and UnsupportedOp for a network with one of
    `verifier.ops.TRANSCENDENTAL_OPS`, for which there is `enclose`.

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
    return {name: tuple(ratio) for name, ratio in _evaluated(network, point).items()}


class _Ratios(Sequence[Fraction]):
    """Whole numbers over one denominator; those asked for become fractions."""

    def __init__(self, ratio: Ratio) -> None:
        self._whole, self._denominator = ratio

    def __len__(self) -> int:
        return len(self._whole)

    @overload
    def __getitem__(self, index: int) -> Fraction: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Fraction]: ...
    def __getitem__(self, index: int | slice) -> Fraction | Sequence[Fraction]:
        if isinstance(index, slice):
            return _Ratios((self._whole[index], self._denominator))
        return Fraction(int(self._whole[index]), self._denominator)


def _evaluated(network: Network, point: Sequence[Fraction]) -> Mapping[str, Sequence[Fraction]]:
    assert_ieee_arithmetic()
    shared = math.lcm(*(v.denominator for v in point))
    whole = np.array([v.numerator * (shared // v.denominator) for v in point], dtype=object)
    values: dict[str, Ratio] = {network.input: (whole, shared)}
    for node in network.nodes:
        if isinstance(node.op, TRANSCENDENTAL_OPS):
            raise UnsupportedOp(type(node.op).__name__, node.output, "its values are irrational; `enclose` bounds them")
        values[node.output] = _evaluate(network, node, [values[name] for name in node.inputs])
    return {name: _Ratios(ratio) for name, ratio in values.items()}


def enclose(network: Network, point: Sequence[Fraction]) -> Mapping[str, tuple[Array, Array]]:
    """Bounds lower <= value <= upper of every value of the network at a rational input, flat; infinite where none is known."""
    assert_ieee_arithmetic()
    lower, upper = (np.array([rounded(v) for v in point]) for rounded in (round_down, round_up))
    boxes = first_boxes(prepare_floats(network), lower, upper, ())
    return {name: (low[0], high[0]) for name, (low, high) in boxes.sides.items()}


def confirms(query: Query, x: NDArray[np.float64]) -> bool:
    """Whether x lies in the query's region and satisfies its assertion, both exactly; False for NaN and infinities.

    Where the network's values are irrational: whether the assertion holds for all values within their bounds. Where a value is
    as large as a mask that is added to it: never. x stands for the point `exact_point(query.region, x)`.
    """
    point = np.asarray(x, dtype=np.float64).reshape(-1)
    if point.size != query.region.size:
        raise BadQuery(f"a point to replay must have {query.region.size} finite entries, got shape {np.shape(x)}")
    if not np.isfinite(point).all():
        return False
    exact, name = exact_point(query.region, point), query.network.input
    lower, upper = exact_bounds(query.region)
    if not all(lo <= v <= hi for lo, v, hi in zip(lower, exact, upper, strict=True)):
        return False
    if not holds(And(constraints(query.region)), {name: tuple(exact)}):
        return False
    if mask_nodes(query.network) and beaten_mask(query.network, enclose(query.network, exact)) is not None:
        return False
    if any(isinstance(node.op, TRANSCENDENTAL_OPS) for node in query.network.nodes):
        return _surely_holds(query.assertion, enclose(query.network, exact))
    try:
        return holds(query.assertion, _evaluated(query.network, exact))
    except _Undefined:
        return False


def _surely_holds(formula: Formula, values: Mapping[str, tuple[Array, Array]]) -> bool:
    """Whether a formula holds for all values within bounds; may be False where it does."""
    match formula:
        case Atom(terms=terms, bias=bias, strict=strict):
            # sound: a term is largest at the end of the bounds that its coefficient's sign names.
            ends = [float(values[t.value][1 if t.coefficient > 0 else 0][t.index]) for t in terms]
            if not np.isfinite(ends).all():
                return False
            total = sum((t.coefficient * Fraction(end) for t, end in zip(terms, ends, strict=True)), bias)
            return total < 0 or (total == 0 and not strict)
        case And(parts=parts):
            return all(_surely_holds(part, values) for part in parts)
        case Or(parts=parts):
            return any(_surely_holds(part, values) for part in parts)
        case _:
            assert_never(formula)


class _Undefined(BadQuery):
    """A value that the input has none of: a division by zero."""


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
        case Product():
            return whole * inputs[1][0], denominator * inputs[1][1]
        case Power(exponent=exponent):
            return whole**exponent, denominator**exponent
        case Reciprocal():
            return _inverse(node, whole, denominator)
        case Sign():
            return (whole > 0).astype(object) * 1 - (whole < 0).astype(object) * 1, 1
        case Floor():
            return whole // denominator, 1
        case Sigmoid() | Tanh() | Sin() | Cos() | Exp() | Sqrt() | Erf():
            raise AssertionError("transcendental functions are refused before")
        case Linear() | Conv() | Scale() | Sum() | Reshape() | Transpose() | Concat() | AveragePool() | Select():
            return _apply(linear_map(node, [network.shapes[name] for name in node.inputs]), inputs)
        case _:
            assert_never(op)


def _inverse(node: Node, whole: NDArray[np.object_], denominator: int) -> Ratio:
    if not whole.all():
        raise _Undefined(f"value {node.output!r} is not defined at this input: it divides by zero; choose another point")
    inverses = [Fraction(denominator, n) for n in whole]
    shared = math.lcm(*(f.denominator for f in inverses))
    return np.array([f.numerator * (shared // f.denominator) for f in inverses], dtype=object), shared


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
    digits = digits_of(matrix) if _size(matrix) > FEW_ENTRIES else None
    if digits is not None and digits.parts:
        whole, exponent = product(digits, vector), BITS * digits.lowest
        return (whole, denominator << -exponent) if exponent < 0 else (whole * 2**exponent, denominator)
    if not isinstance(matrix, csr_array):
        weights, unit = _ratio(matrix)
        return weights.dot(vector), denominator * unit
    weights, unit = _ratio(matrix.data)
    result = np.zeros(matrix.shape[0], dtype=object)
    rows = np.flatnonzero(np.diff(matrix.indptr))
    if rows.size:
        result[rows] = np.add.reduceat(weights * vector[matrix.indices], matrix.indptr[rows])
    return result, denominator * unit


def _size(matrix: Matrix) -> int:
    return int(matrix.nnz) if isinstance(matrix, csr_array) else matrix.size


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
