"""The backward pass of a certificate: lower bounds on linear forms over a network's values, under proven bounds.

A form is a row of coefficients for each value and a constant. It starts with coefficients anywhere and is rewritten, from the
last value to the first, in terms of earlier values, never growing at any point; over the input it meets the box. Coefficients
are kept to 44 bits a row: what rounding changes is charged to the constant at the value's largest magnitude.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from verifier.certificate import Relaxation
from verifier.check.bounds import Bounds, Interval, combined, margin_parts
from verifier.check.exact import (
    BOUND_BITS,
    COEFFICIENT_BITS,
    LIMIT,
    MANTISSA,
    Part,
    Slices,
    column,
    float_above,
    float_below,
    floats,
    gather,
    multiply,
    slices_of,
    spread,
    times,
    total,
    whole_part,
)
from verifier.check.float_model import least_slope
from verifier.check.model import Model, Weights, weights
from verifier.formula import Atom
from verifier.network import Node
from verifier.ops import Array

SLOPE_BITS = 30
SLOPE_UNIT = 2.0**-SLOPE_BITS


@dataclass(frozen=True, eq=False)
class AtomRows:
    """Atoms as rows of linear maps: left side k >= sum over values of (weights[value] @ value)[k] + bias[k]."""

    atoms: tuple[Atom, ...]
    weights: Mapping[str, Weights]
    bias: Slices


def lower_bounds(
    model: Model, bounds: Bounds, rows: int, initial: Mapping[str, Array], relaxation: Relaxation, atoms: AtomRows
) -> tuple[list[Fraction], NDArray[np.bool_]]:
    """A lower bound on each row's form plus its multipliers' terms, and which atoms kept a positive multiplier in any row.

    initial: value name -> whole-number coefficients (rows, size). The relaxation's arrays have been validated.
    """
    run = _Pass(model, bounds, rows, {name: [whole_part(c)] for name, c in initial.items()}, [])
    used = _add_atoms(run, relaxation.atoms, atoms)
    for name, multipliers in relaxation.lower.items():
        _add_multipliers(run, name, multipliers, lower=True)
    for name, multipliers in relaxation.upper.items():
        _add_multipliers(run, name, multipliers, lower=False)
    for node in reversed(model.network.nodes):
        coefficients = _collected(run, node.output)
        if coefficients is not None:
            _through(run, node, coefficients, relaxation.slopes.get(node.output))
    coefficients = _collected(run, model.network.input)
    if coefficients is not None:
        _concretise(run, coefficients, bounds[model.network.input])
    return total(run.constants, rows), used


@dataclass(frozen=True, eq=False)
class _Pass:
    """A backward pass under way: coefficients not yet rewritten, by value, and the summands of each row's constant."""

    model: Model
    bounds: Bounds
    rows: int
    pending: dict[str, list[Part]]
    constants: list[Part]

    def add(self, name: str, parts: Sequence[Part]) -> None:
        self.pending.setdefault(name, []).extend(parts)


def _collected(run: _Pass, name: str) -> Part | None:
    """The coefficients of a value in one part; rounding is paid for here."""
    parts = run.pending.pop(name, None)
    if not parts:
        return None
    coefficients, inexact = gather(parts, COEFFICIENT_BITS)
    if inexact is not None:
        # sound: r * v >= -|r| * max|v|, and each rounded summand leaves at most half a unit.
        half = Part(-inexact, coefficients.exponents - 1)
        run.constants.extend(multiply(half, run.bounds[name].magnitude))
    return coefficients


def _through(run: _Pass, node: Node, coefficients: Part, slopes: NDArray | None) -> None:
    if node.output in run.model.affine:
        affine = run.model.affine[node.output]
        for matrix, name in zip(affine.weights, node.inputs, strict=True):
            _through_weights(run, name, coefficients, matrix)
        run.constants.extend(multiply(coefficients, affine.bias))
    elif node.output in run.model.windows:
        _through_pool(run, node, coefficients, slopes)
    else:
        _through_activation(run, node, coefficients, slopes)


def _through_weights(run: _Pass, name: str, coefficients: Part, matrix: Weights) -> None:
    run.add(name, multiply(coefficients, matrix.main))
    if matrix.margin_forward is None:
        return
    # sound: a @ (W - main) @ x >= -|a| @ (margin @ max|x|).
    slack = floats(gather(margin_parts(matrix.margin_forward, run.bounds[name]), BOUND_BITS, np.ceil)[0])
    loss = Part(-np.abs(coefficients.integers), coefficients.exponents)
    run.constants.extend(multiply(loss, column(slack, count=1, rounding=np.ceil)))


def _through_activation(run: _Pass, node: Node, coefficients: Part, slopes: NDArray | None) -> None:
    (name,) = node.inputs
    source, least = run.bounds[name], least_slope(node)
    positive, negative = _signed(coefficients)
    chord, intercept = _chord(source, least)
    chosen = (source.upper > -source.lower).astype(np.float64)[None, :] if slopes is None else slopes
    floor = np.ceil(least / SLOPE_UNIT)
    below = np.maximum(np.ceil(chosen / SLOPE_UNIT), floor)
    # sound: f(z) >= s * z for every s in [least, 1], and stays there; where f has one slope it is f.
    below = np.where(_is_linear(source), chord, below)
    run.add(name, times(positive, whole_part(below, -SLOPE_BITS)))
    # sound: f is convex, so f(z) - s * z is largest at an end of the bounds; that is the intercept.
    run.add(name, times(negative, whole_part(chord, -SLOPE_BITS)))
    run.constants.extend(multiply(negative, intercept))


def _is_linear(source: Interval) -> NDArray[np.bool_]:
    """Where an activation has one slope over its whole bounds."""
    return (source.lower >= 0) | (source.upper <= 0)


@lru_cache(maxsize=256)
def _chord(source: Interval, least: float) -> tuple[Array, Slices]:
    """Slopes in units of 2**-30, shape (1, size), and a column of intercepts: f(z) <= slope * z + intercept.

    Any slope would do; that of the chord between the ends is best. Intervals are compared by identity.
    """
    lower, upper = source.lower[None, :], source.upper[None, :]
    rise = np.maximum(upper, 0.0) - least * np.minimum(lower, 0.0)
    ideal = np.divide(rise, upper - lower, out=np.ones_like(rise), where=~_is_linear(source))
    floor = np.ceil(least / SLOPE_UNIT)
    slope = np.clip(np.rint(ideal / SLOPE_UNIT), floor, 1 / SLOPE_UNIT)
    slope = np.where(lower >= 0, 1 / SLOPE_UNIT, np.where(upper <= 0, floor, slope))
    gaps = [_gap_above(end, slope, least) for end in (lower, upper)]
    return slope, column(np.maximum(*gaps), count=3, rounding=np.ceil)


def _gap_above(end: Array, slope: Array, least: float) -> Array:
    """f(end) - slope * end, rounded up; shape (1, size)."""
    one_less = whole_part(1 / SLOPE_UNIT - slope, -SLOPE_BITS)
    (bend,) = spread(np.full(end.shape, least), count=1, bits=MANTISSA)
    # sound: (1 - s) * max(end, 0) + (least - s) * min(end, 0), with the first factor >= 0 and the second <= 0.
    parts = [p for e in spread(np.maximum(end, 0.0), rounding=np.ceil) for p in times(e, one_less)]
    for e in spread(np.minimum(end, 0.0), rounding=np.floor):
        parts += [*times(e, bend), *times(e.negative(), whole_part(slope, -SLOPE_BITS))]
    return floats(gather(parts, BOUND_BITS, np.ceil)[0])


def _through_pool(run: _Pass, node: Node, coefficients: Part, entries: NDArray | None) -> None:
    (name,) = node.inputs
    source, windows = run.bounds[name], run.model.windows[node.output]
    lower, upper = np.append(source.lower, -np.inf)[windows], np.append(source.upper, -np.inf)[windows]
    places = np.arange(len(windows))
    best = lower.argmax(axis=1)
    star = windows[places, best]
    highest = upper.max(axis=1)
    upper[places, best] = -np.inf
    single = upper.max(axis=1) <= lower[places, best]
    positive, negative = _signed(coefficients)
    # sound: a maximum is at least any entry of its window, and is the entry that none can pass.
    below = star[None, :] if entries is None else np.where(single, star, entries)
    run.add(name, [_scattered(positive, below, windows, len(source.lower))])
    known = Part(negative.integers * single, negative.exponents)
    run.add(name, [_scattered(known, star[None, :], windows, len(source.lower))])
    # sound: a maximum is at most the largest upper bound in its window.
    unknown = Part(negative.integers * ~single, negative.exponents)
    run.constants.extend(multiply(unknown, column(highest, count=3, rounding=np.ceil)))


def _scattered(part: Part, targets: NDArray, windows: NDArray[np.int64], size: int) -> Part:
    """Coefficients of pooled values moved to the window entries that stand for them; targets: (1 or rows, outputs)."""
    overlap = int(np.bincount(windows[windows >= 0]).max())
    assert float(np.abs(part.integers).max(initial=0.0)) * overlap <= LIMIT, "a sum of coefficients could pass 2**53"
    moved = np.zeros((len(part.integers), size))
    np.add.at(moved, (np.arange(len(moved))[:, None], targets), part.integers)
    return Part(moved, part.exponents)


def _add_atoms(run: _Pass, multipliers: Array, rows: AtomRows) -> NDArray[np.bool_]:
    if not multipliers.any():
        return np.zeros(len(rows.atoms), dtype=bool)
    # sound: multipliers may be any numbers >= 0; a rounded one is as good as the one given.
    (kept,) = spread(multipliers, count=1)
    for name, matrix in rows.weights.items():
        _through_weights(run, name, kept, matrix)
    run.constants.extend(multiply(kept, rows.bias))
    return np.any(kept.integers > 0, axis=0)


def _add_multipliers(run: _Pass, name: str, multipliers: Array, *, lower: bool) -> None:
    """Terms m * (lower - v), or m * (v - upper): never positive within the bounds."""
    (kept,) = spread(multipliers, count=1)
    interval = run.bounds[name]
    if lower:
        run.add(name, [kept.negative()])
        run.constants.extend(multiply(kept, interval.lower_column))
    else:
        run.add(name, [kept])
        run.constants.extend(multiply(kept.negative(), interval.upper_column))


def _concretise(run: _Pass, coefficients: Part, box: Interval) -> None:
    positive, negative = _signed(coefficients)
    # sound: a linear form over a box is least where each entry is at the end its coefficient's sign names.
    run.constants.extend(multiply(positive, box.lower_column))
    run.constants.extend(multiply(negative, box.upper_column))


def _signed(part: Part) -> tuple[Part, Part]:
    positive = np.maximum(part.integers, 0.0)
    return Part(positive, part.exponents), Part(part.integers - positive, part.exponents)


def atom_rows(model: Model, atoms: tuple[Atom, ...]) -> AtomRows:
    """Atoms as linear maps of the values they name. Raises OutOfRange for numbers beyond float64."""
    entries: dict[str, list[tuple[int, int, Fraction]]] = {}
    for row, atom in enumerate(atoms):
        for (name, index), coefficient in combined(atom).items():
            entries.setdefault(name, []).append((row, index, coefficient))
    weights_of = {name: _atom_weights(found, (len(atoms), model.network.size(name))) for name, found in entries.items()}
    coarse = [float_below(atom.bias) for atom in atoms]
    # sound: multipliers are >= 0, so a bias may be rounded down; two floats keep 106 bits of it.
    fine = [float_below(atom.bias - Fraction(c)) for atom, c in zip(atoms, coarse, strict=True)]
    columns = [column(np.array(part, dtype=np.float64)) for part in (coarse, fine)]
    matrices = [matrix for c in columns for matrix in c.matrices]
    return AtomRows(atoms, weights_of, slices_of(matrices, [e for c in columns for e in c.exponents]))


def _atom_weights(entries: Sequence[tuple[int, int, Fraction]], shape: tuple[int, int]) -> Weights:
    rows, columns, coefficients = zip(*entries, strict=True)
    nearest = [float_below(c) for c in coefficients]
    errors = [float_above(c - Fraction(f)) for c, f in zip(coefficients, nearest, strict=True)]
    return weights(csr_array((nearest, (rows, columns)), shape=shape), csr_array((errors, (rows, columns)), shape=shape))
