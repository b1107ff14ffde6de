"""Mixed integer programs: what they refute is a counterexample, and what they say of others does not contradict the judge."""

import numpy as np
import pytest
from laws.judge import judge
from laws.networks import chain
from laws.queries import random_query

from verifier.engines.milp import decide_milp
from verifier.formula import at_least
from verifier.ops import Linear, Relu, frozen_array
from verifier.query import Query
from verifier.region import Box
from verifier.verdict import Refuted, Unknown

KINDS = ("mlp", "deep", "conv2d", "residual")


@pytest.mark.parametrize("kind", KINDS)
def test_agrees_with_the_judge(kind: str) -> None:
    refuted = denied = 0
    for seed in range(6):
        query = random_query(kind, seed=seed)
        verdict = decide_milp(query, timeout_s=5).verdict
        judged = judge(query, timeout_s=5)
        if isinstance(verdict, Refuted):
            assert judged != "unsat", seed
            refuted += 1
        elif isinstance(verdict, Unknown) and verdict.bound is not None and verdict.bound > 1e-3:
            assert judged != "sat", seed
            denied += 1
    assert refuted + denied > 0


def test_it_never_proves_and_says_nothing_of_other_networks() -> None:
    verdict = decide_milp(random_query("max_pool", seed=0), timeout_s=5).verdict
    assert not isinstance(verdict, Unknown) or (verdict.reason, verdict.bound) == ("uncertified", None)


def test_without_time_there_is_no_answer() -> None:
    verdict = decide_milp(random_query("deep", seed=0), timeout_s=0).verdict
    assert isinstance(verdict, Unknown) and verdict.bound is None


@pytest.mark.parametrize("large", [2.0**100, 2.0**130])
def test_numbers_beyond_single_precision_are_no_crash(large: float) -> None:
    layers = [
        Linear(frozen_array(large * np.array(w)), frozen_array(np.zeros(2))) for w in ([[1, 2], [-1, 1]], [[1, -1], [2, 1]])
    ]
    last = Linear(frozen_array([[1.0, 1.0]]), frozen_array([0.0]))
    network = chain((1, 2), layers[0], Relu(), layers[1], Relu(), last)
    query = Query(network, Box(-np.ones(2), np.ones(2)), at_least(network.output, 0, large))
    verdict = decide_milp(query, timeout_s=5).verdict
    assert isinstance(verdict, Refuted | Unknown)
