"""Predicates of one neuron: its phase, and thresholds at quantiles of its values.

    active(s,i)      s[i] > 0          above(s,i,c)       s[i] >= c
    inactive(s,i)    s[i] <= 0         below(s,i,c)       s[i] <= c
    within(s,i,c,d)  c <= s[i] <= d

Of convolutional sites also what holds somewhere or everywhere in a window of a channel (`specmine.predicates.channels`).
"""

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

from specmine.predicates.channels import CHANNEL_FORMS, channel_candidates, channel_measures
from specmine.predicates.exact import rows_at_least, rows_at_most
from specmine.predicates.form import Bits, Columns, Family, Form, Measure, Plan, Spread
from specmine.predicates.predicate import Argument, Predicate
from specmine.predicates.rounding import short_thresholds, shorten
from specmine.tracing.sites import Sites
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


def _active_bits(arguments: tuple[Any, ...], columns: Columns, sites: Sites) -> Bits:
    site, neurons = arguments
    return columns[site][neurons] > 0


def _inactive_bits(arguments: tuple[Any, ...], columns: Columns, sites: Sites) -> Bits:
    site, neurons = arguments
    return columns[site][neurons] <= 0


def _above_bits(arguments: tuple[Any, ...], columns: Columns, sites: Sites) -> Bits:
    site, neurons, thresholds = arguments
    return rows_at_least(columns[site], neurons, thresholds)


def _below_bits(arguments: tuple[Any, ...], columns: Columns, sites: Sites) -> Bits:
    site, neurons, thresholds = arguments
    return rows_at_most(columns[site], neurons, thresholds)


def _within_bits(arguments: tuple[Any, ...], columns: Columns, sites: Sites) -> Bits:
    site, neurons, low, high = arguments
    return rows_at_least(columns[site], neurons, low) & rows_at_most(columns[site], neurons, high)


def _site(arguments: tuple[Argument, ...], sites: Sites) -> tuple[str, ...]:
    return (str(arguments[0]),)


def _ordered(arguments: tuple[Argument, ...], sites: Sites | None) -> str | None:
    low, high = arguments[2:]
    return None if low <= high else f"lower threshold {low} is above upper threshold {high}; swap them"  # type: ignore[operator]


FORMS: dict[str, Form] = {
    "active": Form("active", ("site", "neuron"), _active, _active_bits, _site),
    "inactive": Form("inactive", ("site", "neuron"), _inactive, _inactive_bits, _site),
    "above": Form("above", ("site", "neuron", "threshold"), _above, _above_bits, _site),
    "below": Form("below", ("site", "neuron", "threshold"), _below, _below_bits, _site),
    "within": Form("within", ("site", "neuron", "threshold", "threshold"), _within, _within_bits, _site, _ordered),
}


def _measures(plan: Plan) -> tuple[Measure, ...]:
    neurons = tuple(Measure((site,), plan.sites.size(site), partial(_values, site)) for site in plan.grid.sites)
    return (*neurons, *channel_measures(plan))


def _values(site: str, columns: Columns, rows: slice) -> Array:
    return columns[site][rows]


def _candidates(plan: Plan, spreads: tuple[Spread, ...]) -> Iterator[Predicate]:
    sites = plan.grid.sites
    for site, spread in zip(sites, spreads[: len(sites)], strict=True):
        constant = spread.constant
        floor = 0.0 if _is_rectified(plan.sites, site) else -np.inf
        for neuron in range(len(constant)):
            yield Predicate("active", (site, neuron))
            yield Predicate("inactive", (site, neuron))
            if not constant[neuron]:
                above = [t for t in short_thresholds(spread.low[:, neuron], down=True) if t > floor]
                below = [t for t in short_thresholds(spread.high[:, neuron], down=False) if t != 0]
                yield from (Predicate("above", (site, neuron, t)) for t in above)
                yield from (Predicate("below", (site, neuron, t)) for t in below)
                ends = _intervals(spread, neuron, floor, first=1 + plan.grid.thresholds)
                yield from (Predicate("within", (site, neuron, *end)) for end in ends)
    yield from channel_candidates(plan, spreads[len(sites) :])


def _intervals(spread: Spread, neuron: int, floor: float, *, first: int) -> list[tuple[float, float]]:
    """Where the samples of one head value lie, from row `first` on, if narrower at both ends than where all samples lie."""
    least, greatest = spread.low[0, neuron], spread.high[0, neuron]
    rows = zip(spread.low[first:, neuron].tolist(), spread.high[first:, neuron].tolist(), strict=True)
    inner = ((shorten(a, down=True), shorten(b, down=False)) for a, b in rows if a > max(least, floor) and b < greatest)
    return sorted({(low, high) for low, high in inner if np.isfinite([low, high]).all()})


def _is_rectified(sites: Sites, site: str) -> bool:
    producer = sites.network.producers.get(sites.value(site))
    return producer is not None and isinstance(producer.op, Relu)


UNARY = Family("unary", FORMS | CHANNEL_FORMS, _candidates, _measures)
