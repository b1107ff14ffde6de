"""The triangle relaxation in HiGHS: what its optima say, backward passes with their multipliers prove."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from laws.networks import random_network, sample_box
from laws.queries import random_query
from torch import Tensor

from verifier.domains.choices import unit_rows
from verifier.domains.linear import lower_bounds
from verifier.engines.bound import start_batch
from verifier.engines.problem import Batch, apart, goal_rows, groups
from verifier.engines.subproblems import roots_of
from verifier.engines.triangles import Triangles
from verifier.evaluate import evaluate
from verifier.formula import at_most
from verifier.network import Network, Node
from verifier.ops import Linear, Relu
from verifier.query import Query
from verifier.region import Box

KINDS = ("mlp", "deep", "conv2d", "residual")


def prepared(query: Query) -> tuple[Batch, Triangles]:
    """The first goal of the first disjunct, from interval bounds alone."""
    batch = apart(start_batch(groups(query)), [(0, groups(query)[0].disjuncts[0])])
    batch = replace(batch, groups=(replace(batch.groups[0], goals=batch.groups[0].goals[:1]),))
    roots = roots_of(batch, merged=True)
    assert roots.reduced is not None
    program = Triangles(roots, roots.reduced)
    program.restrict(batch.bounds)
    return replace(batch, multiplied=roots.watched.names), program


def proved(batch: Batch, program: Triangles, place: int, sign: float) -> tuple[float, float]:
    """The least of sign * z as HiGHS has it, and what a pass with the multipliers gives."""
    best = program.minimise_entry(place, sign)
    assert best is not None
    value, index = program.roots.watched.place(int(program.watched[place]))
    rows = unit_rows(value, torch.tensor([[index]]), torch.tensor([[sign]], dtype=torch.float64))
    choices = program.choices([best], batch)
    return best.value, float(lower_bounds(batch.network, batch.bounds, rows, choices, atoms=batch.atoms))


@pytest.mark.parametrize("kind", KINDS)
def test_a_pass_with_the_multipliers_gives_the_optimum(kind: str) -> None:
    compared = 0
    for seed in range(8):
        batch, program = prepared(random_query(kind, seed=seed))
        if bool(batch.empty[0]):
            continue
        best = program.minimise_goal()
        assert best is not None
        if np.isinf(best.value):
            continue
        rows = goal_rows(batch.network, [batch.groups[0].goals[0].atom])
        bound = lower_bounds(batch.network, batch.bounds, rows, program.choices([best], batch), atoms=batch.atoms)
        assert float(bound) == pytest.approx(best.value, abs=1e-4), (kind, seed)
        for place in program.read[:6].tolist():
            for sign in (1.0, -1.0):
                optimum, pass_bound = proved(batch, program, place, sign)
                assert pass_bound == pytest.approx(optimum, abs=1e-4), (kind, seed, place, sign)
                compared += 1
    assert compared > 10


@pytest.mark.parametrize("kind", KINDS)
def test_points_that_satisfy_the_query_lie_in_the_relaxation(kind: str) -> None:
    """Judged by evaluation: no bound passes the value at a point of the region that satisfies the whole disjunct."""
    network = random_network(kind, seed=3, grid=True)
    lower, upper = np.zeros(network.size("x")), np.ones(network.size("x"))
    points = sample_box(lower, upper, count=200, seed=1, grid=True)
    values = {name: v.flatten(1).numpy() for name, v in evaluate(network, points).items()}
    middle = float(np.median(values[network.output][:, 0]))
    batch, program = prepared(Query(network, Box(lower, upper), at_most(network.output, 0, middle)))
    inside = values[network.output][:, 0] <= middle
    assert inside.sum() > 50
    for place in program.read.tolist():
        value, index = program.roots.watched.place(int(program.watched[place]))
        for sign in (1.0, -1.0):
            assert proved(batch, program, place, sign)[1] <= (sign * values[value][inside, index]).min() + 1e-9


def one_neuron() -> tuple[Batch, Triangles]:
    """y = relu(x) on [-1, 3], asked for y <= 0.5."""
    one, zero = np.ones((1, 1)), np.zeros(1)
    nodes = (Node("z", Linear(one, zero), ("x",)), Node("a", Relu(), ("z",)), Node("y", Linear(one, zero), ("a",)))
    return prepared(Query(Network("x", (1, 1), nodes, "y"), Box(-np.ones(1), 3 * np.ones(1)), at_most("y", 0, 0.5)))


def test_a_triangle_by_hand() -> None:
    _, program = one_neuron()
    assert (program.low[0], program.high[0]) == pytest.approx((-1.0, 3.0))
    best = program.minimise_goal()
    assert best is not None and best.value == pytest.approx(-0.5)  # y - 0.5, least where z <= 0
    high = program.minimise_entry(0, -1.0)  # z <= relu(z) = y <= 0.5
    assert high is not None and high.value == pytest.approx(-0.5) and high.z[0] == pytest.approx(0.5)


def test_decided_neurons_are_lines_and_bounds_can_be_taken_back() -> None:
    batch, program = one_neuron()
    for low, high, least in ((0.25, 0.5, -0.25), (-1.0, -0.5, -0.5), (-1.0, 0.5, -0.5)):
        z: Tensor = torch.tensor([[low]], dtype=torch.float64)
        program.restrict({**batch.bounds, "z": (z, torch.full_like(z, high))})
        best = program.minimise_goal()
        assert best is not None and best.value == pytest.approx(least)


def test_bounds_that_contradict_each_other_give_a_ray_that_proves_it() -> None:
    """z1 = x >= 0.5 and z2 = -x >= 0 leave nothing of [-1, 1], which no bound of a single value shows."""
    weight = np.array([[1.0], [-1.0]])
    nodes = (
        Node("z", Linear(weight, np.zeros(2)), ("x",)),
        Node("a", Relu(), ("z",)),
        Node("y", Linear(np.ones((1, 2)), np.zeros(1)), ("a",)),
    )
    batch, program = prepared(Query(Network("x", (1, 1), nodes, "y"), Box(-np.ones(1), np.ones(1)), at_most("y", 0, 5)))
    low, high = torch.tensor([[0.5, 0.0]], dtype=torch.float64), torch.ones(1, 2, dtype=torch.float64)
    batch = replace(batch, bounds={**batch.bounds, "z": (low, high)})
    program.restrict(batch.bounds)
    best = program.minimise_goal()
    assert best is not None and best.value == np.inf
    rows = goal_rows(batch.network, [batch.groups[0].goals[0].atom])
    choices = program.choices([best], batch, scale=1e4)
    assert float(lower_bounds(batch.network, batch.bounds, rows, choices, atoms=batch.atoms)) > 0
