"""Forms of values over the input and the activations give what the network computes there."""

import numpy as np
import pytest
import torch
from laws.queries import random_query

from verifier.domains.choices import Rows
from verifier.domains.relaxations import relaxed_nodes
from verifier.engines.forms import entry_forms, forms_of, known_forms, starts_of
from verifier.evaluate import evaluate
from verifier.network import Network
from verifier.ops import Array


def sources(network: Network, x: Array) -> tuple[dict[str, Array], Array]:
    """The values at an input, and those of the input and all activations side by side."""
    values = {v: part.reshape(-1).numpy() for v, part in evaluate(network, x[None]).items()}
    return values, np.concatenate([values[name] for name in starts_of(network)])


@pytest.mark.parametrize("kind", ["deep", "conv2d", "residual"])
@pytest.mark.parametrize("seed", range(4))
def test_forms_give_the_values(kind: str, seed: int) -> None:
    query = random_query(kind, seed=seed)
    network = query.network
    names = {name for node in relaxed_nodes(network) for name in node.inputs[:1]}
    known = known_forms(network)
    for name in names:
        known.of(name, np.arange(0, network.size(name), 2))  # the others come later
    forms = {name: known.of(name, np.arange(network.size(name))) for name in names}
    rng = np.random.default_rng(seed)
    for _ in range(3):
        x = rng.uniform(-2, 2, size=network.size(network.input))
        values, flat = sources(network, x)
        for value, those in forms.items():
            assert np.allclose(those.matrix @ flat + those.shift, values[value], atol=1e-9)
        some = entry_forms(network, network.output, torch.tensor([0]))
        assert np.allclose(some.matrix @ flat + some.shift, values[network.output][:1], atol=1e-9)
        weights = torch.from_numpy(rng.normal(size=(2, 3, network.size(network.output))))
        matrix, constant = forms_of(network, Rows({network.output: weights}, torch.ones(2, 3, dtype=torch.float64)))
        assert np.allclose(matrix.numpy() @ flat + constant.numpy(), 1 + weights.numpy() @ values[network.output], atol=1e-9)
