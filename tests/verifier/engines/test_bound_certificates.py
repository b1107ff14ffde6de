"""What a bound pass closes without splits the kernel accepts, through every operator; what samples contradict it never does."""

from collections.abc import Mapping

import numpy as np
import pytest
import torch
from laws.networks import ALL_KINDS, random_box, random_network, sample_box
from torch import Tensor

from verifier.certificate import Certificate, Close, ProofNode
from verifier.certificate import Group as ProofGroup
from verifier.check import check
from verifier.engines.bound import bound_goals, closes, start_batch, tighten
from verifier.engines.problem import Batch, GoalRow, Goals, groups
from verifier.engines.record import close_of
from verifier.evaluate import evaluate
from verifier.formula import atom
from verifier.network import Network
from verifier.query import Query
from verifier.region import Box

EFFORTS = [(0, 0), (0, 10), (4, 10)]
"""Steps for the neurons' bounds, steps for the goal."""
MARGIN = {0: 1e-6, 4: 1e-2}
"""By neuron steps: these climb on the premise too, so that another threshold is another climb."""
SEEDS = (0, 1)

Form = Mapping[int, int]
"""Coefficients on entries of the output."""


def query(network: Network, seed: int, form: Form, threshold: float) -> Query:
    """Whether form(output) >= threshold somewhere in the box."""
    lower, upper = random_box(network, seed=seed)
    terms = {(network.output, index): -c for index, c in form.items()}
    return Query(network, Box(lower[0], upper[0]), atom(terms, threshold))


def bounded(problem: Query, neuron_steps: int, goal_steps: int) -> tuple[Batch, Goals]:
    batch = tighten(start_batch(groups(problem)))
    if neuron_steps:
        batch = tighten(batch, steps=neuron_steps)
    (goal,) = batch.groups[0].goals
    return batch, bound_goals(batch, [GoalRow(0, goal)], steps=goal_steps, target=torch.inf)


def accepted(problem: Query, batch: Batch, closed: tuple[Close, ...]) -> bool:
    """Whether the kernel takes a tree of one node."""
    whole = ProofGroup(batch.groups[0].disjuncts, ProofNode(batch.steps[0], closed))
    return check(problem, Certificate(problem.network.sha256, problem.sha256, (whole,))).accepted


def greatest_sample(network: Network, seed: int, form: Form) -> float:
    lower, upper = random_box(network, seed=seed)
    values: Tensor = evaluate(network, sample_box(lower[0], upper[0], count=300, seed=seed))[network.output].flatten(1)
    return float(sum(c * values[:, index] for index, c in form.items()).max())


@pytest.mark.parametrize("form", [{0: 1}, {0: -2, 1: 1}])
@pytest.mark.parametrize("neuron_steps, goal_steps", EFFORTS)
@pytest.mark.parametrize("kind", ALL_KINDS)
def test_a_threshold_just_above_the_bound_is_proved_by_a_close(
    kind: str, neuron_steps: int, goal_steps: int, form: Form
) -> None:
    for seed in SEEDS:
        network = random_network(kind, seed=seed)
        # a threshold far below is a premise that says nothing
        _, goals = bounded(query(network, seed, form, -1e6), neuron_steps, goal_steps)
        greatest = -1e6 - float(goals.bounds[0])
        assert greatest >= greatest_sample(network, seed, form) - 1e-9 * (1 + abs(greatest))
        problem = query(network, seed, form, greatest + MARGIN[neuron_steps] * (1 + abs(greatest)))
        batch, goals = bounded(problem, neuron_steps, goal_steps)
        closed = tuple(closes(batch, goals, 0.0).values())
        assert closed or bool(batch.empty[0])
        assert accepted(problem, batch, closed)
        if not bool(batch.empty[0]) and not neuron_steps:
            assert not accepted(problem, batch, ()), "the close is what proves it"


@pytest.mark.parametrize("form", [{0: 1}, {0: -2, 1: 1}])
@pytest.mark.parametrize("neuron_steps, goal_steps", EFFORTS)
@pytest.mark.parametrize("kind", ALL_KINDS)
def test_a_threshold_just_below_a_sample_is_never_proved(kind: str, neuron_steps: int, goal_steps: int, form: Form) -> None:
    for seed in SEEDS:
        network = random_network(kind, seed=seed)
        reached = greatest_sample(network, seed, form)
        problem = query(network, seed, form, reached - 1e-9 * (1 + abs(reached)))
        batch, goals = bounded(problem, neuron_steps, goal_steps)
        assert not bool(batch.empty[0]) and not closes(batch, goals, 1e-12)
        assert not accepted(problem, batch, (close_of(batch, goals, 0),))


def test_most_thresholds_above_are_closed_and_not_found_empty() -> None:
    found = []
    for kind in ALL_KINDS:
        network, form = random_network(kind, seed=0), {0: 1, 1: -1}
        _, goals = bounded(query(network, 0, form, -1e6), 0, 10)
        greatest = -1e6 - float(goals.bounds[0])
        batch, _ = bounded(query(network, 0, form, greatest + 1e-6 * (1 + abs(greatest))), 0, 10)
        found.append(bool(batch.empty[0]))
    assert np.mean(found) < 0.1
