"""Whether values are small against the masks that are added to them: what a reader of models may have taken for granted.

It leaves what is masked out of a softmax, and bounds as large as a mask out of the graph, but keeps a node that adds the mask
(see `verifier.formats.masks`). Where the value may be as large as that, the graph is not what the model computes.
"""

from collections.abc import Mapping
from typing import TypeAlias

import numpy as np

from verifier.network import Network, Node
from verifier.ops import MASK_LIMIT, Array, Scale

Sides: TypeAlias = Mapping[str, tuple[Array, Array]]

LARGEST_SCORE = -0.1 * MASK_LIMIT


def masks_of(network: Network) -> list[Node]:
    """The nodes that add masks."""
    return [node for node in network.nodes if isinstance(node.op, Scale) and (node.op.offset <= MASK_LIMIT).any()]


def beaten_mask(network: Network, sides: Sides) -> str | None:
    """A value that a mask gives although what it is added to may come near its size within these bounds; None without one."""
    for node in masks_of(network):
        low, high = sides[node.inputs[0]]
        # sound: a score within the limit is, with its mask, 8e29 below each that has none, and exp of that no float's part of 1
        if not (np.abs(low).max() <= LARGEST_SCORE and np.abs(high).max() <= LARGEST_SCORE):
            return node.output
    return None
