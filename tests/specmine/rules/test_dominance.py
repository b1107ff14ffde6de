"""Literals of one quantity: what is said to imply does imply, on values; and nothing that is needed is called dominated."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from specmine.predicates.families import FORMS
from specmine.predicates.predicate import Predicate
from specmine.predicates.table import PredicateTable, pack
from specmine.rules.dominance import dominated, quantity_limits, strongest_of
from specmine.rules.reduce import implies

NEURONS, THRESHOLDS = st.integers(0, 2), st.integers(-2, 2).map(float)
SITE = "h1"
PAIR = st.tuples(st.just(SITE), NEURONS, st.just(SITE), NEURONS)
TRIPLE = st.tuples(st.just(SITE), NEURONS, st.just(SITE), NEURONS, st.just(SITE), NEURONS)
LITERALS = st.one_of(
    st.builds(lambda form, i: Predicate(form, (SITE, i)), st.sampled_from(["active", "inactive"]), NEURONS),
    st.builds(lambda form, i, t: Predicate(form, (SITE, i, t)), st.sampled_from(["above", "below"]), NEURONS, THRESHOLDS),
    st.builds(lambda pair: Predicate("less", pair), PAIR),
    st.builds(
        lambda form, pair, t: Predicate(form, (*pair, t)),
        st.sampled_from(["less_by", "sum_above", "sum_below"]),
        PAIR,
        THRESHOLDS,
    ),
    st.builds(
        lambda form, ends, t: Predicate(form, (*ends, t)), st.sampled_from(["sum_over", "sum_under"]), TRIPLE, THRESHOLDS
    ),
)
VALUES = np.array(np.meshgrid(*[np.arange(-2, 2.5, 0.5)] * 3)).reshape(3, -1)


def truth(literal):
    arguments = tuple(a if isinstance(a, str) else np.array([a]) for a in literal.arguments)
    return FORMS[literal.form].bits(arguments, {SITE: VALUES}, None)[0]


@settings(max_examples=400, deadline=None)
@given(LITERALS, LITERALS)
def test_implied_means_implied_on_values(first, second):
    a, b = quantity_limits(first), quantity_limits(second)
    if a is not None and b is not None and a[0] == b[0] and implies(a[1], b[1]):
        assert not (truth(first) & ~truth(second)).any(), (first, second)


@settings(max_examples=100, deadline=None)
@given(st.lists(LITERALS, min_size=1, max_size=10, unique=True), st.integers(0, 2**32 - 1))
def test_what_is_left_out_has_one_that_stays_in_its_place(literals, seed):
    positives = np.random.default_rng(seed).random(VALUES.shape[1]) < 0.05
    bits = np.array([truth(literal) for literal in literals])
    rows = np.arange(len(literals))
    out = dominated(literals, pack(bits) & pack(positives), rows)
    for row in np.flatnonzero(out):
        stands_in = [
            other
            for other in np.flatnonzero(~out)
            if not (bits[other] & ~bits[row]).any() and (bits[other] == bits[row])[positives].all()
        ]
        assert stands_in, literals[row]


def test_one_threshold_of_each_run_of_equals_is_enough():
    literals = [Predicate("above", (SITE, 0, t)) for t in (0.5, 1.0, 1.5)]
    held = np.array([[1, 1, 1], [1, 1, 1], [0, 1, 1]], dtype=bool)
    out = dominated(literals, pack(held), np.arange(3))
    assert out.tolist() == [True, False, False]
    assert not dominated(literals, pack(held), np.arange(3), spared=[1]).any(), "what may not be used replaces nothing"
    assert strongest_of(literals, (0, 2, 1)) == (2,)
    assert PredicateTable(tuple(literals), pack(held), 3).samples == 3
