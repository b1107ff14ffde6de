"""A subproblem in which every activation is linear: its linear program, by HiGHS, with dual multipliers as the proof."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linprog
from torch import Tensor

from verifier.device import array_of, tensor_of
from verifier.domains.choices import Atoms, Choices, Rows
from verifier.domains.linear import lower_bounds
from verifier.domains.relaxations import Interval, adaptive_slopes
from verifier.engines.problem import Batch, Goal, gather, goal_rows

PENALTY = 1e4  # cost of breaking a constraint, in units of the goal's largest coefficient

Matrix = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class LinearProgram:
    """point: (inputs,) minimiser; bound: (1,) what the dual multipliers in `choices`, (1, 1, ...), prove of the goal."""

    goal: Goal
    point: Tensor
    bound: Tensor
    choices: Choices


@dataclass(frozen=True, eq=False)
class _Constraints:
    """matrix @ x <= limits: first v <= upper for the values in order, then v >= lower for them, then the relations."""

    matrix: Matrix
    limits: Matrix
    values: tuple[str, ...]


@torch.no_grad()
def linear_program(batch: Batch, position: int, goal: Goal) -> LinearProgram | None:
    """Minimise the goal's left side over one subproblem; None where the solver fails.

    Constraints are elastic, so the program is feasible even where the subproblem is not: then its optimum is large, and the
    multipliers prove that nothing is there.
    """
    entry = torch.tensor([position])
    bounds = gather(batch.bounds, entry)
    atoms = None if batch.atoms is None else batch.atoms.select(entry)
    rows = goal_rows(batch.network, [goal.atom])
    objective = _affine(batch, bounds, rows)[0][0]
    constraints = _constraints(batch, bounds, atoms)
    low, high = (array_of(side[0]) for side in bounds[batch.network.input])
    solution = _solve(objective, constraints, low, high)
    if solution is None:
        return None
    point, duals = solution
    choices = _choices(batch, bounds, constraints.values, tensor_of(duals))
    bound = lower_bounds(batch.network, bounds, rows, choices, atoms=atoms)
    return LinearProgram(goal, tensor_of(np.clip(point, low, high)), bound[0], choices)


def _solve(objective: Matrix, constraints: _Constraints, low: Matrix, high: Matrix) -> tuple[Matrix, Matrix] | None:
    if not all(np.isfinite(part).all() for part in (objective, constraints.matrix, constraints.limits)):
        return None
    count = len(constraints.limits)
    penalty = PENALTY * max(1e-9, float(np.abs(objective).max(initial=0.0)))
    solved = linprog(
        np.concatenate([objective, np.full(count, penalty)]),
        A_ub=np.hstack([constraints.matrix, -np.eye(count)]),
        b_ub=constraints.limits,
        bounds=[*zip(low, high, strict=True), *[(0, None)] * count],
        method="highs",
    )
    if solved.status != 0:
        return None
    return solved.x[: low.size], np.maximum(-solved.ineqlin.marginals, 0.0)


def _constraints(batch: Batch, bounds: Mapping[str, Interval], atoms: Atoms | None) -> _Constraints:
    matrices, highs, lows = [], [], []
    for value in batch.multiplied:
        size = batch.network.size(value)
        unit = Rows({value: torch.eye(size, dtype=torch.float64)[None]}, torch.zeros(1, size, dtype=torch.float64))
        matrix, shift = _affine(batch, bounds, unit)
        low, high = (array_of(side[0]) for side in bounds[value])
        matrices.append(matrix)
        highs.append(high - shift)
        lows.append(shift - low)
    parts = [*matrices, *(-matrix for matrix in matrices)]
    limits = [*highs, *lows]
    if atoms is not None:
        matrix, shift = _affine(batch, bounds, Rows(atoms.coefficients, atoms.bias))
        parts.append(matrix)
        limits.append(-shift)
    inputs = batch.network.size(batch.network.input)
    return _Constraints(np.vstack([np.zeros((0, inputs)), *parts]), np.concatenate([np.zeros(0), *limits]), batch.multiplied)


def _affine(batch: Batch, bounds: Mapping[str, Interval], rows: Rows) -> tuple[Matrix, Matrix]:
    """Matrix (rows, inputs) and shift (rows,) of linear forms as functions of the input."""
    seen: dict[str, Tensor] = {}
    name = batch.network.input
    point = bounds[name][0]
    choices = Choices(adaptive_slopes(batch.network, bounds))
    value = lower_bounds(batch.network, {**bounds, name: (point, point)}, rows, choices, seen=seen)
    nothing = torch.zeros(1, value.shape[1], point.shape[1], dtype=torch.float64)
    matrix = seen.get(name, nothing)[0]
    return array_of(matrix), array_of(value[0] - matrix @ point[0])


def _choices(batch: Batch, bounds: Mapping[str, Interval], values: tuple[str, ...], duals: Tensor) -> Choices:
    sizes = [batch.network.size(value) for value in values]
    *sides, relations = duals.split([*sizes, *sizes, len(duals) - 2 * sum(sizes)])
    shaped = [side.reshape(1, 1, -1) for side in sides]
    return Choices(
        adaptive_slopes(batch.network, bounds),
        dict(zip(values, shaped[len(sizes) :], strict=True)),
        dict(zip(values, shaped[: len(sizes)], strict=True)),
        None if batch.atoms is None else relations.reshape(1, 1, -1),
    )
