"""The proof tree of a search by boxes: arrays while it grows, certificate nodes at the end."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from verifier.certificate import Close, ProofNode, Split, Step

ROOT = 0

CloseOf = Callable[[int, Tensor], Close]


@dataclass(eq=False)
class Tree:
    """Nodes are numbered as they come; node ROOT is there from the start. Children have larger numbers than their parents."""

    count: int = 1
    splits: list[tuple[Tensor, Tensor, Tensor, Tensor]] = field(default_factory=list)
    closes: list[tuple[Tensor, int, Tensor]] = field(default_factory=list)
    special: dict[int, list[Close]] = field(default_factory=dict)

    def split(self, nodes: Tensor, dims: Tensor, at: Tensor) -> tuple[Tensor, Tensor]:
        """Split nodes (boxes,) on inputs dims at float64 points; the numbers of the low and of the high children."""
        low = torch.arange(self.count, self.count + len(nodes))
        high = low + len(nodes)
        self.count += 2 * len(nodes)
        self.splits.append((nodes, dims, at, low))
        return low, high

    def close(self, nodes: Tensor, disjunct: int, weights: Tensor) -> None:
        """Refute a disjunct at nodes (boxes,) by weighted sums of goals, weights (boxes, goals)."""
        self.closes.append((nodes, disjunct, weights))

    def close_by(self, node: int, close: Close) -> None:
        """A disjunct refuted at a node with choices of its own."""
        self.special.setdefault(node, []).append(close)

    def finished(self, value: str, close_of: CloseOf, steps: tuple[Step, ...], first: Sequence[Close]) -> ProofNode:
        """The tree as certificate data. value: the network's input; close_of(disjunct, weights): a close with these weights.

        steps and first: the steps and the closes that the root begins with.
        """
        closed: dict[int, list[Close]] = {node: list(given) for node, given in self.special.items()}
        for nodes, disjunct, weights in self.closes:
            for node, row in zip(nodes.tolist(), weights, strict=True):
                closed.setdefault(node, []).append(close_of(disjunct, row))
        split = self._split_of()
        built: dict[int, ProofNode] = {}
        for node in range(self.count - 1, -1, -1):
            branch = None
            if node in split:
                dim, at, low, high = split[node]
                branch = Split(value, dim, at, built.pop(low), built.pop(high))
            own = tuple(closed.get(node, ()))
            # a node without a split proves something by its own bounds alone, be it that it is empty
            built[node] = ProofNode((), own, branch, rebound=bool(own) or branch is None)
        root = built[ROOT]
        return replace(root, steps=steps, closed=(*first, *root.closed))

    def _split_of(self) -> Mapping[int, tuple[int, float, int, int]]:
        split: dict[int, tuple[int, float, int, int]] = {}
        for nodes, dims, at, low in self.splits:
            columns = (nodes.tolist(), dims.tolist(), at.tolist(), low.tolist())
            for node, dim, place, child in zip(*columns, strict=True):
                split[node] = (dim, place, child, child + len(nodes))
        return split
