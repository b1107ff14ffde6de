"""Input splitting: what it proves the kernel accepts, what it refutes is a counterexample, and its bounds hold at samples."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from verifier.certificate import Certificate, ProofNode
from verifier.certificate import Group as ProofGroup
from verifier.check import check, confirms
from verifier.engines.bound import never, start_batch
from verifier.engines.box_bounds import INPUT, Affine, Boxes, layers_of, slack_by_input
from verifier.engines.box_goals import Members, conjoined, refute
from verifier.engines.box_slopes import climb_slopes
from verifier.engines.boxes import BoxSearch, can_split_inputs, split_inputs
from verifier.engines.points import point_test
from verifier.engines.problem import Group, Searched, groups
from verifier.evaluate import evaluate, output
from verifier.formula import And, Formula, Or, at_least, at_most, atom
from verifier.network import Network, Node
from verifier.ops import Concat, LeakyRelu, Linear, Op, Relu, Sigmoid, Sum, frozen_array
from verifier.query import Query
from verifier.region import Box

EVERYWHERE = (torch.tensor([[-torch.inf]]), torch.tensor([[torch.inf]]))


def linear(rng: np.random.Generator, outputs: int, inputs: int) -> Linear:
    return Linear(frozen_array(rng.normal(size=(outputs, inputs))), frozen_array(rng.normal(size=outputs) / 2))


def random_network(seed: int, activation: Op, *, inputs: int = 2) -> Network:
    """Three layers of six neurons; the last map also reads the input, past all of them."""
    rng = np.random.default_rng(seed)
    nodes = (
        Node("z1", linear(rng, 6, inputs), ("x",)),
        Node("h1", activation, ("z1",)),
        Node("z2", linear(rng, 6, 6), ("h1",)),
        Node("h2", activation, ("z2",)),
        Node("s", Sum((1.0, 0.5)), ("h2", "h1")),
        Node("z3", linear(rng, 6, 6), ("s",)),
        Node("h3", activation, ("z3",)),
        Node("c", Concat(1), ("h3", "x")),
        Node("y", linear(rng, 2, 6 + inputs), ("c",)),
    )
    return Network("x", (1, inputs), nodes, "y")


def grid(inputs: int = 2, points: int = 201) -> Tensor:
    axes = [torch.linspace(-1, 1, points, dtype=torch.float64)] * inputs
    return torch.cartesian_prod(*axes)


def search(query: Query) -> Searched:
    members = groups(query)
    test = point_test(query)
    hits: list[np.ndarray] = []

    def try_points(_: int, points: Tensor) -> bool:
        hit = test(points)
        if hit is not None:
            hits.append(hit)
        return hit is not None

    open_ = {k: frozenset(group.disjuncts) for k, group in enumerate(members)}
    found = split_inputs(start_batch(members), open_, target=1e-9, out_of_time=never, try_points=try_points)
    assert all(confirms(query, hit) for hit in hits) and bool(hits) == bool(found.refuted)
    return found


def assert_proved(query: Query, found: Searched) -> None:
    parts = tuple(ProofGroup(group.disjuncts, found.proofs[k]) for k, group in enumerate(groups(query)))
    result = check(query, Certificate(query.network.sha256, query.sha256, parts))
    assert result.accepted, (result.reason, result.place)


def square(network: Network, *parts: Formula, inputs: int = 2) -> Query:
    return Query(network, Box(-np.ones(inputs), np.ones(inputs)), And(parts))


def leaves(node: ProofNode) -> int:
    return 1 if node.split is None else leaves(node.split.low) + leaves(node.split.high)


@pytest.mark.parametrize("activation", [Relu(), LeakyRelu(0.1)])
@pytest.mark.parametrize("seed", range(4))
def test_thresholds_around_the_minimum_are_decided(seed: int, activation: Op) -> None:
    network = random_network(seed, activation)
    least = float(output(network, grid())[:, 0].min())
    apart = square(network, at_most("y", 0, least - 0.05))
    found = search(apart)
    assert not found.refuted and not found.open_bounds
    assert_proved(apart, found)
    assert search(square(network, at_most("y", 0, least + 0.05))).refuted == {0}


@pytest.mark.parametrize("seed", range(3))
def test_conjunctions_that_no_point_meets(seed: int) -> None:
    """Each atom alone holds somewhere; the largest left side over the atoms stays positive."""
    network = random_network(seed, Relu())
    y = output(network, grid())
    margin = float(torch.maximum(y[:, 0], -y[:, 0] + y[:, 1]).min())
    parts = [atom({("y", 0): 1}, -margin + 0.05), atom({("y", 0): -1, ("y", 1): 1}, -margin + 0.05)]
    query = square(network, *parts)
    assert (y[:, 0].min() < margin - 0.05) and ((y[:, 1] - y[:, 0]).min() < margin - 0.05)
    found = search(query)
    assert not found.refuted
    assert_proved(query, found)


@pytest.mark.parametrize("seed", range(4))
def test_disjuncts_closed_at_different_depths(seed: int) -> None:
    network = random_network(seed, Relu())
    y = output(network, grid())
    near = [at_most("y", 0, float(y[:, 0].min()) - 0.02), at_least("y", 1, float(y[:, 1].max()) + 0.5)]
    query = square(network, Or(tuple(near)))
    assert len(groups(query)) == 1 and len(query.disjuncts) == 2
    found = search(query)
    assert leaves(found.proofs[0]) > 1
    assert_proved(query, found)


def test_boxes_under_a_premise_on_hidden_values() -> None:
    network = random_network(0, Relu())
    values = evaluate(network, grid(), keep=["h2", "y"])
    active = values["h2"].flatten(1)[:, 2] >= 0.25
    assert bool(active.any()) and not bool(active.all())
    y = values["y"].flatten(1)[:, 0]
    threshold = float(y[active].min()) - 0.05
    query = square(network, at_least("h2", 2, 0.25), at_most("y", 0, threshold))
    found = search(query)
    assert not found.refuted
    assert_proved(query, found)


def test_a_premise_that_nothing_meets_is_refuted_by_empty_boxes() -> None:
    network = random_network(1, Relu())
    most = float(evaluate(network, grid(), keep=["h2"])["h2"].flatten(1)[:, 0].max())
    query = square(network, at_least("h2", 0, most + 0.05), at_most("y", 0, 1000))
    found = search(query)
    assert_proved(query, found)


def test_relations_between_inputs_cut_boxes_away() -> None:
    network = random_network(2, Relu())
    points = grid()
    inside = points.sum(1) >= 1.0
    least = float(output(network, points[inside])[:, 0].min())
    query = square(network, atom({("x", 0): -1, ("x", 1): -1}, 1), at_most("y", 0, least - 0.05))
    found = search(query)
    assert not found.refuted
    assert_proved(query, found)


def test_what_stays_open_has_a_bound() -> None:
    network = random_network(3, Relu())
    least = float(output(network, grid())[:, 0].min())
    members = groups(square(network, at_most("y", 0, least - 1e-6)))
    calls = iter(range(12))
    found = split_inputs(
        start_batch(members),
        {0: frozenset({0})},
        target=1e-9,
        out_of_time=lambda: next(calls, None) is None,
        try_points=lambda *_: False,
    )
    assert not found.proofs and found.open_bounds[0] < 1e-6


def test_bounds_hold_at_samples_and_default_slopes_are_improved() -> None:
    network = random_network(5, Relu(), inputs=3)
    layers = layers_of(network, {"y"})
    rows = layers.rows([at_most("y", 0, 0), at_most("y", 1, 0)])
    torch.manual_seed(0)
    center, radius = torch.rand(7, 3, dtype=torch.float64) - 0.5, torch.rand(7, 3, dtype=torch.float64) / 2
    boxes = Boxes(layers, center, radius, [EVERYWHERE] * len(layers.blocks))
    lower = boxes.goal_bounds(rows, keep=True)
    points = center[:, None] + radius[:, None] * (2 * torch.rand(7, 4000, 3, dtype=torch.float64) - 1)
    values = {name: v.reshape(7, 4000, -1) for name, v in evaluate(network, points.reshape(-1, 3)).items()}
    for block, line in zip(layers.blocks, boxes.lines, strict=True):
        assert (values[block.before].amin(1) >= line.low - 1e-9).all() and (
            values[block.before].amax(1) <= line.high + 1e-9
        ).all()
    sampled = values["y"].amin(1).T
    assert (lower.least(radius) <= sampled + 1e-9).all()
    for row in range(2):
        forms = {source: matrix[row].expand(7, -1) for source, matrix in rows.weights.items()}
        climbed = climb_slopes(layers, boxes.lines, center, radius, forms, rows.bias[row].expand(7))
        assert (climbed.bound >= lower.least(radius)[row] - 1e-9).all() and (climbed.bound <= sampled[row] + 1e-9).all()
        slack = slack_by_input(layers, boxes.lines, radius, {k: a[row] for k, a in lower.seen.items()})
        assert (slack >= 0).all() and (slack.sum(1) >= sampled[row] - lower.least(radius)[row] - 1e-9).any()


def test_layers_compute_the_network() -> None:
    network = random_network(6, LeakyRelu(0.25), inputs=3)
    layers = layers_of(network, {"y", "s"})
    point = torch.tensor([[0.3, -0.7, 0.9]], dtype=torch.float64)
    values = {name: v.flatten(1) for name, v in evaluate(network, point).items()}
    sources: dict[int, Tensor] = {INPUT: point}
    for k, block in enumerate(layers.blocks):
        sources[k] = values[block.after]
        total = block.form.bias + sum_of(matrix @ sources[s][0] for s, matrix in block.form.weights.items())
        torch.testing.assert_close(total, values[block.before][0])
    rows = layers.rows([at_most("y", 1, 2), at_least("s", 3, 1)])
    total = rows.bias + sum_of(matrix @ sources[s][0] for s, matrix in rows.weights.items())
    torch.testing.assert_close(total, torch.stack([values["y"][0, 1] - 2, 1 - values["s"][0, 3]]))


def sum_of(parts: Sequence[Tensor]) -> Tensor:
    return torch.stack(list(parts)).sum(0)


def test_two_forms_that_only_together_are_positive() -> None:
    slopes = torch.tensor([[[1.0]], [[-2.0]]], dtype=torch.float64)
    constant = torch.tensor([[0.1], [0.2]], dtype=torch.float64)
    bound, weights = conjoined(slopes, constant, torch.ones(1, 1, dtype=torch.float64))
    assert float(bound) > 0.1 and float(weights[0]) == pytest.approx(2 / 3, abs=0.02)


def test_a_premise_takes_part_with_any_weight() -> None:
    """Where -3 x <= 0 holds, x + 0.1 > 0 on [-1, 1]: x + 0.1 + 1/3 * (-3 x) is 0.1 everywhere; no weights of sum 1 with x."""
    slopes = torch.tensor([[[1.0]], [[-3.0]]], dtype=torch.float64)
    constant = torch.tensor([[0.1], [0.0]], dtype=torch.float64)
    bound, weights = conjoined(slopes, constant, torch.ones(1, 1, dtype=torch.float64), premises=1)
    assert float(weights[0]) == 1 and 0 < float(bound) <= 0.1
    assert float(weights[1]) == pytest.approx(1 / 3, abs=0.03)


def test_a_box_is_refuted_by_goal_or_premise_or_both() -> None:
    """Rows over x in [-1, 1]: goal x + 0.1; premise -3 x (only with the goal); premise 2 - x (alone)."""
    slopes = torch.tensor([1.0, -3.0, -1.0], dtype=torch.float64)[:, None, None]
    constant = torch.tensor([0.1, 0.0, 2.0], dtype=torch.float64)[:, None]
    doubt, radius = torch.full((3, 1), 1e-9, dtype=torch.float64), torch.ones(1, 1, dtype=torch.float64)
    lower = Affine(slopes, constant, {})

    def refuted(*premises: int) -> tuple[bool, list[float]]:
        found = refute(lower, radius, [Members(torch.tensor([0]), torch.tensor(premises, dtype=torch.long))], doubt)
        return bool(found.score > found.doubt), found.weights[0].tolist()

    assert not refuted()[0]
    both, weights = refuted(1)
    assert both and weights[0] > 0 and weights[1] > 0 and weights[2] == 0
    alone, weights = refuted(2)
    assert alone and weights[:2] == [0, 0] and weights[2] > 0


def test_premises_on_a_hidden_layer_spare_boxes() -> None:
    """Phases of the second layer say more than their cuts: fewer boxes than without them, and none that they rule out."""
    network = random_network(4, Relu())
    values = evaluate(network, grid(), keep=["h2", "y"])
    hidden, y = values["h2"].flatten(1), values["y"].flatten(1)[:, 0]
    pivot = hidden.median(0).values
    phases = [at_least("h2", k, float(pivot[k])) for k in range(3)]
    inside = (hidden[:, :3] >= pivot[:3]).all(1)
    assert bool(inside.any()) and not bool(inside.all())
    query = square(network, *phases, at_most("y", 0, float(y[inside].min()) - 0.05))
    found = search(query)
    assert not found.refuted
    assert_proved(query, found)


def test_which_networks_are_split() -> None:
    assert can_split_inputs(random_network(0, Relu()))
    assert can_split_inputs(random_network(0, Sigmoid()))
    assert not can_split_inputs(random_network(0, Relu(), inputs=31))


def nothing_hits(_: int, points: Tensor) -> bool:
    return False


def test_a_search_in_parts_ends_as_one_without_a_break() -> None:
    network = random_network(1, Relu())
    y = output(network, grid())
    near = (at_most("y", 0, float(y[:, 0].min()) - 0.02), at_least("y", 1, float(y[:, 1].max()) + 0.02))
    query = square(network, Or(near))
    members = groups(query)
    batch, open_ = start_batch(members), {0: frozenset(members[0].disjuncts)}
    whole = split_inputs(batch, open_, target=1e-9, out_of_time=never, try_points=nothing_hits)
    begun: dict[Group, BoxSearch] = {}
    parts: list[Searched] = []
    while not parts or parts[-1].open_bounds:
        found = split_inputs(batch, open_, target=1e-9, out_of_time=never, try_points=nothing_hits, most_splits=5, begun=begun)
        assert 0 < found.splits[0] <= 5
        parts.append(found)
    assert len(parts) > 2 and sum(part.splits[0] for part in parts) == whole.splits[0]
    bounds = [part.open_bounds[0] for part in parts[1:-1]]
    assert bounds and max(bounds) <= 1e-9
    assert leaves(parts[-1].proofs[0]) == leaves(whole.proofs[0])
    assert_proved(query, parts[-1])


@pytest.mark.parametrize("cut", range(1, 7))
def test_a_search_that_the_clock_cuts_anywhere_goes_on_to_a_proof(cut: int) -> None:
    """Boxes are put back between the steps of their bounding, some of their disjuncts closed."""
    network = random_network(2, Relu())
    y = output(network, grid())
    near = (at_most("y", 0, float(y[:, 0].min()) - 0.02), at_least("y", 1, float(y[:, 1].max()) + 0.5))
    query = square(network, Or(near))
    members = groups(query)
    batch, open_ = start_batch(members), {0: frozenset(members[0].disjuncts)}
    begun: dict[Group, BoxSearch] = {}
    for looks in [cut + 4 * k for k in range(1000)]:
        calls = iter(range(looks))
        found = split_inputs(
            batch,
            open_,
            target=1e-9,
            out_of_time=lambda calls=calls: next(calls, None) is None,  # type: ignore[misc]
            try_points=nothing_hits,
            begun=begun,
        )
        if found.proofs:
            break
    assert looks > cut
    assert_proved(query, found)


def test_reports_tell_the_smallest_open_bound() -> None:
    network = random_network(1, Relu())
    y = output(network, grid())
    members = groups(square(network, at_most("y", 0, float(y[:, 0].min()) - 0.02)))
    told: list[tuple[dict[int, float], int]] = []
    split_inputs(
        start_batch(members),
        {0: frozenset({0})},
        target=1e-9,
        out_of_time=never,
        try_points=nothing_hits,
        report=lambda bounds, splits: told.append((dict(bounds()), splits)),
    )
    assert len(told) > 2
    assert [splits for _, splits in told] == sorted(splits for _, splits in told)
    assert all(bounds[0] <= 1e-9 for bounds, _ in told)  # what is open was not refuted
