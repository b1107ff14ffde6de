"""A climb that goes on from earlier steps: never below what these steps have proved, and above it where steps were few."""

import numpy as np
import pytest
import torch
from laws.networks import ALL_KINDS, random_box, random_network
from laws.queries import random_query

from verifier.domains.relaxations import values_read
from verifier.engines.bound import adaptive, start_batch, tighten
from verifier.engines.problem import Batch, apart, groups
from verifier.engines.warm import warm_choices
from verifier.formula import Or, atom
from verifier.query import Query
from verifier.region import Box


def bounded(kind: str, *, seed: int) -> Batch:
    query = random_query(kind, seed=seed)
    return tighten(start_batch(groups(query)), steps=3)


@pytest.mark.parametrize("kind", ALL_KINDS)
def test_bounds_go_on_from_the_last_steps(kind: str) -> None:
    batch = bounded(kind, seed=3)
    again = tighten(batch, steps=3)
    for name, (low, high) in again.bounds.items():
        assert (low >= batch.bounds[name][0]).all() and (high <= batch.bounds[name][1]).all()


def test_slopes_of_a_step_come_back_at_its_rows() -> None:
    batch = bounded("sigmoids", seed=3)
    value = next(v for v in reversed(values_read(batch.network)) if any(step.value == v for step in batch.steps[0]))
    step = next(step for step in reversed(batch.steps[0]) if step.value == value)
    columns = torch.arange(batch.network.size(value)).expand(len(batch.groups), -1)
    plain = adaptive(batch.network, batch.bounds)
    wide = type(plain)(
        {n: s.expand(-1, 2 * columns.shape[1], -1) for n, s in plain.slopes.items()},
        upper_slopes={n: s.expand(-1, 2 * columns.shape[1], -1) for n, s in plain.upper_slopes.items()},
    )
    warm = warm_choices(batch, value, columns, wide, ())
    assert warm is not None and any(len(s) == len(step.indices) for s in step.relaxation.slopes.values())
    for name, known in step.relaxation.slopes.items():
        if len(known) == len(step.indices):
            rows = step.indices + columns.shape[1] * (step.signs < 0)
            np.testing.assert_array_equal(warm.slopes[name][0, rows].numpy(), known)
    fresh = start_batch(batch.groups)
    assert warm_choices(fresh, value, columns, wide, ()) is None


@pytest.mark.parametrize("seed", range(6))
def test_steps_without_relations_go_on_where_the_goal_becomes_one(seed: int) -> None:
    """A tree has its goal's negation as a premise besides; the steps that were found without it have no multipliers on it."""
    network = random_network("sigmoids", seed=seed)
    lower, upper = random_box(network, seed=seed)
    goals = Or(tuple(atom({(network.output, 0): sign, (network.output, 1): -sign}, 0) for sign in (1, -1)))
    batch = tighten(start_batch(groups(Query(network, Box(lower[0], upper[0]), goals))), steps=2)
    tree = apart(batch, [(0, 0)])
    assert batch.atoms is None and tree.atoms is not None
    again = tighten(tree, steps=2)
    for name, (low, high) in again.bounds.items():
        assert (low >= batch.bounds[name][0]).all() and (high <= batch.bounds[name][1]).all()
