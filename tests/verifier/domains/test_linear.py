"""The linear domain: every choice of slopes and multipliers gives a true lower bound; optimising never loses."""

import numpy as np
import pytest
import torch
from laws.networks import ALL_KINDS, chain, random_box, random_network, sample_box

from verifier.domains.choices import Atoms, Choices, Rows, unit_rows
from verifier.domains.interval import interval_bounds
from verifier.domains.linear import lower_bounds
from verifier.domains.optimise import optimise
from verifier.domains.relaxations import (
    adaptive_slopes,
    adaptive_upper_slopes,
    has_slopes,
    has_upper_slopes,
    pool_windows,
    relaxed_nodes,
    slope_floor,
)
from verifier.evaluate import evaluate
from verifier.network import Network
from verifier.ops import ACTIVATION_OPS, CURVE_OPS, Linear, MaxPool, Relu, frozen_array

Bounds = dict[str, tuple[torch.Tensor, torch.Tensor]]


def bounds_of(network: Network, lower: np.ndarray, upper: np.ndarray) -> Bounds:
    known = interval_bounds(network, torch.from_numpy(lower), torch.from_numpy(upper))
    return {name: (known.lower[name], known.upper[name]) for name in known.lower}


def random_choices(network: Network, rng: np.random.Generator, batch: int, spec: int) -> Choices:
    slopes, above, lower, upper = {}, {}, {}, {}
    for node in relaxed_nodes(network):
        shape = (batch, spec, network.size(node.output))
        curve = isinstance(node.op, CURVE_OPS)
        if has_slopes(node):
            least = slope_floor(node.op) if isinstance(node.op, ACTIVATION_OPS) else 0.0
            slopes[node.output] = torch.from_numpy(rng.normal(size=shape) if curve else rng.uniform(least, 1, shape))
        if has_upper_slopes(node):
            above[node.output] = torch.from_numpy(rng.normal(size=shape) if curve else rng.uniform(0, 1, shape))
    for name in network.shapes:
        shape = (batch, spec, network.size(name))
        lower[name] = torch.from_numpy(rng.exponential(size=shape) * (rng.uniform(size=shape) < 0.3))
        upper[name] = torch.from_numpy(rng.exponential(size=shape) * (rng.uniform(size=shape) < 0.3))
    return Choices(slopes, lower, upper, upper_slopes=above)


@pytest.mark.parametrize("kind", ALL_KINDS)
@pytest.mark.parametrize("seed", range(6))
def test_any_choices_bound_every_sample(kind: str, seed: int) -> None:
    network, rng = random_network(kind, seed=seed), np.random.default_rng(seed)
    lower, upper = random_box(network, seed=seed, batch=2)
    bounds = bounds_of(network, lower, upper)
    matrices = {name: torch.from_numpy(rng.normal(size=(2, 4, network.size(name)))) for name in network.shapes}
    rows = Rows(matrices, torch.from_numpy(rng.normal(size=(2, 4))))
    found = lower_bounds(network, bounds, rows, random_choices(network, rng, 2, 4))
    for b in range(2):
        values = evaluate(network, sample_box(lower[b], upper[b], count=200, seed=seed))
        forms = sum(values[n].flatten(1) @ matrices[n][b].T for n in matrices) + rows.constant[b]
        assert (forms >= found[b] - 1e-9 * (1 + forms.abs())).all()


@pytest.mark.parametrize("seed", range(8))
def test_multipliers_on_atoms_bound_the_samples_that_satisfy_them(seed: int) -> None:
    network, rng = random_network("residual", seed=seed), np.random.default_rng(seed)
    lower, upper = random_box(network, seed=seed)
    points = sample_box(lower[0], upper[0], count=500, seed=seed)
    values = {name: v.flatten(1) for name, v in evaluate(network, points).items()}
    matrices = {name: torch.from_numpy(rng.normal(size=(1, 2, network.size(name)))) for name in ("h", "t")}
    sides = sum(values[n] @ matrices[n][0].T for n in matrices)
    atoms = Atoms(matrices, -sides.median(0).values[None])
    rows = unit_rows("y", torch.tensor([[0, 1]]), torch.tensor([[1.0, -1.0]], dtype=torch.float64))
    choices = random_choices(network, rng, 1, 2)
    choices = Choices(choices.slopes, {}, {}, torch.from_numpy(rng.exponential(size=(1, 2, 2))))
    found = lower_bounds(network, bounds_of(network, lower, upper), rows, choices, atoms=atoms)
    inside = (sides + atoms.bias[0] <= 0).all(1)
    assert inside.any()
    forms = torch.stack([values["y"][:, 0], -values["y"][:, 1]], 1)[inside]
    assert (forms >= found[0] - 1e-9).all()


def test_a_network_worked_out_by_hand() -> None:
    first = Linear(frozen_array([[1.0, 1.0], [1.0, -1.0]]), frozen_array([0.0, 0.0]))
    network = chain((1, 2), first, Relu(), Linear(frozen_array([[1.0, -1.0]]), frozen_array([0.5])))
    bounds = bounds_of(network, np.array([[-1.0, -1.0]]), np.array([[1.0, 1.0]]))
    rows = unit_rows("v3", torch.tensor([[0]]), torch.ones(1, 1, dtype=torch.float64))
    # y >= 0 * (a + b) - (0.5 * (a - b) + 1) + 0.5, smallest at a = 1, b = -1
    flat = Choices({"v2": torch.zeros(1, 1, 2, dtype=torch.float64)})
    assert lower_bounds(network, bounds, rows, flat).item() == pytest.approx(-1.5)
    # and with slope 1 below: a + b - 0.5 * (a - b) - 0.5 = 0.5 a + 1.5 b - 0.5
    steep = Choices({"v2": torch.ones(1, 1, 2, dtype=torch.float64)})
    assert lower_bounds(network, bounds, rows, steep).item() == pytest.approx(-2.5)
    # the bound a + b >= 1 taken from a premise, multiplier 1 at v1: relu is exact there and y >= a + b - ... >= 0
    low, high = bounds["v1"]
    cut = {**bounds, "v1": (low.clone(), high)}
    cut["v1"][0][0, 0] = 1.0
    choices = Choices(adaptive_slopes(network, cut), lower={"v1": torch.tensor([[[1.0, 0.0]]], dtype=torch.float64)})
    assert lower_bounds(network, cut, rows, choices).item() == pytest.approx(1.0 - 2.0 + 0.5)


@pytest.mark.parametrize("kind", ALL_KINDS)
@pytest.mark.parametrize("seed", range(2))
def test_rows_at_single_entries_are_those_of_a_matrix_of_zeros_and_ones(kind: str, seed: int) -> None:
    network, rng = random_network(kind, seed=seed), np.random.default_rng(seed)
    bounds = bounds_of(network, *random_box(network, seed=seed, batch=2))
    choices = random_choices(network, rng, 2, 3)
    for value in network.shapes:
        indices = torch.from_numpy(rng.integers(network.size(value), size=(2, 3)))
        signs = torch.from_numpy(rng.choice([-1.0, 1.0], (2, 3)))
        matrix = torch.zeros(2, 3, network.size(value), dtype=torch.float64).scatter(2, indices[..., None], signs[..., None])
        found = [
            lower_bounds(network, bounds, rows, choices)
            for rows in (unit_rows(value, indices, signs), Rows({value: matrix}, torch.zeros_like(signs)))
        ]
        torch.testing.assert_close(*found)


@pytest.mark.parametrize("kind", ["deep", "leaky", "conv2d", "max_pool", "sigmoids"])
def test_optimising_never_loses(kind: str) -> None:
    network = random_network(kind, seed=1)
    lower, upper = random_box(network, seed=1, batch=3)
    bounds = bounds_of(network, lower, upper)
    rows = unit_rows(network.output, torch.zeros(3, 1, dtype=torch.long), torch.ones(3, 1, dtype=torch.float64))
    start = Choices(adaptive_slopes(network, bounds), upper_slopes=adaptive_upper_slopes(network, bounds))
    plain = lower_bounds(network, bounds, rows, start)
    best = optimise(network, bounds, rows, start, steps=30)
    assert (best.bounds >= plain).all()
    assert torch.equal(lower_bounds(network, bounds, rows, best.choices), best.bounds)


def test_pool_windows_name_the_entries() -> None:
    pool = MaxPool((2, 2), (1, 1), ((1, 0), (0, 1)), (1, 1))
    network = chain((1, 1, 2, 2), pool)
    windows = pool_windows(network.nodes[0], network, torch.device("cpu"))
    assert windows.tolist() == [[-1, -1, 0, 1], [-1, -1, 1, -1], [0, 1, 2, 3], [1, -1, 3, -1]]
