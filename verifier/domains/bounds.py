"""Bounds on every value of a network, for a batch of regions, and the cuts that a premise puts on them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from sys import float_info

import torch
from torch import Tensor

from verifier.domains.rounding import above, below
from verifier.formula import Atom
from verifier.network import Network
from verifier.ops import ACTIVATION_OPS, LeakyRelu, Relu
from verifier.region import round_down


@dataclass(frozen=True, eq=False)
class Bounds:
    """lower[v] <= v <= upper[v] for each value name v: float64 tensors of shape (batch, size), flat in C order.

    Real-arithmetic bounds, rounded outward. `empty`, of shape (batch,), marks the rows with no point at all; their numbers
    mean nothing but are ordered and free of NaN.
    """

    lower: Mapping[str, Tensor]
    upper: Mapping[str, Tensor]
    empty: Tensor


@dataclass(frozen=True, eq=False)
class Cuts:
    """Extra bounds on some values, of shape (batch, size) or (1, size); -inf and inf where nothing is known.

    `empty`, of shape (batch,) or (1,), marks the rows whose atoms are contradictory on their own.
    """

    lower: Mapping[str, Tensor]
    upper: Mapping[str, Tensor]
    empty: Tensor


def cuts_of(network: Network, conjunctions: Sequence[Sequence[Atom]]) -> Cuts:
    """What the atoms with at most one term say about single entries: one row for each conjunction, rounded outward.

    c * v[i] + b <= 0 gives v[i] <= -b / c for c > 0 and v[i] >= -b / c for c < 0; a strict atom counts as its closure.
    What is said of an activation's output is said of its input too. Atoms with more terms are left out, which only loses
    precision.
    """
    sides: tuple[dict[str, Tensor], dict[str, Tensor]] = ({}, {})
    empty = torch.zeros(len(conjunctions), dtype=torch.bool)
    for row, atoms in enumerate(conjunctions):
        for atom in atoms:
            if not atom.terms:
                empty[row] |= atom.bias > 0 or (atom.strict and atom.bias == 0)
            elif len(atom.terms) == 1:
                for same in {atom, before_activation(network, atom)}:
                    _cut(network, sides, row, len(conjunctions), same)
    return Cuts(sides[0], sides[1], empty)


def before_activation(network: Network, atom: Atom) -> Atom:
    """The same condition on the input of an activation, where the atom's only term is its output; else the atom itself.

    Equivalent: relu(z) > t is z > t and relu(z) <= t is z <= t for t >= 0, relu(z) >= t is z >= t for t > 0; so for LeakyRelu,
    which is z on the same side of 0 and at most 0 on the other.
    """
    (term,) = atom.terms
    node = network.producers.get(term.value)
    if node is None or not isinstance(node.op, ACTIVATION_OPS):
        return atom
    threshold = -atom.bias / term.coefficient
    closed_above = (term.coefficient > 0) != atom.strict  # v <= t, or v > t: zero itself is on the side of negative z
    if threshold > 0 or (threshold == 0 and closed_above):
        return replace(atom, terms=(replace(term, value=node.inputs[0]),))
    return atom


def _cut(network: Network, sides: tuple[dict[str, Tensor], dict[str, Tensor]], row: int, rows: int, atom: Atom) -> None:
    (term,) = atom.terms
    threshold = -atom.bias / term.coefficient
    side, far, number = (1, torch.inf, ceiling(threshold)) if term.coefficient > 0 else (0, -torch.inf, floor(threshold))
    if term.value not in sides[side]:
        sides[side][term.value] = torch.full((rows, network.size(term.value)), far, dtype=torch.float64)
    kept = sides[side][term.value]
    tighter = min if side else max
    kept[row, term.index] = tighter(float(kept[row, term.index]), number)


def floor(value: Fraction) -> float:
    """The largest float64 <= value, -inf where there is none."""
    if value > Fraction(float_info.max):
        return float_info.max
    return -torch.inf if value < -Fraction(float_info.max) else round_down(value)


def ceiling(value: Fraction) -> float:
    """The smallest float64 >= value, inf where there is none."""
    return -floor(-value)


def pushed_back(network: Network, cuts: Cuts) -> Cuts:
    """The cuts with those on an activation's output carried over to its input."""
    if not cuts.lower and not cuts.upper:
        return cuts
    lower, upper = dict(cuts.lower), dict(cuts.upper)
    for node in reversed(network.nodes):
        slope = 0.0 if isinstance(node.op, Relu) else node.op.slope if isinstance(node.op, LeakyRelu) else None
        if slope is None:
            continue
        (z,) = node.inputs
        if node.output in lower:
            at_least = least_input(lower[node.output], slope)
            lower[z] = torch.maximum(lower[z], at_least) if z in lower else at_least
        if node.output in upper:
            at_most = greatest_input(upper[node.output], slope)
            upper[z] = torch.minimum(upper[z], at_most) if z in upper else at_most
    return Cuts(lower, upper, cuts.empty)


def least_input(t: Tensor, slope: float) -> Tensor:
    """A number s with: max(z, slope * z) >= t implies z >= s; slope 0 is Relu."""
    # sound: for t > 0 only the branch y = z reaches t; else z >= 0 or slope * z >= t, and t / slope <= 0 is below both
    inverse = below(t / slope) if slope else torch.full_like(t, -torch.inf)
    return torch.where(t > 0, t, inverse)


def greatest_input(t: Tensor, slope: float) -> Tensor:
    """A number s with: max(z, slope * z) <= t implies z <= s; slope 0 is Relu."""
    # sound: y >= z always, and slope * z <= t besides; for slope 0 and t < 0 there is no such z
    if not slope:
        return t
    return torch.where(t >= 0, t, torch.minimum(above(t / slope), t))
