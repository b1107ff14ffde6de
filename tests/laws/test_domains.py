"""Every domain x every law, over random networks of every kind."""

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import pytest
import torch
from laws.networks import ALL_KINDS, KINDS, RATIONAL_KINDS, chain, random_box, random_network, sample_box

from verifier.domains import DOMAINS
from verifier.domains.bounds import cuts_of
from verifier.errors import UnsupportedOp
from verifier.evaluate import evaluate
from verifier.formula import at_least, at_most
from verifier.network import Network, Node
from verifier.ops import (
    Cos,
    Erf,
    Exp,
    Floor,
    Linear,
    Power,
    Product,
    Reciprocal,
    Relu,
    Scale,
    Sigmoid,
    Sign,
    Sin,
    Sqrt,
    Sum,
    Tanh,
    frozen_array,
)

SEEDS = range(4)
UNBOUNDED = [Exp(), Reciprocal(), Power(3), Power(2), Sin(), Cos(), Sigmoid(), Tanh(), Sqrt(), Erf(), Sign(), Floor()]


@dataclass(frozen=True)
class Sine:
    """An operator that no domain knows."""


def tensors(*arrays: np.ndarray) -> list[torch.Tensor]:
    return [torch.from_numpy(a) for a in arrays]


def outside(bounds, values: dict[str, torch.Tensor], row: int, tolerance: float) -> list[str]:
    """Names of the values where some sample leaves the bounds of that row."""
    found = []
    for name, value in values.items():
        flat, lower, upper = value.flatten(1), bounds.lower[name][row], bounds.upper[name][row]
        slack = tolerance * (1 + flat.abs())
        if not bool(((flat >= lower - slack) & (flat <= upper + slack)).all()):
            found.append(name)
    return found


@pytest.mark.parametrize("domain", DOMAINS)
@pytest.mark.parametrize("kind", ALL_KINDS)
@pytest.mark.parametrize("seed", SEEDS)
def test_samples_stay_inside_at_every_value(domain: str, kind: str, seed: int) -> None:
    network = random_network(kind, seed=seed)
    lower, upper = random_box(network, seed=seed, batch=3)
    bounds = DOMAINS[domain](network, *tensors(lower, upper))
    assert not bounds.empty.any()
    for row in range(3):
        values = evaluate(network, sample_box(lower[row], upper[row], count=60, seed=seed))
        assert outside(bounds, values, row, 1e-12) == []


@pytest.mark.parametrize("domain", DOMAINS)
@pytest.mark.parametrize("kind", [*KINDS, *RATIONAL_KINDS])
@pytest.mark.parametrize("seed", SEEDS)
def test_samples_on_the_grid_stay_inside_with_no_tolerance(domain: str, kind: str, seed: int) -> None:
    network = random_network(kind, seed=seed, grid=True)
    lower, upper = random_box(network, seed=seed)
    bounds = DOMAINS[domain](network, *tensors(lower, upper))
    values = evaluate(network, sample_box(lower[0], upper[0], count=60, seed=seed, grid=True))
    assert outside(bounds, values, 0, 0.0) == []


@pytest.mark.parametrize("domain", DOMAINS)
@pytest.mark.parametrize("seed", SEEDS)
def test_point_regions_contain_the_exact_value(domain: str, seed: int) -> None:
    network = random_network("mlp", seed=seed)
    x = np.random.default_rng(seed).normal(size=(1, 3))
    bounds = DOMAINS[domain](network, *tensors(x, x))
    values = [Fraction(v) for v in x[0].tolist()]
    for node in network.nodes:
        if isinstance(node.op, Linear):
            weight, bias = node.op.weight.tolist(), node.op.bias.tolist()
            rows = zip(weight, bias, strict=True)
            values = [sum((Fraction(w) * v for w, v in zip(row, values, strict=True)), Fraction(b)) for row, b in rows]
        else:
            values = [max(v, Fraction(0)) for v in values]
        sides = bounds.lower[node.output][0].tolist(), bounds.upper[node.output][0].tolist()
        for low, value, high in zip(sides[0], values, sides[1], strict=True):
            assert Fraction(low) <= value <= Fraction(high)
            assert high - low <= 1e-11 * (1 + abs(high))


@pytest.mark.parametrize("domain", DOMAINS)
@pytest.mark.parametrize("kind", ALL_KINDS)
@pytest.mark.parametrize("seed", SEEDS)
def test_samples_that_satisfy_the_cuts_stay_inside(domain: str, kind: str, seed: int) -> None:
    network = random_network(kind, seed=seed)
    lower, upper = random_box(network, seed=seed)
    values = evaluate(network, sample_box(lower[0], upper[0], count=200, seed=seed))
    rng = np.random.default_rng(seed)
    kept = torch.ones(len(values[network.input]), dtype=torch.bool)
    atoms = []
    for name in rng.choice(list(values), size=3):
        flat = values[name].flatten(1)
        index = int(rng.integers(flat.shape[1]))
        threshold = float(flat[kept, index].median())
        down = bool(rng.integers(2))
        atoms.append(at_most(name, index, threshold) if down else at_least(name, index, threshold))
        kept &= (flat[:, index] <= threshold) if down else (flat[:, index] >= threshold)
    bounds = DOMAINS[domain](network, *tensors(lower, upper), cuts=cuts_of(network, [atoms]))
    assert kept.any() and not bounds.empty.any()
    assert outside(bounds, {name: value[kept] for name, value in values.items()}, 0, 1e-12) == []


@pytest.mark.parametrize("domain", DOMAINS)
@pytest.mark.parametrize("kind", ALL_KINDS)
def test_rows_of_a_batch_do_not_touch_each_other(domain: str, kind: str) -> None:
    network = random_network(kind, seed=5)
    lower, upper = random_box(network, seed=5, batch=4)
    together = DOMAINS[domain](network, *tensors(lower, upper))
    for row in range(4):
        alone = DOMAINS[domain](network, *tensors(lower[row : row + 1], upper[row : row + 1]))
        for name in network.shapes:
            torch.testing.assert_close(together.lower[name][row], alone.lower[name][0], rtol=1e-10, atol=1e-10)
            torch.testing.assert_close(together.upper[name][row], alone.upper[name][0], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("kind", ALL_KINDS)
@pytest.mark.parametrize("seed", SEEDS)
def test_smaller_regions_never_give_larger_interval_bounds(kind: str, seed: int) -> None:
    network = random_network(kind, seed=seed)
    lower, upper = random_box(network, seed=seed)
    shares = np.sort(np.random.default_rng(seed).uniform(size=(2, *lower.shape)), axis=0)
    inner = lower + shares[0] * (upper - lower), lower + shares[1] * (upper - lower)
    outer, smaller = (DOMAINS["interval"](network, *tensors(*box)) for box in ((lower, upper), inner))
    for name in network.shapes:
        rounding = 1e-12 * (1 + outer.lower[name].abs() + outer.upper[name].abs())
        assert (smaller.lower[name] >= outer.lower[name] - rounding).all()
        assert (smaller.upper[name] <= outer.upper[name] + rounding).all()


@pytest.mark.parametrize("domain", DOMAINS)
@pytest.mark.parametrize("kind", ALL_KINDS)
@pytest.mark.parametrize("seed", SEEDS)
def test_no_domain_is_wider_than_intervals(domain: str, kind: str, seed: int) -> None:
    network = random_network(kind, seed=seed)
    box = tensors(*random_box(network, seed=seed))
    bounds, intervals = DOMAINS[domain](network, *box), DOMAINS["interval"](network, *box)
    for name in network.shapes:
        rounding = 1e-12 * (1 + intervals.lower[name].abs() + intervals.upper[name].abs())
        assert (bounds.lower[name] >= intervals.lower[name] - rounding).all()
        assert (bounds.upper[name] <= intervals.upper[name] + rounding).all()


@pytest.mark.parametrize("domain", DOMAINS)
def test_unknown_operator_is_refused(domain: str) -> None:
    network = chain((1, 2), Relu(), Relu())
    object.__setattr__(network.nodes[1], "op", Sine())
    object.__setattr__(network, "shapes", {"x": (1, 2), "v1": (1, 2), "v2": (1, 2)})
    with pytest.raises(UnsupportedOp, match="operator Sine at node 'v2' is not supported"):
        DOMAINS[domain](network, *tensors(np.zeros((1, 2)), np.ones((1, 2))))


@pytest.mark.parametrize("domain", DOMAINS)
@pytest.mark.parametrize("scale", [1e160, 1e300])
def test_overflow_gives_wide_bounds_and_no_nan(domain: str, scale: float) -> None:
    w = np.array([[scale, -scale], [scale, 0.0]])
    network = chain((1, 2), *(Linear(w, np.zeros(2)), Relu()) * 3)
    bounds = DOMAINS[domain](network, *tensors(-np.ones((1, 2)), np.ones((1, 2))))
    for name in network.shapes:
        assert (bounds.lower[name] <= bounds.upper[name]).all()
    assert bounds.upper[network.output][0, 0] == torch.inf or bounds.upper[network.output][0, 0] > 1e307


@pytest.mark.parametrize("domain", DOMAINS)
@pytest.mark.parametrize("scale", [1.0, 1e3, 1e200])
@pytest.mark.parametrize("op", UNBOUNDED, ids=lambda op: f"{type(op).__name__}{getattr(op, 'exponent', '')}")
def test_unbounded_curves_give_wide_bounds_and_no_nan(domain: str, scale: float, op) -> None:
    """1 / x across 0, exp past the largest float, and what products, curves and sums make of infinite bounds."""
    nodes = (
        Node("z", Scale(frozen_array([[scale]]), frozen_array([[0.0]])), ("x",)),
        Node("i", Reciprocal(), ("z",)),
        Node("e", Exp(), ("z",)),
        Node("n", Scale(frozen_array([[0.0]]), frozen_array([[0.0]])), ("e",)),
        Node("p", Product(), ("n", "i")),
        Node("q", Product(), ("i", "e")),
        *(Node(f"{name}f", op, (name,)) for name in "zieqp"),
        *(Node(f"{name}g", op, (f"{name}f",)) for name in "zieqp"),
        Node("s", Sum((1.0, -1.0)), ("ig", "eg")),
        Node("y", Sign(), ("s",)),
    )
    network = Network("x", (1, 2), nodes, "y")
    bounds = DOMAINS[domain](network, *tensors(-np.ones((1, 2)), np.ones((1, 2))))
    for name in network.shapes:
        assert (bounds.lower[name] <= bounds.upper[name]).all(), name
    assert bounds.lower["i"].tolist() == [[-torch.inf, -torch.inf]] and bounds.upper["i"].tolist() == [[torch.inf, torch.inf]]
    samples = evaluate(network, np.array([[0.5, -0.25], [1.0, 1e-3]]))
    assert [name for name in outside(bounds, samples, 0, 1e-12) if samples[name].isfinite().all()] == []


def contradictory(network: Network) -> list:
    """v2 = relu(v1) with both v2[0] >= 1 and v1[0] <= 0.5."""
    return [at_least("v2", 0, 1.0), at_most("v1", 0, 0.5)]


@pytest.mark.parametrize("domain", DOMAINS)
def test_contradictory_cuts_mark_the_row_empty(domain: str) -> None:
    network = random_network("mlp", seed=0)
    cuts = cuts_of(network, [contradictory(network), []])
    bounds = DOMAINS[domain](network, *tensors(-np.ones((2, 3)), np.ones((2, 3))), cuts=cuts)
    assert bounds.empty.tolist() == [True, False]
    assert not any(bounds.lower[name].isnan().any() or bounds.upper[name].isnan().any() for name in network.shapes)
