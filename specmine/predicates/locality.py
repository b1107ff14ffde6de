"""Which neurons may stand in one predicate, and why, so that candidates stay linear in the neurons (METHODS 1).

Two places of a convolutional site may where one window holds both and they are of one channel or at one position; two
neurons of another site where they are of one layer; two neurons of neighbouring layers where one reads the other.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from specmine.predicates.edges import SparseRows, edges
from specmine.predicates.form import Bits, Reason, Rows
from specmine.predicates.windows import Windows, windows_of
from specmine.tracing.sites import Sites
from verifier.ops import AveragePool, MaxPool

EVERY_REASON: tuple[Reason, ...] = ("window", "layer", "neighbour")


@dataclass(frozen=True, eq=False)
class Shifts:
    """Partners of every neuron of a site: neuron (i + shifts[m]) % size beside neuron i, where masks[m, i % places].

    masks: (shifts, places); a site of channels has the places of one channel, any other site has one.
    """

    reason: Reason
    site: str
    size: int
    shifts: Rows
    masks: Bits

    def partners(self, m: int) -> Rows:
        """The partner (neurons,) of every neuron by one of the shifts."""
        return (np.arange(self.size) + self.shifts[m]) % self.size

    def allowed(self, m: int) -> Bits:
        """Which neurons (neurons,) have a partner by one of the shifts."""
        return np.tile(self.masks[m], self.size // self.masks.shape[1])


@dataclass(frozen=True)
class Locality:
    """The graph of allowed pairs over the neurons of a network's sites. reasons: those that count.

    >>> from verifier.network import Network, Node
    >>> from verifier.ops import Linear, Relu
    >>> nodes = (Node("a", Linear(np.eye(2), np.zeros(2)), ("in",)), Node("b", Relu(), ("a",)))
    >>> locality = Locality(Sites(Network("in", (1, 2), nodes, "b")))
    >>> locality.why("h1", 0, "h1", 1), locality.why("x", 1, "h1", 1), locality.why("x", 0, "h1", 1)
    ('same layer h1', 'x is the layer below h1, weight 1', None)
    """

    sites: Sites
    reasons: tuple[Reason, ...] = EVERY_REASON

    def why(self, first: str, i: int, second: str, j: int) -> str | None:
        """Why two neurons may stand in one predicate, None where they may not; raises BadClause where one does not exist."""
        self.sites.check_index(first, i)
        self.sites.check_index(second, j)
        if self.sites.value(first) == self.sites.value(second):
            return self._why_within(first, i, j) if i != j else None
        if "neighbour" not in self.reasons:
            return None
        order = list(self.sites.network.shapes)
        (low, a), (high, b) = sorted(((first, i), (second, j)), key=lambda end: order.index(self.sites.value(end[0])))
        weight = self._weight(low, a, high, b)
        return f"{low} is the layer below {high}, weight {weight:.3g}" if weight else None

    def within(self, site: str, most: int) -> Shifts | None:
        """At most so many partners of each neuron of a site, the same random subset in every call; None for no pair."""
        if most < 1:
            return None
        windows = self._windows(site)
        if windows is not None:
            return self._in_windows(site, windows, most)
        size = self.sites.size(site)
        if size < 2 or "layer" not in self.reasons:
            return None
        shifts = 1 + np.sort(np.random.default_rng(size).choice(size - 1, size=min(most, size - 1), replace=False))
        return Shifts("layer", site, size, shifts, np.ones((len(shifts), 1), dtype=bool))

    def below(self, site: str, others: Sequence[str]) -> Iterator[tuple[Rows, Mapping[str, SparseRows]]]:
        """For blocks of neurons of a site what each reads of those other sites that are the layer below it, strongest first."""
        if "neighbour" in self.reasons:
            names = {self.sites.value(other): other for other in reversed(others)}
            names.pop(self.sites.value(site), None)
            for block, found in edges(self.sites.network, self.sites.value(site), names, np.arange(self.sites.size(site))):
                yield block, {names[value]: rows for value, rows in found.items()}

    def _windows(self, site: str) -> Windows | None:
        return windows_of(self.sites, site) if "window" in self.reasons else None

    def _in_windows(self, site: str, windows: Windows, most: int) -> Shifts | None:
        moves = list(_moves(windows))
        if not moves:
            return None
        chosen = np.random.default_rng(len(moves)).permutation(len(moves))[:most]
        found = [moves[place] for place in np.sort(chosen).tolist()]
        steps = [math.prod(windows.space[axis + 1 :]) for axis in range(len(windows.space))]
        area = math.prod(windows.space)
        shifts = [channel * area + sum(a * b for a, b in zip(move, steps, strict=True)) for channel, move in found]
        masks = np.stack([windows.together(move) for _, move in found])
        return Shifts("window", site, self.sites.size(site), np.array(shifts, dtype=np.int64), masks)

    def _why_within(self, site: str, i: int, j: int) -> str | None:
        windows = self._windows(site)
        if windows is None:
            return f"same layer {site}" if "layer" in self.reasons else None
        (channel, *here), (other, *there) = (map(int, np.unravel_index(n, (windows.channels, *windows.space))) for n in (i, j))
        if channel != other and here != there:
            return None
        places = [int(windows.first_together(k, b - a)[a]) for k, (a, b) in enumerate(zip(here, there, strict=True))]
        if min(places) < 0:
            return None
        position = f"row {places[0]}, column {places[1]}" if len(places) == 2 else f"position {places[0]}"
        return f"same {windows.size} window of {self._kind(windows)} {windows.name} at {position}"

    def _kind(self, windows: Windows) -> str:
        op = self.sites.network.producers[windows.name].op
        return {MaxPool: "max pool", AveragePool: "average pool"}.get(type(op), "conv")

    def _weight(self, low: str, a: int, high: str, b: int) -> float:
        """The weight with which neuron b of `high` reads neuron a of `low`, 0 where it does not."""
        value = self.sites.value(low)
        _, found = next(edges(self.sites.network, self.sites.value(high), [value], np.array([b]), width=None))
        rows = found.get(value)
        return 0.0 if rows is None else float(rows.weight[rows.index == a].sum())


def _moves(windows: Windows) -> Iterator[tuple[int, tuple[int, ...]]]:
    """Steps in channel and place to what may share a window: to another channel, or within the kernel's reach."""
    stay = (0,) * len(windows.space)
    yield from ((channel, stay) for channel in range(1, windows.channels))
    reach = [
        [step * d for step in range(1 - k, k) if abs(step * d) < n]
        for k, d, n in zip(windows.kernel, windows.dilation, windows.space, strict=True)
    ]
    yield from ((0, move) for move in product(*reach) if any(move) and windows.together(move).any())
