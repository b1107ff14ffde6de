"""Smallest bodies under a judge who knows samples that the table does not show: against enumeration over all of them."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from specmine.predicates.predicate import Predicate
from specmine.predicates.table import PredicateTable, pack
from specmine.rules.smallest import Ruling, smallest_body, telling


def table(bits):
    return PredicateTable(tuple(Predicate("active", ("h1", i)) for i in range(len(bits))), pack(bits), bits.shape[1])


def smallest_size(bits, positives, recall):
    """The size of the smallest body that keeps the recall and no other sample, None where there is none."""
    for size in range(len(bits) + 1):
        for body in combinations(range(len(bits)), size):
            held = bits[list(body)].all(axis=0)
            if (held & positives).sum() >= recall * positives.sum() - 1e-9 and not (held & ~positives).any():
                return size
    return None


class Hidden:
    """Refuses a body by the first hidden samples on which it holds; cannot tell of the bodies in `unsure`."""

    def __init__(self, bits, unsure=(), most=1):
        self.bits, self.unsure, self.asked, self.most = bits, {tuple(body) for body in unsure}, [], most

    def __call__(self, body, lower_bound):
        self.asked.append(body)
        if body in self.unsure:
            return Ruling(None)
        held = np.flatnonzero(self.bits[list(body)].all(axis=0))
        return Ruling(False, self.bits[:, held[: self.most]]) if len(held) else Ruling(True)


@settings(max_examples=200, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 8),
    st.integers(1, 30),
    st.sampled_from([1.0, 0.9, 0.6, 0.3]),
    st.sampled_from([1, 5]),
)
def test_as_small_as_brute_force_over_hidden_samples_too(seed, predicates, samples, recall, most):
    generator = np.random.default_rng(seed)
    positives = generator.random(samples) < 0.5
    positives[0] = True
    bits = generator.random((predicates, samples)) < np.where(positives, 0.9, 0.6)
    hidden = generator.random((predicates, 12)) < 0.6
    judge = Hidden(hidden, most=most)
    result = smallest_body(table(bits), positives, ~positives, recall=recall, timeout_s=30, judge=judge)
    everything = np.hstack([bits, hidden])
    kept = np.concatenate([positives, np.zeros(12, dtype=bool)])
    expected = smallest_size(everything, kept, recall)
    assert result.found == (expected is not None), result
    if expected is not None:
        assert result.optimal and result.size == result.lower_bound == expected
        assert not (everything[list(result.body)].all(axis=0) & ~kept).any()
    assert result.exhausted
    assert len(judge.asked) == len(set(judge.asked)), "no body is judged twice"


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_what_the_judge_cannot_tell_is_never_the_answer_and_lowers_the_bound(seed):
    generator = np.random.default_rng(seed)
    positives = generator.random(30) < 0.5
    positives[0] = True
    bits = generator.random((7, 30)) < np.where(positives, 0.95, 0.6)
    hidden = generator.random((7, 6)) < 0.6
    sure = smallest_body(table(bits), positives, ~positives, recall=0.5, timeout_s=30, judge=Hidden(hidden))
    if not sure.found or not sure.body:
        return
    unsure = smallest_body(table(bits), positives, ~positives, recall=0.5, timeout_s=30, judge=Hidden(hidden, [sure.body]))
    assert unsure.body != sure.body or not unsure.found
    assert unsure.lower_bound <= sure.size
    if unsure.found:
        assert unsure.size >= sure.size and unsure.optimal == (unsure.size == sure.size)


def test_a_sample_that_satisfies_every_candidate_leaves_nothing():
    bits = np.array([[1, 1, 0], [1, 1, 0]], dtype=bool)
    result = smallest_body(table(bits), bits[0], ~bits[0], recall=1.0, judge=Hidden(np.ones((2, 1), dtype=bool)))
    assert not result.found and "was accepted" in result.reason


def test_more_samples_at_once_take_fewer_questions():
    generator = np.random.default_rng(5)
    positives = np.ones(20, dtype=bool)
    bits, hidden = np.ones((30, 20), dtype=bool), generator.random((30, 40)) < 0.8
    few, many = Hidden(hidden), Hidden(hidden, most=40)
    sizes = {smallest_body(table(bits), positives, ~positives, recall=1.0, judge=judge).size for judge in (few, many)}
    assert len(sizes) == 1 and len(many.asked) < len(few.asked)


@given(st.integers(0, 2**32 - 1), st.integers(1, 8), st.integers(1, 12), st.integers(1, 12))
def test_what_tells_most_implies_the_rest(seed, places, samples, most):
    false_on = np.random.default_rng(seed).random((places, samples)) < 0.5
    kept = telling(false_on, most=most)
    columns = [set(np.flatnonzero(false_on[:, sample]).tolist()) for sample in range(samples)]
    assert all(set(places) in columns for places in kept)
    assert any(set(places) <= columns[0] for places in kept), "the first sample is excluded"
    assert len(kept) <= most + 1 and not any(set(a) <= set(b) for a in kept[:most] for b in kept[:most] if a is not b)
    if most >= samples:
        assert all(any(set(places) <= column for places in kept) for column in columns)


@pytest.mark.parametrize("recall", [1.0, 0.5])
def test_rows_that_agree_on_the_table_may_differ_for_the_judge(recall):
    bits = np.array([[1, 1, 0, 0], [1, 1, 0, 0], [1, 1, 0, 1]], dtype=bool)
    hidden = np.array([[1], [0], [1]], dtype=bool)
    result = smallest_body(table(bits), bits[0], ~bits[0], recall=recall, judge=Hidden(hidden))
    assert result.found and result.body == (1,) and result.optimal
