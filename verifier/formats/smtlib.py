"""A query as SMT-LIB 2.6 text: exact rationals, satisfiable exactly if some input of the region meets the assertion.

The logic is QF_LRA; with products, powers or reciprocals QF_NRA, with floors QF_LIRA or QF_NIRA. Transcendental functions have
no place in any of them. SMT-LIB leaves 1 / 0 open, so where a reciprocal may meet 0 only `unsat` is an answer.

Each entry v[i] that the assertion depends on is one constant, written |v[i]| with i in C order, and one assertion that
defines it; the text grows linearly with the weights that count.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from functools import lru_cache
from itertools import product
from typing import TypeAlias

import numpy as np

from verifier.errors import BadQuery, UnsupportedOp
from verifier.formula import Atom, Formula, Or, at_least, at_most, atoms_of
from verifier.network import Network, Node, mask_nodes
from verifier.ops import (
    LARGEST_UNDER_MASK,
    TRANSCENDENTAL_OPS,
    AveragePool,
    Concat,
    Conv,
    Floor,
    LeakyRelu,
    Linear,
    MaxPool,
    Op,
    Power,
    Product,
    Reciprocal,
    Relu,
    Reshape,
    Scale,
    Select,
    Shape,
    Sign,
    Sum,
    Transpose,
)
from verifier.query import Query
from verifier.region import constraints, exact_bounds

# An entry of a value, and a linear form over entries: coefficients and a bias.
Entry: TypeAlias = tuple[str, int]
Form: TypeAlias = tuple[dict[Entry, Fraction], Fraction]
Text: TypeAlias = Callable[[Entry], str]

STATUSES = ("sat", "unsat", "unknown")
NONLINEAR_OPS = (Product, Power, Reciprocal)
EACH_OPS = (Relu, LeakyRelu, Power, Reciprocal, Sign, Floor)
"""Functions of one entry that are no linear form."""


def smtlib(query: Query, *, header: Sequence[str] = (), status: str | None = None) -> str:
    """The query as one SMT-LIB script with one `(check-sat)`: sat if refuted, unsat if proved. Where the network has masks it
    also asks for values that are not small against them, so that sat may mean these.

    header: comment lines at the top. status: what is known of the answer (sat, unsat, unknown), as `:status`.
    Raises BadQuery for another status, and UnsupportedOp where the assertion depends on a transcendental function.
    """
    if status is not None and status not in STATUSES:
        raise BadQuery(f"status must be one of {', '.join(STATUSES)}, got {status!r}; leave it out where nothing is known")
    query = beside_masks(query)
    lines = [f"; {line}".rstrip() for text in header for line in (text.splitlines() or [""])]
    logic = _logic(query)
    lines += ["(set-info :smt-lib-version 2.6)", f"(set-logic {logic})"]
    lines += [f"(set-info :status {status})"] if status else []
    body = map(_with_decimals, _body(query)) if logic.endswith("IRA") else _body(query)
    return "\n".join([*lines, *body, "(check-sat)", ""])


def beside_masks(query: Query) -> Query:
    """The query, satisfied also where a value is not small against a mask (see `mask_nodes`), so that unsat is of the model."""
    network = query.network
    reads = {node.inputs[0] for node in mask_nodes(network)}
    entries = [(value, index) for value in network.shapes if value in reads for index in range(network.size(value))]
    large = (
        side
        for value, index in entries
        for side in (at_least(value, index, LARGEST_UNDER_MASK), at_most(value, index, -LARGEST_UNDER_MASK))
    )
    return replace(query, assertion=Or((query.assertion, *large))) if entries else query


def _with_decimals(line: str) -> str:
    """Whole numbers as decimals, since beside integers a plain numeral is one of them; quoted symbols are left alone."""
    return re.sub(r"\|[^|]*\||\b\d+\b", lambda found: found[0] if found[0][0] == "|" else f"{found[0]}.0", line)


def _logic(query: Query) -> str:
    """The smallest logic with all that the assertion depends on."""
    needed = cone(query)
    nodes = [node for node in query.network.nodes if node.output in needed]
    for node in nodes:
        if isinstance(node.op, TRANSCENDENTAL_OPS):
            raise UnsupportedOp(type(node.op).__name__, node.output, "SMT-LIB's arithmetic has no transcendental functions")
    power = "N" if any(isinstance(node.op, NONLINEAR_OPS) for node in nodes) else "L"
    return f"QF_{power}{'IRA' if any(isinstance(node.op, Floor) for node in nodes) else 'RA'}"


def cone(query: Query) -> Mapping[str, list[int]]:
    """The entries that the assertion and the region's constraints depend on, by value name, sorted."""
    needed: dict[str, set[int]] = {}
    for part in (*constraints(query.region), *atoms_of(query.assertion)):
        for term in part.terms:
            needed.setdefault(term.value, set()).add(term.index)
    for node in reversed(query.network.nodes):
        for index in needed.get(node.output, ()):
            for value, entry in parents(query.network, node, index):
                needed.setdefault(value, set()).add(entry)
    return {name: sorted(needed[name]) for name in query.network.shapes if name in needed}


@lru_cache(maxsize=16)
def symbols(network: Network) -> Mapping[str, str]:
    """The name of each value inside a quoted symbol, where bars, backslashes and control characters cannot stand."""
    used: dict[str, str] = {}
    taken: set[str] = set()
    for name in network.shapes:
        safe = "".join("_" if c in "|\\" or not c.isprintable() else c for c in name)
        while safe in taken:
            safe += "'"
        used[name] = safe
        taken.add(safe)
    return used


def _body(query: Query) -> Iterator[str]:
    network, needed, names = query.network, cone(query), symbols(query.network)
    lower, upper = exact_bounds(query.region)

    def text(entry: Entry) -> str:
        return f"|{names[entry[0]]}[{entry[1]}]|"

    for name, indices in needed.items():
        yield from (f"(declare-const {text((name, index))} Real)" for index in indices)
    for index in needed.get(network.input, ()):
        x = text((network.input, index))
        yield f"(assert (and (<= {rational(lower[index])} {x}) (<= {x} {rational(upper[index])})))"
    for node in network.nodes:
        for index in needed.get(node.output, ()):
            yield f"(assert (= {text((node.output, index))} {_definition(network, node, index)}))"
    for part in constraints(query.region):
        yield f"(assert {_formula(part, text)})"
    yield f"(assert {_formula(query.assertion, text)})"


@lru_cache(maxsize=1 << 16)
def _definition(network: Network, node: Node, index: int) -> str:
    """The term that one entry equals; kept, since a network is often written many times, once for each claim about it."""
    names = symbols(network)

    def text(entry: Entry) -> str:
        return f"|{names[entry[0]]}[{entry[1]}]|"

    match node.op:
        case Relu():
            z = text((node.inputs[0], index))
            return f"(ite (>= {z} 0) {z} 0)"
        case LeakyRelu(slope=slope):
            z = text((node.inputs[0], index))
            return f"(ite (>= {z} 0) {z} {_sum({(node.inputs[0], index): Fraction(slope)}, Fraction(0), text)})"
        case Product() | Power():
            factors = [text(entry) for entry in _factors(node, index)]
            return f"(* {' '.join(factors)})"
        case Reciprocal():
            return f"(/ 1 {text((node.inputs[0], index))})"
        case Sign():
            z = text((node.inputs[0], index))
            return f"(ite (> {z} 0) 1 (ite (< {z} 0) (- 1) 0))"
        case Floor():
            return f"(to_real (to_int {text((node.inputs[0], index))}))"
        case MaxPool():
            return _maximum([text(entry) for entry in parents(network, node, index)])
        case _:
            return _sum(*linear_form(network, node, index), text)


def _factors(node: Node, index: int) -> list[Entry]:
    if isinstance(node.op, Power):
        return [(node.inputs[0], index)] * node.op.exponent
    return [(name, index) for name in node.inputs]


def _maximum(terms: list[str]) -> str:
    """Nested lets, so that the text stays linear in the number of terms."""
    opened, best = "", terms[0]
    for place, term in enumerate(terms[1:]):
        opened += f"(let ((m{place} (ite (>= {best} {term}) {best} {term}))) "
        best = f"m{place}"
    return opened + best + ")" * (len(terms) - 1)


def _sum(terms: Mapping[Entry, Fraction], bias: Fraction, text: Text) -> str:
    parts = [_product(coefficient, text(entry)) for entry, coefficient in terms.items() if coefficient]
    if bias or not parts:
        parts.append(rational(bias))
    return parts[0] if len(parts) == 1 else f"(+ {' '.join(parts)})"


def _product(coefficient: Fraction, symbol: str) -> str:
    if abs(coefficient) == 1:
        return symbol if coefficient > 0 else f"(- {symbol})"
    return f"(* {rational(coefficient)} {symbol})"


def _formula(formula: Formula, text: Text) -> str:
    if isinstance(formula, Atom):
        left = _sum({(t.value, t.index): t.coefficient for t in formula.terms}, Fraction(0), text)
        return f"({'<' if formula.strict else '<='} {left} {rational(-formula.bias)})"
    word, nothing = ("or", "false") if isinstance(formula, Or) else ("and", "true")
    parts = [_formula(part, text) for part in formula.parts]
    if len(parts) < 2:
        return parts[0] if parts else nothing
    return f"({word} {' '.join(parts)})"


def rational(value: Fraction) -> str:
    """An exact constant of sort Real.

    >>> rational(Fraction(-1, 3))
    '(- (/ 1 3))'
    """
    if value < 0:
        return f"(- {rational(-value)})"
    return str(value.numerator) if value.denominator == 1 else f"(/ {value.numerator} {value.denominator})"


def is_each(op: Op) -> bool:
    """Whether an entry of the result is a function, other than a linear form, of the input's entry at the same place."""
    return isinstance(op, (*EACH_OPS, *TRANSCENDENTAL_OPS))


def parents(network: Network, node: Node, index: int) -> list[Entry]:
    """The entries that one entry of a node's output is computed from; those with weight 0 are left out."""
    match node.op:
        case _ if is_each(node.op):
            return [(node.inputs[0], index)]
        case Product():
            return _factors(node, index)
        case Linear(weight=weight):
            row, column = divmod(index, len(weight))
            return [(node.inputs[0], row * weight.shape[1] + k) for k in np.flatnonzero(weight[column]).tolist()]
        case MaxPool():
            op, shape = node.op, network.shapes[node.inputs[0]]
            places = _places(network.shapes[node.output], index)
            window = _window(shape, places[2:], op.kernel, op.stride, op.padding, op.dilation)
            return [(node.inputs[0], _flat(shape, (0, places[1], *at))) for _, at in window]
        case _:
            return list(linear_form(network, node, index)[0])


def linear_form(network: Network, node: Node, index: int) -> Form:
    """One entry of a linear operator's output as an exact linear form over its inputs' entries."""
    shapes = [network.shapes[name] for name in node.inputs]
    source, out_shape = node.inputs[0], network.shapes[node.output]
    match node.op:
        case Linear(weight=weight, bias=bias):
            row, column = divmod(index, len(bias))
            first = row * weight.shape[1]
            used = {(source, first + int(k)): Fraction(float(weight[column, k])) for k in np.flatnonzero(weight[column])}
            return used, Fraction(float(bias[column]))
        case Conv():
            return _conv_form(node.op, source, shapes[0], out_shape, index)
        case AveragePool():
            places = _places(out_shape, index)
            share = 1 / Fraction(float(node.op.divisor[places[2:]]))
            window = _window(shapes[0], places[2:], node.op.kernel, node.op.stride, node.op.padding, (1,) * len(node.op.kernel))
            return {(source, _flat(shapes[0], (0, places[1], *at))): share for _, at in window}, Fraction(0)
        case Scale(factor=factor, offset=offset):
            places = _places(out_shape, index)
            a, b = (float(np.broadcast_to(array, out_shape)[places]) for array in (factor, offset))
            return ({(source, index): Fraction(a)} if a else {}), Fraction(b)
        case Sum(coefficients=coefficients):
            total: dict[Entry, Fraction] = {}
            for name, c in zip(node.inputs, coefficients, strict=True):
                total[name, index] = total.get((name, index), Fraction(0)) + Fraction(c)
            return {entry: c for entry, c in total.items() if c}, Fraction(0)
        case Reshape():
            return {(source, index): Fraction(1)}, Fraction(0)
        case Transpose(permutation=permutation):
            by_axis = dict(zip(permutation, _places(out_shape, index), strict=True))
            return {(source, _flat(shapes[0], [by_axis[axis] for axis in range(len(by_axis))])): Fraction(1)}, Fraction(0)
        case Concat(axis=axis):
            return {_joined(node.inputs, shapes, axis, _places(out_shape, index)): Fraction(1)}, Fraction(0)
        case Select(indices=indices):
            chosen = int(indices[index])
            return ({(source, chosen): Fraction(1)} if chosen >= 0 else {}), Fraction(0)
        case _:
            raise AssertionError(f"{type(node.op).__name__} is not linear")


def _conv_form(op: Conv, source: str, shape: Shape, out_shape: Shape, index: int) -> Form:
    _, channel, *position = _places(out_shape, index)
    group = channel // (op.weight.shape[0] // op.groups)
    width = op.weight.shape[1]
    used: dict[Entry, Fraction] = {}
    window = list(_window(shape, position, op.weight.shape[2:], op.stride, op.padding, op.dilation))
    for k, (offset, at) in product(range(width), window):
        weight = float(op.weight[(channel, k, *offset)])
        if weight:
            used[source, _flat(shape, (0, group * width + k, *at))] = Fraction(weight)
    return used, Fraction(float(op.bias[channel]))


def _window(
    shape: Shape, position: Sequence[int], kernel: Shape, stride: Shape, padding: tuple[tuple[int, int], ...], dilation: Shape
) -> Iterator[tuple[Shape, Shape]]:
    """Kernel offset and input position of each place of a window that is not padding."""
    for offset in product(*map(range, kernel)):
        steps = zip(position, stride, padding, offset, dilation, strict=True)
        at = tuple(p * s - before + k * d for p, s, (before, _), k, d in steps)
        if all(0 <= a < n for a, n in zip(at, shape[2:], strict=True)):
            yield offset, at


def _joined(inputs: Sequence[str], shapes: Sequence[Shape], axis: int, places: Shape) -> Entry:
    at = list(places)
    for name, shape in zip(inputs, shapes, strict=True):
        if at[axis] < shape[axis]:
            return name, _flat(shape, at)
        at[axis] -= shape[axis]
    raise AssertionError("an index past the end of the joined axis")


def _places(shape: Shape, index: int) -> tuple[int, ...]:
    return tuple(int(place) for place in np.unravel_index(index, shape))


def _flat(shape: Shape, places: Sequence[int]) -> int:
    return int(np.ravel_multi_index(tuple(places), shape))
