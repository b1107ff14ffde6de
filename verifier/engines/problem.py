"""A query as the bound engines see it: groups of disjuncts over common atoms, and the tensors of a batch of groups."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from verifier.certificate import Group as ProofGroup
from verifier.certificate import ProofNode, Step
from verifier.device import tensor_of
from verifier.domains.choices import Atoms, Choices, Rows
from verifier.domains.relaxations import Interval
from verifier.formula import Atom
from verifier.network import Network
from verifier.query import Query


@dataclass(frozen=True, eq=False)
class Goal:
    """One way to refute a disjunct: show that this atom of it cannot hold together with the common ones."""

    disjunct: int
    atom: Atom


@dataclass(frozen=True, eq=False)
class Group:
    """Disjuncts of a query that differ in one atom, on their deepest value, and the atoms all of them hold."""

    query: Query
    disjuncts: tuple[int, ...]
    common: tuple[Atom, ...]
    goals: tuple[Goal, ...]

    @property
    def relations(self) -> tuple[Atom, ...]:
        """The common atoms with several terms; those with one are cuts of a value's bounds."""
        return tuple(a for a in self.common if len(a.terms) > 1)


def groups(query: Query) -> list[Group]:
    """Split the query's disjuncts into groups; a group's proof may use every common atom as a premise.

    Disjuncts share a group where they differ in one atom alone. One with several atoms of its own on its deepest value stays by
    itself: only common atoms are premises, and it may take all of its own to refute it.
    """
    depth = depths(query.network)
    everywhere = set(query.disjuncts[0]).intersection(*map(set, query.disjuncts)) if query.disjuncts else set()
    members: dict[object, list[int]] = {}
    for number, disjunct in enumerate(query.disjuncts):
        deepest = set(_deepest([a for a in disjunct if a not in everywhere] or disjunct, depth))
        alike = frozenset(a for a in disjunct if a not in deepest) if len(deepest) == 1 else number
        members.setdefault(alike, []).append(number)
    return [_group(query, tuple(numbers), depth) for numbers in members.values()]


def shared_atoms(query: Query) -> tuple[Atom, ...]:
    """The atoms that all disjuncts hold, in the order of the first."""
    first, *rest = query.disjuncts
    shared = set(first).intersection(*rest)
    return tuple(a for a in first if a in shared)


def _group(query: Query, numbers: tuple[int, ...], depth: Mapping[str, int]) -> Group:
    first, *rest = (query.disjuncts[n] for n in numbers)
    shared = set(first).intersection(*map(set, rest))
    common = tuple(a for a in first if a in shared)
    goals: list[Goal] = []
    for n in numbers:
        own = [a for a in query.disjuncts[n] if a not in shared] or _deepest(query.disjuncts[n], depth)
        goals.extend(Goal(n, a) for a in own)
    return Group(query, numbers, common, tuple(goals))


def _deepest(atoms: Sequence[Atom], depth: Mapping[str, int]) -> list[Atom]:
    levels = [max((depth[t.value] for t in a.terms), default=-1) for a in atoms]
    return [a for a, level in zip(atoms, levels, strict=True) if level == max(levels)]


def depths(network: Network) -> dict[str, int]:
    """Position of each value in the graph, the input first."""
    return {name: position for position, name in enumerate(network.shapes)}


def goal_rows(network: Network, atoms: Sequence[Atom]) -> Rows:
    """The left sides of atoms as rows, one for each batch entry: coefficients[v] (atoms, 1, size of v)."""
    matrices = _matrices(network, [[a] for a in atoms], 1)
    return Rows(matrices.coefficients, matrices.bias)


def relation_atoms(network: Network, batch: Sequence[Group]) -> Atoms | None:
    """The relations of each group, padded with trivial ones to a common count; None where there are none."""
    count = max((len(g.relations) for g in batch), default=0)
    return _matrices(network, [g.relations for g in batch], count) if count else None


def _matrices(network: Network, rows: Sequence[Iterable[Atom]], count: int) -> Atoms:
    coefficients: dict[str, np.ndarray] = {}
    bias = np.zeros((len(rows), count))
    for b, atoms in enumerate(rows):
        for k, a in enumerate(atoms):
            bias[b, k] = float(a.bias)
            for term in a.terms:
                if term.value not in coefficients:
                    coefficients[term.value] = np.zeros((len(rows), count, network.size(term.value)))
                coefficients[term.value][b, k, term.index] = float(term.coefficient)
    return Atoms({v: tensor_of(c) for v, c in coefficients.items()}, tensor_of(bias))


def gather(bounds: Mapping[str, Interval], rows: Tensor) -> dict[str, Interval]:
    """The bounds of the subproblem that each row belongs to; rows: (rows,) batch positions."""
    return {name: (low[rows], high[rows]) for name, (low, high) in bounds.items()}


@dataclass(frozen=True, eq=False)
class Batch:
    """Groups over one network with what is known of their values.

    bounds[v]: (lower, upper), each (groups, size of v), that hold under the group's common atoms; empty: (groups,) whether
    they contradict each other; multiplied: values whose bounds say more than propagation does (cut by atoms or splits), so
    that multipliers on them can help; steps: for each group the certificate steps that prove the bounds.
    """

    network: Network
    groups: tuple[Group, ...]
    bounds: Mapping[str, Interval]
    empty: Tensor
    atoms: Atoms | None
    multiplied: tuple[str, ...]
    steps: tuple[tuple[Step, ...], ...]


def entries_of(batch: Batch, positions: Sequence[int]) -> Batch:
    """Some entries of a batch."""
    rows = torch.tensor(positions)
    groups, steps = tuple(batch.groups[k] for k in positions), tuple(batch.steps[k] for k in positions)
    atoms = None if batch.atoms is None else batch.atoms.select(rows)
    return replace(batch, groups=groups, bounds=gather(batch.bounds, rows), empty=batch.empty[rows], atoms=atoms, steps=steps)


@dataclass(frozen=True, eq=False)
class GoalRow:
    """One goal of one group of a batch."""

    position: int
    goal: Goal


@dataclass(frozen=True, eq=False)
class Goals:
    """What is known of every goal row: bounds (rows,), the choices behind them, (rows, 1, ...)."""

    rows: tuple[GoalRow, ...]
    bounds: Tensor
    choices: Choices

    def weakest(self) -> dict[int, float]:
        """For each batch position the smallest bound over its disjuncts, a disjunct counting by its best goal."""
        best: dict[tuple[int, int], float] = {}
        for row, bound in zip(self.rows, self.bounds.tolist(), strict=True):
            key = (row.position, row.goal.disjunct)
            best[key] = max(bound, best.get(key, -np.inf))
        weakest: dict[int, float] = {}
        for (position, _), bound in best.items():
            weakest[position] = min(bound, weakest.get(position, np.inf))
        return weakest


TryPoints = Callable[[int, Tensor], bool]

Report = Callable[[Callable[[], Mapping[int, float]], int], None]
"""Is told now and then how far a search is: a function that gives the smallest bound that is open of some groups, by position,
and the splits so far. Whoever hears it calls the function only where it wants to know."""


def unheard(_open_bounds: Callable[[], Mapping[int, float]], _splits: int) -> None:
    """A report to nobody."""


@dataclass(frozen=True, eq=False)
class Searched:
    """What a search by cases found for each group of a batch, by position.

    proofs: complete trees; open_bounds: the smallest bound left open, for the groups without a proof; refuted: groups for
    which a tried point was a counterexample; splits: how many each group took; parts: for searches that refute the disjuncts of
    a group apart, a complete set of proofs in place of the one tree.
    """

    proofs: Mapping[int, ProofNode]
    open_bounds: Mapping[int, float]
    refuted: frozenset[int]
    splits: Mapping[int, int]
    parts: Mapping[int, tuple[ProofGroup, ...]] = field(default_factory=dict)


def apart(batch: Batch, jobs: Sequence[tuple[int, int]]) -> Batch:
    """One entry for each job (group, disjunct): the group of that disjunct alone, all of whose atoms are its premise."""
    positions = torch.tensor([g for g, _ in jobs])
    groups, steps = [], []
    for g, d in jobs:
        old = batch.groups[g]
        atoms = old.query.disjuncts[d]
        groups.append(Group(old.query, (d,), atoms, tuple(goal for goal in old.goals if goal.disjunct == d)))
        steps.append(tuple(over(step, old.common, atoms) for step in batch.steps[g]))
    named = {t.value for group in groups for a in group.common if len(a.terms) == 1 for t in a.terms} - {batch.network.input}
    multiplied = tuple(v for v in batch.network.shapes if v in named or v in batch.multiplied)
    relations = relation_atoms(batch.network, groups)
    bounds = gather(batch.bounds, positions)
    return Batch(batch.network, tuple(groups), bounds, batch.empty[positions], relations, multiplied, tuple(steps))


def over(step: Step, old: Sequence[Atom], new: Sequence[Atom]) -> Step:
    """A step whose multipliers speak of other common atoms, a superset of the old ones."""
    given = step.relaxation.atoms
    if not given.size or tuple(old) == tuple(new):
        return step
    atoms = np.zeros((len(given), len(new)))
    atoms[:, [list(new).index(a) for a in old]] = given
    return replace(step, relaxation=replace(step.relaxation, atoms=atoms))
