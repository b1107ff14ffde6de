"""What predicates ask of attention heads: their layer, the entries of a row or a pattern, and what they write to the output."""

from collections.abc import Mapping
from functools import lru_cache
from typing import Literal, TypeAlias

import numpy as np

from specmine.predicates.edges import edges
from specmine.predicates.form import Rows
from specmine.tracing.attention import AttentionLayer
from specmine.tracing.sites import Sites
from verifier.network import Network
from verifier.ops import ACTIVATION_OPS, Array

Part: TypeAlias = Literal["scores", "probabilities", "outputs"]

_LETTER: Mapping[Part, str] = {"scores": "s", "probabilities": "a", "outputs": "o"}


def layer_of(sites: Sites, site: str, part: Part) -> AttentionLayer | None:
    """The attention layer whose scores, probabilities or outputs a site holds, None where it holds none."""
    value = sites.value(site)
    return next((layer for layer in sites.attention if getattr(layer, part) == value), None)


def known_layer(sites: Sites, site: str, part: Part) -> AttentionLayer:
    """The same for a site that was checked to hold them."""
    layer = layer_of(sites, site, part)
    assert layer is not None, f"{site} holds no attention {part}"
    return layer


def no_layer(sites: Sites, site: str, part: Part) -> str:
    """Why a site that holds no such part of an attention layer is refused."""
    names = ", ".join(f"{_LETTER[part]}{number}" for number in range(1, len(sites.attention) + 1))
    return f"site {site!r} holds no attention {part}; " + (f"name {names}" if names else "the network has no attention layer")


def pattern(index: Rows, back: int | None, first: int) -> Rows:
    """Entries (heads, queries) of the key `back` before each query, or of key 0 for None; -1 where it is left out.

    index: (heads, queries, keys), -1 for a masked entry. first: the queries before it are left out.
    """
    _, queries, keys = index.shape
    query = np.arange(queries)
    key = np.zeros_like(query) if back is None else query - back
    usable = (query >= first) & (key >= 0) & (key < keys)
    return np.where(usable, index[:, query, np.where(usable, key, 0)], -1)


@lru_cache(maxsize=64)
def writing(network: Network, value: str, lead: int) -> Array | None:
    """How much each entry of a value adds to each logit less their mean, (logits, entries), along affine paths alone.

    lead: which row of the output along its last axis. In float64, rounded to nearest; these weights are what the predicate
    says. None where no affine path leads from the value to the output.
    """
    logits = network.shapes[network.output][-1]
    node = network.producers.get(network.output)
    if node is not None and isinstance(node.op, ACTIVATION_OPS):
        return None
    total = np.zeros((logits, network.size(value)))
    neurons = lead * logits + np.arange(logits)
    for block, found in edges(network, network.output, [value], neurons, width=None, pools=False):
        if value not in found:
            return None
        rows = found[value]
        place, column = np.nonzero(rows.index >= 0)
        total[block[place] - lead * logits, rows.index[place, column]] = rows.weight[place, column]
    total -= total.mean(axis=0)
    total.setflags(write=False)
    return total
