"""Quantile sketches against sorting everything, on friendly and on hostile data, whole and in parts."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from specmine.errors import BadModel
from specmine.predicates.sketch import choose_pilot, edge_places, merge_sketches, quantiles, sketch

LEVELS = (0.0, 0.05, 1 / 3, 0.5)
SAMPLES = 40_000
RNG = np.random.default_rng(0)
HOSTILE = {
    "normal": RNG.normal(size=SAMPLES),
    "heavy tails": RNG.standard_cauchy(size=SAMPLES) ** 5,
    "zeros of a relu": np.maximum(RNG.normal(-1.5, 1, size=SAMPLES), 0),
    "constant": np.full(SAMPLES, -2.5),
    "two values": (RNG.random(SAMPLES) < 0.04).astype(float),
    "far from zero": 1e9 + RNG.normal(size=SAMPLES),
    "sorted": np.sort(RNG.exponential(size=SAMPLES)),
    "one outlier": np.r_[np.zeros(SAMPLES - 1), 1e300],
    "tiny": RNG.normal(size=SAMPLES) * 5e-320,
}


def sketched(values, *, pilot=1024, parts=1):
    """The sketch of rows of values, their parts merged in a mixed order."""
    samples = values.shape[1]
    chosen = choose_pilot(np.arange(samples), pilot)
    edges = np.sort(values[:, chosen], axis=1)[:, edge_places(len(chosen), samples, LEVELS)]
    pieces = [sketch(part, edges) for part in np.array_split(values, parts, axis=1)]
    made = pieces.pop()
    for place in np.random.default_rng(parts).permutation(len(pieces)):
        made = merge_sketches(pieces[place], made)
    return made


def exact(values):
    ranked = np.sort(values, axis=1)
    last = values.shape[1] - 1
    beyond = [int(np.floor(level * last)) for level in LEVELS]
    return ranked[:, beyond].T, ranked[:, [last - place for place in beyond]].T


@given(hnp.arrays(float, st.tuples(st.integers(1, 4), st.integers(1, 120)), elements=st.floats(-9, 9)), st.integers(1, 5))
def test_few_samples_are_exact(values, parts):
    low, high = quantiles(sketched(values, parts=parts), LEVELS)
    assert (low == exact(values)[0]).all() and (high == exact(values)[1]).all()


@pytest.mark.parametrize("name", HOSTILE)
def test_many_samples(name):
    values = HOSTILE[name]
    low, high = quantiles(sketched(values[None]), LEVELS)
    assert low[0, 0] == values.min() and high[0, 0] == values.max()
    for level, below, above in zip(LEVELS, low[:, 0], high[:, 0], strict=True):
        asked = int(np.floor(level * (SAMPLES - 1)))
        assert below in values and above in values
        assert (values < below).sum() <= asked and (values > above).sum() <= asked
        assert (values <= below).sum() > asked - 0.02 * SAMPLES and (values >= above).sum() > asked - 0.02 * SAMPLES


@given(st.integers(2, 40))
def test_parts_in_any_order_give_the_same(parts):
    values = np.stack([HOSTILE["heavy tails"], HOSTILE["zeros of a relu"]])[:, :5000]
    whole, merged = sketched(values), sketched(values, parts=parts)
    assert merged.samples == whole.samples
    for field in ("below", "upto", "least", "greatest"):
        assert getattr(merged, field).tobytes() == getattr(whole, field).tobytes()


def test_size_is_bounded():
    assert len(edge_places(1024, 10**9, [k / 9 for k in range(9)])) <= 1 + 2 * 33 * 9
    assert len(choose_pilot(np.arange(10**5), 1024)) == 1024


def test_the_pilot_is_spread_over_the_members():
    chosen = choose_pilot(np.arange(10**5), 1024)
    assert (np.diff(chosen) > 0).all()
    assert np.abs(np.histogram(chosen, bins=8, range=(0, 10**5))[0] - 128).max() < 50
    assert choose_pilot(np.array([3, 9]), 5).tolist() == [3, 9]


def test_a_part_without_samples():
    made = sketch(np.empty((1, 0)), np.array([[0.0, 1.0]]))
    other = sketch(np.array([[0.5]]), made.edges)
    merged = merge_sketches(made, other)
    assert (merged.least, merged.greatest, merged.samples) == (0.5, 0.5, 1)


def test_nan_is_refused():
    with pytest.raises(BadModel, match="is NaN on some sample"):
        sketch(np.array([[0.0, np.nan]]), np.zeros((1, 1)))
