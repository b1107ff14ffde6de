"""Peeling: clauses about the last hidden layer that hold over the whole input domain (METHODS 4).

A body is a box of last-hidden-layer values over which every rival's margin is positive, so `class(c)` follows from one
line of arithmetic, whatever the input. The verifier proves the clause afterwards; nothing here is taken on trust.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from specmine.errors import BadData, BadModel
from specmine.predicates.predicate import Predicate
from specmine.predicates.rounding import shorten
from specmine.rules.boxes import Rivals, Sides, extended, inside, margins, peeled, rivals_of, smoothed
from specmine.rules.clause import HornClause
from specmine.tracing.sites import Sites
from specmine.tracing.trace import Trace, column
from verifier.ops import Array, Linear, Relu, Reshape

_ROUNDING = 3e-4
_PEELED_ROWS = 2000
_SMOOTHED_ROWS = 600


@dataclass(frozen=True, eq=False)
class Readout:
    """y = weight h + bias for the values h of a site; weight: (classes, neurons)."""

    site: str
    weight: Array
    bias: Array


def readout_of(sites: Sites) -> Readout:
    """The linear layer from the last activation to the output; raises BadModel where there is none."""
    network = sites.network
    node = network.producers.get(network.output)
    while node is not None and isinstance(node.op, Reshape):
        node = network.producers.get(node.inputs[0])
    if node is None or not isinstance(node.op, Linear) or not sites.hidden:
        raise BadModel(
            "peeling needs an output that is one linear layer after the last activation; this network ends otherwise"
        )
    source, site = node.inputs[0], sites.hidden[-1]
    while source != sites.value(site) and source in network.producers:
        producer = network.producers[source]
        if not isinstance(producer.op, Reshape):
            break
        source = producer.inputs[0]
    if source != sites.value(site) or node.op.weight.shape[1] != sites.size(site):
        raise BadModel(f"peeling needs an output that reads the last activation {site!r} alone; this network reads {source!r}")
    return Readout(site, node.op.weight.astype(np.float64), node.op.bias.astype(np.float64))


def peel(
    trace: Trace,
    readout: Readout,
    *,
    label: int,
    rows: NDArray[np.bool_] | NDArray[np.int64],
    clauses: int = 4,
    lower: Array | None = None,
    upper: Array | None = None,
    slack: float = 1e-4,
    smoothing: float = 0.2,
    seed: int = 0,
) -> list[HornClause]:
    """At most `clauses` clauses for class(label), each over the samples `rows` that the ones before leave uncovered.

    lower, upper: bounds (neurons,) of the site's values over the region of the claim, by default 0 for a ReLU and none
    above; a side that holds anyway, or that the margins can spare, gives no literal. Every margin stays above `slack` times
    the size of its terms, room for the rounding of a later proof. smoothing: how far, in standard deviations of a neuron,
    a sample should lie inside to count fully; 0 fits the samples themselves. Fewer clauses come back where no sample is left
    or none can be covered.
    """
    values = column(trace, readout.site)[rows]
    _check(readout, label, values, clauses)
    reach = _reach(trace.sites, readout, lower, upper)
    scale = np.abs(values).max(axis=0, initial=0)
    loose = rivals_of(readout.weight, readout.bias, label, scale=scale, slack=slack)
    tight = rivals_of(readout.weight, readout.bias, label, scale=scale, slack=slack + _ROUNDING)
    generator = np.random.default_rng(seed)
    found: list[HornClause] = []
    while len(found) < clauses and len(values):
        box = _grown(values, tight, reach, smoothing, generator)
        if box is None:
            break
        box = _rounded(_relaxed(box, tight, reach), loose, reach)
        covered = inside(values, box)
        if not covered.any():
            break
        found.append(HornClause(Predicate("class", (label,)), _literals(readout.site, box, reach)))
        values = values[~covered]
    return found


def _grown(values: Array, rivals: Rivals, reach: Sides, smoothing: float, generator: np.random.Generator) -> Sides | None:
    """A box that keeps the margins and holds many of the samples (samples, neurons)."""
    few = _some(values, _PEELED_ROWS, generator)
    box = peeled(few, rivals)
    if box is None:
        return None
    if smoothing > 0:
        spread = few.std(axis=0)
        width = smoothing * (spread + 0.1 * few.std())
        if width.min() > 0:
            box = smoothed(box, _some(few, _SMOOTHED_ROWS, generator), rivals, reach=reach, width=width)
    return extended(box, values, rivals)


def _some(values: Array, most: int, generator: np.random.Generator) -> Array:
    if len(values) <= most:
        return values
    return values[np.sort(generator.choice(len(values), most, replace=False))]


def _relaxed(box: Sides, rivals: Rivals, reach: Sides) -> Sides:
    """The box with as many sides as the margins can spare, the cheapest first, moved out to the reach of the neuron."""
    sides = np.concatenate([box.lower, box.upper])
    limits = np.concatenate([np.minimum(reach.lower, box.lower), np.maximum(reach.upper, box.upper)])
    return _spend(sides, limits, rivals)


def _rounded(box: Sides, rivals: Rivals, reach: Sides) -> Sides:
    """The box with its sides moved out to short decimals wherever the margins can spare it."""
    sides = np.concatenate([box.lower, box.upper])
    limits = np.concatenate([_short(box.lower, reach.lower, down=True), _short(box.upper, reach.upper, down=False)])
    return _spend(sides, limits, rivals)


def _short(side: Array, reach: Array, *, down: bool) -> Array:
    return np.array(
        [v if v == limit else shorten(v, down=down) for v, limit in zip(side.tolist(), reach.tolist(), strict=True)]
    )


def _spend(sides: Array, limits: Array, rivals: Rivals) -> Sides:
    """Sides (2 neurons,) moved to their limits one by one, cheapest first, while every margin stays positive."""
    neurons = len(sides) // 2
    price = np.hstack([rivals.lower, rivals.upper])
    distance = np.abs(np.subtract(limits, sides, out=np.zeros_like(sides), where=limits != sides))
    loss = np.where(price > 0, price * np.where(price > 0, distance, 0), 0)
    left = margins(rivals, Sides(sides[:neurons], sides[neurons:]))
    moved = sides.copy()
    for place in np.argsort((loss / left[:, None]).max(axis=0), kind="stable"):
        if (left - loss[:, place] > 0).all():
            left = left - loss[:, place]
            moved[place] = limits[place]
    return Sides(moved[:neurons], moved[neurons:])


def _literals(site: str, box: Sides, reach: Sides) -> tuple[Predicate, ...]:
    """One literal for each neuron with a side inside its reach."""
    body = []
    for neuron, (low, high) in enumerate(zip(box.lower.tolist(), box.upper.tolist(), strict=True)):
        above, below = low > reach.lower[neuron], high < reach.upper[neuron]
        if above and below:
            body.append(Predicate("within", (site, neuron, low, high)))
        elif above:
            body.append(Predicate("above", (site, neuron, low)))
        elif below and high == 0:
            body.append(Predicate("inactive", (site, neuron)))
        elif below:
            body.append(Predicate("below", (site, neuron, high)))
    return tuple(body)


def _reach(sites: Sites, readout: Readout, lower: Array | None, upper: Array | None) -> Sides:
    neurons = readout.weight.shape[1]
    producer = sites.network.producers.get(sites.value(readout.site))
    floor = 0.0 if producer is not None and isinstance(producer.op, Relu) else -np.inf
    low = np.full(neurons, floor) if lower is None else np.maximum(np.asarray(lower, dtype=np.float64), floor)
    high = np.full(neurons, np.inf) if upper is None else np.asarray(upper, dtype=np.float64)
    if low.shape != (neurons,) or high.shape != (neurons,) or not (low <= high).all():
        raise BadData(f"bounds of {readout.site!r} must be lower <= upper with {neurons} entries each; leave them out for none")
    return Sides(low, high)


def _check(readout: Readout, label: int, values: Array, clauses: int) -> None:
    classes, neurons = readout.weight.shape
    if classes < 2 or not 0 <= label < classes:
        raise BadData(f"label must be one of 0 to {classes - 1} of at least two classes, got {label}")
    if values.shape[1] != neurons or readout.bias.shape != (classes,):
        raise BadModel(
            f"the read-out takes {neurons} neurons to {classes} classes, but {readout.site!r} has {values.shape[1]} neurons "
            f"and the bias {readout.bias.shape[0]} entries"
        )
    if clauses < 1:
        raise BadData(f"clauses must be at least 1, got {clauses}")
