"""Replay a certificate and say whether it proves its query; see `verifier.certificate` for what is replayed."""

import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from verifier.certificate import Certificate, Close, Group, ProofNode, Relaxation, Split, Step
from verifier.check.backward import AtomRows, atom_rows, lower_bounds
from verifier.check.bounds import Bounds, start, tightened
from verifier.check.exact import OutOfRange, assert_ieee_arithmetic
from verifier.check.model import Model, least_slope, prepare
from verifier.formula import Atom
from verifier.ops import Array, LeakyRelu, Relu
from verifier.query import Query
from verifier.region import outer_bounds, round_down

BATCH_ENTRIES = 2**22


@dataclass(frozen=True)
class CheckResult:
    """Whether a certificate proves its query; if not, the first failure and its place.

    place: the group and the way from its root, such as `group 0, low high`; counts are of what was replayed.
    """

    accepted: bool
    reason: str | None
    place: str | None
    disjuncts: int
    steps: int
    splits: int
    closes: int
    seconds: float


class _Rejected(Exception):
    """The reason a certificate proves nothing; never leaves this file."""


@dataclass(frozen=True, eq=False)
class _Tree:
    """A group's proof under way."""

    model: Model
    disjuncts: tuple[tuple[Atom, ...], ...]
    common: AtomRows
    counts: Counter[str]
    rows: dict[int, AtomRows] = field(default_factory=dict)


def check(query: Query, certificate: Certificate) -> CheckResult:
    """Whether the certificate proves that no input of the query's region satisfies its assertion.

    Exact: what is accepted holds in real arithmetic over the stored weights. A certificate that proves nothing is a result
    with the reason, not an exception. Raises UnsupportedOp or BadNetwork for a network that cannot be checked.
    """
    assert_ieee_arithmetic()
    began, counts = time.perf_counter(), Counter[str]()
    place = [""]
    reason = None
    try:
        _check_header(query, certificate)
        for number, group in enumerate(certificate.groups):
            place[0] = f"group {number}"
            _check_group(query, group, counts, place)
    except _Rejected as rejection:
        reason = str(rejection)
    except OutOfRange as error:
        reason = f"numbers out of range: {error}"
    return CheckResult(
        accepted=reason is None,
        reason=reason,
        place=None if reason is None else ", ".join(filter(None, place)) or "certificate",
        disjuncts=len(query.disjuncts),
        steps=counts["steps"],
        splits=counts["splits"],
        closes=counts["closes"],
        seconds=time.perf_counter() - began,
    )


def _check_header(query: Query, certificate: Certificate) -> None:
    _require(isinstance(certificate, Certificate), f"a certificate was expected, got {type(certificate).__name__}")
    _require(certificate.network_sha256 == query.network.sha256, "it was made for another network")
    _require(certificate.query_sha256 == query.sha256, "it was made for another query")
    covered = set()
    for group in certificate.groups:
        _require(isinstance(group, Group) and len(group.disjuncts) > 0, "a group has no disjuncts")
        covered |= {_index(d, len(query.disjuncts), "disjunct") for d in group.disjuncts}
    missing = sorted(set(range(len(query.disjuncts))) - covered)
    _require(not missing, f"no group covers disjunct {missing[0] if missing else None}")


def _check_group(query: Query, group: Group, counts: Counter[str], place: list[str]) -> None:
    model = prepare(query.network)
    disjuncts = [query.disjuncts[d] for d in group.disjuncts]
    shared = set(disjuncts[0]).intersection(*disjuncts[1:])
    common = tuple(atom for atom in disjuncts[0] if atom in shared)
    tree = _Tree(model, query.disjuncts, atom_rows(model, common), counts)
    pending: list[tuple[ProofNode, Bounds | None, frozenset[int], str]] = [
        (group.root, start(model, *outer_bounds(query.region), common), frozenset(group.disjuncts), "")
    ]
    name = place[0]
    while pending:
        node, bounds, left, path = pending.pop()
        place[:] = [name, path.strip()]
        _require(isinstance(node, ProofNode), f"a proof node was expected, got {type(node).__name__}")
        bounds = _after_steps(tree, node, bounds)
        if bounds is None:
            continue
        left = left - _closed(tree, node, bounds, left)
        if not left:
            continue
        _require(isinstance(node.split, Split), f"disjunct {min(left)} is left open, with bounds that are not empty")
        assert node.split is not None
        counts["splits"] += 1
        low, high = _halves(model, bounds, node.split)
        pending += [(node.split.high, high, left, path + " high"), (node.split.low, low, left, path + " low")]


def _after_steps(tree: _Tree, node: ProofNode, bounds: Bounds | None) -> Bounds | None:
    for step in node.steps:
        if bounds is None:
            break
        bounds = _stepped(tree, step, bounds)
        tree.counts["steps"] += 1
    return bounds


def _stepped(tree: _Tree, step: Step, bounds: Bounds) -> Bounds | None:
    _require(isinstance(step, Step) and step.value in bounds, "a step bounds a value that the network lacks")
    size = tree.model.network.size(step.value)
    indices, signs = (
        _numbers(a, f"a step's {name}", whole=True) for a, name in ((step.indices, "indices"), (step.signs, "signs"))
    )
    rows = len(indices)
    _require(indices.shape == signs.shape == (rows,), "a step's indices and signs differ in shape")
    _require(bool(((indices >= 0) & (indices < size)).all()), f"a step's index is out of range for {step.value!r}")
    _require(bool((np.abs(signs) == 1).all()), "a step's signs must be 1 or -1")
    relaxation = _validated(tree.model, step.relaxation, rows, len(tree.common.atoms))
    lower, upper = np.full(size, -np.inf), np.full(size, np.inf)
    for batch in _batches(tree.model, rows):
        count = len(indices[batch])
        initial = np.zeros((count, size))
        initial[np.arange(count), indices[batch]] = signs[batch]
        proven, _ = lower_bounds(
            tree.model, bounds, count, {step.value: initial}, _some_rows(relaxation, batch, rows), tree.common
        )
        for i, sign, bound in zip(indices[batch], signs[batch], (_rounded_down(b) for b in proven), strict=True):
            if sign > 0:
                lower[i] = max(lower[i], bound)
            else:
                upper[i] = min(upper[i], -bound)
    return tightened(tree.model, bounds, step.value, lower, upper)


def _closed(tree: _Tree, node: ProofNode, bounds: Bounds, left: frozenset[int]) -> set[int]:
    closed = set()
    for close in node.closed:
        _require(isinstance(close, Close), f"a close was expected, got {type(close).__name__}")
        disjunct = _index(close.disjunct, len(tree.disjuncts), "disjunct")
        _require(disjunct in left, f"disjunct {disjunct} is closed but not open here")
        if disjunct not in tree.rows:
            tree.rows[disjunct] = atom_rows(tree.model, tree.disjuncts[disjunct])
        atoms = tree.rows[disjunct]
        relaxation = _validated(tree.model, close.relaxation, 1, len(atoms.atoms))
        (bound,), used = lower_bounds(tree.model, bounds, 1, {}, relaxation, atoms)
        strict = any(atom.strict for atom, is_used in zip(atoms.atoms, used, strict=True) if is_used)
        # sound: all atoms together would make a sum <= 0 (< 0 with a strict one in it) that is >= bound everywhere.
        _require(bound > 0 or (bound == 0 and strict), f"the bound on disjunct {disjunct} is {float(bound):.6g}, not positive")
        tree.counts["closes"] += 1
        closed.add(disjunct)
    return closed


def _halves(model: Model, bounds: Bounds, split: Split) -> tuple[Bounds | None, Bounds | None]:
    _require(split.value in bounds, f"a split names {split.value!r}, which the network lacks")
    size = model.network.size(split.value)
    index = _index(split.index, size, "split index")
    at = float(split.at)
    _require(np.isfinite(at), f"a split is at {at}, which is not a finite number")
    lower, upper = np.full(size, -np.inf), np.full(size, np.inf)
    upper[index] = at
    low = tightened(model, bounds, split.value, lower, upper)
    lower[index], upper[index] = at, np.inf
    return low, tightened(model, bounds, split.value, lower, upper)


def _validated(model: Model, relaxation: Relaxation, rows: int, atoms: int) -> Relaxation:
    """The relaxation with float64 arrays of the right shapes, all free choices within their limits."""
    network = model.network
    slopes = {name: _slopes(model, name, array, rows) for name, array in relaxation.slopes.items()}
    multipliers: list[Mapping[str, Array]] = []
    for given in (relaxation.lower, relaxation.upper):
        for name in given:
            _require(name in network.shapes, f"multipliers name {name!r}, which the network lacks")
        multipliers.append({name: _multipliers(a, (rows, network.size(name)), name) for name, a in given.items()})
    of_atoms = relaxation.atoms
    if np.size(of_atoms) == 0:
        of_atoms = np.zeros((rows, atoms))
    return Relaxation(slopes, multipliers[0], multipliers[1], _multipliers(of_atoms, (rows, atoms), "the atoms"))


def _slopes(model: Model, name: str, array: NDArray, rows: int) -> NDArray:
    node = model.network.producers.get(name)
    _require(node is not None, f"slopes name {name!r}, which no node computes")
    assert node is not None
    size = model.network.size(name)
    is_pool = name in model.windows
    values = _numbers(array, f"the slopes of {name!r}", whole=is_pool)
    _require(values.shape in ((1, size), (rows, size)), f"the slopes of {name!r} have shape {values.shape}")
    if is_pool:
        inside = (values[:, :, None] == model.windows[name][None]).any(axis=2) & (values >= 0)
        _require(bool(inside.all()), f"a window of {name!r} is represented by an entry outside it")
        return values
    _require(isinstance(node.op, Relu | LeakyRelu), f"slopes name {name!r}, which is not an activation")
    least = least_slope(node)
    _require(bool(((values >= least) & (values <= 1)).all()), f"a slope of {name!r} is outside [{least:g}, 1]")
    return values


def _multipliers(array: NDArray, shape: tuple[int, int], name: str) -> Array:
    values = _numbers(array, f"the multipliers of {name}")
    _require(values.shape == shape, f"the multipliers of {name} have shape {values.shape}, not {shape}")
    _require(bool((values >= 0).all()), f"a multiplier of {name} is negative")
    return values


def _numbers(array: NDArray, what: str, *, whole: bool = False) -> NDArray:
    _require(
        isinstance(array, np.ndarray) and array.dtype.kind in ("iu" if whole else "fiu"), f"{what} are not an array of numbers"
    )
    values = array.astype(np.int64 if whole else np.float64)
    _require(bool(np.isfinite(values).all()), f"{what} are not finite")
    return values


def _index(value: object, size: int, what: str) -> int:
    _require(isinstance(value, int | np.integer) and 0 <= value < size, f"{what} {value!r} is out of range")
    assert isinstance(value, int | np.integer)
    return int(value)


def _batches(model: Model, rows: int) -> Iterator[slice]:
    """Slices of rows, so many at a time that no coefficient matrix grows past some tens of megabytes."""
    widest = max(model.network.size(name) for name in model.network.shapes)
    step = max(1, BATCH_ENTRIES // widest)
    return (slice(first, first + step) for first in range(0, rows, step))


def _some_rows(relaxation: Relaxation, batch: slice, rows: int) -> Relaxation:
    def cut(arrays: Mapping[str, NDArray]) -> dict[str, NDArray]:
        return {name: a if len(a) != rows else a[batch] for name, a in arrays.items()}

    return Relaxation(cut(relaxation.slopes), cut(relaxation.lower), cut(relaxation.upper), relaxation.atoms[batch])


def _rounded_down(bound: Fraction) -> float:
    if bound.numerator.bit_length() - bound.denominator.bit_length() > 900:
        raise OutOfRange("a proven bound passes 2**900")
    return round_down(bound)


def _require(condition: bool | np.bool_, reason: str) -> None:
    if not condition:
        raise _Rejected(reason)
