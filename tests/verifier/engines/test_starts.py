"""Starts lie in their boxes and differ; programs compute what the network computes, softened or not."""

import numpy as np
import pytest
import torch
from laws.networks import random_network

from verifier.engines.program import program_for, run
from verifier.engines.starts import apart, corners, varied
from verifier.evaluate import evaluate


@pytest.mark.parametrize("inputs", [1, 2, 5, 40])
def test_varied_points_lie_in_their_boxes(inputs: int) -> None:
    lower = torch.tensor([[-1.0], [2.0]], dtype=torch.float64).expand(2, inputs)
    upper = lower + torch.arange(inputs, dtype=torch.float64)
    points = varied(lower, upper, 64, torch.Generator().manual_seed(0))
    assert points.shape == (2, 64, inputs)
    assert ((points >= lower.unsqueeze(1)) & (points <= upper.unsqueeze(1))).all()
    assert len(np.unique(points[0].numpy(), axis=0)) > (32 if inputs > 2 else 1 if inputs == 2 else 0)


def test_varied_points_reach_dark_and_bright_and_flat() -> None:
    points = varied(torch.zeros(100), torch.ones(100), 400, torch.Generator().manual_seed(1))
    means, spreads = points.mean(1), points.std(1)
    assert means.min() < 0.1 and means.max() > 0.9 and spreads.min() < 0.02 and spreads.max() > 0.45
    steps = (points[:, 1:] == points[:, :-1]).double().mean(1)
    assert ((steps > 0.4) & (spreads > 0.1)).double().mean() > 0.2


def test_corners_are_all_corners() -> None:
    found = corners(torch.tensor([0.0, 5.0]), torch.tensor([1.0, 6.0]))
    assert sorted(found.tolist()) == [[0.0, 5.0], [0.0, 6.0], [1.0, 5.0], [1.0, 6.0]]


def test_apart_keeps_the_best_and_no_neighbours_while_others_are_left() -> None:
    points = torch.tensor([[0.0], [0.001], [0.5], [0.501], [1.0]])
    values = torch.tensor([1.0, 0.5, 3.0, 2.0, 4.0])
    assert apart(points, values, 3).tolist() == [1, 3, 4]
    assert apart(points, values, 4).tolist() == [1, 3, 4, 0]


@pytest.mark.parametrize("kind", ["mlp", "residual", "conv2d", "max_pool", "branches"])
def test_a_program_computes_entries_of_the_network(kind: str) -> None:
    network = random_network(kind, seed=3)
    entries = [(name, index) for name in network.shapes for index in range(network.size(name))][::3]
    points = torch.rand((7, network.size(network.input)), dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    values = evaluate(network, points)
    expected = torch.stack([values[name].flatten(1)[:, index] for name, index in sorted(entries)], 1)
    program = program_for(network, entries)
    assert torch.equal(run(program, points), expected)
    assert torch.equal(run(program, points, leak=0.1), expected)


def test_softened_slopes_are_not_zero_where_a_rectifier_is_off() -> None:
    network = random_network("mlp", seed=3)
    relu = next(node for node in network.nodes if type(node.op).__name__ == "Relu")
    program = program_for(network, [(relu.output, 0)])
    points = torch.zeros((200, network.size(network.input)), dtype=torch.float64).uniform_(-1, 1).requires_grad_()
    off = run(program, points)[:, 0] <= 0
    assert off.any()
    for leak, dead in ((0.0, True), (0.1, False)):
        (slope,) = torch.autograd.grad(run(program, points, leak=leak).sum(), points)
        assert bool((slope[off] == 0).all()) == dead
