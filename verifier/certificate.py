"""The evidence of a bound proof: data only. `verifier.check` replays it, with every rounding error charged.

A `Certificate` shows that every disjunct of a query is infeasible over its region. Disjuncts are grouped; each group has one
proof tree over the *common* atoms of its disjuncts (those that all of them hold, in the order of the first).

What comes before the groups, `prelude`, is replayed once, over the atoms that all disjuncts of the query hold: steps, and
`Lemmas`, bounds of single entries of which each has a tree of its own. Such a tree starts from the bounds at hand, of which one
is cut to the side that the lemma denies (v <= at for v >= at); its closes have the disjunct NODE, multipliers on the common
atoms and on bounds alone, and refute their node. Where all trees are refuted the bounds hold, and are pushed. The trees of the
groups begin from what the prelude has proved; exact passes, which begin at the region, do without it.

Replaying a tree keeps proven bounds lower[v] <= v <= upper[v] for every value v, under the common atoms:
- at the root they come from the region, cut by the common atoms with a single term (a strict one as if it were not, but that
  relu(z) > t >= 0 also gives z >= t), pushed forward by interval arithmetic and back through each activation (relu(z) >= t > 0
  gives z >= t; relu(z) <= t gives z <= t);
- `rebound` at a node, before its steps, proves bounds again for every value that a nonlinear node reads, in network order: for
  each entry that leaves the node's function undecided (Relu, LeakyRelu: bounds on both sides of 0; others: not a point) one
  backward pass for each sign, with the slopes that an empty `slopes` stands for and no multipliers, then a push (a value that
  is one affine map of the input is left out, since interval arithmetic bounds it as well);
- a `Step` proves bounds for some rows of a value by one backward pass and intersects them in;
- a `Split` adds value[index] <= at to its low child and value[index] >= at to its high child;
- after each of these the bounds are pushed through the whole graph again, intersecting. All bounds are rounded outward.
A node whose bounds cross is empty: every open disjunct is closed there. Otherwise `closed` closes disjuncts of the group, and
what stays open must be closed in both children.

A backward pass starts from linear forms over values (rows), walks the graph against its edges, and ends in the input box, with
these free choices, the `Relaxation`; whatever they are, the result is a true lower bound on each row:
- slopes[a], for an activation node a with input z: shape (1 or rows, size), each in [0, 1] for Relu and [slope, 1] for
  LeakyRelu; where the coefficient of a is positive the node is replaced by slope * z (below it), where negative by the chord
  through its bounds (above it). Where z has one sign within its bounds the node is the line that it is there, whatever the
  slope. For a MaxPool node: integers, the flat index into its input of the window entry that stands for the maximum from below,
  unless there is one that no other can pass. A node that `slopes` leaves out takes slope 1 where upper > -lower and the least
  slope elsewhere; a MaxPool the entry with the greatest lower bound. For a curve (Sigmoid, Tanh, Sin, Cos, Exp, Reciprocal,
  Sqrt, Erf, Power): any finite slopes; slopes[a] of the line below, upper_slopes[a] of the line above it; the intercept is
  found on replay, so that the line stays below (above) the curve on its bounds. Where left out, both take the slope of the
  chord, or of the tangent in the middle where that line is closer. For a Product of p and q: each in [0, 1], the weight of the
  plane lower[q] * p + lower[p] * q - lower[p] * lower[q] against the plane of the two upper bounds, below it; in upper_slopes,
  of upper[q] * p + lower[p] * q - lower[p] * upper[q] against lower[q] * p + upper[p] * q - upper[p] * lower[q], above it; left
  out, the weight is 1/2. Sign and Floor take no slopes: bounds of their result.
- planes[a], in a `Close` alone, for a Relu node a whose input is one affine map z = W v + b of an earlier value v (a Linear
  node on a vector, with nodes around it that only rename entries or add a bias where it has none): what stands above the
  entries `entries` of a, beside the chord. With shares s of the columns `columns` of W in [0, 1] (0 for the other columns)
  entry j is at most sum_i s_ji W_ji v_i + q_j, where q_j is found on replay: the least that makes this at least 0 and at
  least z_j over the bounds of v. Of a negative coefficient of the entry the part `weights`, in [0, 1], is replaced by this
  plane, the rest by the chord. An entry whose sign is known, and an exact pass, take no planes.
- lower[v], upper[v] >= 0, shape (rows, size): multipliers on lower[v] - v <= 0 and v - upper[v] <= 0, the proven bounds.
- atoms >= 0, shape (rows, count): multipliers on the atoms at hand, all of them, in order: the common atoms in a `Step`, the
  atoms of the disjunct in a `Close`. An array without entries stands for zeros.
Passes run in float64; what rounding may have changed is charged to the bound, about 1e-13 of the magnitudes that a form meets
at each value passed. A close whose bound is not positive then is decided in exact arithmetic where the network has only linear
operators, Relu, LeakyRelu and MaxPool (there slopes may be rounded to 30 bits, multipliers and coefficients to 44 bits below
the largest of their row and value); with other operators it needs a margin above the charges. A `Step` row (index i, sign +1)
bounds v[i] from below, (i, -1) bounds -v[i] from below. A `Close` has one row that starts from nothing but its multipliers: the
sum of multiplier * atom is positive everywhere, or zero with a strict atom in it, so the atoms cannot all hold.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from verifier.ops import Array

NODE = -1
"""Stands for the disjunct in the trees of lemmas: what a close refutes there is its node."""
EMPTY: Mapping[str, NDArray] = MappingProxyType({})


@dataclass(frozen=True, eq=False)
class Plane:
    """entries (k,) and columns (m,): int64, increasing; shares: uint8 (1, k, m), in 255ths; weights: (1, k)."""

    entries: NDArray[np.int64]
    columns: NDArray[np.int64]
    shares: NDArray[np.uint8]
    weights: NDArray


NO_PLANES: Mapping[str, Plane] = MappingProxyType({})


@dataclass(frozen=True, eq=False)
class Relaxation:
    slopes: Mapping[str, NDArray] = field(default_factory=lambda: EMPTY)
    lower: Mapping[str, Array] = field(default_factory=lambda: EMPTY)
    upper: Mapping[str, Array] = field(default_factory=lambda: EMPTY)
    atoms: Array = field(default_factory=lambda: np.zeros((1, 0)))
    upper_slopes: Mapping[str, NDArray] = field(default_factory=lambda: EMPTY)
    planes: Mapping[str, Plane] = field(default_factory=lambda: NO_PLANES)


@dataclass(frozen=True, eq=False)
class Step:
    """Proves bounds for rows of `value`: indices and signs have shape (rows,), signs are +1 (lower) or -1 (upper)."""

    value: str
    indices: NDArray[np.int64]
    signs: NDArray[np.int64]
    relaxation: Relaxation


@dataclass(frozen=True, eq=False)
class Close:
    """Refutes one disjunct; `disjunct` counts those of the query, or is NODE in the tree of a lemma."""

    disjunct: int
    relaxation: Relaxation


@dataclass(frozen=True, eq=False)
class Split:
    """value[index] <= at in `low`, >= at in `high`."""

    value: str
    index: int
    at: float
    low: "ProofNode"
    high: "ProofNode"


@dataclass(frozen=True, eq=False)
class ProofNode:
    steps: tuple[Step, ...] = ()
    closed: tuple[Close, ...] = ()
    split: Split | None = None
    rebound: bool = False


@dataclass(frozen=True, eq=False)
class Group:
    """A set of disjuncts of the query, refuted by one tree over their common atoms."""

    disjuncts: tuple[int, ...]
    root: ProofNode


@dataclass(frozen=True, eq=False)
class Lemmas:
    """value[indices[k]] >= ats[k] where signs[k] is +1, <= ats[k] where it is -1: trees[k] refutes the other side."""

    value: str
    indices: NDArray[np.int64]
    signs: NDArray[np.int64]
    ats: Array
    trees: tuple[ProofNode, ...]


Prelude: TypeAlias = tuple[Step | Lemmas, ...]


@dataclass(frozen=True, eq=False)
class Certificate:
    """Real-arithmetic refutation of every disjunct of the query with this hash."""

    network_sha256: str
    query_sha256: str
    groups: tuple[Group, ...]
    prelude: Prelude = ()
