"""Laws of every engine: no contradiction of brute force or of one another, evidence that replays, a budget that is kept."""

import time
from itertools import combinations

import numpy as np
import pytest
from laws.judge import judge
from laws.networks import CURVED_KINDS, KINDS, RATIONAL_KINDS, sample_box
from laws.queries import random_query

from verifier.check import check, confirms
from verifier.errors import BadQuery
from verifier.evaluate import evaluate
from verifier.formula import TRUE, Atom, atoms_of, holds
from verifier.query import Query
from verifier.region import constraints, outer_bounds
from verifier.solve import ENGINES, verify, verify_many
from verifier.verdict import Decision, Proved, Refuted, Unknown

SEEDS = range(8)
BENT_KINDS = {**RATIONAL_KINDS, **CURVED_KINDS}


def satisfied_by_a_sample(query: Query, seed: int) -> bool:
    """Whether one of some hundred points of the region satisfies the assertion, on the grid where floats are exact."""
    lower, upper = outer_bounds(query.region)
    points = sample_box(lower, upper, count=300, seed=seed, grid=True)
    values = {name: v.flatten(1).numpy() for name, v in evaluate(query.network, points).items()}
    return any(
        all(_true(a, values, k) for a in constraints(query.region)) and confirms(query, points[k])
        for k in range(len(points))
        if any(all(_true(a, values, k) for a in conjunct) for conjunct in query.disjuncts)
    )


def _true(a: Atom, values: dict[str, np.ndarray], sample: int) -> bool:
    return holds(a, {t.value: values[t.value][sample].tolist() for t in a.terms})


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", SEEDS)
def test_engines_agree_with_samples_and_with_each_other(kind: str, seed: int) -> None:
    query = random_query(kind, seed=seed)
    kinds = _kinds_of_verdicts(query, seed, timeout_s=5)
    assert kinds, "Z3 or the search decides networks of this size"
    judged = judge(query, timeout_s=5)
    assert judged == "unknown" or kinds == {Proved if judged == "unsat" else Refuted}


@pytest.mark.parametrize("kind", BENT_KINDS)
@pytest.mark.parametrize("seed", range(4))
def test_engines_agree_on_curves_products_and_steps(kind: str, seed: int) -> None:
    _kinds_of_verdicts(random_query(kind, seed=seed), seed, timeout_s=1)


def _kinds_of_verdicts(query: Query, seed: int, *, timeout_s: float) -> set[type]:
    """What all engines together decided, at most one of Proved and Refuted, with evidence that holds."""
    decisions = {engine: verify(query, timeout_s=timeout_s, engine=engine) for engine in ENGINES}
    for engine, decision in decisions.items():
        _check_evidence(query, decision, engine)
    kinds = {type(d.verdict) for d in decisions.values()} - {Unknown}
    assert len(kinds) <= 1, {engine: d.verdict for engine, d in decisions.items()}
    if satisfied_by_a_sample(query, seed):
        assert Proved not in kinds
    return kinds


def _check_evidence(query: Query, decision: Decision, engine: str) -> None:
    match decision.verdict:
        case Proved(certificate=certificate):
            assert certificate is not None or decision.engine == "smt", engine
            assert certificate is None or check(query, certificate).accepted
        case Refuted(counterexample=x):
            assert confirms(query, x), engine
        case Unknown(reason=reason):
            assert reason in {"timeout", "unsupported", "unconfirmed", "rounding", "incomplete", "memory"}


@pytest.mark.parametrize("engine", ENGINES)
def test_many_together_are_decided_as_one_by_one(engine: str) -> None:
    queries = [random_query(kind, seed=seed) for kind in ("mlp", "conv1d") for seed in range(4)]
    told: list[int] = []
    together = verify_many(queries, timeout_s=5, engine=engine, on_decision=lambda k, _: told.append(k))
    assert sorted(told) == list(range(len(queries)))
    for query, decision in zip(queries, together, strict=True):
        alone = verify(query, timeout_s=5, engine=engine).verdict
        pair = {type(alone), type(decision.verdict)}
        assert not {Proved, Refuted} <= pair


@pytest.mark.parametrize("engine", ENGINES)
def test_the_budget_is_kept(engine: str) -> None:
    """At most two seconds past the limit, counted in the process's own seconds, since other processes slow the wall clock."""
    query = random_query("conv2d", seed=3)
    began = time.process_time()
    verify(query, timeout_s=0.05, engine=engine)
    assert time.process_time() - began < 2.05


def test_tighter_premises_never_turn_a_proof_into_a_counterexample() -> None:
    for seed in range(20):
        query = random_query("mlp", seed=seed)
        first = verify(query, timeout_s=5)
        if isinstance(first.verdict, Proved):
            parts = list(atoms_of(query.assertion))
            for kept in combinations(parts, len(parts)):
                stronger = Query(query.network, query.region, type(query.assertion)((query.assertion, *kept)))
                assert not isinstance(verify(stronger, timeout_s=5).verdict, Refuted)


def test_an_unknown_engine_is_refused() -> None:
    names = "auto, falsify, bound, boxes, split, lemmas, lp, milp, smt"
    with pytest.raises(BadQuery, match=f"no engine 'magic'; choose one of {names}"):
        verify(random_query("mlp", seed=0), engine="magic")


@pytest.mark.parametrize("engine", ENGINES)
def test_an_assertion_that_always_holds_is_never_proved(engine: str) -> None:
    query = random_query("mlp", seed=0)
    decision = verify(Query(query.network, query.region, TRUE), timeout_s=5, engine=engine)
    assert not isinstance(decision.verdict, Proved)
    assert isinstance(decision.verdict, Refuted) or engine in ("bound", "boxes", "split", "lemmas", "lp", "milp")
