"""The cheapest set of clauses, against enumeration of all sets."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from specmine.errors import BadConfig, BadData
from specmine.rules.cover import smallest_cover


def cheapest(covered, sizes, price):
    wanted = np.logical_or.reduce(covered)
    costs = [
        sum(price + sizes[place] for place in chosen)
        for count in range(len(sizes) + 1)
        for chosen in combinations(range(len(sizes)), count)
        if (np.logical_or.reduce([covered[place] for place in chosen]) if chosen else ~wanted & wanted).tolist()
        == wanted.tolist()
    ]
    return min(costs)


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 7), st.integers(1, 12), st.sampled_from([0, 1, 10, 100]))
def test_as_cheap_as_brute_force(seed, clauses, samples, price):
    generator = np.random.default_rng(seed)
    covered = list(generator.random((clauses, samples)) < 0.4)
    sizes = generator.integers(1, 9, clauses).tolist()
    found = smallest_cover(covered, sizes, price=price)
    assert found.optimal and found.cost == found.lower_bound == cheapest(covered, sizes, price)
    assert found.cost == sum(price + sizes[place] for place in found.chosen)
    everything = np.logical_or.reduce(covered)
    chosen = np.logical_or.reduce([covered[place] for place in found.chosen]) if found.chosen else np.zeros(samples, dtype=bool)
    assert (chosen == everything).all()


def test_no_clause_and_mistakes():
    assert smallest_cover([], []).chosen == ()
    with pytest.raises(BadData, match="one mask of the same samples and one size, got 1 and 2"):
        smallest_cover([np.ones(3, dtype=bool)], [1, 2])
    with pytest.raises(BadConfig, match="price must be at least 0 and timeout_s above 0"):
        smallest_cover([np.ones(3, dtype=bool)], [1], timeout_s=0)


def test_without_time_every_clause_stays_and_the_gap_is_said():
    generator = np.random.default_rng(3)
    covered, sizes = list(generator.random((60, 400)) < 0.05), generator.integers(1, 9, 60).tolist()
    found = smallest_cover(covered, sizes, timeout_s=1e-6)
    everything = np.logical_or.reduce(covered)
    assert (np.logical_or.reduce([covered[place] for place in found.chosen]) == everything).all()
    assert found.lower_bound <= found.cost and (found.optimal or "or more" in found.reason)
