"""A second opinion on small queries: the network written out entry by entry for Z3, in exact rationals.

Shares no code with the verifier beyond the data it reads: no evaluation, no linear maps, no normal form, no printed SMT-LIB.
"""

import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from itertools import product

import numpy as np
import z3

from verifier.formula import And, Atom, Formula, Or
from verifier.network import Network, Node
from verifier.ops import (
    AveragePool,
    Concat,
    Conv,
    LeakyRelu,
    Linear,
    MaxPool,
    Relu,
    Reshape,
    Scale,
    Select,
    Sum,
    Transpose,
)
from verifier.query import Query
from verifier.region import constraints, exact_bounds

Entries = np.ndarray
"""Z3 terms, dtype object, in the shape of a value."""


def judge(query: Query, *, timeout_s: float) -> str:
    """`sat`, `unsat` or `unknown`, by Z3 on an encoding of its own."""
    solver = z3.SolverFor("QF_LRA")
    solver.set("timeout", int(timeout_s * 1000))
    values = _encode(query.network, solver)
    lower, upper = exact_bounds(query.region)
    for term, low, high in zip(values[query.network.input].ravel(), lower, upper, strict=True):
        solver.add(term >= _number(low), term <= _number(high))
    solver.add(_formula(And((*constraints(query.region), query.assertion)), values))
    return str(solver.check())


def _number(value: float | Fraction) -> z3.RatNumRef:
    exact = Fraction(value)
    return z3.Q(exact.numerator, exact.denominator)


def _encode(network: Network, solver: z3.Solver) -> dict[str, Entries]:
    size = math.prod(network.input_shape)
    inputs = np.array([z3.Real(f"in_{k}") for k in range(size)], dtype=object).reshape(network.input_shape)
    values = {network.input: inputs}
    for node in network.nodes:
        terms = _node(node, [values[name] for name in node.inputs])
        named = np.empty(terms.size, dtype=object)
        for k, term in enumerate(terms.ravel()):
            named[k] = z3.Real(f"{node.output}_{k}")
            solver.add(named[k] == term)
        values[node.output] = named.reshape(terms.shape)
    return values


def _node(node: Node, inputs: Sequence[Entries]) -> Entries:
    op, x = node.op, inputs[0]
    match op:
        case Linear():
            rows = x.reshape(-1, x.shape[-1])
            out = [[_affine(op.weight[o], row, op.bias[o]) for o in range(len(op.bias))] for row in rows]
            return _objects(out).reshape(*x.shape[:-1], len(op.bias))
        case Conv():
            return _conv(op, x)
        case AveragePool():
            return _windows(x, op, (1,) * len(op.kernel), lambda cells, at: z3.Sum(cells) / _number(op.divisor[at]))
        case MaxPool():
            return _windows(x, op, op.dilation, lambda cells, at: _greatest(cells))
        case Scale():
            factor, offset = (np.broadcast_to(a, x.shape).ravel() for a in (op.factor, op.offset))
            terms = [_number(f) * t + _number(o) for f, t, o in zip(factor, x.ravel(), offset, strict=True)]
            return _objects(terms).reshape(x.shape)
        case Sum():
            parts = [[_number(c) * t for t in value.ravel()] for c, value in zip(op.coefficients, inputs, strict=True)]
            return _objects([z3.Sum(list(column)) for column in zip(*parts, strict=True)]).reshape(x.shape)
        case Reshape():
            return x.reshape(op.shape)
        case Transpose():
            return x.transpose(op.permutation)
        case Concat():
            return np.concatenate(list(inputs), axis=op.axis)
        case Select():
            flat = x.ravel()
            return _objects([flat[i] if i >= 0 else _number(0) for i in op.indices.tolist()]).reshape(op.shape)
        case Relu() | LeakyRelu():
            slope = _number(op.slope if isinstance(op, LeakyRelu) else 0)
            return _objects([z3.If(t >= 0, t, slope * t) for t in x.ravel()]).reshape(x.shape)
        case _:
            raise NotImplementedError(type(op).__name__)


def _objects(terms: Sequence[object]) -> Entries:
    return np.array(terms, dtype=object)


def _affine(weights: Sequence[float], terms: Sequence[z3.ArithRef], bias: float) -> z3.ArithRef:
    return z3.Sum([_number(w) * t for w, t in zip(weights, terms, strict=True)] + [_number(bias)])


def _greatest(terms: Sequence[z3.ArithRef]) -> z3.ArithRef:
    best = terms[0]
    for term in terms[1:]:
        best = z3.If(term > best, term, best)
    return best


def _cells(x: Entries, channel: int, at: Sequence[int], op: Conv | AveragePool | MaxPool, offset: Sequence[int]) -> object:
    """The entry of a channel that a kernel offset of a window reads; None in the padding."""
    dilation = (1,) * len(at) if isinstance(op, AveragePool) else op.dilation
    place = [a * s + k * d - p[0] for a, s, k, d, p in zip(at, op.stride, offset, dilation, op.padding, strict=True)]
    inside = all(0 <= q < n for q, n in zip(place, x.shape[2:], strict=True))
    return x[(0, channel, *place)] if inside else None


def _out_space(x: Entries, op: Conv | AveragePool | MaxPool, kernel: Sequence[int], dilation: Sequence[int]) -> list[int]:
    return [
        (n + sum(p) - d * (k - 1) - 1) // s + 1
        for n, p, d, k, s in zip(x.shape[2:], op.padding, dilation, kernel, op.stride, strict=True)
    ]


def _conv(op: Conv, x: Entries) -> Entries:
    outputs, per_group, *kernel = op.weight.shape
    space = _out_space(x, op, kernel, op.dilation)
    result = np.empty((1, outputs, *space), dtype=object)
    for o, *at in product(*map(range, (outputs, *space))):
        first = (o * op.groups // outputs) * per_group
        terms = [_number(op.bias[o])]
        for c, *offset in product(*map(range, (per_group, *kernel))):
            cell = _cells(x, first + c, at, op, offset)
            if cell is not None:
                terms.append(_number(op.weight[(o, c, *offset)]) * cell)
        result[(0, o, *at)] = z3.Sum(terms)
    return result


def _windows(
    x: Entries, op: AveragePool | MaxPool, dilation: Sequence[int], combine: Callable[[list, tuple[int, ...]], object]
) -> Entries:
    space = _out_space(x, op, op.kernel, dilation)
    result = np.empty((1, x.shape[1], *space), dtype=object)
    for c, *at in product(*map(range, (x.shape[1], *space))):
        found = [_cells(x, c, at, op, offset) for offset in product(*map(range, op.kernel))]
        result[(0, c, *at)] = combine([cell for cell in found if cell is not None], tuple(at))
    return result


def _formula(formula: Formula, values: dict[str, Entries]) -> z3.BoolRef:
    match formula:
        case Atom():
            terms = [_number(t.coefficient) * values[t.value].ravel()[t.index] for t in formula.terms]
            total = z3.Sum([*terms, _number(formula.bias)])
            return total < 0 if formula.strict else total <= 0
        case And():
            return z3.And([_formula(part, values) for part in formula.parts])
        case Or():
            return z3.Or([_formula(part, values) for part in formula.parts])
