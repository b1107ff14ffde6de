"""Polytopes of the last hidden layer: clauses whose literals, weighed and added, give every margin (METHODS 4 and 7).

Peeling with boxes adds up the worst of every neuron, but neurons of one layer move together: sums and differences of two or
three of them spread less than they do alone. Here a body is a polytope of such forms around the samples of a class, each
threshold at the lowest sample or a little below; while the forms do not add up to every rival's margin, the samples whose
removal gains most go; then the forms that no margin needs are dropped. The verifier proves the clause afterwards.
"""

import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from specmine.errors import BadData
from specmine.predicates.predicate import Predicate
from specmine.predicates.rounding import shorten
from specmine.rules.clause import HornClause
from specmine.rules.margins import Margins
from specmine.rules.peel import Readout
from specmine.tracing.trace import Trace, column
from verifier.ops import Array, Relu

_MOST_FORMS = 4000
_MOST_SAMPLES = 2000
_PEEL_SHARE = 0.05
_SPARE = 1e-3
_IN_FRONT = 8


@dataclass(frozen=True, eq=False)
class _Layer:
    """What is known of one class: values (samples, neurons) of its samples, and the margins to keep."""

    values: Array
    goals: Array
    offsets: Array
    floor: bool


def polytopes(
    trace: Trace,
    readout: Readout,
    *,
    label: int,
    rows: NDArray[np.bool_] | NDArray[np.int64],
    clauses: int = 4,
    room: float = 0.5,
    timeout_s: float = 30.0,
    seed: int = 0,
) -> list[HornClause]:
    """At most `clauses` clauses for class(label), each over the samples `rows` that the ones before leave uncovered.

    room: how far below the lowest sample a threshold lies, in standard deviations of its form over the samples: room for new
    samples. Ends early where no sample is left, none can be covered, or the time is over. Raises BadData for a label that is
    no class of the read-out, or a count below 1.
    """
    classes = len(readout.bias)
    if classes < 2 or not 0 <= label < classes or clauses < 1:
        raise BadData(f"label must be one of 0 to {classes - 1} and clauses at least 1, got {label} and {clauses}")
    end = time.monotonic() + timeout_s
    values = column(trace, readout.site)[rows]
    generator = np.random.default_rng(seed)
    if len(values) > _MOST_SAMPLES:
        values = values[np.sort(generator.choice(len(values), _MOST_SAMPLES, replace=False))]
    if len(values) < 2:
        return []
    rivals = [rival for rival in range(classes) if rival != label]
    producer = trace.sites.network.producers.get(trace.sites.value(readout.site))
    floor = producer is not None and isinstance(producer.op, Relu)
    layer = _Layer(values, readout.weight[label] - readout.weight[rivals], readout.bias[label] - readout.bias[rivals], floor)
    forms = _forms(layer, room)
    left = np.ones(len(values), dtype=bool)
    found: list[HornClause] = []
    while len(found) < clauses and left.any() and time.monotonic() < end:
        body = _body(layer, forms, left, room, end)
        if body is None:
            break
        chosen, thresholds = body
        covered = (values @ chosen.T >= thresholds).all(axis=1)
        if not (covered & left).any():
            break
        literals = [_literal(readout.site, form, t) for form, t in zip(chosen, thresholds.tolist(), strict=True)]
        found.append(HornClause(Predicate("class", (label,)), tuple(literals)))
        left &= ~covered
    return found


def _forms(layer: _Layer, room: float) -> Array:
    """Forms (forms, neurons): every neuron and chosen pairs with both signs, and the triples that a first look finds useful."""
    pairs = _pairs(layer.values)
    margins = _first_look(layer, pairs, room)
    triples = _triples(pairs[margins.used])
    if not len(triples):
        return pairs
    everything = np.vstack([pairs, triples])
    used = _first_look(layer, everything, room).used
    return np.vstack([pairs, everything[used[used >= len(pairs)]]])


def _first_look(layer: _Layer, forms: Array, room: float) -> Margins:
    margins = Margins(forms, layer.goals, layer.offsets, layer.floor)
    margins.solve(_thresholds(layer.values @ forms.T, room))
    return margins


def _thresholds(values: Array, room: float, spread: Array | None = None) -> Array:
    """Thresholds (forms,) a little below the lowest of the values (samples, forms)."""
    return np.asarray(values.min(axis=0) - room * (values.std(axis=0) if spread is None else spread))


def _pairs(values: Array) -> Array:
    """Single neurons and pairs, both signs each: all pairs of a small layer, else those that spread least for their parts."""
    neurons = values.shape[1]
    covariance = np.atleast_2d(np.cov(values, rowvar=False))
    deviation = np.sqrt(np.diag(covariance))
    first, second = np.triu_indices(neurons, 1)
    both = deviation[first] + deviation[second]
    shared = np.abs(covariance[first, second])
    gain = both - np.sqrt(np.maximum(deviation[first] ** 2 + deviation[second] ** 2 - 2 * shared, 0))
    most = max(0, _MOST_FORMS - 2 * neurons) // 4
    kept = np.sort(np.argsort(-gain, kind="stable")[:most])
    unit = np.eye(neurons)
    parts = [unit, -unit]
    for one, other in ((1, 1), (1, -1), (-1, 1), (-1, -1)):
        parts.append(one * unit[first[kept]] + other * unit[second[kept]])
    return np.vstack(parts)


def _triples(forms: Array) -> Array:
    """Sums of two neurons against a third that add one neuron to a given pair; none twice, at most so many."""
    neurons = forms.shape[1]
    found: dict[tuple[int, ...], None] = {}
    for form in forms.astype(int):
        if np.abs(form).sum() != 2:
            continue
        for neuron in np.flatnonzero(form == 0).tolist():
            signs = (1, -1) if form.sum() == 0 else (-int(np.sign(form.sum())),)
            for sign in signs:
                triple = form.copy()
                triple[neuron] = sign
                found[tuple(triple.tolist())] = None
    return np.array(list(found)[:_MOST_FORMS], dtype=np.float64).reshape(-1, neurons)


def _body(layer: _Layer, forms: Array, left: NDArray[np.bool_], room: float, end: float) -> tuple[Array, Array] | None:
    """Forms (literals, neurons) with thresholds (literals,) that add up to every margin; None where none are found."""
    values = layer.values @ forms.T
    spread = values.std(axis=0)
    margins = Margins(forms, layer.goals, layer.offsets, layer.floor)
    spare = _SPARE * float(np.abs(layer.goals @ layer.values.T).mean())
    thresholds = _peeled(values, spread, margins, np.flatnonzero(left), room, spare, end)
    if thresholds is None:
        return None
    used = margins.used  # programs of these alone are far smaller
    forms, thresholds = forms[used], thresholds[used]
    margins = Margins(forms, layer.goals, layer.offsets, layer.floor)
    margins.solve(thresholds)
    chosen = _needed(margins, spread[used], spare, end)
    forms, thresholds = forms[chosen], thresholds[chosen]
    rounded = np.array([shorten(t, down=True) for t in thresholds.tolist()])
    if Margins(forms, layer.goals, layer.offsets, layer.floor).solve(rounded) > spare / 2:
        thresholds = rounded
    return forms, thresholds


def _peeled(
    values: Array, spread: Array, margins: Margins, kept: NDArray[np.int64], room: float, spare: float, end: float
) -> Array | None:
    """Thresholds (forms,) for as many of the kept samples as the margins allow; None where they allow none."""
    scale = float(np.abs(margins.goals).sum(axis=1).max() * spread.max()) + spare + 1e-300
    while len(kept) and time.monotonic() < end:
        inside = values[kept]
        thresholds = _thresholds(inside, room, spread)
        least = margins.solve(thresholds)
        if least > spare:
            return thresholds
        if len(kept) == 1 or not np.isfinite(least):
            return None
        deficit = np.maximum(spare - margins.margins, 0)
        lowest, second = np.partition(inside, 1, axis=0)[:2]
        price = (deficit @ margins.multipliers) * (second - lowest)
        gain = np.bincount(inside.argmin(axis=0), weights=price, minlength=len(inside))
        count = max(1, int(len(kept) * _PEEL_SHARE * float(deficit.max() / (deficit.max() + scale))))
        kept = np.delete(kept, np.argsort(-gain, kind="stable")[:count])
    return None


def _needed(margins: Margins, spread: Array, spare: float, end: float) -> NDArray[np.int64]:
    """Forms that no margin can spare together, found by dropping those that carry least first, several at a time."""
    order = np.argsort((margins.multipliers * spread).max(axis=0), kind="stable")
    size = max(1, len(order) // _IN_FRONT)
    while time.monotonic() < end:
        place = 0
        while place < len(order) and time.monotonic() < end:
            some = order[place : place + size]
            if margins.without(some, least=spare):
                order = np.delete(order, slice(place, place + size))
            else:
                place += size
        if size == 1:
            break
        size //= 2
    return np.sort(order)


def _literal(site: str, form: Array, threshold: float) -> Predicate:
    """The literal form >= threshold."""
    plus, minus = np.flatnonzero(form > 0).tolist(), np.flatnonzero(form < 0).tolist()
    least, most = threshold, 0.0 - threshold
    match len(plus), len(minus):
        case 1, 0:
            return Predicate("above", (site, plus[0], least))
        case 0, 1:
            return Predicate("inactive", (site, minus[0])) if most == 0 else Predicate("below", (site, minus[0], most))
        case 2, 0:
            return Predicate("sum_above", (site, plus[0], site, plus[1], least))
        case 0, 2:
            return Predicate("sum_below", (site, minus[0], site, minus[1], most))
        case 1, 1:
            return Predicate("less_by", (site, minus[0], site, plus[0], least))
        case 2, 1:
            return Predicate("sum_over", (site, plus[0], site, plus[1], site, minus[0], least))
    return Predicate("sum_under", (site, minus[0], site, minus[1], site, plus[0], most))
