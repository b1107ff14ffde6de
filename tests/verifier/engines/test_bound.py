"""Bounds by backward passes before every node that loses something: true at samples, recorded as steps that tell both sides."""

import numpy as np
import pytest
import torch
from laws.networks import ALL_KINDS, random_box, random_network, sample_box
from laws.queries import random_query
from torch import Tensor

import verifier.engines.bound
from verifier.domains.choices import Choices, tensors_of
from verifier.domains.linear import lower_bounds
from verifier.domains.optimise import optimise
from verifier.domains.relaxations import has_slopes, has_upper_slopes, relaxed_nodes, values_read
from verifier.engines.bound import bound_goals, push, resumed, start_batch, tighten
from verifier.engines.problem import Batch, GoalRow, entries_of, gather, goal_rows, groups
from verifier.evaluate import evaluate
from verifier.formula import Atom, at_least
from verifier.network import Network, Node
from verifier.ops import ACTIVATION_OPS, LeakyRelu, Linear, Product, frozen_array
from verifier.query import Query
from verifier.region import Box, outer_bounds


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


@pytest.mark.parametrize("kind", ALL_KINDS)
def test_a_narrow_group_beside_a_wide_one_is_bounded_as_alone(kind: str) -> None:
    """Else bounds would stand in the batch that no step of the narrow group proves."""
    network = random_network(kind, seed=2)
    lower, upper = (side[0] for side in random_box(network, seed=2))
    middle, premise = (lower + upper) / 2, at_least(network.output, 0, -1e6)
    narrow = Box(middle + 0.3 * (lower - middle), middle + 0.3 * (upper - middle))
    wide, own = (groups(Query(network, region, premise)) for region in (Box(lower, upper), narrow))
    together, alone = tighten(start_batch([*wide, *own])), tighten(start_batch(own))
    for name, sides in alone.bounds.items():
        for side, found in zip(sides, together.bounds[name], strict=True):
            torch.testing.assert_close(found[1:], side, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", ALL_KINDS)
def test_a_batch_taken_apart_and_joined_is_what_it_was(kind: str) -> None:
    query = random_query(kind, seed=4)
    known = tighten(start_batch([group for group in groups(query) for _ in range(2)]), steps=2)
    again = resumed([entries_of(known, [k]) for k in range(len(known.groups))])
    assert (again.groups, again.steps, again.empty.tolist()) == (known.groups, known.steps, known.empty.tolist())
    for name, sides in known.bounds.items():
        assert all(torch.equal(new, old) for new, old in zip(again.bounds[name], sides, strict=True))


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


def left_side(a: Atom, values: dict[str, Tensor]) -> Tensor:
    """The left side of an atom at each sample."""
    parts = [float(t.coefficient) * values[t.value].flatten(1)[:, t.index] for t in a.terms]
    return torch.stack(parts).sum(0) + float(a.bias)


@pytest.mark.parametrize("steps", [0, 20])
@pytest.mark.parametrize("kind", ALL_KINDS)
def test_a_goal_is_bounded_by_what_its_choices_give_and_below_every_sample_of_its_premise(kind: str, steps: int) -> None:
    for seed in range(4):
        query = random_query(kind, seed=seed)
        points = sample_box(*outer_bounds(query.region), count=300, seed=seed, grid=True)
        values = {name: v.flatten(1) for name, v in evaluate(query.network, points).items()}
        for group in groups(query):
            batch = tighten(start_batch([group, group]))
            if bool(batch.empty.any()):
                continue
            rows = [GoalRow(position, goal) for position in (0, 1) for goal in group.goals]
            goals = bound_goals(batch, rows, steps=steps, target=torch.inf)
            positions = torch.tensor([row.position for row in rows])
            forms = goal_rows(query.network, [row.goal.atom for row in rows])
            atoms = None if batch.atoms is None else batch.atoms.select(positions)
            again = lower_bounds(query.network, gather(batch.bounds, positions), forms, goals.choices, atoms=atoms)
            torch.testing.assert_close(goals.bounds, again[:, 0], rtol=1e-9, atol=1e-12)
            holds = torch.stack([left_side(a, values) <= 0 for a in group.common] + [torch.ones(len(points)).bool()]).all(0)
            for row, bound in zip(rows, goals.bounds, strict=True):
                reached = left_side(row.goal.atom, values)[holds]
                assert (reached >= bound - 1e-9 * (1 + bound.abs())).all()


def test_multipliers_without_their_atoms_are_refused() -> None:
    batch, _ = batch_of(random_network("mlp", seed=0), seed=0)
    forms = goal_rows(batch.network, [batch.groups[0].goals[0].atom])
    with pytest.raises(AssertionError, match="but the atoms left out"):
        lower_bounds(batch.network, batch.bounds, forms, Choices({}, atoms=torch.ones(1, 1, 1).double()))


@pytest.mark.parametrize("kind", ["deep", "leaky", "residual"])
def test_slopes_stay_exact_where_an_activation_is_linear(kind: str) -> None:
    seen = 0
    for seed in range(6):
        network = random_network(kind, seed=seed)
        batch = tighten(batch_of(network, seed=seed)[0])
        forms = goal_rows(network, [batch.groups[0].goals[0].atom])
        # slopes from a problem with wider bounds, wrong for this one
        stale = {n.output: torch.full((1, 1, network.size(n.output)), 0.6).double() for n in relaxed_nodes(network)}
        for steps in (0, 5):
            found = optimise(network, batch.bounds, forms, Choices(stale), steps=steps).choices
            for node in relaxed_nodes(network):
                low, high = batch.bounds[node.inputs[0]]
                slopes = found.slopes[node.output][:, 0]
                least = node.op.slope if isinstance(node.op, LeakyRelu) else 0.0
                assert isinstance(node.op, ACTIVATION_OPS)
                assert (slopes[low >= 0] == 1).all() and (slopes[(high <= 0) & (low < 0)] == least).all()
                seen += int(((low >= 0) | (high <= 0)).sum())
    assert seen > 20


@pytest.mark.parametrize("steps", [0, 4])
@pytest.mark.parametrize("kind", ["mlp", "max_pool", "sigmoids", "residual"])
def test_runs_of_columns_make_one_step_for_each_value(kind: str, steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    network = random_network(kind, seed=1)
    whole = tighten(batch_of(network, seed=1)[0], steps=steps)
    monkeypatch.setattr(verifier.engines.bound, "MAX_ENTRIES", 4 * max(map(network.size, network.shapes)))
    parts = tighten(batch_of(network, seed=1)[0], steps=steps)
    assert len({step.value for step in parts.steps[0]}) == len(parts.steps[0]) == len(whole.steps[0]) > 0
    for one, other in zip(whole.steps[0], parts.steps[0], strict=True):
        assert one.indices.tolist() == other.indices.tolist() and one.signs.tolist() == other.signs.tolist()
        mine, theirs = one.relaxation, other.relaxation
        for side in ("slopes", "upper_slopes", "lower", "upper"):
            for name, array in getattr(mine, side).items():
                np.testing.assert_allclose(array, getattr(theirs, side)[name], atol=1e-9)
    for name, (low, high) in whole.bounds.items():
        torch.testing.assert_close((low, high), parts.bounds[name])


def test_the_parts_of_choices_are_found_by_kind_and_name() -> None:
    one = torch.ones(1, 1, 2)
    assert set(tensors_of(Choices({"a": one}, {"v": one}, {}, one, {"c": one}))) == {
        ("slopes", "a"),
        ("upper_slopes", "c"),
        ("lower", "v"),
        ("atoms", ""),
    }


@pytest.mark.parametrize("kind", ALL_KINDS)
def test_a_push_from_the_changed_value_knows_what_a_push_of_everything_knows(kind: str) -> None:
    for seed in range(3):
        network = random_network(kind, seed=seed)
        batch, _ = batch_of(network, seed=seed)
        settled, _ = push(network, batch.bounds)
        for name in network.shapes:
            low, high = settled[name]
            share = torch.rand(low.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
            narrower = {**settled, name: (low + 0.4 * share * (high - low), high - 0.4 * share * (high - low))}
            whole, empty = push(network, narrower)
            found, also_empty = push(network, narrower, changed=name)
            assert empty.tolist() == also_empty.tolist()
            for value, (least, greatest) in whole.items():
                slack = 1e-12 * (1 + least.abs() + greatest.abs())
                own_least, own_greatest = found[value]
                assert (own_least.shape, own_greatest.shape) == (least.shape, greatest.shape)
                assert ((own_least - least).abs() <= slack).all() and ((own_greatest - greatest).abs() <= slack).all()


def test_a_push_that_crosses_is_empty() -> None:
    network = random_network("mlp", seed=0)
    batch, _ = batch_of(network, seed=0)
    low, high = batch.bounds["v1"]
    assert push(network, {**batch.bounds, "v1": (high, high)}, changed="v1")[1].tolist() == [False]
    assert push(network, {**batch.bounds, "v1": (high, low - 1)}, changed="v1")[1].tolist() == [True]
