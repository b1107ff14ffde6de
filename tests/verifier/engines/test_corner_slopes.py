"""Slopes found from corners: bounds against samples, against default slopes, and the slopes against a pass that takes them."""

import numpy as np
import pytest
import torch

from verifier.domains.choices import Choices, Rows
from verifier.domains.interval import interval_bounds
from verifier.domains.linear import lower_bounds
from verifier.engines.bound import intervals
from verifier.engines.corner_slopes import climb_from_corners
from verifier.evaluate import evaluate
from verifier.network import Network, Node
from verifier.ops import Cos, Exp, LeakyRelu, Linear, Op, Power, Product, Relu, Sigmoid, Sin, Tanh, frozen_array

NODES: dict[str, Op] = {
    "relu": Relu(),
    "leaky": LeakyRelu(0.1),
    "sigmoid": Sigmoid(),
    "tanh": Tanh(),
    "sin": Sin(),
    "cos": Cos(),
    "exp": Exp(),
    "power": Power(3),
    "product": Product(),
}


def network_of(op: Op) -> Network:
    rng = np.random.default_rng(7)

    def linear(outputs: int, inputs: int) -> Linear:
        return Linear(frozen_array(rng.normal(size=(outputs, inputs))), frozen_array(rng.normal(size=outputs) / 2))

    nodes = (
        Node("z", linear(4, 2), ("x",)),
        Node("z2", linear(4, 2), ("x",)),
        Node("h", op, ("z", "z2") if isinstance(op, Product) else ("z",)),
        Node("p", Product(), ("h", "z2")),
        Node("y", linear(1, 4), ("p",)),
    )
    return Network("x", (1, 2), nodes, "y")


@pytest.mark.parametrize("name", NODES)
def test_bounds_hold_at_samples_and_are_no_worse_than_with_default_slopes(name: str) -> None:
    network = network_of(NODES[name])
    torch.manual_seed(0)
    boxes = 40
    center, radius = torch.rand(boxes, 2, dtype=torch.float64) * 2 - 1, torch.rand(boxes, 2, dtype=torch.float64) / 2
    bounds = intervals(interval_bounds(network, center - radius, center + radius))
    signs = torch.where(torch.rand(boxes, 1, 1) < 0.5, -1.0, 1.0).double()
    rows = Rows({"y": signs}, torch.zeros(boxes, 1, dtype=torch.float64))
    found, choices = climb_from_corners(network, bounds, rows)
    points = center[:, None] + radius[:, None] * (2 * torch.rand(boxes, 2000, 2, dtype=torch.float64) - 1)
    y = evaluate(network, points.reshape(-1, 2))["y"].reshape(boxes, -1)
    assert bool((found[:, 0] <= (signs[:, 0] * y).amin(1) + 1e-9).all())
    default = lower_bounds(network, bounds, rows, Choices({}))
    assert bool((found >= default - 1e-12).all()) and bool((found > default + 1e-6).any())
    torch.testing.assert_close(lower_bounds(network, bounds, rows, choices), found)
