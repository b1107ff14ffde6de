"""Whether values are small against the masks that are added to them, which `mask_nodes` takes for granted."""

from collections.abc import Mapping
from typing import TypeAlias

import numpy as np

from verifier.network import Network, mask_nodes
from verifier.ops import LARGEST_UNDER_MASK, Array

Sides: TypeAlias = Mapping[str, tuple[Array, Array]]


def beaten_mask(network: Network, sides: Sides) -> str | None:
    """A value that a mask gives although what it is added to may come near its size within these bounds; None without one."""
    for node in mask_nodes(network):
        low, high = sides[node.inputs[0]]
        # sound: a score within the limit is, with its mask, 8e29 below each that has none, and exp of that is 0 to any float
        if not (np.abs(low).max() <= LARGEST_UNDER_MASK and np.abs(high).max() <= LARGEST_UNDER_MASK):
            return node.output
    return None
