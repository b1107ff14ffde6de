"""Forms about a channel of a convolutional site: what holds somewhere, or everywhere, in one of its windows.

    somewhere_active(s,c,w)     some neuron of channel c in window w is > 0     everywhere_active(s,c,w)     every one is
    somewhere_inactive(s,c,w)   ... is <= 0                                     everywhere_inactive(s,c,w)
    somewhere_above(s,c,w,t)    ... is >= t                                     everywhere_above(s,c,w,t)
    somewhere_below(s,c,w,t)    ... is <= t                                     everywhere_below(s,c,w,t)

`specmine.predicates.windows` says what the windows of a site are; they are counted in C order. Everywhere is a conjunction of
atoms and somewhere a disjunction, but one atom about the pool where the network pools these windows itself. Disjunctions
multiply in a body, so they are proposed only as that one atom; a clause written by hand may have them anywhere.
"""

from collections.abc import Iterator
from functools import partial
from typing import Any, Literal, TypeAlias

import numpy as np

from specmine.predicates.combination import tails
from specmine.predicates.exact import distinct, rows_at_least, rows_at_most
from specmine.predicates.form import Bits, Columns, Form, Measure, Plan, Rows, Spread
from specmine.predicates.predicate import Argument, Predicate
from specmine.predicates.windows import Windows, windows_of
from specmine.tracing.sites import Sites
from verifier.formula import And, Formula, Or, at_least, at_most
from verifier.ops import Array

Where: TypeAlias = Literal["somewhere", "everywhere"]
What: TypeAlias = Literal["active", "inactive", "above", "below"]

_UPWARD = ("active", "above")


def _reads_greatest(where: Where, what: What) -> bool:
    """Whether the form is about the greatest value of the window; else it is about the least."""
    return (where == "somewhere") == (what in _UPWARD)


def _denote(where: Where, what: What, arguments: tuple[Argument, ...], sites: Sites) -> Formula:
    site, channel, place = str(arguments[0]), int(arguments[1]), int(arguments[2])
    threshold = float(arguments[3]) if len(arguments) > 3 else 0.0
    windows = _windows(sites, site)

    def part(value: str, neuron: int) -> Formula:
        if what in _UPWARD:
            return at_least(value, neuron, threshold, strict=what == "active")
        return at_most(value, neuron, threshold)

    if windows.pool is not None and _reads_greatest(where, what):
        # sound: the pool's value is the greatest of the window, so all are below a threshold where it is, one above likewise
        return part(windows.pool, channel * windows.count + place)
    parts = tuple(part(sites.value(site), neuron) for neuron in windows.neurons(channel, place).tolist())
    if len(parts) == 1:
        return parts[0]
    return Or(parts) if where == "somewhere" else And(parts)


def _bits(where: Where, what: What, arguments: tuple[Any, ...], columns: Columns, sites: Sites) -> Bits:
    site, channels, places, *rest = arguments
    (channels, places), which = distinct(channels, places)
    values = _extreme(_windows(sites, site), columns[site], channels, places, greatest=_reads_greatest(where, what))
    if what == "active":
        return (values > 0)[which]
    thresholds = rest[0] if rest else np.zeros(len(which))
    return (rows_at_least if what == "above" else rows_at_most)(values, which, thresholds)


def _extreme(windows: Windows, values: Array, channels: Rows, places: Rows, *, greatest: bool) -> Array:
    """The greatest or least value (windows, samples) of each window; -inf or inf for one of padding alone."""
    start = channels * int(np.prod(windows.space))
    result = np.full((len(channels), values.shape[1]), -np.inf if greatest else np.inf)
    pick = np.maximum if greatest else np.minimum
    for taps in windows.members[places].T:
        inside = taps >= 0
        result[inside] = pick(result[inside], values[start[inside] + taps[inside]])
    return result


def _windows(sites: Sites, site: str) -> Windows:
    windows = windows_of(sites, site)
    assert windows is not None, f"{site} has no windows"
    return windows


def _check(arguments: tuple[Argument, ...], sites: Sites | None) -> str | None:
    if sites is None:
        return None
    site, channel, place = str(arguments[0]), int(arguments[1]), int(arguments[2])
    windows = windows_of(sites, site)
    if windows is None:
        return f"site {site!r} has no windows, since no convolution or pool reads or makes it; name a site of channels"
    if channel >= windows.channels:
        return f"site {site!r} has channels 0 to {windows.channels - 1}, got {channel}"
    if place >= windows.count:
        return f"site {site!r} has windows 0 to {windows.count - 1} in each channel, got {place}"
    return None


def _site(arguments: tuple[Argument, ...], sites: Sites) -> tuple[str, ...]:
    return (str(arguments[0]),)


def _form(where: Where, what: What) -> Form:
    signature: tuple[Any, ...] = ("site", "index", "index")
    if what in ("above", "below"):
        signature = (*signature, "threshold")
    name = f"{where}_{what}"
    return Form(name, signature, partial(_denote, where, what), partial(_bits, where, what), _site, _check)


_WHERE: tuple[Where, ...] = ("somewhere", "everywhere")
_WHAT: tuple[What, ...] = ("active", "inactive", "above", "below")

CHANNEL_FORMS: dict[str, Form] = {form.name: form for where in _WHERE for what in _WHAT for form in [_form(where, what)]}


def channel_measures(plan: Plan) -> tuple[Measure, ...]:
    """The greatest and the least value of each window of each channel, for the grid's sites that have windows."""
    return tuple(
        Measure((site,), windows.channels * windows.count, partial(_values, windows, site, greatest))
        for site, windows in windowed(plan)
        for greatest in (True, False)
    )


def windowed(plan: Plan) -> list[tuple[str, Windows]]:
    """The grid's sites with windows of more than one place."""
    found = ((site, windows_of(plan.sites, site)) for site in plan.grid.sites)
    return [(site, windows) for site, windows in found if windows is not None and windows.members.shape[1] > 1]


def _values(windows: Windows, site: str, greatest: bool, columns: Columns, rows: slice) -> Array:
    channels, places = np.divmod(np.arange(windows.channels * windows.count)[rows], windows.count)
    return _extreme(windows, columns[site], channels, places, greatest=greatest)


def channel_candidates(plan: Plan, spreads: tuple[Spread, ...]) -> Iterator[Predicate]:
    """Phases and thresholds of each window, from the spreads of `channel_measures`."""
    for (site, windows), greatest, least in zip(windowed(plan), spreads[::2], spreads[1::2], strict=True):
        for row in range(windows.channels * windows.count):
            window = (site, *divmod(row, windows.count))
            yield Predicate("everywhere_active", window)
            yield Predicate("everywhere_inactive", window)
            above, _ = tails(least, row, plan.grid, share=2)
            yield from (Predicate("everywhere_above", (*window, threshold)) for threshold in above)
            above, below = tails(greatest, row, plan.grid, share=2)
            yield from (Predicate("everywhere_below", (*window, threshold)) for threshold in below)
            if windows.pool is not None:
                yield Predicate("somewhere_active", window)
                yield from (Predicate("somewhere_above", (*window, threshold)) for threshold in above)
