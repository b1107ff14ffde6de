"""Inputs of a region at which a head fails: every valid body is false at each of them.

The nearer such an input lies to one where the head holds, the fewer literals tell the two apart, and the more it says about
bodies. So failures are moved towards samples as far as the head goes on failing.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from specmine.predicates.families import FORMS
from specmine.predicates.predicate import Predicate
from specmine.predicates.table import build_table, unpack
from specmine.tracing import Sites, trace
from verifier.ops import Array
from verifier.region import Box

HALVINGS = 10
_POOL = 512  # points of each kind
_FIRST, _AROUND = 128, 48
_NEAR = (0.003, 0.01, 0.03, 0.1)


@dataclass(frozen=True, eq=False)
class Failures:
    """Where one head fails. holding: samples (samples, size) of the region at which it holds."""

    sites: Sites
    region: Box
    head: Predicate
    holding: Array

    def at(self, inputs: Array) -> NDArray[np.bool_]:
        """At which of the inputs (inputs, size) the head fails."""
        read = FORMS[self.head.form].sites(self.head.arguments, self.sites)
        there = trace(self.sites, inputs, keep=tuple(sorted({*read, "y"})))
        return ~np.asarray(unpack(build_table([self.head], there).bits, len(inputs))[0])

    def moved(self, failing: Array, holding: Array) -> Array:
        """Each failing input moved towards the holding one of its row, as far as halving finds that the head still fails.

        So few halvings leave it well away from the boundary, where rounding could make it fail.
        """
        near, far = holding, failing
        for _ in range(HALVINGS):
            middle = (near + far) / 2
            fails = self.at(middle)[:, None]
            near, far = np.where(fails, near, middle), np.where(fails, middle, far)
        return np.asarray(np.clip(far, self.region.lower, self.region.upper))

    def among(self, inputs: Array, *, seed: int) -> Array:
        """The inputs at which the head fails, and _POOL of them, the first ones among those, moved towards samples."""
        failing = inputs[self.at(inputs)]
        if not len(failing) or not len(self.holding):
            return failing
        generator = np.random.default_rng(seed)
        first, others = failing[:_FIRST], failing[_FIRST:]
        some = np.concatenate([first, others[generator.permutation(len(others))]])[:_POOL]
        return np.concatenate([failing, self.moved(some, self._drawn(generator, len(some)))])

    def like(self, point: Array) -> Array:
        """A point (size,) at which the head fails, first, and others beside it or between it and samples."""
        lower, upper = self.region.lower, self.region.upper
        generator = np.random.default_rng(0)
        beside = point + generator.normal(size=(_AROUND, len(point))) * (upper - lower) * np.resize(_NEAR, _AROUND)[:, None]
        beside = np.clip(beside, lower, upper)
        beside = beside[self.at(beside)]
        if not len(self.holding):
            return np.concatenate([point[None], beside])
        between = self.moved(np.tile(point, (_AROUND, 1)), self._drawn(generator, _AROUND))
        return np.concatenate([point[None], beside, between])

    def _drawn(self, generator: np.random.Generator, count: int) -> Array:
        return self.holding[generator.integers(len(self.holding), size=count)]


def spread(region: Box, inputs: Array, *, seed: int) -> Array:
    """Inputs (points, size) of the region: anywhere, at corners, near the given ones (rows, size), and between them."""
    lower, upper = region.lower, region.upper
    generator = np.random.default_rng(seed)
    shape = (_POOL, len(lower))
    near = inputs[generator.integers(len(inputs), size=_POOL)]
    noise = generator.normal(size=shape) * (upper - lower) * generator.uniform(0, 0.5, (_POOL, 1))
    other = inputs[generator.integers(len(inputs), size=_POOL)]
    mixed = near + generator.uniform(0, 1, (_POOL, 1)) * (other - near)
    drawn = [
        generator.uniform(lower, upper, shape),
        np.where(generator.random(shape) < generator.random((_POOL, 1)), upper, lower),
        near + noise,
        mixed,
    ]
    return np.clip(np.concatenate(drawn), lower, upper)
