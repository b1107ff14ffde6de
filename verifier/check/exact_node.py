"""One proof node replayed in exact arithmetic, for what float64 does not confirm: ties, and margins within its rounding."""

import numpy as np
from numpy.typing import NDArray

from verifier.certificate import Relaxation, Step
from verifier.check.backward import AtomRows, atom_rows, lower_bounds
from verifier.check.bounds import Bounds, Interval, start, tightened
from verifier.check.boxes import Boxes
from verifier.check.choices import Rejected, row_batches, some_rows, step_rows, validated
from verifier.check.exact import float_below
from verifier.check.float_model import FloatModel
from verifier.check.model import Model, prepare
from verifier.check.place import Place, Progress
from verifier.check.rebound import undecided
from verifier.formula import Atom
from verifier.query import Query
from verifier.region import outer_bounds

Indices = NDArray[np.int64]


class ExactTree:
    """Exact replay of single nodes of a group's tree; common: the atoms that all its disjuncts hold.

    Bounds along the way to the last node asked for are kept, since its neighbours share most of it.
    """

    def __init__(self, query: Query, model: FloatModel, common: tuple[Atom, ...], progress: Progress) -> None:
        self._query, self._model, self._common_atoms, self._progress = query, model, common, progress
        self._rows: dict[int | None, AtomRows] = {}
        self._known: list[tuple[Place, Bounds | None]] = []

    def confirm(self, place: Place, disjunct: int, relaxation: Relaxation, boxes: Boxes) -> None:
        """Returns where a validated close refutes the disjunct at a node with these bounds, else raises Rejected.

        The bounds at hand are tried first, then those of an exact walk from the root.
        """
        self._progress.exact += 1
        found = {name: Interval(low[0], high[0]) for name, (low, high) in boxes.sides.items()}
        is_finite = all(np.isfinite(side).all() for sides in boxes.sides.values() for side in sides)
        if is_finite and self._refutes(found, disjunct, relaxation) is None:
            return
        bounds = self._bounds(place)
        # sound: no point is left where bounds have crossed.
        bound = None if bounds is None else self._refutes(bounds, disjunct, relaxation)
        if bound is not None:
            raise Rejected(f"the bound on disjunct {disjunct} is {bound:.6g}, which refutes nothing")

    def is_empty(self, place: Place) -> bool:
        """Whether the bounds of a node cross."""
        self._progress.exact += 1
        return self._bounds(place) is None

    def _refutes(self, bounds: Bounds, disjunct: int, relaxation: Relaxation) -> float | None:
        """None where the disjunct is refuted, else the bound that falls short."""
        rows = self._atom_rows(disjunct)
        (bound,), used = lower_bounds(self._exact, bounds, 1, {}, relaxation, rows)
        is_strict = any(atom.strict for atom, kept in zip(rows.atoms, used, strict=True) if kept)
        # sound: where all atoms hold their weighted sum is <= 0 (< 0 with a strict one in it), but it is >= bound.
        return None if bound > 0 or (bound == 0 and is_strict) else float_below(bound)

    @property
    def _exact(self) -> Model:
        return prepare(self._query.network)

    def _atom_rows(self, disjunct: int | None) -> AtomRows:
        """Those of a disjunct, or the common ones."""
        if disjunct not in self._rows:
            atoms = self._common_atoms if disjunct is None else self._query.disjuncts[disjunct]
            self._rows[disjunct] = atom_rows(self._exact, atoms)
        return self._rows[disjunct]

    def _bounds(self, place: Place) -> Bounds | None:
        """A node's bounds after its steps, by an exact walk from the root; None where they cross."""
        way = place.way
        shared = 0
        while shared < min(len(way), len(self._known)) and self._known[shared][0] is way[shared]:
            shared += 1
        self._known = self._known[:shared]
        for at in way[shared:]:
            above = self._known[-1][1] if self._known else None
            self._known.append((at, self._entered(at, above)))
        return self._known[-1][1]

    def _entered(self, place: Place, above: Bounds | None) -> Bounds | None:
        """Bounds after a node's own work, from those of the node above it."""
        if place.parent is None:
            bounds = start(self._exact, *outer_bounds(self._query.region), self._common_atoms)
        else:
            bounds = None if above is None else self._half(above, place)
        if place.node.rebound is True:
            bounds = self._rebounded(bounds)
        for step in place.node.steps:
            bounds = None if bounds is None else self._stepped(step, bounds)
        return bounds

    def _half(self, bounds: Bounds, place: Place) -> Bounds | None:
        assert place.parent is not None
        split = place.parent.node.split
        assert split is not None
        size = self._model.network.size(split.value)
        lower, upper = np.full(size, -np.inf), np.full(size, np.inf)
        # sound: one of v <= at and v >= at holds at every point, whatever float64 the number is rounded to.
        (upper if place.is_low else lower)[split.index] = float(split.at)
        return tightened(self._exact, bounds, split.value, lower, upper)

    def _rebounded(self, bounds: Bounds | None) -> Bounds | None:
        for name in self._model.nonlinear:
            if bounds is None or name == self._model.network.input:
                continue
            low, high = bounds[name].lower, bounds[name].upper
            (entries,) = np.nonzero(undecided(self._model.network, name, low, high))
            indices, signs = np.tile(entries, 2), np.repeat([1, -1], len(entries))
            bounds = self._proven(bounds, name, indices, signs, Relaxation(atoms=np.zeros((len(indices), self._count))))
        return bounds

    @property
    def _count(self) -> int:
        return len(self._common_atoms)

    def _stepped(self, step: Step, bounds: Bounds) -> Bounds | None:
        indices, signs = step_rows(self._model, step)
        relaxation = validated(self._model, step.relaxation, len(indices), self._count)
        return self._proven(bounds, step.value, indices, signs, relaxation)

    def _proven(self, bounds: Bounds, value: str, indices: Indices, signs: Indices, relaxation: Relaxation) -> Bounds | None:
        """Bounds after one backward pass for each row, intersected in and pushed."""
        size, rows = self._model.network.size(value), len(indices)
        lower, upper = np.full(size, -np.inf), np.full(size, np.inf)
        for batch in row_batches(self._model, rows):
            chosen = indices[batch]
            form = np.zeros((len(chosen), size))
            form[np.arange(len(chosen)), chosen] = signs[batch]
            choices = some_rows(relaxation, batch, rows)
            proven, _ = lower_bounds(self._exact, bounds, len(chosen), {value: form}, choices, self._atom_rows(None))
            floors = np.array([float_below(bound) for bound in proven])
            below = signs[batch] > 0
            np.maximum.at(lower, chosen[below], floors[below])
            np.minimum.at(upper, chosen[~below], -floors[~below])
        return tightened(self._exact, bounds, value, lower, upper)
