"""Attention heads, found by what the graph computes, whatever the model calls its values and however it lays out its axes.

Where the shares of a softmax are multiplied with other values, and the products summed over the row, it is attention.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from specmine.tracing.softmax import Graph, Indices, Softmax, find_softmax, is_total
from verifier.network import Network, Node
from verifier.ops import Product, Reshape


@dataclass(frozen=True, eq=False)
class AttentionLayer:
    """The heads that one softmax serves: names of network values, and flat indices into them in C order, read-only.

    name: that of the site of its probabilities, a1, a2, ...; scores: what enters the softmax, scaled, without its masks;
    probabilities: what leaves it; outputs: the heads' own outputs, before the output projection. score_index,
    probability_index: (heads, queries, keys), -1 where a mask leaves the key out; output_index: (heads, queries, head_dim).
    """

    name: str
    scores: str
    probabilities: str
    outputs: str
    score_index: Indices
    probability_index: Indices
    output_index: Indices


def find_attention(network: Network) -> tuple[AttentionLayer, ...]:
    """The attention layers of a network, in its order; heads that a model computes apart are layers of one head each."""
    graph = Graph(network)
    found: list[AttentionLayer] = []
    for softmax in find_softmax(graph):
        layer = next(_layers(graph, softmax, f"a{len(found) + 1}"), None)
        if layer is not None:
            found.append(layer)
    return tuple(found)


def _layers(graph: Graph, softmax: Softmax, name: str) -> Iterator[AttentionLayer]:
    for product in graph.network.nodes:
        if isinstance(product.op, Product):
            for factor in product.inputs:
                source, places = graph.origin(factor, stop=softmax.probabilities)
                layer = _layer(graph, softmax, product, places, name) if source == softmax.probabilities else None
                if layer is not None:
                    yield layer


def _layer(graph: Graph, softmax: Softmax, product: Node, places: Indices, name: str) -> AttentionLayer | None:
    """The layer, if the products of shares (at these places) with values are summed over the rows of the softmax.

    The products have shape (..., rows, columns, keys), as readers write a matrix product; the shares vary along one of rows
    and columns, which are the queries.
    """
    shape = graph.network.shapes[product.output]
    following = graph.readers.get(product.output, [])
    if len(shape) < 3 or len(following) != 1 or not is_total(following[0], 0.0) or shape[-1] != softmax.keys:
        return None
    wide = places.reshape(-1, *shape[-3:])
    query_axis = _query_axis(wide)
    if query_axis is None:
        return None
    shares = wide[:, :, 0] if query_axis == 1 else wide[:, 0]
    rows = softmax.row[shares]
    if (shares < 0).any() or (rows != rows[..., :1]).any() or len(np.unique(shares)) != shares.size:
        return None
    index = _frozen(np.where(softmax.kept[shares], shares, -1))
    sums = following[0].output
    outputs = np.arange(graph.network.size(sums)).reshape(wide.shape[:3])
    output_index = _frozen(outputs if query_axis == 1 else outputs.swapaxes(1, 2))
    return AttentionLayer(name, softmax.scores, softmax.probabilities, _named(graph, sums), index, index, output_index)


def _query_axis(wide: Indices) -> int | None:
    """The axis of (heads, rows, columns, keys) along which the shares vary, or the one of length 1 where they do not."""
    varies = [bool((wide != wide.take([0], axis=axis)).any()) for axis in (1, 2)]
    if sum(varies) == 2:
        return None
    if sum(varies) == 0:
        varies = [wide.shape[1] == 1, wide.shape[2] == 1]
    return next((axis for axis, found in zip((1, 2), varies, strict=True) if found), None)


def _named(graph: Graph, sums: str) -> str:
    """The matrix product's own name, which readers give to the sums in its shape."""
    following = graph.readers.get(sums, [])
    return following[0].output if len(following) == 1 and isinstance(following[0].op, Reshape) else sums


def _frozen(indices: Indices) -> Indices:
    copy = np.array(indices, dtype=np.int64)
    copy.setflags(write=False)
    return copy
