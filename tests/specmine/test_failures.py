"""Inputs at which a head fails: that it does, and that they lie nearer to samples than where they came from."""

import numpy as np
import pytest
import toy

from specmine.pipeline.failures import Failures, spread
from specmine.predicates.predicate import Predicate
from specmine.tracing import Sites
from verifier.region import Box

REGION = Box(np.zeros(2), np.ones(2))
HOLDING = np.array([[0.9, 0.1], [0.8, 0.5], [1.0, 0.0]])


CLASS_0 = Predicate("class", (0,))


def failures(head=CLASS_0, holding=HOLDING):
    return Failures(Sites(toy.network()), REGION, head, holding)


def class_0(x):
    """The toy network's class is 0 exactly where x0 > x1."""
    return x[:, 0] > x[:, 1]


def test_a_head_fails_where_it_does_not_hold():
    x = np.random.default_rng(0).random((200, 2))
    assert (failures().at(x) == ~class_0(x)).all()
    assert (failures(Predicate("active", ("h1", 0))).at(x) == ~(x[:, 0] > x[:, 1])).all()
    assert failures().at(np.array([[0.5, 0.5]])).all(), "a tie is a failure"


def test_failures_are_moved_to_where_the_head_begins_to_hold():
    far = np.array([[0.0, 1.0], [0.2, 0.9], [0.3, 0.3]])
    moved = failures().moved(far, HOLDING)
    assert not class_0(moved).any() and (moved >= 0).all() and (moved <= 1).all()
    gap = moved[:, 1] - moved[:, 0]
    assert (gap <= 2 * 2.0**-10).all(), "so many halvings reach the line up to that"


def test_the_pool_fails_everywhere_and_begins_with_what_was_given_first():
    x = np.random.default_rng(1).random((300, 2))
    found = failures().among(x, seed=0)
    wanted = x[~class_0(x)]
    assert (found[: len(wanted)] == wanted).all() and len(found) == 2 * len(wanted)
    assert not class_0(found).any()
    assert len(failures().among(x[class_0(x)], seed=0)) == 0
    assert (failures(holding=HOLDING[:0]).among(x, seed=0) == wanted).all()


@pytest.mark.parametrize("holding", [HOLDING, HOLDING[:0]])
def test_inputs_like_a_counterexample_come_after_it(holding):
    point = np.array([0.2, 0.7])
    found = failures(holding=holding).like(point)
    assert (found[0] == point).all() and len(found) > 10 and not class_0(found).any()
    assert (found == failures(holding=holding).like(point)).all(), "the same each time, so that a run can be resumed"


def test_inputs_are_spread_over_the_region():
    region = Box(np.array([-1.0, 2.0]), np.array([1.0, 4.0]))
    found = spread(region, np.array([[0.0, 3.0], [0.5, 2.5]]), seed=3)
    assert ((found >= region.lower) & (found <= region.upper)).all()
    assert (found == region.lower).any(axis=0).all() and (found == region.upper).any(axis=0).all()
