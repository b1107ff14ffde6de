"""What a form of predicate is: its arguments, the formula it denotes, its truth on samples; and what a family of them is.

A family is mined in three passes over the samples, none of which keeps them: `specmine.predicates.locality` chooses the
partners of each neuron, `specmine.predicates.survey` takes the quantiles of the family's measures, and the table takes the
truth of the predicates that came of both.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from specmine.predicates.predicate import Argument, Predicate
from specmine.tracing.sites import Sites
from verifier.formula import Formula
from verifier.ops import Array

Kind: TypeAlias = Literal["site", "neuron", "threshold", "class", "index"]
"""`neuron` is checked against the size of the site before it; `index` is any whole number from 0, which `Form.check` judges."""

Reason: TypeAlias = Literal["window", "layer", "neighbour"]
Columns: TypeAlias = Mapping[str, Array]
Bits: TypeAlias = NDArray[np.bool_]
Rows: TypeAlias = NDArray[np.int64]


@dataclass(frozen=True)
class Form:
    """One form, such as above(site, neuron, threshold).

    signature: the kind of each argument. denote: the formula over network values. bits: truth of many predicates of the
    same sites at once; it takes the arguments with each neuron, threshold, class and index as an array (predicates,), and
    columns by site name of shape (neurons, samples), and returns (predicates, samples), exactly as the formula says for
    the float64 values: a sum that rounding could put on the wrong side is decided without rounding. sites: the sites read
    by given arguments.
    """

    name: str
    signature: tuple[Kind, ...]
    denote: Callable[[tuple[Argument, ...], Sites], Formula]
    bits: Callable[[tuple[Any, ...], Columns, Sites], Bits]
    sites: Callable[[tuple[Argument, ...], Sites], tuple[str, ...]]
    check: Callable[[tuple[Argument, ...], Sites | None], str | None] = lambda arguments, sites: None
    """The problem with arguments that are each of the right kind, None where there is none; on any network without sites."""


@dataclass(frozen=True)
class Grid:
    """Where candidates come from and how many there may be.

    sites: the sites mined. thresholds: the abstract domain size, how many evenly spaced quantiles of all samples each
    measure gets, besides its range. head_levels: shares of the samples of one head value that a threshold may leave out.
    partners: how many other neurons a neuron is compared with. locality: which pairs are allowed at all.
    """

    sites: tuple[str, ...]
    thresholds: int = 8
    head_levels: tuple[float, ...] = (0.0, 0.05)
    partners: int = 8
    locality: tuple[Reason, ...] = ("window", "layer", "neighbour")


@dataclass(frozen=True, eq=False)
class Pairs:
    """Pairs of neurons that locality allows, for one reason: neuron i[r] of `first` beside neuron j[r] of `second`.

    The partners of one neuron stand together, the most telling first; no pair is listed twice, in either order.
    """

    reason: Reason
    first: str
    i: Rows
    second: str
    j: Rows


@dataclass(frozen=True, eq=False)
class Plan:
    """What a family proposes candidates from: the network's sites, the grid, and the allowed pairs."""

    sites: Sites
    grid: Grid
    pairs: tuple[Pairs, ...] = ()


@dataclass(frozen=True, eq=False)
class Measure:
    """Real quantities that thresholds are set on, one a row, such as the difference of two neurons.

    values: (chosen rows, samples) in float64, sums rounded to nearest, from columns by site name of shape (neurons,
    samples).
    """

    sites: tuple[str, ...]
    rows: int
    values: Callable[[Columns, slice], Array]


@dataclass(frozen=True, eq=False)
class Spread:
    """Quantiles of a measure: low (levels, rows), thresholds to be above, and high (levels, rows), thresholds to be below.

    The first row of each is the measure's range over all samples; then come the pooled quantiles, then the tails of each
    head value. At most a share `level` of the samples is below low, or above high.
    """

    low: Array
    high: Array

    @property
    def constant(self) -> Bits:
        """Whether a row (rows,) has one value on all samples."""
        return self.low[0] == self.high[0]


@dataclass(frozen=True)
class Family:
    """Forms that are mined together, the measures whose quantiles they need, and the candidates they give.

    paired: whether the plan must hold pairs. candidates gets one spread a measure, in the same order.
    """

    name: str
    forms: Mapping[str, Form]
    candidates: Callable[[Plan, tuple[Spread, ...]], Iterator[Predicate]]
    measures: Callable[[Plan], tuple[Measure, ...]] = lambda plan: ()
    paired: bool = False
