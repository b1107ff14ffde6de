"""Replay a certificate and say whether it proves its query; see `verifier.certificate` for what is replayed."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from verifier.certificate import Certificate, Close, Group, ProofNode, Split, Step
from verifier.check.backward import AtomRows, atom_rows, lower_bounds
from verifier.check.bounds import Bounds, start, tightened
from verifier.check.choices import Rejected, index, numbers, require, some_rows, validated
from verifier.check.exact import OutOfRange, assert_ieee_arithmetic, float_below
from verifier.check.model import Model, prepare
from verifier.errors import VerifierError
from verifier.formula import Atom
from verifier.query import Query
from verifier.region import outer_bounds

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


@dataclass(eq=False)
class _Progress:
    """Where the replay stands, and how much of it is done."""

    place: str = "certificate"
    steps: int = 0
    splits: int = 0
    closes: int = 0


@dataclass(frozen=True, eq=False)
class _Tree:
    """A group's proof under way; members: its disjuncts; rows: the atoms of those met so far."""

    model: Model
    members: frozenset[int]
    disjuncts: tuple[tuple[Atom, ...], ...]
    common: AtomRows
    progress: _Progress
    rows: dict[int, AtomRows] = field(default_factory=dict)


def check(query: Query, certificate: Certificate) -> CheckResult:
    """Whether the certificate proves that no input of the query's region satisfies its assertion.

    Exact: what is accepted holds in real arithmetic over the stored weights. A certificate that proves nothing is a result
    with the reason, not an exception. Raises BadNetwork for a network that no certificate can speak about.
    """
    if not __debug__:
        raise VerifierError("python -O drops the kernel's own assertions, which its answer rests on; run without -O")
    assert_ieee_arithmetic()
    began, progress, reason = time.perf_counter(), _Progress(), None
    try:
        _check_header(query, certificate)
        for number, group in enumerate(certificate.groups):
            progress.place = f"group {number}"
            _check_group(query, group, progress)
    except Rejected as rejection:
        reason = str(rejection)
    except OutOfRange as error:
        reason = f"numbers are out of range: {error}"
    return CheckResult(
        accepted=reason is None,
        reason=reason,
        place=None if reason is None else progress.place,
        disjuncts=len(query.disjuncts),
        steps=progress.steps,
        splits=progress.splits,
        closes=progress.closes,
        seconds=time.perf_counter() - began,
    )


def _check_header(query: Query, certificate: Certificate) -> None:
    require(isinstance(certificate, Certificate), f"a certificate was expected, got {type(certificate).__name__}")
    require(certificate.network_sha256 == query.network.sha256, "it was made for another network")
    require(certificate.query_sha256 == query.sha256, "it was made for another query")
    covered: set[int] = set()
    for group in certificate.groups:
        require(isinstance(group, Group) and len(group.disjuncts) > 0, "a group has no disjuncts")
        covered |= {index(d, len(query.disjuncts), "disjunct") for d in group.disjuncts}
    missing = set(range(len(query.disjuncts))) - covered
    if missing:
        raise Rejected(f"no group covers disjunct {min(missing)}")


def _check_group(query: Query, group: Group, progress: _Progress) -> None:
    model = prepare(query.network)
    disjuncts = [query.disjuncts[d] for d in group.disjuncts]
    shared = set(disjuncts[0]).intersection(*disjuncts[1:])
    common = tuple(atom for atom in disjuncts[0] if atom in shared)
    members = frozenset(group.disjuncts)
    tree = _Tree(model, members, query.disjuncts, atom_rows(model, common), progress)
    pending: list[tuple[ProofNode, Bounds | None, frozenset[int], str]] = [
        (group.root, start(model, *outer_bounds(query.region), common), members, progress.place)
    ]
    while pending:
        node, bounds, left, progress.place = pending.pop()
        require(isinstance(node, ProofNode), f"a proof node was expected, got {type(node).__name__}")
        bounds = _after_steps(tree, node, bounds)
        if bounds is None:
            # sound: no point is left here, so whatever is open is closed.
            continue
        left = left - _closed(tree, node, bounds)
        if left:
            if not isinstance(node.split, Split):
                raise Rejected(f"disjunct {min(left)} is left open where bounds are not empty and nothing is split")
            low, high = _halves(model, bounds, node.split)
            progress.splits += 1
            way = progress.place + ("," if " low" not in progress.place and " high" not in progress.place else "")
            pending += [(node.split.high, high, left, f"{way} high"), (node.split.low, low, left, f"{way} low")]


def _after_steps(tree: _Tree, node: ProofNode, bounds: Bounds | None) -> Bounds | None:
    for step in node.steps:
        if bounds is None:
            return None
        bounds = _stepped(tree, step, bounds)
        tree.progress.steps += 1
    return bounds


def _stepped(tree: _Tree, step: Step, bounds: Bounds) -> Bounds | None:
    require(isinstance(step, Step) and step.value in bounds, "a step bounds a value that the network lacks")
    size = tree.model.network.size(step.value)
    indices, signs = numbers(step.indices, "a step's indices", whole=True), numbers(step.signs, "a step's signs", whole=True)
    rows = indices.size
    require(indices.shape == signs.shape == (rows,), "a step's indices and signs are not vectors of one length")
    require(((indices >= 0) & (indices < size)).all(), f"a step's index is out of range for {step.value!r}")
    require(((signs == 1) | (signs == -1)).all(), "a step's signs must be 1 or -1")
    relaxation = validated(tree.model, step.relaxation, rows, len(tree.common.atoms))
    lower, upper = np.full(size, -np.inf), np.full(size, np.inf)
    for batch in _batches(tree.model, rows):
        chosen = indices[batch]
        form = np.zeros((len(chosen), size))
        form[np.arange(len(chosen)), chosen] = signs[batch]
        choices = some_rows(relaxation, batch, rows)
        proven, _ = lower_bounds(tree.model, bounds, len(chosen), {step.value: form}, choices, tree.common)
        floors = np.array([float_below(bound) for bound in proven])
        below = signs[batch] > 0
        np.maximum.at(lower, chosen[below], floors[below])
        np.minimum.at(upper, chosen[~below], -floors[~below])
    return tightened(tree.model, bounds, step.value, lower, upper)


def _closed(tree: _Tree, node: ProofNode, bounds: Bounds) -> set[int]:
    closed: set[int] = set()
    for close in node.closed:
        require(isinstance(close, Close), f"a close was expected, got {type(close).__name__}")
        disjunct = index(close.disjunct, len(tree.disjuncts), "disjunct")
        require(disjunct in tree.members, f"disjunct {disjunct} is closed but is not of this group")
        if disjunct not in tree.rows:
            tree.rows[disjunct] = atom_rows(tree.model, tree.disjuncts[disjunct])
        atoms = tree.rows[disjunct]
        relaxation = validated(tree.model, close.relaxation, 1, len(atoms.atoms))
        (bound,), used = lower_bounds(tree.model, bounds, 1, {}, relaxation, atoms)
        is_strict = any(atom.strict for atom, kept in zip(atoms.atoms, used, strict=True) if kept)
        # sound: where all atoms hold their weighted sum is <= 0 (< 0 with a strict one in it), but it is >= bound.
        if not (bound > 0 or (bound == 0 and is_strict)):
            raise Rejected(f"the bound on disjunct {disjunct} is {float_below(bound):.6g}, which refutes nothing")
        closed.add(disjunct)
        tree.progress.closes += 1
    return closed


def _halves(model: Model, bounds: Bounds, split: Split) -> tuple[Bounds | None, Bounds | None]:
    require(split.value in bounds, f"a split names {split.value!r}, which the network lacks")
    size = model.network.size(split.value)
    place = index(split.index, size, "split index")
    given = np.array(split.at)
    require(given.shape == () and given.dtype.kind in "fiu" and np.isfinite(given), f"a split is at {split.at!r}")
    # sound: one of v <= at and v >= at holds at every point, whatever float64 the number is rounded to.
    lower, upper = np.full(size, -np.inf), np.full(size, np.inf)
    lower[place] = upper[place] = float(given)
    unbounded = np.full(size, np.inf)
    low = tightened(model, bounds, split.value, -unbounded, upper)
    return low, tightened(model, bounds, split.value, lower, unbounded)


def _batches(model: Model, rows: int) -> Iterator[slice]:
    """Slices of rows, so many at a time that no matrix of coefficients grows past some tens of megabytes."""
    widest = max(model.network.size(name) for name in model.network.shapes)
    step = max(1, BATCH_ENTRIES // widest)
    return (slice(first, first + step) for first in range(0, rows, step))
