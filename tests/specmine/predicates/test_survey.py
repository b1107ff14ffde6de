"""Spreads of measures: streamed as kept, in any number of passes, on any executor."""

import logging
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pytest

from specmine.errors import BadData, BadModel
from specmine.predicates.form import Grid, Measure
from specmine.predicates.survey import survey
from specmine.tracing import Sites, trace
from specmine.tracing.stream import Stream
from verifier.network import Network, Node
from verifier.ops import Linear, Relu

SIZE, SAMPLES = 6, 9000
WEIGHTS = np.random.default_rng(1).normal(size=(SIZE, SIZE))
NODES = (
    Node("a", Linear(WEIGHTS, np.zeros(SIZE)), ("in",)),
    Node("b", Relu(), ("a",)),
    Node("c", Linear(WEIGHTS, np.zeros(SIZE)), ("b",)),
)
SITES = Sites(Network("in", (1, SIZE), NODES, "c"))
X = np.random.default_rng(0).standard_cauchy(size=(SAMPLES, SIZE))
STREAM = Stream(SITES, X)
HEADS = np.arange(SAMPLES) % 4 - 1


def values_of(site, columns, rows):
    return columns[site][rows]


def difference(columns, rows):
    return columns["h1"][rows] - columns["h1"][::-1][rows]


MEASURES = (
    Measure(("z1",), SIZE, partial(values_of, "z1")),
    Measure(("h1",), 0, partial(values_of, "h1")),
    Measure(("h1",), SIZE, difference),
)
GRID = Grid(("z1", "h1"), thresholds=3)


def same(first, second):
    return all(
        a.low.tobytes() == b.low.tobytes() and a.high.tobytes() == b.high.tobytes() for a, b in zip(first, second, strict=True)
    )


def test_quantiles_hold_their_shares():
    spread = survey(STREAM, MEASURES, GRID, HEADS)[0]
    values = trace(SITES, X, keep=("z1",)).values["z1"]
    groups = [
        (values, [0, 1 / 4, 2 / 4, 3 / 4]),
        *((values[chosen], GRID.head_levels) for chosen in (label == HEADS for label in range(3))),
    ]
    row = 0
    for part, levels in groups:
        for level in levels:
            below, above = (part < spread.low[row]).mean(axis=0), (part > spread.high[row]).mean(axis=0)
            assert (below <= level).all() and (above <= level).all()
            assert (below > level - 0.02).all() and (above > level - 0.02).all()
            row += 1
    assert row == len(spread.low) == len(spread.high)


def test_a_measure_without_rows():
    assert survey(STREAM, MEASURES, GRID, HEADS)[1].low.shape == (4 + 3 * 2, 0)


def test_streams_passes_and_executors_agree():
    whole = survey(STREAM, MEASURES, GRID, HEADS)
    kept = trace(SITES, X, keep=("z1", "h1", "y"))
    assert same(whole, survey(kept, MEASURES, GRID, HEADS))
    assert same(whole, survey(STREAM, MEASURES, GRID, HEADS, memory_mb=0.3))
    with ThreadPoolExecutor(2) as threads:
        assert same(whole, survey(STREAM, MEASURES, GRID, HEADS, executor=threads))


def test_a_head_value_without_samples_gets_no_thresholds(caplog):
    with caplog.at_level(logging.WARNING):
        spread = survey(STREAM, MEASURES, GRID, np.where(HEADS == 1, -1, HEADS))[0]
    assert len(spread.low) == 4 + 2 * 2 and "no sample has head value 1; it gets no thresholds" in caplog.text
    assert len(survey(STREAM, MEASURES, GRID, np.full(SAMPLES, -1))[0].low) == 4


def test_nan_is_refused():
    def nothing(columns, rows):
        return columns["h1"][rows] * np.nan

    with pytest.raises(BadModel, match="is NaN on some sample"):
        survey(STREAM, [Measure(("h1",), SIZE, nothing)], GRID, HEADS)


def test_heads_that_do_not_fit():
    with pytest.raises(BadData, match=r"a head value is needed for each of 9000 samples, got \(3,\)"):
        survey(STREAM, MEASURES, GRID, HEADS[:3])
