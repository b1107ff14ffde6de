"""Carved bodies: a corner by hand, what they hold against the literals they print, parts by turns, and bad input."""

import numpy as np
import pytest
import toy

from specmine.errors import BadConfig, BadData
from specmine.predicates.predicate import Predicate
from specmine.predicates.table import build_table, unpack
from specmine.rules.carving import HalfSpaces, carved_bodies, telling_forms
from specmine.rules.forms import small_forms
from specmine.tracing import Sites, trace


def cube(count, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, (count, 3))


def scores_of(inside):
    """The score of label 1 is above that of label 0 where the margin (samples,) is above zero."""
    return np.stack([np.zeros(len(inside)), inside], axis=1)


def test_a_corner_is_found_with_the_two_forms_that_bound_it():
    values = cube(6000)
    margin = np.minimum(values[:, 0] - values[:, 1] - 0.25, values[:, 2] - 0.1)
    (body, *more) = carved_bodies(values, scores_of(margin), 1, most=3, max_body=2)
    kept = {tuple(form): threshold for form, threshold in zip(body.forms.tolist(), body.thresholds, strict=True)}
    assert kept == {(1, -1, 0): pytest.approx(0.25, abs=0.02), (0, 0, 1): pytest.approx(0.1, abs=0.02)}
    fresh = cube(20_000, seed=1)
    positives = np.minimum(fresh[:, 0] - fresh[:, 1] - 0.25, fresh[:, 2] - 0.1) > 0
    held = np.any([own.holds(fresh) for own in (body, *more)], axis=0)
    assert (held & positives).sum() > 0.97 * positives.sum() and (held & ~positives).sum() < 0.01 * held.sum()


def test_two_parts_take_two_bodies():
    values = cube(6000)
    margin = np.maximum(values[:, 0] - 0.5, -0.6 - values[:, 0])
    bodies = carved_bodies(values, scores_of(margin), 1, most=6, max_body=3)
    held = np.array([body.holds(values) for body in bodies])
    assert (held.any(axis=0) == (margin > 0)).mean() > 0.99
    assert (held[0] & (margin > 0)).sum() < 0.7 * (margin > 0).sum(), "no conjunction of half-spaces holds on both"
    assert len(carved_bodies(values, scores_of(margin), 1, most=1)) == 1


def test_an_error_that_costs_more_is_made_less_often():
    values = cube(4000)
    blurred = values[:, 0] - 0.2 + np.random.default_rng(2).normal(0, 0.2, len(values))
    wrong = []
    for price in (0.5, 20.0):
        (body,) = carved_bodies(values, scores_of(blurred), 1, most=1, max_body=1, error_price=price)
        held = body.holds(values)
        wrong.append((held & (blurred <= 0)).sum() / held.sum())
    assert wrong[1] < wrong[0] / 2


def test_literals_hold_where_the_body_does():
    sites = Sites(toy.network())
    inputs = np.random.default_rng(3).random((500, 2))
    there = trace(sites, inputs)
    neurons = there.values["h1"].shape[1]
    forms = np.zeros((2, neurons), dtype=np.int8)
    forms[0, 0], forms[1, 0], forms[1, 1] = -1, 1, -1
    body = HalfSpaces(forms, np.array([-0.75, 0.125]))
    assert body.literals("h1") == [Predicate("below", ("h1", 0, 0.75)), Predicate("less_by", ("h1", 1, "h1", 0, 0.125))]
    table = build_table(body.literals("h1"), there)
    exact = unpack(table.bits, there.samples).all(axis=0)
    assert (exact == body.holds(there.values["h1"])).all() and 0 < exact.sum() < 500


def test_forms_that_follow_the_margin_are_chosen():
    values, pool = cube(3000), small_forms(3)
    margin = values[:, 0] + values[:, 1] - values[:, 2]
    chosen = telling_forms(values, scores_of(margin), 1, pool, most=1)
    assert [1, 1, -1] in pool[chosen].tolist() and len(chosen) == 7, "each neuron up and down, and the one that is the margin"
    assert telling_forms(values, scores_of(margin)[:20], 1, pool, most=1) == list(range(6)), "a face of few samples says little"


def test_bad_input():
    values, scores = cube(50), scores_of(cube(50)[:, 0])
    with pytest.raises(BadConfig, match="max_body and faces must be at least 1, got 0 and 200"):
        carved_bodies(values, scores, 1, most=1, max_body=0)
    with pytest.raises(BadData, match="of the same samples, got 50 and 49"):
        carved_bodies(values, scores[:49], 1, most=1)
    with pytest.raises(BadData, match="none of 50 has label 1"):
        carved_bodies(values, scores_of(np.full(50, -1.0)), 1, most=1)
