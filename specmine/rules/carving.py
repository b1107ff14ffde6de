"""Bodies of half-spaces a . h >= t carved out of one layer, for precision first: sets of them cover a class by parts.

A body is grown a literal at a time, then changed: each literal in turn gives way to the form and the threshold that serve best
beside the others. Thresholds are weighed all over the range of the positives, in fine bins; the forms are those that follow the
margin to a rival best near its face, chosen anew for what is not covered yet.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from specmine.errors import BadConfig, BadData
from specmine.predicates.predicate import Predicate
from specmine.predicates.rounding import shorten
from specmine.rules.forms import literal_of, small_forms
from verifier.ops import Array

_BINS = 255
_SWEEPS = 3
_GAIN = 1e-9
_LEAST_FACE = 50
_GROWN_ON = 8000


@dataclass(frozen=True, eq=False)
class HalfSpaces:
    """The body forms . h >= thresholds; forms: (literals, neurons) of coefficients -1, 0 and 1, thresholds: (literals,)."""

    forms: NDArray[np.int8]
    thresholds: Array

    def holds(self, values: Array) -> NDArray[np.bool_]:
        """On which rows of values (samples, neurons) every literal holds, up to the rounding of a sum."""
        return np.asarray((values @ self.forms.T >= self.thresholds).all(axis=1))

    def literals(self, site: str) -> list[Predicate]:
        """The literals over the site that has these neurons."""
        return [literal_of(site, form, float(t)) for form, t in zip(self.forms, self.thresholds, strict=True)]


def carved_bodies(
    values: Array,
    scores: Array,
    label: int,
    *,
    most: int,
    max_body: int = 12,
    error_price: float = 20.0,
    faces: int = 200,
    least: float = 0.002,
) -> list[HalfSpaces]:
    """Up to `most` bodies over values (samples, neurons), each for samples of the label that those before it leave out.

    scores: (samples, classes), the largest of which is the label. error_price: how many new samples of the label outweigh one
    of another. faces: forms taken for each rival. Ends early where a body would add a smaller share than `least` of the label's
    samples. The answer is a function of the arguments.

    Raises BadConfig for max_body or faces below 1, BadData where values and scores do not fit or no sample has the label.
    """
    if max_body < 1 or faces < 1:
        raise BadConfig(f"max_body and faces must be at least 1, got {max_body} and {faces}")
    if len(values) != len(scores):
        raise BadData(f"values and scores must be of the same samples, got {len(values)} and {len(scores)}")
    positives = scores.argmax(axis=1) == label
    if not positives.any():
        raise BadData(f"a body needs at least one sample of its label, and none of {len(scores)} has label {label}")
    pool, left, found = small_forms(values.shape[1]), positives.copy(), list[HalfSpaces]()
    while len(found) < most and left.any():
        rows = left | ~positives
        forms = pool[telling_forms(values[rows], scores[rows], label, pool, most=faces)]
        search = _Search(_binned(values, forms, left), left, ~positives, max_body, error_price)
        body = search.changed(search.grown())
        held = search.held(body)
        if not body or (held & left).sum() < max(1, least * positives.sum()):
            break
        found.append(search.half_spaces(body))
        left &= ~found[-1].holds(values)
    return found


def telling_forms(
    values: Array, scores: Array, label: int, pool: NDArray[np.int8], *, most: int, near: int = 4000
) -> list[int]:
    """Rows of the pool (forms, neurons): those of one neuron, and for each rival the `most` that follow the margin to it best.

    The correlation is taken over the `near` samples with the smallest margin, of either sign, of those where no third class is
    above both; it needs the second moments of the neurons alone.
    """
    wide = pool.astype(np.float64)
    chosen = set(np.flatnonzero(np.abs(pool).sum(axis=1) == 1).tolist())
    for rival in sorted(set(range(scores.shape[1])) - {label}):
        others = np.delete(scores, [label, rival], axis=1).max(axis=1, initial=-np.inf)
        face = np.flatnonzero(np.maximum(scores[:, label], scores[:, rival]) >= others)
        if len(face) < _LEAST_FACE:
            continue
        margins = scores[face, label] - scores[face, rival]
        nearest = np.argsort(np.abs(margins), kind="stable")[:near]
        rows, margins = values[face[nearest]], margins[nearest]
        rows, margins = rows - rows.mean(axis=0), margins - margins.mean()
        spread = np.sqrt(np.maximum(((wide @ (rows.T @ rows)) * wide).sum(axis=1), 1e-12))
        chosen |= set(np.argsort(-(wide @ (rows.T @ margins)) / spread, kind="stable")[:most].tolist())
    return sorted(chosen)


@dataclass(frozen=True, eq=False)
class _Binned:
    """bins: (forms, samples), how many of its cuts (forms, bins) a form's value reaches; cuts ascend along each row."""

    forms: NDArray[np.int8]
    cuts: Array
    bins: NDArray[np.uint8]


def _binned(values: Array, forms: NDArray[np.int8], left: NDArray[np.bool_]) -> _Binned:
    """Evenly spaced thresholds for each form between its lowest and its highest value on the samples left."""
    sums = (values.astype(np.float32) @ forms.T.astype(np.float32)).T
    low, high = sums[:, left].min(axis=1, keepdims=True), sums[:, left].max(axis=1, keepdims=True)
    step = np.maximum((high - low) / _BINS, np.float32(1e-9))
    bins = np.clip(np.floor((sums - low) / step) + 1, 0, _BINS).astype(np.uint8)
    return _Binned(forms, low + step * np.arange(_BINS), bins)


_Body = list[tuple[int, int]]


@dataclass(frozen=True, eq=False)
class _Search:
    """One body at a time, as pairs of a form and a bin that its value must reach at least, numbered from 1."""

    binned: _Binned
    wanted: NDArray[np.bool_]
    negatives: NDArray[np.bool_]
    max_body: int
    error_price: float

    def held(self, body: Sequence[tuple[int, int]]) -> NDArray[np.bool_]:
        held = np.ones(len(self.wanted), dtype=bool)
        for form, least in body:
            held &= self.binned.bins[form] >= least
        return held

    def grown(self) -> _Body:
        """Literal after literal, the one of the largest gain of FOIL (Quinlan 1990), until no negative is held."""
        rows, body = np.flatnonzero(self.wanted | self.negatives), _Body()
        while len(body) < self.max_body and self.negatives[rows].any():
            hits, errors = self._reached(rows[:: 1 + len(rows) // _GROWN_ON])
            precision = np.maximum(hits, _GAIN) / np.maximum(hits + errors, _GAIN)
            gain = hits * np.log(precision / precision[0, 0])
            form, least = _tightest(gain)
            if gain[form, least] <= _GAIN:
                break
            body.append((form, least))
            rows = rows[self.binned.bins[form, rows] >= least]
        return body

    def changed(self, body: _Body) -> _Body:
        """The body after sweeps in which each literal in turn, and a new one at the end, gives way to a better one or none."""
        best = self._worth(body)
        for _ in range(_SWEEPS):
            before = best
            for place in range(min(len(body) + 1, self.max_body)):
                rest = body[:place] + body[place + 1 :]
                hits, errors = self._reached(np.flatnonzero(self.held(rest) & (self.wanted | self.negatives)))
                worth = hits - self.error_price * errors
                form, least = _tightest(worth)
                if worth[form, least] > best + _GAIN:
                    best = float(worth[form, least])
                    body = [*rest[:place], (form, least), *rest[place:]]
            if best <= before + _GAIN:
                break
        return body

    def half_spaces(self, body: _Body) -> HalfSpaces:
        """The body with its thresholds as short decimals, which hold nowhere else than the bins do."""
        thresholds = [shorten(float(self.binned.cuts[form, least - 1]), down=False) for form, least in body if least]
        return HalfSpaces(self.binned.forms[[form for form, least in body if least]], np.array(thresholds))

    def _worth(self, body: _Body) -> float:
        held = self.held(body)
        return float((held & self.wanted).sum() - self.error_price * (held & self.negatives).sum())

    def _reached(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """How many of the wanted and of the negatives among the rows reach each bin of each form, (forms, bins + 1) each."""
        count, width = len(self.binned.bins), _BINS + 1
        place = (np.arange(count) * width)[:, None]
        both = []
        for own in (rows[self.wanted[rows]], rows[self.negatives[rows]]):
            inside = np.bincount((self.binned.bins[:, own] + place).ravel(), minlength=count * width).reshape(count, width)
            both.append(inside[:, ::-1].cumsum(axis=1)[:, ::-1])
        return both[0], both[1]


def _tightest(worth: NDArray[np.float64]) -> tuple[int, int]:
    """The first form of the largest worth (forms, bins), with the last of the bins that have it."""
    form, back = np.unravel_index(int(worth[:, ::-1].argmax()), worth.shape)
    return int(form), worth.shape[1] - 1 - int(back)
