"""Premises on an activation's output speak about its input too, in the search and in the kernel."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linprog

from verifier.check import check
from verifier.domains.bounds import before_activation
from verifier.engines.bound import bound_goals, start_batch, tighten
from verifier.engines.problem import GoalRow, groups
from verifier.formula import And, Formula, at_least, at_most, atom, holds
from verifier.network import Network, Node
from verifier.ops import LeakyRelu, Linear, Op, Relu, Sum, frozen_array
from verifier.query import Query
from verifier.region import Box
from verifier.solve import verify
from verifier.verdict import Proved, Refuted


def network(activation: Op) -> Network:
    """z = x, h = activation(z), y = z."""
    identity = Linear(frozen_array([[1.0]]), frozen_array([0.0]))
    nodes = (Node("z", identity, ("x",)), Node("h", activation, ("z",)), Node("y", Sum((1.0, 0.0)), ("z", "h")))
    return Network("x", (1, 1), nodes, "y")


def ask(activation: Op, *parts: Formula, engine: str) -> tuple[Query, object]:
    query = Query(network(activation), Box(np.array([-1.0]), np.array([1.0])), And(parts))
    return query, verify(query, timeout_s=5, engine=engine).verdict


@pytest.mark.parametrize("activation", [Relu(), LeakyRelu(0.25)])
@pytest.mark.parametrize("threshold", [0, 0.25])
def test_an_active_neuron_has_a_positive_input(activation: Op, threshold: float) -> None:
    query, verdict = ask(activation, at_least("h", 0, threshold, strict=True), at_most("y", 0, threshold - 0.1), engine="bound")
    assert isinstance(verdict, Proved) and verdict.certificate is not None
    assert check(query, verdict.certificate).accepted


def test_a_closed_premise_at_zero_says_nothing() -> None:
    _, verdict = ask(Relu(), at_least("h", 0, 0), at_most("y", 0, -0.1), engine="auto")
    assert isinstance(verdict, Refuted)


def test_a_tie_at_zero_is_no_proof() -> None:
    _, verdict = ask(Relu(), at_most("h", 0, 0), at_least("y", 0, 0), engine="auto")
    assert isinstance(verdict, Refuted) and verdict.counterexample.tolist() == [0.0]


@given(
    slope=st.sampled_from([0.0, 0.25, 1.0]),
    upper=st.booleans(),
    strict=st.booleans(),
    threshold=st.sampled_from([-0.5, 0.0, 0.5]),
    z=st.sampled_from([-3.0, -2.0, -0.5, 0.0, 0.5, 2.0]),
)
def test_the_condition_on_the_input_is_equivalent(slope: float, upper: bool, strict: bool, threshold: float, z: float) -> None:
    made = network(LeakyRelu(slope) if slope else Relu())
    atom = (at_most if upper else at_least)("h", 0, threshold, strict=strict)
    values = {"z": [Fraction(z)], "h": [max(Fraction(z), Fraction(slope) * Fraction(z))]}
    assert holds(before_activation(made, atom), values) is holds(atom, values)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("hidden", [False, True])
def test_relations_about_one_layer_are_weighed_as_a_program_would(seed: int, hidden: bool) -> None:
    """The first pass over a goal of that layer gives what scipy finds to be the least, without a climb."""
    draw = np.random.default_rng(seed)
    forms, limits, weight = draw.integers(-1, 2, (12, 5)), draw.uniform(0, 1, 12), draw.normal(size=(1, 5))
    read, identity = (
        Linear(frozen_array(weight), frozen_array([0.0])),
        Linear(frozen_array(np.eye(5)), frozen_array(np.zeros(5))),
    )
    nodes = (Node("z", identity, ("x",)), Node("h", Relu(), ("z",)), Node("y", read, ("h",)))
    made = Network("x", (1, 5), nodes, "y") if hidden else Network("h", (1, 5), nodes[2:], "y")
    relations = tuple(
        atom({("h", j): int(c) for j, c in enumerate(form) if c}, -limit)
        for form, limit in zip(forms, limits.tolist(), strict=True)
        if (form != 0).sum() > 1
    )
    floor = tuple(at_least("h", j, 0) for j in range(5))
    query = Query(made, Box(np.zeros(5), np.ones(5)), And((*relations, *floor, at_most("y", 0, -100))))
    rows = [(form, limit) for form, limit in zip(forms, limits, strict=True) if (form != 0).sum() > 1]
    least = linprog(weight[0], A_ub=[form for form, _ in rows], b_ub=[limit for _, limit in rows], bounds=[(0, 1)] * 5).fun
    batch = tighten(start_batch(groups(query)))
    goals = bound_goals(
        batch, [GoalRow(0, goal) for goal in batch.groups[0].goals if "y" in str(goal.atom)], steps=0, target=1e9
    )
    assert float(goals.bounds[0]) - 100 == pytest.approx(least, abs=1e-9)
