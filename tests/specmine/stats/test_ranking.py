"""Evidence of all candidates at once against the definitions for one clause."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from specmine.errors import BadData
from specmine.predicates.predicate import Predicate
from specmine.predicates.table import PredicateTable
from specmine.predicates.words import pack
from specmine.stats import benjamini_hochberg, evidence_of, fill_q, fisher_p, wilson
from specmine.stats.ranking import (
    evidence_at,
    log_benjamini_hochberg,
    log_fisher_p,
    rank,
    shares,
    strongest,
    wilson_intervals,
)

PREDICATES, HEADS, SAMPLES = 30, 3, 500
DRAW = np.random.default_rng(0)
TRUTH = DRAW.random((PREDICATES, SAMPLES)) < DRAW.random((PREDICATES, 1))
TRUTH[0], TRUTH[1] = False, True
HEAD = np.arange(HEADS)[:, None] == DRAW.integers(0, 2, SAMPLES)  # head 2 has no sample
TRUTH[2:6] = HEAD[0] ^ (DRAW.random((4, SAMPLES)) < 0.2)
SPLIT = DRAW.integers(0, 3, SAMPLES)


def table_of(values) -> PredicateTable:
    return PredicateTable(tuple(Predicate("active", ("h1", row)) for row in range(len(values))), pack(values), values.shape[1])


RANKING = rank(table_of(TRUTH), pack(HEAD), SPLIT, k=5)


def test_everything_equals_the_definition_for_one_clause():
    pairs = [(head, row) for head in range(HEADS) for row in range(PREDICATES)]
    single = fill_q([evidence_of(TRUTH[row], HEAD[head], SPLIT) for head, row in pairs])
    for part, name in enumerate(("mine", "holdout", "test")):
        made = shares(RANKING.tally, part)
        for (head, row), evidence in zip(pairs, single, strict=True):
            one = getattr(evidence, name)
            assert RANKING.tally.support[part, row] == one.support and made.errors[head, row] == one.errors
            for field in ("precision", "recall", "lift"):
                value, expected = getattr(made, field)[head, row], getattr(one, field)
                assert math.isnan(value) if expected is None else value == pytest.approx(expected, rel=1e-14)
            for field in ("precision_interval", "recall_interval"):
                assert [end[head, row] for end in getattr(made, field)] == pytest.approx(getattr(one, field), abs=1e-14)
            assert math.exp(RANKING.log_p[part, head, row]) == pytest.approx(one.p, rel=1e-9)
            assert math.exp(RANKING.log_q[part, head, row]) == pytest.approx(one.q, rel=1e-9)
            assert getattr(evidence_at(RANKING, head, row), name).q == pytest.approx(one.q, rel=1e-9)


def test_the_strongest_by_hand():
    p = [fisher_p(samples=8, positives=4, support=4, hits=h) for h in (2, 4, 3)]
    log_p = np.log([p, [1.0, 1.0, 1.0]])
    assert strongest(log_p, 2).tolist() == [[1, 2], [-1, -1]]
    assert strongest(log_p, 5, among=[0, 2]).tolist() == [[2, 0], [-1, -1]]
    assert strongest(np.array([[-1.0, -2.0, -2.0]]), 2).tolist() == [[1, 2]]
    assert set(RANKING.strongest[0][:4]) == {2, 3, 4, 5} and (RANKING.strongest[2] == -1).all()


def test_the_choice_sees_the_mining_rows_alone():
    other = TRUTH.copy()
    other[:, SPLIT > 0] = DRAW.random((PREDICATES, (SPLIT > 0).sum())) < 0.5
    changed = rank(table_of(other), pack(HEAD), SPLIT, k=5)
    assert (changed.strongest == RANKING.strongest).all() and (changed.log_q[0] == RANKING.log_q[0]).all()
    assert (changed.log_p[1] != RANKING.log_p[1]).any()


@settings(max_examples=200)
@given(st.integers(1, 3000), st.data())
def test_fisher_equals_the_single_test(samples, data):
    positives, support = data.draw(st.integers(0, samples)), data.draw(st.integers(0, samples))
    hits = data.draw(st.integers(max(0, positives + support - samples), min(positives, support)))
    p = fisher_p(samples=samples, positives=positives, support=support, hits=hits)
    log_p = float(log_fisher_p(samples, positives, support, hits))
    assert log_p <= 0 and (math.exp(log_p) == pytest.approx(p, rel=1e-8) or p < 1e-290)


def test_fisher_far_below_the_smallest_float():
    # All 5000 draws of 20,000 are among the 5000 positives: one way in C(20000, 5000).
    exact = -math.log(math.comb(20_000, 5_000))
    found = log_fisher_p(20_000, 5_000, 5_000, np.array([4_999, 5_000]))
    assert found[1] == pytest.approx(exact, rel=1e-12)
    more = math.comb(5_000, 4_999) * 15_000 + 1
    assert found[0] == pytest.approx(math.log(more) + exact, rel=1e-12)


def test_fisher_of_many_samples_near_the_mean():
    hits = np.array([249_000, 249_900, 250_000, 250_001, 250_500])
    for value, log_p in zip(hits, log_fisher_p(10**6, 500_000, 500_000, hits), strict=True):
        expected = fisher_p(samples=10**6, positives=500_000, support=500_000, hits=int(value))
        assert math.exp(log_p) == pytest.approx(expected, rel=1e-6)


@given(st.lists(st.floats(1e-300, 1), max_size=30), st.integers(0, 20))
def test_q_equals_the_single_definition(p, untested):
    made = log_benjamini_hochberg(np.log(np.array(p, dtype=float)), tried=len(p) + untested)
    assert np.exp(made) == pytest.approx(benjamini_hochberg(p, tried=len(p) + untested), rel=1e-9)


@given(st.integers(0, 1000), st.data())
def test_wilson_equals_the_single_interval(trials, data):
    successes = data.draw(st.integers(0, trials))
    low, high = wilson_intervals(np.array([successes]), np.array([trials]))
    assert (low[0], high[0]) == pytest.approx(wilson(successes, trials), abs=1e-15)


def test_more_tests_than_candidates_weaken_q():
    wider = rank(table_of(TRUTH), pack(HEAD), SPLIT, tried=10**6)
    assert (wider.log_q >= RANKING.log_q).all() and (wider.log_q[0, 0, 2:6] > RANKING.log_q[0, 0, 2:6]).all()


def test_bad_input():
    with pytest.raises(BadData, match="must speak of the table's 500 samples, got heads of 8 words and split of shape"):
        rank(table_of(TRUTH), pack(HEAD), SPLIT[:3])
    with pytest.raises(BadData, match="must speak of the table's 500 samples, got heads of 2 words"):
        rank(table_of(TRUTH), pack(HEAD[:, :70]), SPLIT)
    with pytest.raises(BadData, match="got 90 and tried 7"):
        rank(table_of(TRUTH), pack(HEAD), SPLIT, tried=7)
