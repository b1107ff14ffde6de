"""Bodies one layer earlier: for a literal of a layer, boxes of the layer before on which it holds (METHODS 6).

Between two neighbouring layers a literal is a few linear inequalities over the earlier one, so a box of earlier values implies
it by one line of arithmetic, whatever the input, as in peeling. Several boxes for each literal, since a chain needs one for
every literal of a clause, whichever. The verifier proves each of these small clauses afterwards; nothing is taken on trust.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import combinations
from typing import assert_never

import numpy as np
from numpy.typing import NDArray

from specmine.predicates.families import denote
from specmine.predicates.predicate import Predicate
from specmine.rules.boxes import Rivals, Sides, margins
from specmine.rules.clause import HornClause
from specmine.rules.peel import Readout, peel
from specmine.rules.reduce import limits_of, reduce_literals
from specmine.tracing.sites import Sites
from specmine.tracing.trace import Trace
from verifier.evaluate import evaluate
from verifier.formula import And, Atom, Formula, Or
from verifier.network import Network
from verifier.ops import LINEAR_OPS, Array, Relu

MAX_WEIGHTS = 20_000_000
_MAX_TERMS = 4  # a sum of so many ReLUs is at most c where each part of it is: 2 ** terms inequalities
_SLACK = 1e-4


@dataclass(frozen=True, eq=False)
class Step:
    """From a site to a later one: z = weight h + bias, and the later values are z, or relu(z) where rectified.

    weight: (later neurons, neurons). reach: what the earlier values can be at all over the region.
    """

    site: str
    later: str
    weight: Array
    bias: Array
    rectified: bool
    reach: Sides


def step_between(sites: Sites, site: str, later: str, reach: Sides) -> Step | None:
    """The step from one site to another; None where more than linear layers and one ReLU lie between them."""
    network, start, end = sites.network, sites.value(site), sites.value(later)
    nodes, linear = [], {start}
    for node in network.nodes:
        if isinstance(node.op, LINEAR_OPS) and set(node.inputs) <= linear and node.output not in linear:
            nodes.append(node)
            linear.add(node.output)
    producer = network.producers.get(end)
    rectified = end not in linear and producer is not None and isinstance(producer.op, Relu)
    source = producer.inputs[0] if rectified and producer is not None else end
    neurons = network.size(start)
    if source not in linear or source == start or neurons * network.size(source) > MAX_WEIGHTS:
        return None
    part = Network(start, network.shapes[start], tuple(nodes), source)
    points = np.concatenate([np.zeros((1, neurons)), np.eye(neurons)])
    values = evaluate(part, points, keep={source})[source].flatten(1).numpy()
    return Step(site, later, (values[1:] - values[0]).T, values[0], rectified, reach)


@dataclass(frozen=True)
class Inequality:
    """sum of coefficient * z[index] + bias < 0, over the values before the activation."""

    terms: tuple[tuple[int, float], ...]
    bias: float


def inequalities(literal: Predicate, step: Step, sites: Sites) -> list[Inequality] | None:
    """What must hold of z for a literal about the later site to hold; [] where it always holds, None where linear inequalities
    cannot say it.

    sound: relu(z) >= z and relu(z) >= 0, so a term of negative coefficient is at most that of z; a sum with positive ones is
    the largest of its sums with each of them replaced by z or by 0.
    """
    found: list[Inequality] = []
    for atom in _conjuncts(denote(literal, sites)):
        if atom is None or {term.value for term in atom.terms} - {sites.value(step.later)}:
            return None
        rows = _rows(atom, step.rectified)
        if rows is None:
            return None
        found += rows
    return found


def _conjuncts(formula: Formula) -> Iterator[Atom | None]:
    match formula:
        case Atom():
            yield formula
        case And(parts=parts):
            for part in parts:
                yield from _conjuncts(part)
        case Or():
            yield None
        case _:
            assert_never(formula)


def _rows(atom: Atom, rectified: bool) -> list[Inequality] | None:
    terms = [(term.index, term.coefficient) for term in atom.terms]
    if not rectified:
        return [_inequality(terms, atom.bias)]
    up, down = [t for t in terms if t[1] > 0], [t for t in terms if t[1] < 0]
    if len(up) > _MAX_TERMS:
        return None
    rows = []
    for size in range(len(up) + 1):
        for chosen in combinations(up, size):
            always = not chosen and (atom.bias < 0 or (atom.bias == 0 and not atom.strict))
            if not always:
                rows.append(_inequality([*chosen, *down], atom.bias))
    return rows


def _inequality(terms: Sequence[tuple[int, Fraction]], bias: Fraction) -> Inequality:
    return Inequality(tuple((index, float(coefficient)) for index, coefficient in terms), float(bias))


@dataclass(frozen=True, eq=False)
class _Needs:
    """Inequalities as margins over the earlier layer: slope (rows, neurons) times h plus offset (rows,) > 0."""

    slope: Array
    offset: Array

    def rivals(self, scale: Array) -> Rivals:
        slope, offset = self.slope, self.offset
        required = _SLACK * (np.abs(slope) @ scale + np.abs(offset))
        return Rivals(np.maximum(slope, 0), np.maximum(-slope, 0), offset, required)


def _needs(literal: Predicate, step: Step, sites: Sites) -> _Needs | None:
    rows = inequalities(literal, step, sites)
    if rows is None:
        return None
    slope, offset = np.zeros((len(rows), step.weight.shape[1])), np.zeros(len(rows))
    for place, row in enumerate(rows):
        for index, coefficient in row.terms:
            slope[place] -= coefficient * step.weight[index]
            offset[place] -= coefficient * step.bias[index]
        offset[place] -= row.bias
    return _Needs(slope, offset)


def bodies(
    literal: Predicate, step: Step, trace: Trace, rows: NDArray[np.bool_], *, count: int = 4, seed: int = 0
) -> list[tuple[HornClause, NDArray[np.bool_]]]:
    """Clauses that derive one literal of the step's later site from its earlier one, each with the samples it holds on.

    trace: holds the values of the earlier site; rows: (samples,) those to be covered, on which the literal holds. At most
    `count` clauses, each from a box that holds some of the samples that the ones before leave uncovered, and then as few of its
    sides as imply the literal. None where no linear inequalities of the step say the literal, or no sample can be covered.
    """
    needs = _needs(literal, step, trace.sites)
    if needs is None or not rows.any():
        return []
    values = trace.values[step.site]
    if not len(needs.offset):
        return [(HornClause(literal, ()), np.ones(len(values), dtype=bool))]
    # One class more than inequalities, the first of which is to be the largest: peeling with these as margins.
    zero = np.zeros((1, step.weight.shape[1]))
    readout = Readout(step.site, np.concatenate([zero, -needs.slope]), np.concatenate([[0.0], -needs.offset]))
    reach, scale, left = step.reach, np.abs(values[rows]).max(axis=0), rows.copy()
    found: list[tuple[HornClause, NDArray[np.bool_]]] = []
    while len(found) < count and left.any():
        made = peel(
            trace,
            readout,
            label=0,
            rows=left,
            clauses=1,
            lower=reach.lower,
            upper=reach.upper,
            slack=2 * _SLACK,
            smoothing=0.0,
            seed=seed,
        )
        if not made:
            break
        sides = [side for literal in made[0].body for side in _halves(literal)]
        body = reduce_literals(_fewest(sides, needs.rivals(scale), reach))
        held = _inside(values, body)
        found.append((HornClause(literal, tuple(body)), held))
        left &= ~held
    return found


def _inside(values: Array, body: Sequence[Predicate]) -> NDArray[np.bool_]:
    held = np.ones(len(values), dtype=bool)
    for literal in body:
        limits = limits_of(literal)
        assert limits is not None
        column = values[:, int(literal.arguments[1])]
        held &= (column >= limits.lower) & (column <= limits.upper)
    return held


def _halves(literal: Predicate) -> list[Predicate]:
    if literal.form != "within":
        return [literal]
    site, neuron, low, high = literal.arguments
    return [Predicate("above", (site, neuron, low)), Predicate("below", (site, neuron, high))]


def _fewest(sides: Sequence[Predicate], rivals: Rivals, reach: Sides) -> list[Predicate]:
    """As few sides as keep every margin positive: those that gain most first; of one margin alone, no fewer would do."""
    left = margins(rivals, reach)
    gains = {side: _gain(side, rivals, reach) for side in sides}
    chosen: list[Predicate] = []
    while left.min() <= 0 and gains:
        short = np.maximum(-left, 0)
        best = max(gains, key=lambda side: float(np.minimum(gains[side], short).sum()))
        left = left + gains.pop(best)
        chosen.append(best)
    return chosen


def _gain(side: Predicate, rivals: Rivals, reach: Sides) -> Array:
    """What a side adds to each margin (rows,), beyond what the reach of its neuron gives."""
    limits, neuron = limits_of(side), int(side.arguments[1])
    assert limits is not None
    low, high = max(limits.lower - reach.lower[neuron], 0.0), max(reach.upper[neuron] - limits.upper, 0.0)
    return np.asarray(rivals.lower[:, neuron] * low + rivals.upper[:, neuron] * high)
