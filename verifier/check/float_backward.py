"""The backward pass in float64 with every rounding error charged: lower bounds on linear forms, at many proof nodes at once.

As in `verifier.check.backward` a form is rewritten from the last value to the first, never growing at any point. Coefficients
are whatever float64 gives. What a step may have lost by that is at most |A| @ e + t, where A holds the coefficients, and e (one
entry for each of the value's, shared by all nodes of the pass) and t follow from the lemmas in `verifier.check.rounding`; it is
taken off the constant, and so is the rounding of the constant's own sum. A bound that is not finite comes out as -inf.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from verifier.check.bounds import combined
from verifier.check.boxes import Boxes, Pair, middle_and_reach
from verifier.check.exact import float_above, float_below
from verifier.check.float_maps import Dense, FloatMap, Part, Sparse
from verifier.check.float_model import FloatModel, Jump
from verifier.check.lines import Lines, activation_lines, constant_lines, curve_lines
from verifier.check.rounding import FLOOR, TINY, UNIT, below, gamma, underflow
from verifier.formula import Atom
from verifier.network import Network, Node
from verifier.ops import ACTIVATION_OPS, CURVE_OPS, STEP_OPS, Array, MaxPool, Product


@dataclass(frozen=True, eq=False)
class Planes:
    """Planes above the entries of a Relu: shares (nodes, 1 or rows, entries, columns), weights (nodes, 1 or rows, entries)."""

    entries: NDArray[np.int64]
    columns: NDArray[np.int64]
    shares: Array
    weights: Array


@dataclass(frozen=True, eq=False)
class Choices:
    """The free choices of a pass: slopes (nodes, 1 or rows, size) by node; multipliers (nodes, rows, size or atoms)."""

    slopes: Mapping[str, NDArray] = field(default_factory=dict)
    lower: Mapping[str, Array] = field(default_factory=dict)
    upper: Mapping[str, Array] = field(default_factory=dict)
    atoms: Array | None = None
    upper_slopes: Mapping[str, NDArray] = field(default_factory=dict)
    planes: Mapping[str, Planes] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class AtomForms:
    """Left sides of atoms, as floats within entrywise errors: parts[v] @ v + bias; errors[v] for the matrix of v.

    bias_error: (atoms,); terms: the most coefficients any atom has, and any entry gets.
    """

    parts: Mapping[str, Part]
    errors: Mapping[str, Part]
    bias: Array
    bias_error: Array
    terms: int


@dataclass(eq=False)
class Seen:
    """The bounds of the proof nodes that a pass is for, gathered from all boxes as they are needed."""

    boxes: Boxes
    nodes: NDArray[np.int64] | None
    _sides: dict[str, Pair] = field(default_factory=dict)
    _magnitudes: dict[str, Array] = field(default_factory=dict)
    _reaches: dict[Jump, Array] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Pair:
        if name not in self._sides:
            low, high = self.boxes.sides[name]
            self._sides[name] = (low, high) if self.nodes is None else (low[self.nodes], high[self.nodes])
        return self._sides[name]

    def magnitude(self, name: str) -> Array:
        """At least |v| at every node, shape (size,); may be infinite."""
        if name not in self._magnitudes:
            low, high = self[name]
            self._magnitudes[name] = np.maximum(-low.min(axis=0), high.max(axis=0)).clip(min=0.0)
        return self._magnitudes[name]

    def reach(self, jump: Jump) -> Array:
        """|W| @ m for the map of a jump and magnitudes m of its source."""
        if jump not in self._reaches:
            self._reaches[jump] = _reach(jump.mapped.parts[0], self.magnitude(jump.source))
        return self._reaches[jump]


@dataclass(eq=False)
class _Pass:
    """A pass under way. pending: coefficients not yet rewritten, by value, (nodes, rows, size); constant: (nodes, rows)."""

    model: FloatModel
    seen: Seen
    pending: dict[str, list[Array]]
    constant: Array

    def add(self, name: str, coefficients: Array) -> None:
        self.pending.setdefault(name, []).append(coefficients)

    def earn(self, gained: Array, lost: Array) -> None:
        """Add to the constant a term that may be too large by `lost`."""
        self.constant = below(self.constant + below(gained - lost))


def lower_bounds(
    model: FloatModel,
    seen: Seen,
    initial: Mapping[str, Array],
    shape: tuple[int, int],
    choices: Choices,
    atoms: AtomForms | None = None,
    *,
    constant: Array | None = None,
) -> Array:
    """A lower bound on each form plus its multipliers' terms, (nodes, rows); -inf where none was found.

    initial: value name -> float coefficients (nodes, rows, size), exact as they are; constant: added, exact as it is.
    """
    start = np.zeros(shape) if constant is None else constant
    run = _Pass(model, seen, {name: [c] for name, c in initial.items()}, start)
    with np.errstate(invalid="ignore", over="ignore"):
        if choices.atoms is not None and atoms is not None:
            _add_atoms(run, choices.atoms, atoms)
        for name, multipliers in choices.lower.items():
            # sound: m * (lower - v) <= 0 within the bounds.
            run.add(name, -multipliers)
            _add_products(run, multipliers, seen[name][0][:, None, :])
        for name, multipliers in choices.upper.items():
            # sound: m * (v - upper) <= 0 within the bounds.
            run.add(name, multipliers)
            _add_products(run, -multipliers, seen[name][1][:, None, :])
        for node in reversed(model.network.nodes):
            coefficients = _collected(run, node.output)
            if coefficients is not None:
                if node.output in choices.planes:
                    coefficients = _over_planes(run, node, coefficients, choices.planes[node.output])
                _through(run, node, coefficients, choices)
        coefficients = _collected(run, model.network.input)
        if coefficients is not None:
            _concretise(run, coefficients)
    return np.where(np.isfinite(run.constant), run.constant, -np.inf)


def _collected(run: _Pass, name: str) -> Array | None:
    """The coefficients of a value, summed; a row that weighs an entry of which nothing is known gets no bound."""
    parts = run.pending.pop(name, None)
    if parts is None:
        return None
    total, magnitude = parts[0], run.seen.magnitude(name)
    if len(parts) > 1:
        absolute = np.abs(parts[0])
        for part in parts[1:]:
            total = total + part
            absolute = absolute + np.abs(part)
        # sound: lemma 2 for sums, which do not underflow.
        run.earn(np.zeros(1), _charge(absolute, gamma(len(parts)) * magnitude, len(parts)))
    unknown = ~np.isfinite(magnitude)
    if unknown.any():
        lost = (total[..., unknown] != 0).any(axis=2)
        run.constant = np.where(lost, -np.inf, run.constant)
        total = np.where(unknown, 0.0, total)
    return total


def _charge(absolute: Array, error: Array, terms: int) -> Array:
    """At least |A| @ e, (nodes, rows), and the underflow of a step; absolute: |A|, (nodes, rows, size).

    Infinite where an entry with an infinite (or undefined) error has a coefficient.
    """
    infinite = ~np.isfinite(error)
    finite = np.where(infinite, 0.0, error) if infinite.any() else error
    # sound: FLOOR outweighs what underflow took from e; the room in `gamma` pays for this product's own rounding.
    flat = absolute.reshape(-1, absolute.shape[2])
    lost = (flat @ (finite + FLOOR)).reshape(absolute.shape[:2]) + underflow(terms + len(error), finite)
    if infinite.any():
        lost = np.where((absolute[..., infinite] != 0).any(axis=2), np.inf, lost)
    return lost


def _reach(part: Part, magnitude: Array) -> Array:
    """|W| @ m, rounded; infinite where an entry of unknown magnitude takes part."""
    unknown = ~np.isfinite(magnitude)
    if not unknown.any():
        return part.spread(magnitude[None])[0]
    reach = part.spread(np.where(unknown, 0.0, magnitude)[None])[0]
    return np.where(part.spread(unknown.astype(np.float64)[None])[0] > 0, np.inf, reach)


def _known_size(magnitude: Array) -> Array:
    return np.where(np.isfinite(magnitude), magnitude, 0.0)


def _dot(coefficients: Array, values: Array) -> Array:
    """sum over entries of coefficients (nodes, rows, size) * values (nodes, 1 or rows, size), rounded."""
    if values.shape[1] == 1:
        return np.matmul(coefficients, values.transpose(0, 2, 1))[..., 0]
    return np.einsum("brn,brn->br", coefficients, values)


def _add_products(run: _Pass, coefficients: Array, values: Array) -> None:
    """Add the sum of coefficients * values (nodes, 1 or rows, size) to each row; one that weighs an infinite value is lost."""
    finite = np.isfinite(values)
    if not finite.all():
        run.constant = np.where(((coefficients != 0) & ~finite).any(axis=2), -np.inf, run.constant)
        values = np.where(finite, values, 0.0)
    size = values.shape[2]
    # sound: lemma 2.
    error = gamma(size) * np.abs(values).max(axis=(0, 1))
    run.earn(_dot(coefficients, values), _charge(np.abs(coefficients), error, size))


def _add_atoms(run: _Pass, multipliers: Array, atoms: AtomForms) -> None:
    shape, flat = multipliers.shape[:2], multipliers.reshape(-1, multipliers.shape[2])
    error, sizes = gamma(len(atoms.bias)) * np.abs(atoms.bias) + 2 * atoms.bias_error, 0.0
    for name, part in atoms.parts.items():
        magnitude = run.seen.magnitude(name)
        run.add(name, part.back(flat).reshape(*shape, -1))
        # sound: lemma 3, with the distance of each stored coefficient from the true one as a further error.
        error = error + gamma(atoms.terms) * _reach(part, magnitude) + 2 * _reach(atoms.errors[name], magnitude)
        sizes += float(_known_size(magnitude).sum())
    lost = _charge(multipliers, 2 * error, len(error)) + underflow(atoms.terms + len(error), np.array(sizes))
    run.earn((flat @ atoms.bias).reshape(shape), lost)


def _through(run: _Pass, node: Node, coefficients: Array, choices: Choices) -> None:
    slopes, upper_slopes = choices.slopes.get(node.output), choices.upper_slopes.get(node.output)
    if node.output in run.model.jumps:
        jump = run.model.jumps[node.output]
        _through_map(run, (jump.source,), jump.mapped, coefficients)
    elif node.output in run.model.maps:
        _through_map(run, node.inputs, run.model.maps[node.output], coefficients)
    elif isinstance(node.op, MaxPool):
        _through_pool(run, node, coefficients, slopes)
    elif isinstance(node.op, Product):
        _through_product(run, node, coefficients, slopes, upper_slopes)
    else:
        name, lines = node.inputs[0], _lines(run, node, slopes, upper_slopes)
        if not _through_layer(run, name, coefficients, lines):
            _through_lines(run, name, coefficients, lines)


def _lines(run: _Pass, node: Node, slopes: Array | None, upper_slopes: Array | None) -> Lines:
    source, result = run.seen[node.inputs[0]], run.seen[node.output]
    if isinstance(node.op, ACTIVATION_OPS):
        return activation_lines(node, *source, slopes)
    if isinstance(node.op, CURVE_OPS):
        return curve_lines(node, source, result, slopes, upper_slopes)
    assert isinstance(node.op, STEP_OPS), f"no rule for {type(node.op).__name__}"
    return constant_lines(*result)


def _through_layer(run: _Pass, name: str, coefficients: Array, lines: Lines) -> bool:
    """An activation and the map of one value under it at once, where nothing else is known to weigh what lies between.

    Returns False, with nothing done, where that is not so, or some bound is infinite. See lemma 4 of `verifier.check.rounding`.
    """
    jump, shape = run.model.jumps.get(name), coefficients.shape
    if jump is None or name in run.pending or name not in run.model.read_once:
        return False
    if lines.low_offset is not None or lines.high_offset is None or lines.low.shape[1] > 1:
        return False
    part, bias, size = jump.mapped.parts[0], jump.mapped.bias, shape[2]
    sizes, sources, offset = run.seen.magnitude(name), run.seen.magnitude(jump.source), lines.high_offset
    error = (gamma(jump.mapped.terms) * run.seen.reach(jump) + 32 * UNIT * sizes + FLOOR) + gamma(2 * size) * (
        offset + 2 * np.abs(bias)
    )
    if not np.isfinite(error).all():
        return False
    negative, gap = np.minimum(coefficients, 0.0), lines.high - lines.low
    # sound: lemma 4. With |a| = a - 2 min(a, 0) both products take the charge off, too.
    gained = _dot(negative, offset + gap * bias + 2 * error) + _dot(coefficients, lines.low * bias - error)
    negative *= gap
    negative += coefficients * lines.low
    run.add(jump.source, part.back(negative.reshape(-1, size)).reshape(*shape[:2], -1))
    run.earn(gained, np.array(underflow(size, sizes + np.abs(bias)) + underflow(jump.mapped.terms, sources)))
    return True


def _through_map(run: _Pass, inputs: Sequence[str], mapped: FloatMap, coefficients: Array) -> None:
    shape = coefficients.shape[:2]
    flat = coefficients.reshape(-1, coefficients.shape[2])
    reach, sizes = np.abs(mapped.bias), 0.0
    for name, part in zip(inputs, mapped.parts, strict=True):
        run.add(name, part.back(flat).reshape(*shape, -1))
        magnitude = run.seen.magnitude(name)
        reach = reach + _reach(part, magnitude)
        sizes += float(_known_size(magnitude).sum())
    # sound: lemma 3 for the products with the matrices, lemma 2 for that with the bias.
    terms = mapped.terms + len(mapped.bias)
    lost = _charge(np.abs(coefficients), gamma(terms) * reach, terms) + underflow(terms, np.array(sizes))
    run.earn((flat @ mapped.bias).reshape(shape), lost)


def _through_lines(run: _Pass, name: str, coefficients: Array, lines: Lines) -> None:
    """Replace a function of value `name` by the line below it where its coefficient is positive, above it where negative."""
    size, magnitude = coefficients.shape[2], run.seen.magnitude(name)
    # sound: a f(z) >= a (s z + t) for the line on the side that the sign of a asks for.
    run.add(name, coefficients * np.where(coefficients > 0, lines.low, lines.high))
    steepest = np.maximum(np.abs(lines.low).max(axis=(0, 1)), np.abs(lines.high).max(axis=(0, 1)))
    # sound: lemma 1 for each product; one with a slope of 0 is exact.
    error = np.where(steepest == 0, 0.0, 8 * UNIT * steepest * magnitude)
    run.earn(np.zeros(1), _charge(np.abs(coefficients), error, size) + underflow(size, _known_size(magnitude)))
    if lines.high_offset is not None:
        _add_products(run, np.minimum(coefficients, 0.0), lines.high_offset)
    if lines.low_offset is not None:
        _add_products(run, np.maximum(coefficients, 0.0), lines.low_offset)


def _over_planes(run: _Pass, node: Node, coefficients: Array, planes: Planes) -> Array:
    """Replace parts of the negative coefficients of a Relu by planes above it (lemma 5); returns what is left of them."""
    (name,) = node.inputs
    jump = run.model.jumps[name]
    size = run.seen.magnitude(jump.source)
    if not np.isfinite(size).all() or not len(planes.entries):
        return coefficients
    dense = jump.mapped.parts[0]
    assert isinstance(dense, Dense), "planes stand above one dense map"
    weight, bias = dense.rows(planes.entries), jump.mapped.bias[planes.entries]
    low, high = (side[:, None, planes.entries] for side in run.seen[name])
    given = coefficients[..., planes.entries]
    # sound: any part <= 0 of the coefficient may go to the plane, as long as the rest stays.
    part = np.where((low < 0) & (high > 0), np.minimum(given, 0.0) * planes.weights, 0.0)
    left = coefficients.copy()
    left[..., planes.entries] = given - part
    parted = np.where(part == 0, 0.0, np.abs(given))
    run.earn(np.zeros(1), _charge(parted, 8 * UNIT * run.seen.magnitude(node.output)[planes.entries], 2))
    # sound: whatever floats the plane's coefficients are, its offset is found for them.
    slopes = planes.shares * weight[:, planes.columns]
    above = _plane_offsets(run.seen[jump.source], weight, bias, slopes, planes.columns)
    _add_products(run, part, above)
    moved = np.zeros((*part.shape[:2], len(size)))
    moved[..., planes.columns] = np.matmul(part[:, :, None, :], slopes)[:, :, 0, :]
    run.add(jump.source, moved)
    # sound: lemma 3 with |slopes| <= |W|.
    reach = np.abs(weight) @ size
    terms = len(bias) + len(size)
    run.earn(np.zeros(1), _charge(np.abs(part), gamma(terms) * reach, terms) + underflow(terms, size))
    return left


def _plane_offsets(source: Pair, weight: Array, bias: Array, slopes: Array, columns: NDArray[np.int64]) -> Array:
    """At least what keeps each plane (nodes, 1 or rows, entries, columns) above 0 and W v + b; (nodes, rows, entries)."""
    middle, reach = middle_and_reach(*source)
    steep = weight[:, columns] - slopes
    other = weight.copy()
    other[:, columns] = 0.0
    inner, outer = middle[:, None, columns, None], reach[:, None, columns, None]
    # sound: over a box p v is at least p c - |p| r; max(0, z) is one of 0 and z, so the larger of two offsets does for both.
    of_zero = (-np.matmul(slopes, inner) + np.matmul(np.abs(slopes), outer))[..., 0]
    of_map = (np.matmul(steep, inner) + np.matmul(np.abs(steep), outer))[..., 0]
    of_map = of_map + (bias + middle @ other.T + reach @ np.abs(other).T)[:, None, :]
    # sound: lemma 5 for the rounding of all this.
    sizes = np.abs(middle) + reach
    terms = 4 * weight.shape[1] + 16
    error = gamma(terms) * (np.abs(bias) + sizes @ np.abs(weight).T)[:, None, :] + underflow(terms, sizes.max(axis=0))
    return np.asarray(np.maximum(of_zero, of_map) + 2 * error)


def _through_product(run: _Pass, node: Node, coefficients: Array, weights: Array | None, upper_weights: Array | None) -> None:
    """Replace p * q by a mixture of two planes below it, or above it (McCormick 1976)."""
    left, right = node.inputs
    sizes = run.seen.magnitude(left), run.seen.magnitude(right)
    p_low, p_high, q_low, q_high = (
        np.where(np.isfinite(side), side, 0.0)[:, None, :] for name in (left, right) for side in run.seen[name]
    )
    w = np.full_like(p_low, 0.5) if weights is None else weights
    v = np.full_like(p_low, 0.5) if upper_weights is None else upper_weights
    # sound: (p - p_low) (q - q_low) >= 0 and (p_high - p) (q_high - q) >= 0, and so is what lies between them.
    of_p, of_q = w * q_low + (1 - w) * q_high, w * p_low + (1 - w) * p_high
    offset = -(w * (p_low * q_low) + (1 - w) * (p_high * q_high))
    # sound: (p - p_low) (q_high - q) >= 0 and (p_high - p) (q - q_low) >= 0, and so is what lies between them.
    over_p, over_q = v * q_high + (1 - v) * q_low, v * p_low + (1 - v) * p_high
    over = -(v * (p_low * q_high) + (1 - v) * (p_high * q_low))
    is_positive = coefficients > 0
    run.add(left, coefficients * np.where(is_positive, of_p, over_p))
    run.add(right, coefficients * np.where(is_positive, of_q, over_q))
    # sound: each slope and offset is made by fewer than 16 operations on numbers up to these sizes, each erring by u and eta.
    error = np.where((sizes[0] == 0) | (sizes[1] == 0), 0.0, 64 * UNIT * sizes[0] * sizes[1])
    error = error + TINY * (1.0 + sizes[0] + sizes[1])
    size = coefficients.shape[2]
    lost = _charge(np.abs(coefficients), 2 * error, size)
    run.earn(np.zeros(1), lost + underflow(size, _known_size(sizes[0]) + _known_size(sizes[1])))
    _add_products(run, np.maximum(coefficients, 0.0), offset)
    _add_products(run, np.minimum(coefficients, 0.0), over)


def _through_pool(run: _Pass, node: Node, coefficients: Array, entries: NDArray | None) -> None:
    (name,) = node.inputs
    windows = run.model.windows[node.output]
    low, high = run.seen[name]
    padding = np.full((len(low), 1), -np.inf)
    lower = np.concatenate([low, padding], axis=1)[:, windows]
    upper = np.concatenate([high, padding], axis=1)[:, windows]
    best = lower.argmax(axis=2)[..., None]
    star = np.take_along_axis(np.broadcast_to(windows, lower.shape), best, axis=2)[..., 0][:, None, :]
    highest = upper.max(axis=2)[:, None, :]
    np.put_along_axis(upper, best, -np.inf, axis=2)
    single = (upper.max(axis=2) <= np.take_along_axis(lower, best, axis=2)[..., 0])[:, None, :]
    # sound: a maximum is at least any entry of its window, and is the entry that none can pass.
    target = star if entries is None else np.where(single, star, entries)
    moved = np.where((coefficients > 0) | single, coefficients, 0.0)
    run.add(name, _scattered(moved, target, low.shape[1]))
    # sound: lemma 2 for coefficients that meet at one entry.
    overlap = int(np.bincount(windows[windows >= 0]).max())
    within = np.append(run.seen.magnitude(name), 0.0)[windows].max(axis=1)
    run.earn(np.zeros(1), _charge(np.abs(moved), gamma(overlap) * within, overlap))
    # sound: a maximum is at most the largest upper bound in its window.
    _add_products(run, np.where(single, 0.0, np.minimum(coefficients, 0.0)), highest)


def _scattered(moved: Array, target: NDArray, size: int) -> Array:
    """Coefficients of pooled values at the entries that stand for them, `target`: (nodes, 1 or rows, outputs)."""
    nodes, rows = moved.shape[:2]
    result = np.zeros((nodes * rows, size))
    places = np.broadcast_to(target, moved.shape).reshape(nodes * rows, -1)
    np.add.at(result, (np.arange(nodes * rows)[:, None], places), moved.reshape(nodes * rows, -1))
    return result.reshape(nodes, rows, size)


def _concretise(run: _Pass, coefficients: Array) -> None:
    middle, reach = (side[:, None, :] for side in middle_and_reach(*run.seen[run.model.network.input]))
    absolute, size = np.abs(coefficients), coefficients.shape[2]
    # sound: a x >= a c - |a| r for every x with |x - c| <= r; lemma 2.
    gained = _dot(coefficients, middle) - _dot(absolute, reach)
    error = gamma(2 * size) * (np.abs(middle).max(axis=(0, 1)) + reach.max(axis=(0, 1)))
    run.earn(gained, _charge(absolute, error, 2 * size))


def atom_forms(network: Network, atoms: Sequence[Atom]) -> AtomForms:
    """Atoms as matrices of floats and errors. Raises OutOfRange for numbers beyond float64."""
    entries: dict[str, list[tuple[int, int, float, float]]] = {}
    counts: dict[tuple[str, int], int] = {}
    widest = 1
    for row, atom in enumerate(atoms):
        coefficients = combined(atom)
        widest = max(widest, len(coefficients))
        for (name, index), c in coefficients.items():
            entries.setdefault(name, []).append((row, index, *_split(c)))
            counts[name, index] = counts.get((name, index), 0) + 1
    parts, errors = {}, {}
    for name, found in entries.items():
        rows, columns, values, off = zip(*found, strict=True)
        shape = (len(atoms), network.size(name))
        parts[name] = Sparse(csr_array((np.array(values), (rows, columns)), shape=shape))
        errors[name] = Sparse(csr_array((np.array(off), (rows, columns)), shape=shape))
    biases = [_split(atom.bias) for atom in atoms]
    bias, bias_error = (np.array([b[k] for b in biases], dtype=np.float64) for k in (0, 1))
    return AtomForms(parts, errors, bias, bias_error, widest + max(counts.values(), default=1))


def _split(value: Fraction) -> tuple[float, float]:
    """A float next to the number and at least its distance from it."""
    nearest = float_below(value)
    return nearest, float_above(value - Fraction(nearest))
