"""Test points that a search comes across: floats first, then exact replay."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from verifier.check import confirms
from verifier.device import array_of
from verifier.engines.descent import descend, multiplications
from verifier.engines.program import run
from verifier.engines.targets import Batch, batch_of, left_sides, targets_of, worst
from verifier.ops import Array
from verifier.query import Query

POLISH_STEPS, POLISH_STEP = 12, 0.05
POLISHED = 6  # points at a time
REST = 2.0  # tests cost this many times what polishing may cost
FAILURES = 24


def point_test(query: Query) -> Callable[[Tensor], Array | None]:
    """A function that returns a counterexample among points (points, inputs), or near them, or None.

    The best point in floating point is replayed exactly, so what is returned is a counterexample. Where no point is one, a few
    descent steps from the best are tried now and then, as often as they cost little beside the tests themselves.
    """
    return _PointTest(query).test


class _PointTest:
    """Counts what was spent on tests and on polishing, in evaluations of one point; the clock plays no part."""

    def __init__(self, query: Query) -> None:
        self.query = query
        targets = list(targets_of(0, query))
        self.batch = batch_of(query.network, targets) if targets else None
        self.single = [batch_of(query.network, [target]) for target in targets]
        self.one_box = all(
            np.array_equal(t.lower, targets[0].lower) and np.array_equal(t.upper, targets[0].upper) for t in targets
        )
        self.saved = 0.0
        self.failures = 0
        self.cheap = multiplications(query.network) < 10**8

    @torch.no_grad()
    def test(self, points: Tensor) -> Array | None:
        """A counterexample among points (points, inputs), or near the best of them, or None."""
        if self.batch is None or not len(points):
            return None
        values = worst(self.batch, left_sides(self.batch, run(self.batch.program, points).unsqueeze(0)))
        if not self.one_box:  # a target's atoms on single inputs are its box
            inside = (points >= self.batch.lower) & (points <= self.batch.upper)
            values = torch.where(inside.all(2), values, torch.inf)
        nearest, disjunct = values.min(0)
        best = int(nearest.argmin())
        box = self.single[int(disjunct[best])]
        found = self._confirmed(points[best].clamp(box.lower[0, 0], box.upper[0, 0]), float(nearest[best]))
        self.saved += len(points) / REST
        price = 3.0 * POLISH_STEPS * min(POLISHED, len(points))
        if found is None and self.cheap and self.saved >= price and self.batch.program.nodes:
            self.saved = 0.0
            chosen = torch.argsort(values[disjunct[best]], stable=True)[:POLISHED]
            found = self._polish(box, points[chosen])
        return found

    def _polish(self, batch: Batch, points: Tensor) -> Array | None:
        """Descent from points for one disjunct; the last to satisfy it in floats is replayed."""

        def watch(_: Tensor, values: Tensor) -> bool:
            return bool((values <= 0).any())

        begin = points.to(torch.float64).unsqueeze(0).clamp(batch.lower, batch.upper)
        with torch.enable_grad():
            end = descend(batch, begin, steps=POLISH_STEPS, watch=watch, first_step=POLISH_STEP)
        best = int(end.values[0].argmin())
        return self._confirmed(end.points[0, best], float(end.values[0, best]))

    def _confirmed(self, point: Tensor, value: float) -> Array | None:
        """The point, where it is a counterexample; exact replays that fail are not repeated for ever."""
        if value > 0 or (value > -1e-9 and self.failures >= FAILURES):
            return None
        x: Array = array_of(point).copy()
        if confirms(self.query, x):
            return x
        self.failures += 1
        return None
