"""A network prepared for the float64 replay: maps of its linear nodes, windows of its maxima, who reads what."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from verifier.check.float_maps import FloatMap, float_map
from verifier.check.linear_map import pool_windows
from verifier.errors import BadNetwork
from verifier.network import Network, Node
from verifier.ops import ACTIVATION_OPS, LINEAR_OPS, LeakyRelu, MaxPool, Relu


@dataclass(frozen=True, eq=False)
class FloatModel:
    """maps: the linear nodes by output name; windows: the MaxPool nodes'; nonlinear: values that a nonlinear node reads, in
    network order; exact: whether the exact pass knows every operator."""

    network: Network
    maps: Mapping[str, FloatMap]
    windows: Mapping[str, NDArray[np.int64]]
    nonlinear: tuple[str, ...]
    exact: bool


@lru_cache(maxsize=4)
def prepare_floats(network: Network) -> FloatModel:
    """The network ready for replay; BadNetwork where a weight is not finite or a setting is out of its range."""
    maps, windows, read = {}, {}, set()
    for node in network.nodes:
        shapes = [network.shapes[name] for name in node.inputs]
        if isinstance(node.op, LINEAR_OPS):
            maps[node.output] = float_map(node, shapes)
            continue
        read |= set(node.inputs)
        if isinstance(node.op, MaxPool):
            windows[node.output] = pool_windows(node, shapes[0])
        elif isinstance(node.op, ACTIVATION_OPS) and not 0 <= least_slope(node) <= 1:
            raise BadNetwork(f"LeakyRelu at {node.output!r} must have a slope in [0, 1], got {least_slope(node)}")
    nonlinear = tuple(name for name in network.shapes if name in read)
    exact = all(isinstance(node.op, (*LINEAR_OPS, *ACTIVATION_OPS, MaxPool)) for node in network.nodes)
    return FloatModel(network, maps, windows, nonlinear, exact)


def least_slope(node: Node) -> float:
    """The slope of an activation left of zero."""
    assert isinstance(node.op, Relu | LeakyRelu)
    return float(node.op.slope) if isinstance(node.op, LeakyRelu) else 0.0
