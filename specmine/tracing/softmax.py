"""Softmax in the graph of a network, where every reader of models writes it as 1 / (1 + sum of exp(other - own)).

The entries of such sums tell which scores share a row, and which of them a mask leaves out.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from verifier.network import Network, Node
from verifier.ops import Exp, Linear, Reciprocal, Reshape, Select, Sum, Transpose

Indices = NDArray[np.int64]
MOVING_OPS = (Reshape, Transpose, Select)


@dataclass(frozen=True, eq=False)
class Softmax:
    """A softmax along one axis of its scores; both values have one shape, and an entry one flat index in both.

    kept: (entries,), False where a mask leaves the entry out; row: (entries,) which row each entry is of; keys: its length.
    """

    scores: str
    probabilities: str
    kept: NDArray[np.bool_]
    row: Indices
    keys: int


@dataclass(frozen=True, eq=False)
class Graph:
    """What is asked of a network's graph to find patterns in it."""

    network: Network

    @cached_property
    def readers(self) -> Mapping[str, list[Node]]:
        """The nodes that read each value."""
        readers: dict[str, list[Node]] = defaultdict(list)
        for node in self.network.nodes:
            for name in dict.fromkeys(node.inputs):
                readers[name].append(node)
        return readers

    def producer(self, name: str, kind: type) -> Node | None:
        """The node that computes a value, if it is of this kind."""
        node = self.network.producers.get(name)
        return node if node is not None and isinstance(node.op, kind) else None

    def rearrangement(self, node: Node) -> Indices:
        """Which entry of its input each entry of a node of MOVING_OPS is, flat; -1 for a zero."""
        shape = self.network.shapes[node.inputs[0]]
        size = self.network.size(node.inputs[0])
        match node.op:
            case Transpose(permutation=permutation):
                return np.arange(size).reshape(shape).transpose(permutation).reshape(-1)
            case Select(indices=indices):
                return indices
            case _:
                return np.arange(size)

    def origin(self, name: str, *, stop: str = "") -> tuple[str, Indices]:
        """The value of which this one is a rearrangement, at the latest `stop`, and the place of each entry in it."""
        places = np.arange(self.network.size(name))
        while name != stop and name in self.network.producers:
            node = self.network.producers[name]
            if not isinstance(node.op, MOVING_OPS):
                break
            places = chained(self.rearrangement(node), places)
            name = node.inputs[0]
        return name, places

    def onward(self, name: str) -> Iterator[tuple[str, Indices]]:
        """A value and what is a rearrangement of it, as long as nothing else reads it, with each entry's place in the value."""
        places = np.arange(self.network.size(name))
        while True:
            yield name, places
            following = self.readers.get(name, [])
            if len(following) != 1 or not isinstance(following[0].op, MOVING_OPS):
                return
            places = chained(places, self.rearrangement(following[0]))
            name = following[0].output


def chained(outer: Indices, inner: Indices) -> Indices:
    """outer[inner], where -1 stays -1."""
    return np.where(inner >= 0, outer[inner], -1)


def find_softmax(graph: Graph) -> Iterator[Softmax]:
    """Every softmax of a network, in its order; one whose rows all have a single entry left is none."""
    for node in graph.network.nodes:
        if isinstance(node.op, Reciprocal):
            found = _softmax(graph, node)
            if found is not None:
                yield found


def is_total(node: Node | None, bias: float) -> bool:
    """Whether a node is the sum over the last axis, plus the bias."""
    if node is None or not isinstance(node.op, Linear) or len(node.op.weight) != 1:
        return False
    return bool((node.op.weight == 1).all() and node.op.bias[0] == bias)


def _softmax(graph: Graph, shares: Node) -> Softmax | None:
    """The softmax whose shares this node computes, if it is one."""
    sums, which = graph.origin(shares.inputs[0])
    total = graph.producer(sums, Linear)
    if total is None or not is_total(total, 1.0):
        return None
    powers, places = graph.origin(total.inputs[0])
    power = graph.producer(powers, Exp)
    difference = graph.producer(power.inputs[0], Sum) if power else None
    if difference is None or difference.op.coefficients != (1.0, -1.0):  # type: ignore[union-attr]
        return None
    left, right = (graph.network.producers.get(name) for name in difference.inputs)
    if not (left and right and isinstance(left.op, MOVING_OPS) and isinstance(right.op, MOVING_OPS)):
        return None
    if left.inputs != right.inputs or (which < 0).any():
        return None
    if any((graph.rearrangement(side) < 0).any() for side in (left, right)):
        return None
    terms = places.reshape(graph.network.size(sums), -1)[which]
    others, own = (np.where(terms >= 0, graph.rearrangement(side)[terms], -1) for side in (left, right))
    for name, share in graph.onward(shares.output):
        if graph.network.shapes[name] == graph.network.shapes[left.inputs[0]]:
            found = _laid_out(graph.network, left.inputs[0], name, share, others, own)
            if found is not None:
                return found
    return None


def _laid_out(network: Network, scores: str, name: str, share: Indices, others: Indices, own: Indices) -> Softmax | None:
    """The softmax, if entry k of this value is the share of score k among all that are left of its row.

    share: which share each entry is, -1 for a zero; others, own: (shares, terms) the scores of each share's differences, -1
    where a sum is shorter.
    """
    kept = share >= 0
    entries = np.flatnonzero(kept)
    if not np.array_equal(np.sort(share[kept]), np.arange(len(others))):
        return None
    others, own = others[share[kept]], own[share[kept]]
    present = others >= 0
    shape = network.shapes[scores]
    axis = _axis(shape, own[present], others[present])
    if axis is None or not ((own == entries[:, None]) | ~present).all():
        return None
    row = np.moveaxis(np.arange(kept.size // shape[axis]).reshape(*shape[:axis], *shape[axis + 1 :], 1), -1, axis)
    row = np.broadcast_to(row, shape).reshape(-1)
    left = np.bincount(row[kept], minlength=row.max() + 1)
    within = ~present | (kept[others] & (row[others] == row[entries][:, None]) & (others != entries[:, None]))
    ordered = np.sort(others, axis=1)
    repeated = (ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)
    if not within.all() or repeated.any() or not np.array_equal(present.sum(axis=1), left[row[entries]] - 1):
        return None
    return Softmax(scores, name, kept, row, shape[axis])


def _axis(shape: tuple[int, ...], own: Indices, others: Indices) -> int | None:
    """The only axis along which the two scores of every difference lie apart."""
    if not own.size:
        return None
    apart = [bool((a != b).any()) for a, b in zip(np.unravel_index(own, shape), np.unravel_index(others, shape), strict=True)]
    return apart.index(True) if sum(apart) == 1 else None
