"""A network prepared for the float64 replay: maps of its linear nodes, windows of its maxima, who reads what.

A linear node that only adds a bias (an Add after a MatMul) or only renames entries in order (a Reshape) is composed, without
any rounding, with the linear node next to it: a `Jump`, with which backward passes go two or more nodes at a time.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from verifier.check.float_maps import FloatMap, Picked, float_map
from verifier.check.linear_map import pool_windows
from verifier.errors import BadNetwork
from verifier.network import Network, Node
from verifier.ops import ACTIVATION_OPS, LINEAR_OPS, LeakyRelu, MaxPool, Relu


@dataclass(frozen=True, eq=False)
class Jump:
    """A value as one exact affine map of an earlier one."""

    source: str
    mapped: FloatMap


@dataclass(frozen=True, eq=False)
class FloatModel:
    """maps: the linear nodes by output name; jumps: those with one input; windows: the MaxPool nodes'; nonlinear: values that
    a nonlinear node reads, in network order; read_once: values that one node reads, once; exact: whether the exact pass knows
    every operator."""

    network: Network
    maps: Mapping[str, FloatMap]
    jumps: Mapping[str, Jump]
    windows: Mapping[str, NDArray[np.int64]]
    nonlinear: tuple[str, ...]
    read_once: frozenset[str]
    exact: bool


@lru_cache(maxsize=4)
def prepare_floats(network: Network) -> FloatModel:
    """The network ready for replay; BadNetwork where a weight is not finite or a setting is out of its range."""
    maps: dict[str, FloatMap] = {}
    jumps: dict[str, Jump] = {}
    windows, read = {}, set()
    for node in network.nodes:
        shapes = [network.shapes[name] for name in node.inputs]
        if isinstance(node.op, LINEAR_OPS):
            maps[node.output] = float_map(node, shapes)
            if len(node.inputs) == 1:
                jumps[node.output] = _composed(jumps, node.inputs[0], maps[node.output])
            continue
        read |= set(node.inputs)
        if isinstance(node.op, MaxPool):
            windows[node.output] = pool_windows(node, shapes[0])
        elif isinstance(node.op, ACTIVATION_OPS) and not 0 <= least_slope(node) <= 1:
            raise BadNetwork(f"LeakyRelu at {node.output!r} must have a slope in [0, 1], got {least_slope(node)}")
    nonlinear = tuple(name for name in network.shapes if name in read)
    exact = all(isinstance(node.op, (*LINEAR_OPS, *ACTIVATION_OPS, MaxPool)) for node in network.nodes)
    readings = Counter(name for node in network.nodes for name in node.inputs)
    read_once = frozenset(name for name, count in readings.items() if count == 1)
    return FloatModel(network, maps, jumps, windows, nonlinear, read_once, exact)


def _composed(jumps: Mapping[str, Jump], source: str, mapped: FloatMap) -> Jump:
    """The map after the jump that makes its source, where their composition needs no arithmetic."""
    before = jumps.get(source)
    if before is None:
        return Jump(source, mapped)
    # sound: W (x + 0) + b, and (W x + c) + b where b or c is zero, are W x + b + c without rounding.
    if _is_identity(before.mapped) and not before.mapped.bias.any():
        return Jump(before.source, mapped)
    if _is_identity(mapped) and not (mapped.bias.astype(bool) & before.mapped.bias.astype(bool)).any():
        return Jump(before.source, FloatMap(before.mapped.parts, before.mapped.bias + mapped.bias, before.mapped.terms))
    return Jump(source, mapped)


def _is_identity(mapped: FloatMap) -> bool:
    """Whether the map's matrix is the identity."""
    return isinstance(mapped.parts[0], Picked) and mapped.parts[0].is_identity


def least_slope(node: Node) -> float:
    """The slope of an activation left of zero."""
    assert isinstance(node.op, Relu | LeakyRelu)
    return float(node.op.slope) if isinstance(node.op, LeakyRelu) else 0.0
