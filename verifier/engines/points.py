"""Test points that a search comes across: floats first, then exact replay."""

from collections.abc import Callable

import torch
from torch import Tensor

from verifier.check import confirms
from verifier.engines.program import run
from verifier.engines.targets import batch_of, left_sides, targets_of, worst
from verifier.ops import Array
from verifier.query import Query


def point_test(query: Query) -> Callable[[Tensor], Array | None]:
    """A function that returns a counterexample among points (points, inputs), or None.

    The best point in floating point is replayed exactly, so what is returned is a counterexample.
    """
    targets = list(targets_of(0, query))
    batch = batch_of(query.network, targets) if targets else None

    @torch.no_grad()
    def test(points: Tensor) -> Array | None:
        if batch is None or not len(points):
            return None
        left = left_sides(batch, run(batch.program, points).unsqueeze(0))
        values = worst(batch, left).amin(0)
        best = int(values.argmin())
        point = points[best].numpy().copy()
        return point if float(values[best]) <= 0 and confirms(query, point) else None

    return test
