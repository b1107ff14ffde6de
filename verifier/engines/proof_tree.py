"""Proof trees under construction: a list of nodes that name their children by number, certificate data at the end."""

from collections.abc import Sequence
from dataclasses import dataclass

from verifier.certificate import Close, ProofNode, Split, Step

NOTHING = -1


@dataclass(eq=False)
class Node:
    """low and high: the numbers of its children, greater than its own; split: value, index and the number to split at.

    unbounded: splits since its neurons were last bounded.
    """

    closed: Close | None = None
    split: tuple[str, int, float] | None = None
    steps: tuple[Step, ...] = ()
    unbounded: int = 0
    low: int = NOTHING
    high: int = NOTHING


def finished(nodes: Sequence[Node], root: int) -> ProofNode:
    """The tree under a root as certificate data, built from the leaves up without recursion."""
    order, todo = [], [root]
    while todo:
        number = todo.pop()
        order.append(number)
        todo.extend(child for child in (nodes[number].low, nodes[number].high) if child != NOTHING)
    built: dict[int, ProofNode] = {}
    for number in reversed(order):
        node = nodes[number]
        split = None if node.split is None else Split(*node.split, built.pop(node.low), built.pop(node.high))
        built[number] = ProofNode(node.steps, () if node.closed is None else (node.closed,), split)
    return built[root]
