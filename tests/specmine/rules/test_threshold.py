import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from specmine.errors import BadConfig, BadData
from specmine.predicates.predicate import Predicate
from specmine.predicates.table import PredicateTable, pack
from specmine.rules.threshold import compose

CLASS = Predicate("class", (0,))


def table(rows):
    bits = np.array(list(rows.values()), dtype=bool)
    return PredicateTable(tuple(rows), pack(bits), bits.shape[1])


def active(i):
    return Predicate("active", ("h1", i))


def test_activation_pattern_by_hand():
    on, off = np.array([1, 1, 1, 1, 0, 0]), np.array([1, 1, 1, 0, 1, 1])
    inactive = Predicate("inactive", ("h1", 1))
    t = table({active(0): on, Predicate("inactive", ("h1", 0)): 1 - on, active(1): 1 - off, inactive: off})
    positives = np.array([1, 1, 1, 1, 0, 0], dtype=bool)
    assert compose(t, positives, head=CLASS, delta=0.0).body == (active(0),)
    assert compose(t, positives, head=CLASS, delta=0.25).body == (active(0), inactive)
    assert compose(t, np.array([0, 0, 0, 1, 1, 0], dtype=bool), head=CLASS, delta=0.0) is None


def test_the_strongest_threshold_stays():
    values = np.array([1.0, 2.0, 3.0, 9.0])
    rows = {Predicate("above", ("h1", 0, t)): values >= t for t in (0.5, 1.0, 2.0)} | {active(0): values > 0}
    body = compose(table(rows), np.ones(4, dtype=bool), head=None, delta=0.0).body
    assert body == (Predicate("above", ("h1", 0, 1.0)),)


@given(st.integers(1, 200), st.sampled_from([0.0, 0.05, 0.1, 0.3]), st.integers(0, 2**32 - 1))
def test_kept_exactly_where_the_rate_is_reached(samples, delta, seed):
    generator = np.random.default_rng(seed)
    bits = generator.random((6, samples)) < generator.choice([0.7, 0.9, 0.95, 1.0], (6, 1))
    positives = generator.random(samples) < 0.6
    positives[0] = True
    clause = compose(table({active(i): row for i, row in enumerate(bits)}), positives, head=CLASS, delta=delta)
    total = int(positives.sum())
    kept = {active(i) for i in range(6) if int((~bits[i] & positives).sum()) * 100 <= round(delta * 100) * total}
    assert (set(clause.body) if clause else set()) == kept


def test_bad_input():
    t = table({active(0): [1, 0]})
    with pytest.raises(BadConfig, match="at least 0 and below 1, got 1"):
        compose(t, np.ones(2, dtype=bool), head=None, delta=1)
    with pytest.raises(BadData, match=r"Boolean mask of shape \(2,\), got bool of shape \(3,\)"):
        compose(t, np.ones(3, dtype=bool), head=None, delta=0)
    with pytest.raises(BadData, match="at least one positive"):
        compose(t, np.zeros(2, dtype=bool), head=None, delta=0)
