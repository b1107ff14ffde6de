"""Bounds by backward passes before every node that loses something: true at samples, recorded as steps that tell both sides."""

import numpy as np
import pytest
import torch
from laws.networks import ALL_KINDS, random_box, random_network, sample_box

from verifier.domains.relaxations import has_slopes, has_upper_slopes, relaxed_nodes, values_read
from verifier.engines.bound import bound_goals, start_batch, tighten
from verifier.engines.problem import Batch, GoalRow, groups
from verifier.evaluate import evaluate
from verifier.formula import at_least
from verifier.network import Network, Node
from verifier.ops import Linear, Product, frozen_array
from verifier.query import Query
from verifier.region import Box


def batch_of(network: Network, seed: int) -> tuple[Batch, np.ndarray]:
    lower, upper = random_box(network, seed=seed)
    # a premise that cuts nothing
    query = Query(network, Box(lower[0], upper[0]), at_least(network.output, 0, -1e6))
    return start_batch(groups(query)), sample_box(lower[0], upper[0], count=300, seed=seed)


@pytest.mark.parametrize("steps", [0, 5])
@pytest.mark.parametrize("kind", ALL_KINDS)
def test_tightened_bounds_hold_at_samples_and_never_widen(kind: str, steps: int) -> None:
    network = random_network(kind, seed=2)
    before, points = batch_of(network, seed=2)
    after = tighten(before, steps=steps)
    for name, values in evaluate(network, points).items():
        low, high = after.bounds[name]
        slack = 1e-9 * (1 + values.flatten(1).abs())
        assert ((values.flatten(1) >= low - slack) & (values.flatten(1) <= high + slack)).all()
        old_low, old_high = before.bounds[name]
        rounding = 1e-12 * (1 + old_low.abs() + old_high.abs())
        assert (low >= old_low - rounding).all() and (high <= old_high + rounding).all()


def both_factors() -> Network:
    """The product of two values that pass propagation twice, the way on which intervals lose."""
    mix = Linear(frozen_array([[1.0, 1.0], [1.0, -1.0]]), frozen_array([0.0, 0.0]))
    nodes = (Node("a", mix, ("x",)), Node("p", mix, ("a",)), Node("q", mix, ("p",)), Node("y", Product(), ("p", "q")))
    return Network("x", (1, 2), nodes, "y")


def test_both_factors_of_a_product_are_tightened() -> None:
    query = Query(both_factors(), Box(-np.ones(2), np.ones(2)), at_least("y", 0, -1e6))
    batch = tighten(start_batch(groups(query)))
    assert values_read(batch.network) == ["p", "q"]
    # p = 2x and q = 2(x1 + x2), 2(x1 - x2); intervals alone give twice that
    assert batch.bounds["p"][1].tolist() == [pytest.approx([2.0, 2.0])]
    assert batch.bounds["q"][1].tolist() == [pytest.approx([4.0, 4.0])]
    assert batch.bounds["y"][1].tolist() == [pytest.approx([8.0, 8.0])]
    assert [step.value for step in batch.steps[0]] == ["p", "q"]
    assert batch.steps[0][0].indices.tolist() == [0, 1, 0, 1] and batch.steps[0][0].signs.tolist() == [1, 1, -1, -1]


@pytest.mark.parametrize("kind", ["sigmoids", "max_pool", "leaky"])
def test_optimised_steps_carry_the_slopes_of_both_sides(kind: str) -> None:
    network = random_network(kind, seed=0)
    batch = tighten(tighten(batch_of(network, seed=0)[0]), steps=3)
    optimised = [step for step in batch.steps[0] if any(len(a) == len(step.indices) for a in step.relaxation.slopes.values())]
    assert optimised
    for step in optimised:
        rows, relaxation = len(step.indices), step.relaxation
        for node in relaxed_nodes(network):
            size = network.size(node.output)
            assert (node.output in relaxation.upper_slopes) == has_upper_slopes(node)
            if has_slopes(node):
                assert relaxation.slopes[node.output].shape == (rows, size)
            if has_upper_slopes(node):
                assert relaxation.upper_slopes[node.output].shape == (rows, size)
                assert relaxation.upper_slopes[node.output].dtype == np.float64


@pytest.mark.parametrize("kind", ["deep", "residual", "sigmoids"])
def test_a_goal_that_passes_early_leaves_the_climb_of_the_others_alone(kind: str) -> None:
    network = random_network(kind, seed=3)
    batch = tighten(batch_of(network, seed=3)[0])
    (goal,) = batch.groups[0].goals
    easy, hard = ({**batch.bounds}, batch.bounds)
    low, _ = batch.bounds[network.input]
    easy[network.input] = (low, low)
    mixed = {v: (torch.cat([easy[v][0]] * 3 + [hard[v][0]]), torch.cat([easy[v][1]] * 3 + [hard[v][1]])) for v in easy}
    four = Batch(network, batch.groups * 4, mixed, torch.zeros(4, dtype=torch.bool), None, (), ((),) * 4)
    alone = bound_goals(batch, [GoalRow(0, goal)], steps=30, target=torch.inf).bounds[0]
    point = bound_goals(four, [GoalRow(0, goal)], steps=0, target=torch.inf).bounds[0]
    target = float((alone + point) / 2) if point > alone else float(alone) + 1.0
    together = bound_goals(four, [GoalRow(k, goal) for k in range(4)], steps=30, target=target).bounds
    again = bound_goals(batch, [GoalRow(0, goal)], steps=30, target=target).bounds[0]
    torch.testing.assert_close(together[3], again)
