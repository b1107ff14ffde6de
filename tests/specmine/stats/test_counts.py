"""Intervals and tests against textbook values and slow definitions."""

import math
from fractions import Fraction

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from specmine.errors import BadData
from specmine.stats import benjamini_hochberg, fisher_p, wilson


def test_wilson_known_values():
    assert wilson(0, 0) == (0.0, 1.0)
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)  # Newcombe 1998, table I, method 3
    assert wilson(15, 148) == pytest.approx((0.0624, 0.1605), abs=5e-5)
    assert wilson(0, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)
    assert wilson(29, 29) == pytest.approx((0.8830, 1.0), abs=5e-5)


@given(st.integers(1, 10**6), st.data())
def test_wilson_holds_the_share_and_agrees_with_scipy(trials, data):
    successes = data.draw(st.integers(0, trials))
    low, high = wilson(successes, trials, z=scipy.stats.norm.ppf(0.975))
    reference = scipy.stats.binomtest(successes, trials).proportion_ci(0.95, method="wilson")
    assert 0 <= low <= successes / trials <= high <= 1
    assert (low, high) == pytest.approx((reference.low, reference.high), abs=1e-9)


def test_wilson_of_impossible_counts():
    with pytest.raises(BadData, match="got 3 of 2"):
        wilson(3, 2)


def slow_tail(samples, positives, support, hits):
    ways = sum(
        math.comb(positives, k) * math.comb(samples - positives, support - k) for k in range(hits, min(positives, support) + 1)
    )
    return Fraction(ways, math.comb(samples, support))


def test_fisher_lady_tasting_tea():
    assert fisher_p(samples=8, positives=4, support=4, hits=4) == pytest.approx(1 / 70)
    assert fisher_p(samples=8, positives=4, support=4, hits=3) == pytest.approx(17 / 70)


@given(st.integers(1, 60), st.data())
def test_fisher_equals_exact_counting(samples, data):
    positives, support = data.draw(st.integers(0, samples)), data.draw(st.integers(0, samples))
    hits = data.draw(st.integers(max(0, positives + support - samples), min(positives, support)))
    p = fisher_p(samples=samples, positives=positives, support=support, hits=hits)
    assert p == pytest.approx(float(slow_tail(samples, positives, support, hits)), rel=1e-9)


def test_fisher_of_nothing_and_of_impossible_counts():
    assert fisher_p(samples=0, positives=0, support=0, hits=0) == 1.0
    with pytest.raises(BadData, match="counts do not fit"):
        fisher_p(samples=10, positives=2, support=5, hits=3)


def slow_q(p, tried):
    """The definition: the smallest level at which the step-up procedure rejects."""
    ranked = sorted(p)
    return [min([1.0] + [tried * ranked[j] / (j + 1) for j in range(len(p)) if ranked[j] >= value]) for value in p]


@given(st.lists(st.floats(0, 1), max_size=30), st.integers(0, 20))
def test_benjamini_hochberg_equals_its_definition(p, untested):
    tried = len(p) + untested
    assert benjamini_hochberg(p, tried=tried) == pytest.approx(slow_q(p, tried))
    if not untested and p:
        assert benjamini_hochberg(p) == pytest.approx(scipy.stats.false_discovery_control(p))


def test_listing_fewer_tests_gives_the_same_q():
    p = [0.001, 0.2, 0.01]
    assert benjamini_hochberg(p, tried=5).tolist() == benjamini_hochberg([*p, 1.0, 1.0])[:3].tolist()


def test_benjamini_hochberg_refuses():
    for p, tried in (([0.1, np.nan], None), ([-0.1], None), ([1.5], None), ([0.1, 0.2], 1)):
        with pytest.raises(BadData, match=r"p values must lie in \[0, 1\]"):
            benjamini_hochberg(p, tried=tried)
