"""Sites: the short names of network values that clauses speak about.

x is the network's input, z1, z2, ... the inputs of its activations (pre-activations), h1, h2, ... their outputs, p1, p2, ...
the outputs of its max pools, y its output. The attention layers, in network order, have the sites s1, s2, ... (scores as they
enter the softmax, scaled, without their masks), a1, a2, ... (probabilities) and o1, o2, ... (the heads' outputs before the
output projection); `Sites.attention` tells which of their entries belong to which head, query and key. Any other value is
reached by its own name in the model file. A neuron of a site is counted in C order over the value's shape, whatever the site.
"""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from specmine.errors import BadClause
from specmine.tracing.attention import AttentionLayer, find_attention
from verifier.network import Network
from verifier.ops import ACTIVATION_OPS, MaxPool


@dataclass(frozen=True)
class Sites:
    """The site names of one network."""

    network: Network

    @cached_property
    def aliases(self) -> Mapping[str, str]:
        """Value name by site name: x, z1, h1, z2, h2, ..., p1, p2, ..., s1, a1, o1, s2, ..., y."""
        names = {"x": self.network.input}
        depth = 0
        for node in self.network.nodes:
            if isinstance(node.op, ACTIVATION_OPS):
                depth += 1
                names[f"z{depth}"], names[f"h{depth}"] = node.inputs[0], node.output
        pools = [node.output for node in self.network.nodes if isinstance(node.op, MaxPool)]
        names |= {f"p{k}": value for k, value in enumerate(pools, 1)}
        for k, layer in enumerate(self.attention, 1):
            names |= {f"s{k}": layer.scores, f"a{k}": layer.probabilities, f"o{k}": layer.outputs}
        names["y"] = self.network.output
        return names

    @cached_property
    def attention(self) -> tuple[AttentionLayer, ...]:
        """The attention layers in network order: layer k has the sites sk, ak and ok."""
        return find_attention(self.network)

    @cached_property
    def hidden(self) -> tuple[str, ...]:
        """The activation outputs h1, h2, ... in network order."""
        return tuple(site for site in self.aliases if site.startswith("h"))

    @cached_property
    def attention_sites(self) -> tuple[str, ...]:
        """The sites s1, a1, o1, s2, ... of the attention layers."""
        return tuple(f"{kind}{k}" for k in range(1, len(self.attention) + 1) for kind in "sao")

    def value(self, site: str) -> str:
        """The network value behind a site name; raises BadClause with the nearest names where there is none."""
        if site in self.aliases:
            return self.aliases[site]
        if site in self.network.shapes:
            return site
        known = list(dict.fromkeys((*self.aliases, *self.network.shapes)))
        near = difflib.get_close_matches(site, known, n=3, cutoff=0.3) or known[:5]
        raise BadClause(f"no site {site!r} in this network; nearest are {', '.join(near)}; all: {', '.join(self.aliases)}")

    def size(self, site: str) -> int:
        """The number of neurons of a site; raises BadClause where there is no such site."""
        return self.network.size(self.value(site))

    def check_index(self, site: str, index: int) -> None:
        """Raises BadClause where the site has no such neuron."""
        size = self.size(site)
        if not 0 <= index < size:
            raise BadClause(f"site {site!r} has neurons 0 to {size - 1}, got {index}")
