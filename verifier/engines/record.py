"""Turn what a bound pass chose into certificate data (see `verifier.certificate` for the contract)."""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from verifier.certificate import Close, Relaxation, Step
from verifier.device import array_of
from verifier.domains.choices import Choices
from verifier.domains.optimise import Optimised
from verifier.domains.relaxations import pool_choice
from verifier.engines.problem import Batch, Goals
from verifier.formula import Atom
from verifier.ops import MaxPool


def steps_of(batch: Batch, value: str, columns: Tensor, open_: Tensor, found: Optimised) -> Iterator[tuple[int, Step]]:
    """(group position, step) for each group with open neurons among columns (groups, count).

    found: bounds from below of the value at columns, then of its negative, so that a step has rows of both signs.
    """
    count = columns.shape[1]
    for b, group in enumerate(batch.groups):
        keep = open_[b, columns[b]].nonzero()[:, 0]
        if not len(keep):
            continue
        rows = torch.cat([keep, keep + count])
        multipliers = _multipliers(group.common, group.relations, found.choices, b, rows)
        relaxation = _relaxation(batch, found.choices, b, b, rows, multipliers)
        indices = array_of(columns[b][keep]).astype(np.int64)
        signs = np.repeat(np.array([1, -1], dtype=np.int64), len(indices))
        yield b, Step(value, np.concatenate([indices, indices]), signs, relaxation)


def recorded(step: Step) -> int:
    """How many numbers a step keeps."""
    given = step.relaxation
    return sum(array.size for side in (given.slopes, given.lower, given.upper) for array in side.values())


def close_of(batch: Batch, goals: Goals, row: int) -> Close:
    """The close that one goal row proves."""
    position, goal = goals.rows[row].position, goals.rows[row].goal
    group = batch.groups[position]
    atoms = group.query.disjuncts[goal.disjunct]
    multipliers = _multipliers(atoms, group.relations, goals.choices, row, torch.zeros(1, dtype=torch.long))
    multipliers[0, atoms.index(goal.atom)] += 1.0
    relaxation = _relaxation(batch, goals.choices, row, position, torch.zeros(1, dtype=torch.long), multipliers)
    return Close(goal.disjunct, relaxation)


def _multipliers(
    atoms: tuple[Atom, ...], relations: tuple[Atom, ...], choices: Choices, entry: int, rows: Tensor
) -> np.ndarray:
    """Multipliers on `atoms`, (rows, atoms): those of the pass on the relations among them, zero elsewhere."""
    multipliers = np.zeros((len(rows), len(atoms)))
    if choices.atoms is not None:
        places = [atoms.index(a) for a in relations]
        multipliers[:, places] = array_of(choices.atoms[entry, rows, : len(places)])
    return multipliers


def _relaxation(batch: Batch, choices: Choices, entry: int, position: int, rows: Tensor, multipliers: np.ndarray) -> Relaxation:
    """entry: where in the choices; position: which group; rows: which of the entry's specs."""
    slopes, upper_slopes = (
        {n: _of_rows(t[entry], rows) for n, t in side.items()} for side in (choices.slopes, choices.upper_slopes)
    )
    for node in batch.network.nodes:
        if isinstance(node.op, MaxPool):
            low, high = (side[position : position + 1] for side in batch.bounds[node.inputs[0]])
            slopes[node.output] = array_of(pool_choice(node, batch.network, low, high).index)
    lower, upper = (
        {name: _small(t[entry, rows].detach()) for name, t in side.items() if bool(t[entry, rows].any())}
        for side in (choices.lower, choices.upper)
    )
    return Relaxation(slopes, lower, upper, multipliers, upper_slopes)


def _of_rows(tensor: Tensor, rows: Tensor) -> NDArray:
    """Slopes (spec or 1, size) of some rows; those that all rows share stay one row."""
    return _small((tensor if len(tensor) == 1 else tensor[rows]).detach().to(torch.float64))


def _small(tensor: Tensor) -> NDArray:
    """A copy in half precision where that loses nothing, else as it is."""
    half = tensor.half()
    kept: NDArray = array_of(half if torch.equal(half.to(tensor), tensor) else tensor).copy()
    return kept
