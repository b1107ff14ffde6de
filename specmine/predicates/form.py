"""What a form of predicate is: its arguments, the formula it denotes, and its truth on samples."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from specmine.predicates.predicate import Argument, Predicate
from specmine.tracing.sites import Sites
from specmine.tracing.trace import Trace
from verifier.formula import Formula
from verifier.ops import Array

Kind: TypeAlias = Literal["site", "neuron", "threshold", "class"]
Columns: TypeAlias = Mapping[str, Array]
Bits: TypeAlias = NDArray[np.bool_]


@dataclass(frozen=True)
class Form:
    """One form, such as above(site, neuron, threshold).

    signature: the kind of each argument. denote: the formula over network values. bits: truth of many predicates of one
    site at once; it takes the arguments with each neuron, threshold and class as an array (predicates,), and columns by
    site name of shape (neurons, samples), and returns (predicates, samples). sites: the sites read by given arguments.
    """

    name: str
    signature: tuple[Kind, ...]
    denote: Callable[[tuple[Argument, ...], Sites], Formula]
    bits: Callable[[tuple[Any, ...], Columns], Bits]
    sites: Callable[[tuple[Argument, ...]], tuple[str, ...]]
    check: Callable[[tuple[Argument, ...]], str | None] = lambda arguments: None
    """The problem with arguments that are each of the right kind, None where there is none."""


@dataclass(frozen=True, eq=False)
class Grid:
    """Where candidates come from: the sites, a class (or -1) for each sample, and the quantiles of the thresholds."""

    sites: tuple[str, ...]
    heads: NDArray[np.int64]
    thresholds: int
    head_levels: tuple[float, ...]


@dataclass(frozen=True)
class Family:
    """Forms that are mined together, and the candidates they give on a trace."""

    name: str
    forms: Mapping[str, Form]
    candidates: Callable[[Trace, Grid], Iterator[Predicate]]
