"""A search in portions: resumed rather than repeated, ended when it stagnates; premises, ties and dead networks."""

import numpy as np
import pytest
import torch
from laws.networks import Weights, chain

from verifier.check import confirms
from verifier.engines.attack import Attack
from verifier.engines.descent import LEAK, descend
from verifier.engines.targets import batch_of, targets_of
from verifier.evaluate import evaluate
from verifier.formula import And, Or, at_least, at_most, atom
from verifier.network import Network
from verifier.ops import Linear, Relu, Sign
from verifier.query import Query
from verifier.region import Box
from verifier.verdict import Refuted, Unknown


def cube(inputs: int) -> Box:
    return Box(np.zeros(inputs), np.ones(inputs))


def dead_on_noise(inputs: int = 60) -> Network:
    """relu(x_0 + ... + x_9 - the rest - 8): positive only near one corner, flat at 0 nearly everywhere."""
    signs = np.where(np.arange(inputs) < 10, 1.0, -1.0)
    return chain((1, inputs), Linear(signs[None], np.array([-8.0])), Relu(), Linear(np.array([[1.0]]), np.zeros(1)))


def test_a_dead_network_is_brought_to_life() -> None:
    query = Query(dead_on_noise(), cube(60), at_least("v3", 0, 1))
    verdict = Attack([query]).run(10)[0]
    assert isinstance(verdict, Refuted) and confirms(query, verdict.counterexample)


def test_steps_are_climbed() -> None:
    """Twelve signs must all be positive; no operator has a slope, so that descent alone does not move."""
    rng = np.random.default_rng(0)
    planes = rng.normal(size=(12, 30))
    network = chain((1, 30), Linear(planes, -planes @ rng.random(30) - 0.2), Sign(), Linear(np.ones((1, 12)), np.zeros(1)))
    batch = batch_of(network, list(targets_of(0, Query(network, cube(30), at_least("v3", 0, 12)))))
    begin = torch.rand((1, 60, 30), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    stuck = descend(batch, begin, steps=40, watch=lambda points, values: False)
    assert stuck.values.min() > 0
    end = descend(batch, begin, steps=40, watch=lambda points, values: False, leak=LEAK)
    best = end.points[0, end.values[0].argmin()]
    assert evaluate(network, best[None])["v3"].item() == 12 and ((best >= 0) & (best <= 1)).all()


@pytest.mark.parametrize("width", [1e-3, 1e-6, 1e-9])
def test_a_narrow_premise_on_hidden_values_is_met(width: float) -> None:
    """Five hidden values of a second layer within `width` of what they are at a secret point."""
    w = Weights(3, grid=False)
    network = chain((1, 20), w.linear(20, 30), Relu(), w.linear(30, 30), Relu(), w.linear(30, 3))
    secret = np.random.default_rng(3).uniform(0.2, 0.8, (1, 20))
    values = evaluate(network, secret)["v3"].flatten().tolist()
    premise = [side for k in range(5) for side in (at_least("v3", k, values[k] - width), at_most("v3", k, values[k] + width))]
    query = Query(network, cube(20), And(tuple(premise)))
    verdict = Attack([query]).run(10)[0]
    assert isinstance(verdict, Refuted) and confirms(query, verdict.counterexample)


def narrow_valley(depth: float) -> Query:
    """In five inputs, |x_0 - 0.3| + ... + |x_4 - 0.7| plus a steep share of one of them, at most `depth`."""
    at = np.array([0.3, 0.4, 0.5, 0.6, 0.7])
    both = np.concatenate([np.eye(5), -np.eye(5)])
    weight = np.array([[1, 1, 1, 1, 100.0, 1, 1, 1, 1, 100.0]])
    return Query(chain((1, 5), Linear(both, -both @ at), Relu(), Linear(weight, np.zeros(1))), cube(5), at_most("v3", 0, depth))


def test_precision_in_few_inputs() -> None:
    verdict = Attack([narrow_valley(1e-4)]).run(20, patience=30)[0]
    assert isinstance(verdict, Refuted) and confirms(narrow_valley(1e-4), verdict.counterexample)


def test_many_disjuncts_are_told_apart() -> None:
    """Of 200 ways one alone is possible."""
    w = Weights(5, grid=False)
    network = chain((1, 20), w.linear(20, 20), Relu(), w.linear(20, 200))
    highest = evaluate(network, np.random.default_rng(0).random((4000, 20)))["v3"].flatten(1).max(0).values.tolist()
    ways = Or(tuple(at_least("v3", k, highest[k] if k == 137 else highest[k] + 1e3) for k in range(200)))
    verdict = Attack([Query(network, cube(20), ways)]).run(20)[0]
    assert isinstance(verdict, Refuted)


def test_what_cannot_be_is_given_up_early_and_gone_on_with_when_asked() -> None:
    query = Query(dead_on_noise(), cube(60), at_least("v3", 0, 3))
    attack = Attack([query])
    first = attack.run(60, patience=2)[0]
    assert isinstance(first, Unknown) and first.reason == "incomplete"
    hunt = attack._hunts[0]
    before = (len(hunt.fronts), hunt.generator.get_state().clone())
    again = attack.run(60, patience=2)[0]
    assert isinstance(again, Unknown) and len(hunt.fronts) == before[0]
    assert not np.array_equal(hunt.generator.get_state().numpy(), before[1].numpy())


def test_a_pause_changes_nothing() -> None:
    """Stopped after each fruitless round or not, the search takes the same way."""
    query = narrow_valley(1e-3)
    whole = Attack([query], seed=4)
    whole.run(60, patience=20)
    assert whole.found
    parts = Attack([query], seed=4)
    for _ in range(40):
        parts.run(60, patience=1)
    assert [x.tolist() for x in whole.found.values()] == [x.tolist() for x in parts.found.values()]


def test_a_search_cut_short_at_once_goes_on_where_it_was() -> None:
    """Many queries whose pool holds their counterexamples: with no time at all none is lost for the next call."""
    network = dead_on_noise()
    queries = [Query(network, cube(60), at_most("v3", 0, k)) for k in range(20)]
    attack = Attack(queries)
    assert all(isinstance(v, Unknown) and v.reason == "timeout" for v in attack.run(0.0))
    for _ in range(3):
        attack.run(0.0)
    assert all(isinstance(verdict, Refuted) for verdict in attack.run(60))


def test_skipped_queries_are_left_alone() -> None:
    easy = Query(dead_on_noise(), cube(60), at_most("v3", 0, 0))
    attack = Attack([easy, easy])
    verdicts = attack.run(5, skip=[0])
    assert isinstance(verdicts[0], Unknown) and isinstance(verdicts[1], Refuted)


@pytest.mark.parametrize("strict", [False, True])
def test_a_tie_on_a_hidden_value_counts_where_the_atom_is_not_strict(strict: bool) -> None:
    """relu(x - 1) > 0 nowhere on [0, 1], >= 0 everywhere; together with a goal that holds at a corner alone."""
    network = chain((1, 8), Linear(np.eye(8), -np.ones(8)), Relu(), Linear(np.ones((1, 8)), np.zeros(1)))
    corner = atom({("x", k): -1 for k in range(8)}, 8)
    query = Query(network, cube(8), And((at_least("v1", 0, 0, strict=strict), corner)))
    assert isinstance(Attack([query]).run(2)[0], Unknown if strict else Refuted)
