"""Scores and places of case splits: zero exactly where nothing is lost, strictly inside the bounds, worked out by hand."""

import numpy as np
import pytest
import torch
from laws.networks import ALL_KINDS, chain, random_box, random_network

from verifier.domains.choices import Rows
from verifier.domains.interval import interval_bounds
from verifier.domains.linear import lower_bounds
from verifier.domains.relaxations import undecided, values_read
from verifier.engines.bound import adaptive
from verifier.engines.branching import split_points, split_scores
from verifier.network import Network
from verifier.ops import Floor, Linear, Relu, Sigmoid, Sign, Tanh, frozen_array

Bounds = dict[str, tuple[torch.Tensor, torch.Tensor]]


def bounds_of(network: Network, lower: np.ndarray, upper: np.ndarray) -> Bounds:
    known = interval_bounds(network, torch.from_numpy(lower), torch.from_numpy(upper))
    return {name: (known.lower[name], known.upper[name]) for name in known.lower}


def scores_of(network: Network, bounds: Bounds, form: np.ndarray) -> dict[str, torch.Tensor]:
    """Scores for one row over the output in each batch entry."""
    batch = len(bounds[network.input][0])
    rows = Rows({network.output: torch.from_numpy(form).expand(batch, 1, -1)}, torch.zeros(batch, 1, dtype=torch.float64))
    seen: dict[str, torch.Tensor] = {}
    choices = adaptive(network, bounds)
    lower_bounds(network, bounds, rows, choices, seen=seen)
    return split_scores(network, bounds, seen, choices)


@pytest.mark.parametrize("kind", ALL_KINDS)
@pytest.mark.parametrize("seed", range(3))
def test_scores_are_positive_exactly_where_a_relaxation_is_not_exact(kind: str, seed: int) -> None:
    network = random_network(kind, seed=seed)
    bounds = bounds_of(network, *random_box(network, seed=seed, batch=3))
    form = np.random.default_rng(seed).normal(size=(1, 1, network.size(network.output)))
    scores = scores_of(network, bounds, form)
    assert list(scores) == values_read(network)
    points = split_points(network, bounds)
    for value, score in scores.items():
        open_ = undecided(network, bounds, value)
        assert score.isfinite().all()
        assert torch.equal(score > 0, open_)
        low, high = bounds[value]
        inside = (points[value] > low) & (points[value] < high)
        assert (inside | ~open_ | (low == high)).all()


def test_scores_by_hand() -> None:
    first = Linear(frozen_array([[1.0], [1.0], [1.0]]), frozen_array([0.0, 1.0, 3.0]))
    network = chain((1, 1), first, Relu())
    bounds = bounds_of(network, np.array([[-2.0]]), np.array([[2.0]]))
    # bounds [-2, 2], [-1, 3], [1, 5]; chords pass 1, 0.75 and 0 above relu at 0; below, slopes 0, 1 and 1 miss by 2, 1 and 0
    above = scores_of(network, bounds, np.array([[[-1.0, -2.0, -4.0]]]))["v1"][0]
    assert above.tolist() == pytest.approx([1.0, 1.5, 0.0], abs=1e-9)
    below = scores_of(network, bounds, np.array([[[1.0, 2.0, 4.0]]]))["v1"][0]
    assert below.tolist() == pytest.approx([2.0, 2.0, 0.0], abs=1e-9)


def test_places_by_hand() -> None:
    ends = np.array([[-1.0, -4.0, 0.3, 1.25]]), np.array([[1.0, 1.0, 2.6, 1.5]])
    wanted = {
        Relu(): [0.0, 0.0],
        Sign(): [0.0, 0.0],
        Floor(): [0.0, -2.0, 1.0],
        Sigmoid(): [0.0, -1.5, 1.45],
        Tanh(): [0.0, -1.5],
    }
    for op, places in wanted.items():
        network = chain((1, 4), op)
        found = split_points(network, bounds_of(network, *ends))["x"][0]
        assert found[: len(places)].tolist() == pytest.approx(places)
