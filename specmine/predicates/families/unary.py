"""Predicates of one neuron: its phase, and thresholds at quantiles of its values."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from specmine.predicates.form import Bits, Columns, Family, Form, Grid
from specmine.predicates.predicate import Argument, Predicate
from specmine.predicates.rounding import shorten
from specmine.tracing.sites import Sites
from specmine.tracing.trace import Trace, column
from verifier.formula import And, Formula, at_least, at_most
from verifier.ops import Array, Relu


def _active(arguments: tuple[Argument, ...], sites: Sites) -> Formula:
    site, neuron = arguments
    return at_least(sites.value(str(site)), int(neuron), 0, strict=True)


def _inactive(arguments: tuple[Argument, ...], sites: Sites) -> Formula:
    site, neuron = arguments
    return at_most(sites.value(str(site)), int(neuron), 0)


def _above(arguments: tuple[Argument, ...], sites: Sites) -> Formula:
    site, neuron, threshold = arguments
    return at_least(sites.value(str(site)), int(neuron), float(threshold))


def _below(arguments: tuple[Argument, ...], sites: Sites) -> Formula:
    site, neuron, threshold = arguments
    return at_most(sites.value(str(site)), int(neuron), float(threshold))


def _within(arguments: tuple[Argument, ...], sites: Sites) -> Formula:
    site, neuron, low, high = arguments
    return And((_above((site, neuron, low), sites), _below((site, neuron, high), sites)))


def _active_bits(arguments: tuple[Any, ...], columns: Columns) -> Bits:
    site, neurons = arguments
    return columns[site][neurons] > 0


def _inactive_bits(arguments: tuple[Any, ...], columns: Columns) -> Bits:
    site, neurons = arguments
    return columns[site][neurons] <= 0


def _above_bits(arguments: tuple[Any, ...], columns: Columns) -> Bits:
    site, neurons, thresholds = arguments
    return columns[site][neurons] >= thresholds[:, None]


def _below_bits(arguments: tuple[Any, ...], columns: Columns) -> Bits:
    site, neurons, thresholds = arguments
    return columns[site][neurons] <= thresholds[:, None]


def _within_bits(arguments: tuple[Any, ...], columns: Columns) -> Bits:
    site, neurons, low, high = arguments
    values = columns[site][neurons]
    return (low[:, None] <= values) & (values <= high[:, None])


def _site(arguments: tuple[Argument, ...]) -> tuple[str, ...]:
    return (str(arguments[0]),)


def _ordered(arguments: tuple[Argument, ...]) -> str | None:
    low, high = arguments[2:]
    return None if low <= high else f"lower threshold {low} is above upper threshold {high}; swap them"  # type: ignore[operator]


FORMS: dict[str, Form] = {
    "active": Form("active", ("site", "neuron"), _active, _active_bits, _site),
    "inactive": Form("inactive", ("site", "neuron"), _inactive, _inactive_bits, _site),
    "above": Form("above", ("site", "neuron", "threshold"), _above, _above_bits, _site),
    "below": Form("below", ("site", "neuron", "threshold"), _below, _below_bits, _site),
    "within": Form("within", ("site", "neuron", "threshold", "threshold"), _within, _within_bits, _site, _ordered),
}


def _candidates(trace: Trace, grid: Grid) -> Iterator[Predicate]:
    for site in grid.sites:
        lower, upper = _quantiles(column(trace, site), grid)
        constant = lower.min(axis=0) == upper.max(axis=0)
        floor = 0.0 if _is_rectified(trace.sites, site) else -np.inf
        for neuron in range(lower.shape[1]):
            yield Predicate("active", (site, neuron))
            yield Predicate("inactive", (site, neuron))
            if not constant[neuron]:
                above = [t for t in _short(lower[:, neuron], down=True) if t > floor]
                below = [t for t in _short(upper[:, neuron], down=False) if t != 0]
                yield from (Predicate("above", (site, neuron, t)) for t in above)
                yield from (Predicate("below", (site, neuron, t)) for t in below)


def _short(values: Array, *, down: bool) -> list[float]:
    short = {shorten(value, down=down) for value in values.tolist()}
    return sorted(threshold for threshold in short if np.isfinite(threshold))


def _quantiles(values: Array, grid: Grid) -> tuple[Array, Array]:
    """Thresholds for above and for below, each (thresholds, neurons): pooled quantiles, then the tails of each head."""
    pooled = tuple(k / (grid.thresholds + 1) for k in range(1, grid.thresholds + 1))
    groups = [(values, (0.0, *pooled))]
    heads = np.unique(grid.heads[grid.heads >= 0])
    groups += [(values[grid.heads == head], grid.head_levels) for head in heads if grid.head_levels]
    ends = [_order_statistics(rows, levels) for rows, levels in groups]
    return np.concatenate([low for low, _ in ends]), np.concatenate([high for _, high in ends])


def _order_statistics(values: Array, levels: tuple[float, ...]) -> tuple[Array, Array]:
    """Sample values (levels, neurons) with at most a share `level` of the samples below, and above, them."""
    last = len(values) - 1
    low = [int(np.floor(level * last)) for level in levels]
    high = [last - place for place in low]
    ranked = np.partition(np.ascontiguousarray(values.T), sorted({*low, *high}), axis=1)
    return ranked[:, low].T, ranked[:, high].T


def _is_rectified(sites: Sites, site: str) -> bool:
    producer = sites.network.producers.get(sites.value(site))
    return producer is not None and isinstance(producer.op, Relu)


UNARY = Family("unary", FORMS, _candidates)
