"""Hand-computed zonotopes: what affine forms see that intervals do not."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from laws.networks import chain, random_box, random_network

from verifier.domains import zonotope
from verifier.domains.bounds import cuts_of
from verifier.domains.zonotope import relaxation, zonotope_bounds
from verifier.formula import at_least
from verifier.network import Network, Node
from verifier.ops import (
    Exp,
    Linear,
    MaxPool,
    Power,
    Product,
    Reciprocal,
    Relu,
    Reshape,
    Scale,
    Select,
    Sigmoid,
    Sin,
    Sum,
    Tanh,
    frozen_array,
)


def row(*numbers: float) -> torch.Tensor:
    return torch.tensor([numbers], dtype=torch.float64)


def test_a_value_minus_itself_is_zero() -> None:
    nodes = (Node("a", Relu(), ("x",)), Node("y", Sum((1.0, -1.0)), ("a", "a")))
    bounds = zonotope_bounds(Network("x", (1, 2), nodes, "y"), row(-1.0, 2.0), row(1.0, 3.0))
    torch.testing.assert_close(bounds.lower["y"], row(0.0, 0.0), atol=1e-12, rtol=0.0)
    torch.testing.assert_close(bounds.upper["y"], row(0.0, 0.0), atol=1e-12, rtol=0.0)


def test_chains_of_linear_maps_are_exact() -> None:
    turn = np.array([[1.0, 1.0], [1.0, -1.0]])
    bounds = zonotope_bounds(
        chain((1, 2), Linear(turn, np.zeros(2)), Linear(turn, np.zeros(2))), row(-1.0, -1.0), row(1.0, 1.0)
    )
    torch.testing.assert_close(bounds.upper["v2"], row(2.0, 2.0))
    torch.testing.assert_close(bounds.lower["v2"], row(-2.0, -2.0))


def test_relu_relaxation_by_hand() -> None:
    steep, top = relaxation(row(-1.0, 1.0, -3.0), row(3.0, 2.0, -1.0), 0.0)
    torch.testing.assert_close(steep, row(0.75, 1.0, 0.0))
    torch.testing.assert_close(top, row(0.75, 0.0, 0.0))


@given(st.floats(-10, 10), st.floats(0, 10), st.floats(0, 1), st.sampled_from([0.0, 0.1, 1.0]))
def test_relaxation_bounds_the_activation(lower: float, width: float, share: float, slope: float) -> None:
    upper = lower + width
    steep, top = (float(t) for t in relaxation(row(lower), row(upper), slope))
    x = min(max(lower + share * width, lower), upper)
    assert -1e-12 <= max(x, slope * x) - steep * x <= top + 1e-12


def test_unstable_relus_keep_their_common_input() -> None:
    """relu(x) - relu(x + 1) lies in [-1, 0]; intervals say [-2, 1], x / 2 + 1/4 +- 1/4 - (x + 1) says [-3/2, 0]."""
    both = Linear(np.array([[1.0], [1.0]]), np.array([0.0, 1.0]))
    network = chain((1, 1), both, Relu(), Linear(np.array([[1.0, -1.0]]), np.zeros(1)))
    bounds = zonotope_bounds(network, row(-1.0), row(1.0))
    torch.testing.assert_close(bounds.lower["v3"], row(-1.5))
    torch.testing.assert_close(bounds.upper["v3"], row(0.0), atol=1e-12, rtol=0.0)


def test_a_dominating_entry_of_a_window_keeps_its_affine_form() -> None:
    nodes = (
        Node("p", MaxPool((2,), (2,), ((0, 0),), (1,)), ("x",)),
        Node("f", Reshape((1, 2)), ("p",)),
        Node("g", Reshape((1, 4)), ("x",)),
        Node("y", Linear(np.array([[0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]]), np.zeros(2)), ("g",)),
        Node("d", Sum((1.0, -1.0)), ("f", "y")),
    )
    network = Network("x", (1, 1, 4), nodes, "d")
    bounds = zonotope_bounds(network, row(0.0, 5.0, 0.0, 0.0), row(1.0, 6.0, 1.0, 1.0))
    assert abs(float(bounds.lower["d"][0, 0])) < 1e-12 > abs(float(bounds.upper["d"][0, 0]))
    torch.testing.assert_close(bounds.upper["d"][0, 1], torch.tensor(1.0, dtype=torch.float64))


@pytest.mark.parametrize("kind", ["mlp", "residual", "max_pool"])
def test_large_batches_are_bounded_in_parts(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    network = random_network(kind, seed=1)
    lower, upper = map(torch.from_numpy, random_box(network, seed=1, batch=5))
    cuts = cuts_of(network, [[at_least(network.output, 0, k - 2)] for k in range(5)])
    whole = zonotope_bounds(network, lower, upper, cuts=cuts)
    monkeypatch.setattr(zonotope, "CHUNK_ENTRIES", 1)
    parts = zonotope_bounds(network, lower, upper, cuts=cuts)
    assert torch.equal(whole.empty, parts.empty)
    for name in network.shapes:
        torch.testing.assert_close(whole.lower[name], parts.lower[name], rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(whole.upper[name], parts.upper[name], rtol=1e-9, atol=1e-9)


def test_products_of_correlated_factors():
    """x * 2 x lies in [0, 2] over [-1, 1]; intervals, which know of no correlation, give [-2, 2]."""
    double = Node("d", Scale(frozen_array([[2.0]]), frozen_array([[0.0]])), ("x",))
    network = Network("x", (1, 1), (double, Node("y", Product(), ("x", "d"))), "y")
    bounds = zonotope_bounds(network, row(-1.0), row(1.0))
    assert (bounds.lower["y"].item(), bounds.upper["y"].item()) == pytest.approx((0, 2), abs=1e-12)


def test_a_product_minus_its_tangent_plane_is_small():
    """a * b - 2 a - b + 2 = (a - 1) (b - 2) over [0.9, 1.1] x [1.9, 2.1]: at most 0.01."""
    nodes = (
        Node("a", Select(np.array([0]), (1, 1)), ("x",)),
        Node("b", Select(np.array([1]), (1, 1)), ("x",)),
        Node("p", Product(), ("a", "b")),
        Node("y", Sum((1.0, -2.0, -1.0)), ("p", "a", "b")),
    )
    bounds = zonotope_bounds(Network("x", (1, 2), nodes, "y"), row(0.9, 1.9), row(1.1, 2.1))
    assert (bounds.lower["y"].item(), bounds.upper["y"].item()) == pytest.approx((-2.01, -1.99), abs=1e-7)


@pytest.mark.parametrize(
    "op, slope, curvature", [(Sin(), 0.5403, 0.9), (Tanh(), 0.42, 0.77), (Exp(), 2.718, 3.01), (Power(3), 3.0, 6.6)]
)
def test_a_curve_minus_its_tangent_is_small(op, slope, curvature):
    """Over [0.9, 1.1] a curve leaves its chord by at most curvature * 0.2 ** 2 / 8; an interval has the whole rise."""
    tangent = Node("t", Scale(frozen_array([[slope]]), frozen_array([[0.0]])), ("x",))
    nodes = (Node("c", op, ("x",)), tangent, Node("y", Sum((1.0, -1.0)), ("c", "t")))
    bounds = zonotope_bounds(Network("x", (1, 1), nodes, "y"), row(0.9), row(1.1))
    width = (bounds.upper["y"] - bounds.lower["y"]).item()
    assert width <= 1.5 * curvature * 0.04 / 8


def test_unbounded_curves_carry_no_symbols():
    """1 / x across 0 says nothing, but what is computed beside it keeps its bounds."""
    nodes = (
        Node("i", Reciprocal(), ("x",)),
        Node("s", Sigmoid(), ("i",)),
        Node("y", Sum((1.0, 1.0)), ("s", "x")),
    )
    bounds = zonotope_bounds(Network("x", (1, 1), nodes, "y"), row(-1.0), row(1.0))
    assert (bounds.lower["i"].item(), bounds.upper["i"].item()) == (-torch.inf, torch.inf)
    assert (bounds.lower["y"].item(), bounds.upper["y"].item()) == pytest.approx((-1, 2), abs=1e-12)
