"""Margins from weighed forms, against the same linear program asked the other way round: the least margin over the polytope."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from specmine.rules.margins import Margins


def least_margin(forms, thresholds, goal, offset, floor):
    """The least w h + b over forms h >= thresholds, None where it is not bounded or nothing satisfies them."""
    bounds = (0, None) if floor else (None, None)
    solved = linprog(goal, A_ub=-forms, b_ub=-thresholds, bounds=bounds, method="highs")
    return solved.fun + offset if solved.status == 0 else None


def problem(seed, neurons, count):
    generator = np.random.default_rng(seed)
    forms = np.vstack([np.eye(neurons), -np.eye(neurons), generator.integers(-1, 2, (count, neurons))])
    point = generator.random(neurons) * 3
    thresholds = forms @ point - generator.random(len(forms))
    goals, offsets = generator.normal(size=(3, neurons)), generator.normal(size=3)
    return forms, thresholds, goals, offsets


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 5), st.integers(0, 12), st.booleans())
def test_every_margin_is_the_least_over_the_polytope(seed, neurons, count, floor):
    forms, thresholds, goals, offsets = problem(seed, neurons, count)
    margins = Margins(forms, goals, offsets, floor)
    least = margins.solve(thresholds)
    expected = [least_margin(forms, thresholds, *rival, floor) for rival in zip(goals, offsets, strict=True)]
    assert margins.margins == pytest.approx(expected, abs=1e-6)
    assert least == pytest.approx(min(expected), abs=1e-6)
    # weak duality, by hand: multipliers that are too small to reach the goal would promise too much
    reached = margins.multipliers @ forms
    assert (reached <= goals + 1e-6).all() if floor else np.allclose(reached, goals, atol=1e-6)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 5), st.integers(0, 12))
@example(1056, 5, 1)  # a form that is dropped had a multiplier of 1.6e-10, the solver's noise
def test_dropping_forms_keeps_what_the_others_prove(seed, neurons, count):
    forms, thresholds, goals, offsets = problem(seed, neurons, count)
    margins = Margins(forms, goals, offsets, floor=False)
    least = margins.solve(thresholds) - 1.0
    left = np.arange(len(forms))
    for form in range(len(forms)):
        rest = left[left != form]
        still = [least_margin(forms[rest], thresholds[rest], *rival, False) for rival in zip(goals, offsets, strict=True)]
        expected = all(margin is not None and margin > least + 1e-6 for margin in still)
        refused = any(margin is None or margin < least - 1e-6 for margin in still)
        dropped = margins.without([form], least=least)
        assert dropped or not expected
        assert not dropped or not refused
        left = rest if dropped else left
    assert not margins.multipliers[:, np.setdiff1d(np.arange(len(forms)), left)].any()


def test_a_margin_that_nothing_bounds_is_minus_infinity():
    margins = Margins(np.eye(2), np.array([[1.0, -1.0]]), np.zeros(1), floor=False)
    assert margins.solve(np.zeros(2)) == -np.inf
    assert not len(margins.used)
