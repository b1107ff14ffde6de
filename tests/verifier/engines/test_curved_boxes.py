"""Input splitting through the graph: curves, products and steps; proofs against the kernel, bounds against samples."""

import numpy as np
import pytest
import torch

from verifier.certificate import Certificate
from verifier.certificate import Group as ProofGroup
from verifier.check import check, confirms
from verifier.engines.bound import never, start_batch
from verifier.engines.boxes import split_inputs
from verifier.engines.curved_boxes import CurvedModel, rebound
from verifier.engines.points import point_test
from verifier.engines.problem import Goal, Searched, groups
from verifier.evaluate import evaluate, output
from verifier.formula import And, Formula, Or, at_least, at_most
from verifier.network import Network, Node
from verifier.ops import Cos, Floor, LeakyRelu, Linear, Op, Product, Sigmoid, Sin, Tanh, frozen_array
from verifier.query import Query
from verifier.region import Box

NODES: dict[str, Op] = {
    "sigmoid": Sigmoid(),
    "tanh": Tanh(),
    "sin": Sin(),
    "cos": Cos(),
    "leaky": LeakyRelu(0.1),
    "product": Product(),
}


def curved(op: Op, seed: int) -> Network:
    """Two hidden layers: the operator, then a product of a sine and what came before; two inputs, two outputs."""
    rng = np.random.default_rng(seed)

    def linear(outputs: int, inputs: int) -> Linear:
        return Linear(frozen_array(rng.normal(size=(outputs, inputs))), frozen_array(rng.normal(size=outputs) / 2))

    nodes = (
        Node("z1", linear(3, 2), ("x",)),
        Node("h1", op, ("z1", "z1") if isinstance(op, Product) else ("z1",)),
        Node("z2", linear(3, 3), ("h1",)),
        Node("h2", Sin(), ("z2",)),
        Node("p", Product(), ("h2", "h1")),
        Node("y", linear(2, 3), ("p",)),
    )
    return Network("x", (1, 2), nodes, "y")


def grid() -> torch.Tensor:
    axis = torch.linspace(-1, 1, 201, dtype=torch.float64)
    return torch.cartesian_prod(axis, axis)


def square(network: Network, *parts: Formula) -> Query:
    return Query(network, Box(-np.ones(2), np.ones(2)), And(parts))


def search(query: Query) -> Searched:
    members = groups(query)
    test = point_test(query)
    hits: list[np.ndarray] = []

    def try_points(_: int, points: torch.Tensor) -> bool:
        hit = test(points)
        if hit is not None:
            hits.append(hit)
        return hit is not None

    open_ = {k: frozenset(group.disjuncts) for k, group in enumerate(members)}
    found = split_inputs(start_batch(members), open_, target=1e-9, out_of_time=never, try_points=try_points)
    assert all(confirms(query, hit) for hit in hits) and bool(hits) == bool(found.refuted)
    return found


def accepted(query: Query, found: Searched) -> bool:
    parts = tuple(ProofGroup(group.disjuncts, found.proofs[k]) for k, group in enumerate(groups(query)))
    return check(query, Certificate(query.network.sha256, query.sha256, parts)).accepted


@pytest.mark.parametrize("name", NODES)
def test_what_is_proved_the_kernel_accepts_and_nothing_true_is_refuted(name: str) -> None:
    network = curved(NODES[name], 1)
    least = float(output(network, grid())[:, 0].min())
    query = square(network, at_most("y", 0, least - 0.2))
    found = search(query)
    assert not found.refuted and found.splits[0] > (1 if name in ("sin", "product") else 0)
    assert accepted(query, found)
    assert search(square(network, at_most("y", 0, least + 0.05))).refuted


def test_disjuncts_with_a_common_atom_are_refuted_in_one_search() -> None:
    network = curved(Sigmoid(), 2)
    y = output(network, grid())
    inside = y[:, 1] <= float(y[:, 1].median())
    assert bool(inside.any()) and not bool(inside.all())
    low, high = float(y[inside, 0].min()) - 0.05, float(y[inside, 0].max()) + 0.05
    level = at_most("y", 1, float(y[:, 1].median()))
    query = square(network, Or((at_most("y", 0, low), at_least("y", 0, high))), level)
    (group,) = groups(query)
    assert group.common == (level,) and len(query.disjuncts) == 2
    found = search(query)
    assert not found.refuted
    assert accepted(query, found)


def test_steps() -> None:
    rng = np.random.default_rng(3)
    nodes = (
        Node("z", Linear(frozen_array(rng.normal(size=(4, 2))), frozen_array(rng.normal(size=4))), ("x",)),
        Node("s", Sin(), ("z",)),
        Node("f", Floor(), ("z",)),
        Node("p", Product(), ("s", "f")),
        Node("y", Linear(frozen_array(rng.normal(size=(1, 4))), frozen_array(rng.normal(size=1))), ("p",)),
    )
    network = Network("x", (1, 2), nodes, "y")
    least = float(output(network, grid())[:, 0].min())
    query = square(network, at_most("y", 0, least - 0.5))
    found = search(query)
    assert not found.refuted
    assert accepted(query, found)


@pytest.mark.parametrize("name", NODES)
def test_bounds_hold_at_samples(name: str) -> None:
    network = curved(NODES[name], 5)
    query = square(network, at_most("y", 0, 0), at_most("y", 1, 0))
    batch = start_batch(groups(square(network, Or((at_most("y", 0, 0), at_most("y", 0, -1))))))
    goals = [Goal(0, atom) for atom in query.disjuncts[0]]
    model = CurvedModel(batch, 0, goals)
    torch.manual_seed(0)
    center, radius = torch.rand(7, 2, dtype=torch.float64) - 0.5, torch.rand(7, 2, dtype=torch.float64) / 2
    whole = {
        name: (torch.full_like(low, -torch.inf), torch.full_like(high, torch.inf)) for name, (low, high) in model.root.items()
    }
    wide = {name: (low.expand(7, -1), high.expand(7, -1)) for name, (low, high) in whole.items()}
    bounds, empty = rebound(network, model.read, {**wide, "x": (center - radius, center + radius)})
    assert not bool(empty.any())
    points = center[:, None] + radius[:, None] * (2 * torch.rand(7, 4000, 2, dtype=torch.float64) - 1)
    values = evaluate(network, points.reshape(-1, 2))
    for value, (low, high) in bounds.items():
        sampled = values[value].reshape(7, 4000, -1)
        assert (sampled.amin(1) >= low - 1e-9).all() and (sampled.amax(1) <= high + 1e-9).all()
    lower = model._goal_bounds(bounds)
    sampled = values["y"].reshape(7, 4000, 2).amin(1)
    assert (sampled + 1e-9 >= lower.least(radius).T).all()
