"""Decide queries: one strategy that goes from cheap to dear, many queries over one network at a time.

A `Proved` from bound propagation or branch and bound carries a certificate that `verifier.check` has accepted, in exact
arithmetic; Z3 proves exactly without one. A `Refuted` has been replayed exactly.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from verifier.certificate import Certificate, Close, ProofNode
from verifier.certificate import Group as ProofGroup
from verifier.check import check
from verifier.domains.linear import Choices, select
from verifier.engines.bound import bound_goals, closes, start_batch, tighten
from verifier.engines.falsify import falsify_many
from verifier.engines.points import point_test
from verifier.engines.problem import Batch, GoalRow, Group, groups
from verifier.engines.smt import decide_smt
from verifier.engines.split import branch_and_bound
from verifier.errors import BadQuery
from verifier.ops import Array
from verifier.query import Query
from verifier.verdict import Decision, Proved, Refuted, Unknown, Verdict

ENGINES: Mapping[str, tuple[str, ...]] = {
    "auto": ("bound", "falsify", "optimise", "smt", "split", "smt"),
    "falsify": ("falsify",),
    "bound": ("bound", "optimise"),
    "split": ("bound", "optimise", "split"),
    "smt": ("smt",),
}
"""The phases of each strategy, in order: from cheap to dear."""

QUERIES_AT_ONCE = 32
ATTACK_SHARE = 0.1  # of a query's time
SMT_SHARE = 0.15  # of a query's time for a first question to Z3, which sees through logic that bounds do not
GOAL_STEPS = (0, 10, 30, 60)  # rounds of optimisation; each works on the goals that the last left open
NEURON_STEPS = 20

OnDecision = Callable[[int, Decision], None]


def verify(
    query: Query, *, timeout_s: float = 60.0, engine: str = "auto", starts: Array | None = None, seed: int = 0
) -> Decision:
    """Decide one query within about timeout_s seconds. starts: inputs (samples, size) that attacks begin from.

    engine: auto, or one of falsify, bound, split, smt alone. Raises BadQuery for another name.
    """
    return verify_many([query], timeout_s=timeout_s, engine=engine, starts=starts, seed=seed)[0]


def verify_many(
    queries: Sequence[Query],
    *,
    timeout_s: float = 60.0,
    engine: str = "auto",
    starts: Array | None = None,
    seed: int = 0,
    on_decision: OnDecision | None = None,
) -> list[Decision]:
    """Decide queries, sharing bound propagation between those over one network; timeout_s is the time for each.

    on_decision(index, decision) is called once for each query, as soon as it is decided.
    """
    if engine not in ENGINES:
        raise BadQuery(f"no engine {engine!r}; choose one of {', '.join(ENGINES)}")
    decisions: dict[int, Decision] = {}
    by_network: dict[str, list[int]] = {}
    for index, query in enumerate(queries):
        by_network.setdefault(query.network.sha256, []).append(index)
    for indices in by_network.values():
        for first in range(0, len(indices), QUERIES_AT_ONCE):
            part = indices[first : first + QUERIES_AT_ONCE]
            strategy = _Strategy([queries[i] for i in part], timeout_s, engine, starts, seed)
            for position, decision in strategy.run():
                decisions[part[position]] = decision
                if on_decision is not None:
                    on_decision(part[position], decision)
    return [decisions[i] for i in range(len(queries))]


@dataclass(eq=False)
class _Case:
    """A query on its way to a decision: the proof of each of its groups found so far, and the best bound of the others."""

    position: int
    query: Query
    groups: list[Group]
    proofs: dict[int, ProofNode] = field(default_factory=dict)
    bounds: dict[int, float] = field(default_factory=dict)
    seconds: float = 0.0
    splits: int = 0
    asked_smt: bool = False
    reasons: list[str] = field(default_factory=list)

    @property
    def bound(self) -> float | None:
        """The smallest bound over the groups; None where none was bounded."""
        return min(self.bounds.values(), default=None)


@dataclass(frozen=True, eq=False)
class _Piece:
    """A group of a case, as an entry of a batch."""

    case: _Case
    number: int


class _Strategy:
    """One budget spent over the engines, for queries over one network."""

    def __init__(self, queries: Sequence[Query], timeout_s: float, engine: str, starts: Array | None, seed: int) -> None:
        self.open = [_Case(k, query, groups(query)) for k, query in enumerate(queries)]
        self.timeout_s, self.engine, self.starts, self.seed = timeout_s, engine, starts, seed
        self.deadline = time.monotonic() + timeout_s * len(queries)

    def run(self) -> Iterator[tuple[int, Decision]]:
        together = {"bound": self._bound_plainly, "falsify": self._attack, "optimise": self._bound_hard}
        alone = {"split": self._split, "smt": self._ask_smt}
        for phase in ENGINES[self.engine]:
            if phase in together:
                yield from self._phase(phase, together[phase], list(self.open))
            else:
                for case in list(self.open):
                    yield from self._phase(phase, alone[phase], [case])
        for case in self.open:
            yield case.position, self._give_up(case)

    def _phase(
        self, name: str, work: Callable[[list[_Case]], Mapping[_Case, Verdict]], cases: list[_Case]
    ) -> Iterator[tuple[int, Decision]]:
        """Let one engine work on open cases, share its time among them, and yield what it decided."""
        if not cases or self._out_of_time():
            return
        began = time.monotonic()
        verdicts = work(cases)
        share = (time.monotonic() - began) / len(cases)
        for case in cases:
            case.seconds += share
            if case in verdicts:
                self.open.remove(case)
                yield case.position, Decision(verdicts[case], name, case.seconds, case.bound, case.splits)

    def _out_of_time(self) -> bool:
        return time.monotonic() > self.deadline

    def _bound_plainly(self, cases: list[_Case]) -> dict[_Case, Verdict]:
        pieces = [_Piece(case, number) for case in cases for number in range(len(case.groups))]
        if pieces:
            batch = tighten(start_batch([p.case.groups[p.number] for p in pieces]), out_of_time=self._out_of_time)
            self._close(batch, pieces, rounds=(0,))
        return _certified(cases)

    def _bound_hard(self, cases: list[_Case]) -> dict[_Case, Verdict]:
        """Optimise the goals, then the bounds of the neurons too where that is not enough."""
        for neuron_steps in (0, NEURON_STEPS):
            pieces = [_Piece(c, n) for c in cases for n in range(len(c.groups)) if n not in c.proofs]
            if not pieces or self._out_of_time():
                break
            batch = tighten(start_batch([p.case.groups[p.number] for p in pieces]), out_of_time=self._out_of_time)
            if neuron_steps:
                batch = tighten(batch, steps=neuron_steps, out_of_time=self._out_of_time)
            self._close(batch, pieces, rounds=GOAL_STEPS)
        return _certified(cases)

    def _close(self, batch: Batch, pieces: Sequence[_Piece], *, rounds: Sequence[int]) -> dict[int, list[Close]]:
        """Bound every goal; complete groups become proofs. Returns what was closed, by entry of the batch."""
        target = target_of(batch)
        found: dict[int, dict[int, Close]] = {k: {} for k in range(len(pieces))}
        warm: Choices | None = None
        rows = [GoalRow(k, g) for k in range(len(pieces)) if not bool(batch.empty[k]) for g in batch.groups[k].goals]
        for steps in rounds:
            if not rows or self._out_of_time():
                break
            goals = bound_goals(batch, rows, steps=steps, target=target, warm=warm, out_of_time=self._out_of_time)
            for (k, disjunct), close in closes(batch, goals, target).items():
                found[k][disjunct] = close
            for k, bound in goals.weakest().items():
                pieces[k].case.bounds[pieces[k].number] = bound
            kept = [r for r, row in enumerate(rows) if row.goal.disjunct not in found[row.position]]
            rows, warm = [rows[r] for r in kept], select(goals.choices, torch.tensor(kept, dtype=torch.long))
        for k, piece in enumerate(pieces):
            if bool(batch.empty[k]) or len(found[k]) == len(batch.groups[k].disjuncts):
                piece.case.proofs[piece.number] = ProofNode(batch.steps[k], tuple(found[k].values()))
        return {k: list(closed.values()) for k, closed in found.items()}

    def _attack(self, cases: list[_Case]) -> dict[_Case, Verdict]:
        share = ATTACK_SHARE if self.engine == "auto" else 1.0
        limit = min(share * self.timeout_s * len(cases), self._left())
        answers = falsify_many([c.query for c in cases], seed=self.seed, timeout_s=limit, starts=self.starts)
        for case, answer in zip(cases, answers, strict=True):
            if isinstance(answer, Unknown):
                case.reasons.append(f"falsify: {answer.reason}")
        return {c: a for c, a in zip(cases, answers, strict=True) if isinstance(a, Refuted)}

    def _left(self) -> float:
        return max(0.0, self.deadline - time.monotonic())

    def _split(self, cases: list[_Case]) -> dict[_Case, Verdict]:
        (case,) = cases
        until = time.monotonic() + min(self.timeout_s, self._left())

        def out_of_time() -> bool:
            return time.monotonic() > until

        hits: list[Array] = []
        test = point_test(case.query)

        def try_points(_: int, points: Tensor) -> bool:
            hit = test(points)
            if hit is not None:
                hits.append(hit)
            return hit is not None

        pieces = [_Piece(case, n) for n in range(len(case.groups)) if n not in case.proofs]
        if not all(case.groups[p.number].goals for p in pieces):
            case.reasons.append("split: a disjunct without atoms, which nothing refutes")
            return {}
        batch = tighten(start_batch([case.groups[p.number] for p in pieces]), out_of_time=out_of_time)
        closed = self._close(batch, pieces, rounds=GOAL_STEPS)
        left = {
            k: frozenset(batch.groups[k].disjuncts) - {close.disjunct for close in closed[k]}
            for k, piece in enumerate(pieces)
            if piece.number not in case.proofs
        }
        search = branch_and_bound(batch, left, closed, target=target_of(batch), out_of_time=out_of_time, try_points=try_points)
        case.splits += sum(search.splits.values())
        if hits:
            return {case: Refuted(hits[0])}
        for k, root in search.proofs.items():
            case.proofs[pieces[k].number] = root
            case.bounds.pop(pieces[k].number, None)  # the root's bound says nothing of a proof by cases
        for k, bound in search.open_bounds.items():
            case.bounds[pieces[k].number] = bound
        case.reasons.append("split: " + ("timeout" if out_of_time() else "incomplete"))
        return _certified(cases)

    def _ask_smt(self, cases: list[_Case]) -> dict[_Case, Verdict]:
        (case,) = cases
        first = self.engine == "auto" and not case.asked_smt
        case.asked_smt = True
        limit = min(self.timeout_s * (SMT_SHARE if first else 1.0), self._left())
        verdict = decide_smt(case.query, timeout_s=limit).verdict
        if isinstance(verdict, Unknown):
            case.reasons.append(f"smt: {verdict.reason}")
            return {}
        return {case: verdict}

    def _give_up(self, case: _Case) -> Decision:
        reason = "timeout" if self._out_of_time() else "incomplete"
        verdict = Unknown(reason, "; ".join(dict.fromkeys(case.reasons)), case.bound)
        return Decision(verdict, self.engine, case.seconds, case.bound, case.splits)


def target_of(batch: Batch) -> float:
    """The bound a goal must pass in floating point before the exact kernel is asked, in the scale of the outputs."""
    low, high = batch.bounds[batch.network.output]
    size = torch.maximum(low.abs(), high.abs())
    return 1e-9 * (1e-3 + float(size[torch.isfinite(size)].max()))


def _certified(cases: Sequence[_Case]) -> dict[_Case, Verdict]:
    """The cases whose groups all have proofs, each confirmed by the kernel; a rejected proof is dropped."""
    verdicts: dict[_Case, Verdict] = {}
    for case in cases:
        if len(case.proofs) < len(case.groups):
            continue
        parts = tuple(ProofGroup(case.groups[n].disjuncts, root) for n, root in sorted(case.proofs.items()))
        certificate = Certificate(case.query.network.sha256, case.query.sha256, parts)
        result = check(case.query, certificate)
        if result.accepted:
            verdicts[case] = Proved(certificate)
        else:
            case.proofs.clear()
            case.reasons.append(f"rounding: the exact check rejected a proof ({result.reason})")
    return verdicts
