"""How a query is split into groups of disjuncts over common atoms."""

import numpy as np
import torch
from laws.networks import random_network

from verifier.engines.problem import goal_rows, groups
from verifier.formula import And, Or, at_least, at_most, atom
from verifier.query import Query
from verifier.region import Box, Polytope


def query(assertion, *, region=None) -> Query:
    network = random_network("mlp", seed=0)
    return Query(network, region or Box(np.zeros(3), np.ones(3)), assertion)


def test_rivals_share_a_group_and_its_body() -> None:
    body = (at_least("v2", 0, 1), atom({("v1", 0): 1, ("v1", 1): -1}, 0))
    rivals = (at_most("v5", 0, 0), at_most("v5", 1, 0))
    (group,) = groups(query(And((*body, Or(rivals)))))
    assert group.disjuncts == (0, 1)
    assert set(group.common) == set(body)
    assert [g.atom for g in group.goals] == list(rivals)
    assert group.relations == (body[1],)


def test_a_single_disjunct_takes_its_deepest_atoms_as_goals() -> None:
    body, goals = at_least("v2", 0, 1), (at_most("v5", 0, 0), at_least("v5", 1, 3))
    (group,) = groups(query(And((body, *goals))))
    assert set(group.common) == {body, *goals}
    assert {g.atom for g in group.goals} == set(goals)


def test_different_premises_make_different_groups() -> None:
    cases = Or((And((at_least("x", 0, 0.5), at_most("v5", 0, 0))), And((at_most("x", 0, 0.5), at_most("v5", 1, 0)))))
    assert [g.disjuncts for g in groups(query(cases))] == [(0,), (1,)]


def test_a_false_assertion_has_no_groups() -> None:
    assert groups(query(Or(()))) == []


def test_region_constraints_are_premises() -> None:
    cut = atom({("x", 0): 1, ("x", 1): 1}, -1)
    region = Polytope(Box(np.zeros(3), np.ones(3)), (cut,))
    (group,) = groups(query(at_most("v5", 0, 0), region=region))
    assert cut in group.relations


def test_goal_rows_hold_the_left_sides() -> None:
    network = random_network("mlp", seed=0)
    rows = goal_rows(network, [atom({("v5", 0): 2, ("v2", 1): -1}, 3)])
    assert torch.equal(rows.coefficients["v5"], torch.tensor([[[2.0, 0.0]]], dtype=torch.float64))
    assert rows.coefficients["v2"][0, 0].tolist() == [0.0, -1.0, 0.0, 0.0, 0.0]
    assert rows.constant.tolist() == [[3.0]]
