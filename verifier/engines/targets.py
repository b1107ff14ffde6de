"""Conjunctions of atoms as tensors: one target for each way to satisfy a query, many evaluated at many points at once.

Float arithmetic throughout: what is found here is a candidate, and only an exact replay makes it a counterexample.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from sys import float_info

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from verifier.device import tensor_of
from verifier.domains.bounds import before_activation
from verifier.engines.program import Program, program_for, run
from verifier.formula import Atom, Term
from verifier.network import Network
from verifier.ops import Array
from verifier.query import Query
from verifier.region import inner_bounds, round_down, round_up


@dataclass(frozen=True, eq=False)
class Target:
    """The atoms of one disjunct over a float64 box inside the region; each atom is scaled to coefficients of sum 1.

    Atoms on one input alone are in the box, exactly, and nowhere else. query: its place in the list of queries.
    rows[k] is the atom of term k, which reads entries[k] times coefficients[k].
    """

    query: int
    lower: Array
    upper: Array
    entries: tuple[tuple[str, int], ...]
    rows: NDArray[np.int64]
    coefficients: Array
    biases: Array


@dataclass(frozen=True, eq=False)
class Batch:
    """Targets over one network, their atoms in one long list.

    lower, upper: (targets, 1, inputs). columns: the entries that count, by value, in the order of the feature axis.
    term_*: (terms,); atom_target, bias: (atoms,).
    """

    targets: tuple[Target, ...]
    lower: Tensor
    upper: Tensor
    program: Program
    term_target: Tensor
    term_feature: Tensor
    term_atom: Tensor
    coefficient: Tensor
    atom_target: Tensor
    bias: Tensor


def targets_of(place: int, query: Query) -> Iterator[Target]:
    """The targets of a query's disjuncts, leaving out those whose box holds no float64 point."""
    sides = inner_bounds(query.region)
    scaled: dict[Atom, Atom] = {}  # disjuncts share their premise
    for atoms in query.disjuncts:
        lower, upper = (side.copy() for side in sides)
        left: list[Atom] = []
        for atom in atoms:
            if len(atom.terms) == 1 and atom.terms[0].value == query.network.input:
                _tighten(lower, upper, atom)  # holds at every point of the box from here on
            else:
                if atom not in scaled:
                    scaled[atom] = _scaled(query.network, atom)
                left.append(scaled[atom])
        if (lower <= upper).all():
            yield _target(place, lower, upper, left)


def _scaled(network: Network, given: Atom) -> Atom:
    # before the activation the condition is equivalent, but has a slope to descend where the activation is flat
    atom = before_activation(network, given) if len(given.terms) == 1 else given
    scale = sum((abs(t.coefficient) for t in atom.terms), Fraction(0)) or Fraction(1)
    terms = tuple(Term(t.value, t.index, t.coefficient / scale) for t in atom.terms)
    return Atom(terms, atom.bias / scale, atom.strict)


def _target(place: int, lower: Array, upper: Array, atoms: Sequence[Atom]) -> Target:
    entries = tuple((term.value, term.index) for atom in atoms for term in atom.terms)
    rows = np.repeat(np.arange(len(atoms)), [len(atom.terms) for atom in atoms]).astype(np.int64)
    coefficients = np.array([nearest(term.coefficient) for atom in atoms for term in atom.terms], dtype=np.float64)
    return Target(
        place, lower, upper, entries, rows, coefficients, np.array([nearest(atom.bias) for atom in atoms], dtype=np.float64)
    )


def rescaled(target: Target, spread: Array) -> Target:
    """The target with each atom divided by its spread (atoms,), positive numbers: comparable left sides, the same points."""
    return replace(target, coefficients=target.coefficients / spread[target.rows], biases=target.biases / spread)


def _tighten(lower: Array, upper: Array, atom: Atom) -> None:
    (term,) = atom.terms
    i, threshold = term.index, clamped(-atom.bias / term.coefficient)
    if term.coefficient > 0:
        at = round_down(threshold)
        upper[i] = min(upper[i], np.nextafter(at, -np.inf) if atom.strict and at == threshold else at)
    else:
        at = round_up(threshold)
        lower[i] = max(lower[i], np.nextafter(at, np.inf) if atom.strict and at == threshold else at)


def clamped(value: Fraction) -> Fraction:
    """The value, or the largest float64 of its sign where it is beyond that."""
    largest = Fraction(float_info.max)
    return max(-largest, min(largest, value))


def nearest(value: Fraction) -> float:
    """The nearest finite float64."""
    return float(clamped(value))


def batch_of(network: Network, targets: Sequence[Target]) -> Batch:
    """The targets side by side."""
    entries = sorted({entry for target in targets for entry in target.entries})
    place = {entry: k for k, entry in enumerate(entries)}
    counts = [len(target.biases) for target in targets]
    offsets = np.cumsum([0, *counts[:-1]])
    terms = [np.full(len(target.entries), k) for k, target in enumerate(targets)]
    atoms = [target.rows.astype(np.int64) + offset for target, offset in zip(targets, offsets, strict=True)]
    return Batch(
        tuple(targets),
        tensor_of(np.stack([target.lower for target in targets])).unsqueeze(1),
        tensor_of(np.stack([target.upper for target in targets])).unsqueeze(1),
        program_for(network, entries),
        tensor_of(np.concatenate(terms).astype(np.int64)),
        torch.tensor([place[entry] for target in targets for entry in target.entries], dtype=torch.int64),
        tensor_of(np.concatenate(atoms).astype(np.int64)),
        tensor_of(np.concatenate([target.coefficients for target in targets]).astype(np.float64)),
        tensor_of(np.repeat(np.arange(len(targets)), counts)),
        tensor_of(np.concatenate([target.biases for target in targets]).astype(np.float64)),
    )


def cast(batch: Batch, dtype: torch.dtype) -> Batch:
    """The batch in another float type; rounding may move its boxes' sides."""
    return replace(
        batch,
        lower=batch.lower.to(dtype),
        upper=batch.upper.to(dtype),
        coefficient=batch.coefficient.to(dtype),
        bias=batch.bias.to(dtype),
    )


def left_sides(batch: Batch, entries: Tensor) -> Tensor:
    """Scaled left side of every atom, (atoms, points), from features of shape (targets or 1, points, features)."""
    moved = entries.transpose(1, 2).expand(len(batch.targets), -1, -1)
    products = moved[batch.term_target, batch.term_feature] * batch.coefficient.unsqueeze(1)
    start = batch.bias.unsqueeze(1).expand(-1, entries.shape[1])
    return start.index_add(0, batch.term_atom, products)


def worst(batch: Batch, left: Tensor) -> Tensor:
    """The largest left side of each target, (targets, points): at most 0 where all atoms hold."""
    start = left.new_full((len(batch.targets), left.shape[1]), -torch.inf)
    return start.scatter_reduce(0, batch.atom_target.unsqueeze(1).expand_as(left), left, "amax")


def at_own_points(batch: Batch, points: Tensor, *, leak: float = 0.0) -> Tensor:
    """Left sides of every target at its own points, shape (targets, points, inputs): (atoms, points); leak: see `run`."""
    return left_sides(batch, run(batch.program, points.flatten(0, 1), leak=leak).unflatten(0, points.shape[:2]))
