"""Polytopes of the last hidden layer: clauses whose literals, weighed and added, give every margin (METHODS 4 and 7).

Peeling with boxes adds up the worst of every neuron, but neurons of one layer move together: sums and differences of two or
three of them spread less than they do alone. Here a body is a polytope around samples of a class: of the neurons that matter
most to the margins all small forms may be literals, of the others each by itself. While the forms do not add up to every
rival's margin, the samples that cost most go; then the thresholds are moved to hold as many samples as the margins allow, in
turns with the multipliers. The verifier proves the clause afterwards.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from specmine.errors import BadData
from specmine.predicates.predicate import Predicate
from specmine.rules.clause import HornClause
from specmine.rules.forms import count_forms, literal_of, small_forms
from specmine.rules.growing import Prices, Reach, rounded, smoothed, stretched, without_dearest
from specmine.rules.margins import Margins
from specmine.rules.peel import Readout
from specmine.tracing.trace import Trace, column
from verifier.ops import Array, Relu

_MOST_SAMPLES = 6000
_MOST_ENTRIES = 40_000_000
_MOST_NEURONS = 32
_SMOOTHED_ROWS = 1500
_PEEL_SHARE = 0.1
_SPARE = 1e-3
_TURNS = 4
_TRIED = 1
_PATIENCE = 2
_LEAST_WIDTH = 0.05
_IN_FRONT = 8
_USED = 1e-9
_FLOAT32 = 1e-5  # of a form's deviation: room for the rounding of its values

Rows = NDArray[np.bool_] | NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class _Body:
    """forms: (literals, neurons), each at least its threshold (literals,)."""

    forms: Array
    thresholds: Array

    def holds(self, values: Array) -> NDArray[np.bool_]:
        """Which rows (samples,) of values (samples, neurons) satisfy every literal."""
        return np.asarray((values @ self.forms.T >= self.thresholds).all(axis=1), dtype=np.bool_)


@dataclass(frozen=True, eq=False)
class _Class:
    """What is known of one class: values (samples, neurons) of its samples, and the margins to keep; floor: whether every
    neuron is at least 0."""

    values: Array
    goals: Array
    offsets: Array
    floor: bool

    @cached_property
    def spare(self) -> float:
        """What must be left of every margin for the rounding of a later proof."""
        return _SPARE * float(np.abs(self.goals @ self.values.T + self.offsets[:, None]).mean())


def polytopes(
    trace: Trace,
    readout: Readout,
    *,
    label: int,
    rows: Rows,
    holdout: Array | None = None,
    clauses: int = 4,
    rooms: Sequence[float] = (0.0, 0.5, 1.0),
    timeout_s: float = 30.0,
    seed: int = 0,
) -> list[HornClause]:
    """At most `clauses` clauses for class(label), each over the samples `rows` that the ones before leave uncovered.

    holdout: values (samples, neurons) of the site on other samples of the class, of which each clause must cover some that the
    ones before leave; without them, the samples themselves. rooms: how far below the lowest sample a threshold should lie, in
    standard deviations of its form: room for new samples; of the first clauses of each those that cover more of the hold-out
    are taken, and further ones have the room of the best. Ends early where no sample is left, none can be covered, or the time
    is over. Raises BadData for a label that is no class of the read-out, or a count below 1.
    """
    classes = len(readout.bias)
    if classes < 2 or not 0 <= label < classes or clauses < 1:
        raise BadData(f"label must be one of 0 to {classes - 1} and clauses at least 1, got {label} and {clauses}")
    end = time.monotonic() + timeout_s
    known = _class_of(trace, readout, label, rows)
    if len(known.values) < 2:
        return []
    judged = known.values if holdout is None or not len(holdout) else holdout
    tried, share = {}, (end - time.monotonic()) / (len(rooms) + 1)
    for room in rooms:
        tried[room] = _bodies(known, judged, [], room, min(clauses, _TRIED), time.monotonic() + share, seed)
    first, room = _useful(known, judged, tried, clauses)
    return [_clause(readout.site, label, body) for body in _bodies(known, judged, first, room, clauses, end, seed)]


def _useful(known: _Class, judged: Array, tried: Mapping[float, Sequence[_Body]], clauses: int) -> tuple[list[_Body], float]:
    """Of bodies by their room those that cover most of `judged`, each with what the ones before leave; and the room of the
    first."""
    pool = [(room, body, body.holds(judged), body.holds(known.values)) for room, made in tried.items() for body in made]
    if not pool:
        return [], next(iter(tried))
    chosen: list[_Body] = []
    left, left_known, best_room = np.ones(len(judged), dtype=bool), np.ones(len(known.values), dtype=bool), pool[0][0]
    while len(chosen) < clauses:
        room, body, holds, holds_known = max(pool, key=lambda one: ((one[2] & left).sum(), (one[3] & left_known).sum()))
        if not (holds & left).any():
            break
        best_room = best_room if chosen else room
        chosen.append(body)
        left, left_known = left & ~holds, left_known & ~holds_known
    return chosen, best_room


def _class_of(trace: Trace, readout: Readout, label: int, rows: Rows) -> _Class:
    values = column(trace, readout.site)[rows]
    rivals = [rival for rival in range(len(readout.bias)) if rival != label]
    producer = trace.sites.network.producers.get(trace.sites.value(readout.site))
    floor = producer is not None and isinstance(producer.op, Relu)
    return _Class(values, readout.weight[label] - readout.weight[rivals], readout.bias[label] - readout.bias[rivals], floor)


def _covered(bodies: Sequence[_Body], values: Array) -> NDArray[np.bool_]:
    covered = np.zeros(len(values), dtype=bool)
    for body in bodies:
        covered |= body.holds(values)
    return covered


def _bodies(
    known: _Class, judged: Array, begun: Sequence[_Body], room: float, clauses: int, end: float, seed: int
) -> list[_Body]:
    """Bodies after those begun, until there are so many, or several in a row cover nothing new of `judged`."""
    generator = np.random.default_rng([seed, len(begun)])
    bodies, useful = list(begun), len(begun)
    left, left_judged = ~_covered(begun, known.values), ~_covered(begun, judged)
    while len(bodies) < clauses and useful + _PATIENCE > len(bodies) and left.any() and time.monotonic() < end:
        body = _body(known, np.flatnonzero(left), room, end, generator)
        if body is None or not (body.holds(known.values) & left).any():
            break
        bodies.append(body)
        left &= ~body.holds(known.values)
        new = left_judged & body.holds(judged)
        left_judged &= ~new
        useful = len(bodies) if new.any() else useful
    return bodies[: max(useful, 1)]


def _body(known: _Class, left: NDArray[np.int64], room: float, end: float, generator: np.random.Generator) -> _Body | None:
    """A body that holds many of the samples left; None where none is found in time."""
    if len(left) > _MOST_SAMPLES:
        left = np.sort(generator.choice(left, _MOST_SAMPLES, replace=False))
    layer = _layer(known, left)
    found = _peeled(layer, room, end)
    if found is not None:
        layer, thresholds = _thinned(layer, found, end)
        found = _weighed(layer, thresholds)
    best, most = found, 0
    for turn in range(_TURNS):
        if found is None or found.prices.left(found.thresholds).min() <= 0:
            break
        last = turn == _TURNS - 1 or time.monotonic() > end
        moved = _moved(layer, found, max(room, _LEAST_WIDTH), generator, smooth=not last)
        holds = (layer.values[:, moved.forms] >= moved.thresholds).all(axis=1)
        if holds.sum() > most:
            best, most = moved, int(holds.sum())
        if last or not holds.any():
            break
        found = _weighed(layer, layer.values[holds].min(axis=0) - _FLOAT32 * layer.unit)
    return None if best is None else _written(layer, best)


@dataclass(frozen=True, eq=False)
class _Layer:
    """The forms of one body and their values (samples, forms) on the samples it is to hold.

    forms: (forms, neurons): small forms of some neurons, which `margins` weighs, then each other neuron with both signs, for
    which `others` (rivals, forms) are the only multipliers. unit: (forms,) deviations.
    """

    known: _Class
    forms: NDArray[np.int8]
    values: NDArray[np.float32]
    unit: Array
    margins: Margins
    others: Array

    @cached_property
    def single(self) -> NDArray[np.bool_]:
        """Which forms are one neuron."""
        return np.asarray(np.abs(self.forms).sum(axis=1) == 1, dtype=np.bool_)

    def reach(self, places: NDArray[np.int64]) -> Reach:
        """Between which values some of the forms always lie."""
        if not self.known.floor:
            return Reach(np.full(len(places), -np.inf), np.full(len(places), np.inf))
        signs = np.where(self.single, self.forms.sum(axis=1), 0)[places]
        return Reach(np.where(signs > 0, 0, -np.inf), np.where(signs < 0, 0, np.inf))

    def only(self, places: NDArray[np.int64], small: int) -> "_Layer":
        """The same with some of the forms, of which the first are so many small ones."""
        known = Margins(self.margins.forms[places[:small]], self.margins.goals, self.margins.offsets, self.known.floor)
        count = len(self.margins.forms)
        others = self.others[:, places[small:] - count]
        return _Layer(self.known, self.forms[places], self.values[:, places], self.unit[places], known, others)


@dataclass(frozen=True, eq=False)
class _Found:
    """The forms with multipliers, by place, their thresholds, and the prices of moving these."""

    forms: NDArray[np.int64]
    thresholds: Array
    prices: Prices


def _layer(known: _Class, rows: NDArray[np.int64]) -> _Layer:
    """The neurons that move the margins most get small forms, as many as memory allows."""
    values = known.values[rows]
    neurons = values.shape[1]
    together = min(neurons, _MOST_NEURONS)
    while together > 2 and count_forms(together) * len(rows) > _MOST_ENTRIES:
        together -= 1
    effect = np.abs(known.goals).max(axis=0) * values.std(axis=0)
    chosen = np.sort(np.argsort(-effect, kind="stable")[:together])
    rest = np.setdiff1d(np.arange(neurons), chosen)
    small, unit = small_forms(together), np.eye(neurons, dtype=np.int8)[rest]
    forms = np.zeros((len(small), neurons), dtype=np.int8)
    forms[:, chosen] = small
    forms = np.vstack([forms, unit, -unit])
    of_forms = np.hstack([values[:, chosen].astype(np.float32) @ small.T.astype(np.float32), values[:, rest], -values[:, rest]])
    goals = known.goals[:, rest]
    others = np.hstack([np.maximum(goals, 0), np.maximum(-goals, 0)])
    margins = Margins(small, known.goals[:, chosen], np.zeros(len(goals)), known.floor)
    of_forms = of_forms.astype(np.float32)
    return _Layer(known, forms, of_forms, of_forms.std(axis=0).astype(np.float64), margins, others)


def _weighed(layer: _Layer, thresholds: Array) -> _Found:
    """The best multipliers for thresholds (forms,)."""
    count = len(layer.margins.forms)
    unit = layer.unit[:count] + 1e-3 * layer.unit[:count].mean()
    layer.margins.solve(thresholds[:count], unit=unit)
    multipliers = np.hstack([layer.margins.multipliers, layer.others])
    used = np.flatnonzero((multipliers > _USED).any(axis=0))
    lost = np.where(np.isfinite(layer.margins.margins), 0, np.inf)
    prices = Prices(multipliers[:, used], layer.known.offsets - layer.known.spare - lost)
    return _Found(used, thresholds[used], prices)


def _peeled(layer: _Layer, room: float, end: float) -> _Found | None:
    """Forms around as many samples as the margins allow, with room below the lowest; None where they allow none in time."""
    kept = np.arange(len(layer.values))
    while len(kept) > 1 and time.monotonic() < end:
        found = _weighed(layer, layer.values[kept].min(axis=0) - room * layer.unit)
        least = found.prices.left(found.thresholds).min()
        if least > 0:
            return found
        if not np.isfinite(least) or len(kept) == 2:
            return None
        values = layer.values[np.ix_(kept, found.forms)].astype(np.float64)
        most = max(1, int(_PEEL_SHARE * len(kept)))
        kept = kept[without_dearest(values, room * layer.unit[found.forms], found.prices, most=most)]
    return None


def _thinned(layer: _Layer, found: _Found, end: float) -> tuple[_Layer, Array]:
    """The layer with those of the found forms alone that the margins cannot spare; those that carry least are tried first,
    several at a time."""
    count = len(layer.margins.forms)
    small = found.forms[found.forms < count]
    inside = np.isin(found.forms, small)
    rest = found.prices.offsets + found.prices.multipliers[:, ~inside] @ found.thresholds[~inside]
    margins = Margins(layer.margins.forms[small], layer.margins.goals, rest, layer.known.floor)
    margins.solve(found.thresholds[inside])
    order = np.argsort((margins.multipliers * layer.unit[small]).max(axis=0), kind="stable")
    size = max(1, len(order) // _IN_FRONT)
    while time.monotonic() < end:
        place = 0
        while place < len(order) and time.monotonic() < end:
            if margins.without(order[place : place + size], least=0):
                order = np.delete(order, slice(place, place + size))
            else:
                place += size
        if size == 1:
            break
        size //= 2
    kept = np.flatnonzero(~inside | np.isin(found.forms, small[order]))
    return layer.only(found.forms[kept], len(order)), found.thresholds[kept]


def _moved(layer: _Layer, found: _Found, width: float, generator: np.random.Generator, *, smooth: bool) -> _Found:
    """The thresholds moved to hold more samples: to where they are likely to hold new ones too, and over one more of these."""
    values = layer.values[:, found.forms].astype(np.float64)
    thresholds = found.thresholds
    if smooth:
        some = values
        if len(some) > _SMOOTHED_ROWS:
            some = some[np.sort(generator.choice(len(some), _SMOOTHED_ROWS, replace=False))]
        unit = layer.unit[found.forms] + 1e-3 * layer.unit.mean()
        thresholds = smoothed(some, thresholds, found.prices, width=width * unit, reach=layer.reach(found.forms))
    return _Found(found.forms, stretched(values, thresholds, found.prices), found.prices)


def _written(layer: _Layer, found: _Found) -> _Body:
    """The body in short decimals; that a neuron is at least 0 is no literal where it always is."""
    thresholds = rounded(found.thresholds, found.prices)
    forms = layer.forms[found.forms]
    always = layer.single[found.forms] & (forms.sum(axis=1) > 0) & (thresholds <= 0) & layer.known.floor
    return _Body(forms[~always].astype(np.float64), thresholds[~always])


def _clause(site: str, label: int, body: _Body) -> HornClause:
    literals = [literal_of(site, form, t) for form, t in zip(body.forms, body.thresholds.tolist(), strict=True)]
    return HornClause(Predicate("class", (label,)), tuple(literals))
