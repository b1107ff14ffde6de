"""One budget spent over the engines, for queries over one network: from cheap to dear, each in its turn."""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TypeAlias

import torch
from torch import Tensor

from verifier.certificate import Certificate, Close, Prelude, ProofNode
from verifier.certificate import Group as ProofGroup
from verifier.check import check
from verifier.device import PROCESSOR, computing_on
from verifier.domains.choices import Choices, select
from verifier.domains.relaxations import relaxed_nodes, undecided, values_read
from verifier.engines.attack import Attack
from verifier.engines.bound import bound_goals, closes, narrowed, resumed, start_batch, tighten
from verifier.engines.boxes import BoxSearch, can_split_inputs, split_inputs
from verifier.engines.lemmas import has_lemmas, prove_lemmas
from verifier.engines.lp_tree import lp_search
from verifier.engines.milp import decide_milp
from verifier.engines.points import point_test
from verifier.engines.problem import Batch, GoalRow, Group, Searched, entries_of, groups, shared_atoms
from verifier.engines.smt import decide_smt
from verifier.engines.split import branch_and_bound
from verifier.network import Network
from verifier.ops import Array, Conv, Linear, Relu
from verifier.query import Query
from verifier.verdict import Decision, Proved, Refuted, Unknown, Verdict

Efforts: TypeAlias = Sequence[tuple[int, Sequence[int]]]

FEW_WEIGHTS = 40_000
MOST_WEIGHTS = 1_000_000  # of a network that is written out for a solver, to see how little of it an assertion depends on
GOAL_STEPS = (0, 10, 30, 60)  # rounds of optimisation; each works on the goals that the last left open
MOST_LEAVES = 50_000  # of the trees of a layer's lemmas
LARGEST_SCALE = 1e30  # what float32 still holds
TELL_EVERY_S = 0.3
EFFORTS = {"climb": ((0, (10,)), (3, (0, 10))), "optimise": ((3, (0, 10, 30)), (20, (0, 30, 60)))}
"""Steps for the bounds of neurons, then rounds of steps for the goals: three neuron steps cost less than sixty for the goals,
and gain more."""
ON_PROCESSOR = ("lp", "milp", "smt")
"""The engines that are solvers of the processor; the others compute on any device."""


@dataclass(frozen=True)
class Turn:
    """One engine's turn at a query. share: how much of the time left it may take, within at_least_s and at_most_s.

    rounds, splits: how many rounds of an attack, how many splits of a search; with them a turn ends the same whatever the
    clock says, so long as its time, which is then there for large networks alone, does not come first; of lemmas, splits are
    the leaves of all trees of a layer. most_inputs: only where
    there are so many inputs at most; most_cases: only where so many entries are undecided at most, and for solvers that go
    through them in a small network.
    """

    engine: str
    share: float = 1.0
    at_least_s: float = 0.0
    at_most_s: float = float("inf")
    rounds: int | None = None
    splits: int | None = None
    most_inputs: int | None = None
    most_cases: int | None = None


@dataclass(eq=False)
class Case:
    """A query on its way to a decision: the proof of each of its groups found so far, and the best bound of the others.

    begun: the searches by boxes that other turns have left unfinished. roots: of each group whose neurons were bounded with
    optimised choices, the batch of it alone that holds these bounds.
    """

    position: int
    query: Query
    groups: list[Group]
    proofs: dict[int, tuple[ProofGroup, ...]] = field(default_factory=dict)
    bounds: dict[int, float] = field(default_factory=dict)
    begun: dict[Group, BoxSearch] = field(default_factory=dict)
    roots: dict[int, Batch] = field(default_factory=dict)
    prelude: Prelude = ()
    undecided: int | None = None
    seconds: float = 0.0
    splits: int = 0
    reasons: list[str] = field(default_factory=list)

    @property
    def bound(self) -> float | None:
        """The smallest bound over the groups; None where none was bounded."""
        return min(self.bounds.values(), default=None)


@dataclass(frozen=True)
class Progress:
    """How far an undecided query is: the engine at work, the best bound so far, None where there is none, and the splits."""

    engine: str
    bound: float | None
    splits: int


OnProgress: TypeAlias = Callable[[int, Progress], None]


@dataclass(frozen=True)
class _Piece:
    """A group of a case, as an entry of a batch."""

    case: Case
    number: int


class Strategy:
    """The turns of an engine's name taken at queries over one network; `run` yields each decision as it falls.

    device: where bounds, searches and attacks are computed. on_progress(position, progress) hears of open queries while they
    are worked on, a few times a second at most.
    """

    def __init__(
        self,
        queries: Sequence[Query],
        turns: Sequence[Turn],
        *,
        name: str,
        timeout_s: float,
        starts: Array | None,
        seed: int,
        device: torch.device = PROCESSOR,
        on_progress: OnProgress | None = None,
    ) -> None:
        self.cases = [Case(k, query, groups(query)) for k, query in enumerate(queries)]
        self.open = list(self.cases)
        self.turns, self.name, self.timeout_s, self.device = turns, name, timeout_s, device
        self.attack = Attack([case.query for case in self.cases], seed=seed, starts=starts)
        self.deadline = time.monotonic() + timeout_s * len(queries)
        self.until = self.deadline
        self.turn = turns[0]
        self.on_progress = on_progress
        self.told = time.monotonic()

    def run(self) -> Iterator[tuple[int, Decision]]:
        together: dict[str, Callable[[list[Case]], Mapping[Case, Verdict]]] = {
            "bound": self._bound_plainly,
            "falsify": self._attack,
            **{name: partial(self._bound_hard, efforts=efforts) for name, efforts in EFFORTS.items()},
        }
        alone = {
            "boxes": self._split_inputs,
            "split": self._split_neurons,
            "lp": self._split_by_programs,
            "lemmas": self._prove_lemmas,
            "smt": self._ask_smt,
            "milp": self._ask_milp,
        }
        for turn in self.turns:
            cases = [case for case in self.open if _suits(turn, case)]
            if turn.engine in together:
                yield from self._take(turn, together[turn.engine], cases)
            else:
                for case in cases:
                    yield from self._take(turn, alone[turn.engine], [case])
        for case in self.open:
            yield case.position, self._give_up(case)

    def _take(
        self, turn: Turn, work: Callable[[list[Case]], Mapping[Case, Verdict]], cases: list[Case]
    ) -> Iterator[tuple[int, Decision]]:
        """Let one engine work on open cases, share its time among them, and yield what it decided."""
        began = time.monotonic()
        left = min(sum(max(0.0, self.timeout_s - case.seconds) for case in cases), self.deadline - began)
        if left <= 0:
            return
        span = min(max(turn.share * left, turn.at_least_s * len(cases)), turn.at_most_s * len(cases), left)
        self.until, self.turn = began + span, turn
        with computing_on(PROCESSOR if turn.engine in ON_PROCESSOR else self.device):
            verdicts = work(cases)
        share = (time.monotonic() - began) / len(cases)
        for case in cases:
            case.seconds += share
            if case in verdicts:
                self.open.remove(case)
                case.begun.clear()
                case.roots.clear()
                yield case.position, Decision(verdicts[case], turn.engine, case.seconds, case.bound, case.splits)

    def _tell(self, case: Case, bounds: Callable[[], Mapping[int, float]], splits: int) -> None:
        """Pass on what is known of a case; bounds: those of its groups that are newer than the case's own."""
        now = time.monotonic()
        if self.on_progress is None or now < self.told + TELL_EVERY_S:
            return
        self.told = now
        known = dict(case.bounds)
        for number, bound in bounds().items():
            known[number] = max(bound, known.get(number, bound))
        progress = Progress(self.turn.engine, min(known.values(), default=None), case.splits + splits)
        self.on_progress(case.position, progress)

    def _out_of_time(self) -> bool:
        return time.monotonic() > self.until

    def _left(self) -> float:
        return max(0.0, self.until - time.monotonic())

    def _batch(self, pieces: Sequence[_Piece]) -> Batch:
        return tighten(start_batch([p.case.groups[p.number] for p in pieces]), out_of_time=self._out_of_time)

    def _bound_plainly(self, cases: list[Case]) -> dict[Case, Verdict]:
        pieces = [_Piece(case, number) for case in cases for number in range(len(case.groups))]
        if pieces:
            batch = self._batch(pieces)
            _count_undecided(batch, pieces)
            self._close(batch, pieces, rounds=(0,))
        return _certified(cases)

    def _bound_hard(self, cases: list[Case], *, efforts: Efforts) -> dict[Case, Verdict]:
        """Optimise the goals, then the bounds of the neurons too where that is not enough."""
        batch, bounded = None, []
        for neuron_steps, rounds in efforts:
            pieces = [_Piece(c, n) for c in cases for n in range(len(c.groups)) if n not in c.proofs]
            if not pieces or self._out_of_time():
                break
            if batch is None or pieces != bounded:
                batch, bounded = self._batch(pieces), pieces
            if neuron_steps:
                batch = tighten(batch, steps=neuron_steps, out_of_time=self._out_of_time)
                for k, piece in enumerate(pieces):
                    piece.case.roots[piece.number] = entries_of(batch, [k])
            self._close(batch, pieces, rounds=rounds)
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
                known = pieces[k].case.bounds.get(pieces[k].number, bound)
                pieces[k].case.bounds[pieces[k].number] = max(bound, known)
                self._tell(pieces[k].case, dict, 0)
            kept = [r for r, row in enumerate(rows) if row.goal.disjunct not in found[row.position]]
            rows, warm = [rows[r] for r in kept], select(goals.choices, torch.tensor(kept, dtype=torch.long))
        for k, piece in enumerate(pieces):
            if bool(batch.empty[k]) or len(found[k]) == len(batch.groups[k].disjuncts):
                root = ProofNode(batch.steps[k], tuple(found[k].values()))
                piece.case.proofs[piece.number] = (ProofGroup(batch.groups[k].disjuncts, root),)
        return {k: list(closed.values()) for k, closed in found.items()}

    def _attack(self, cases: list[Case]) -> dict[Case, Verdict]:
        skip = {case.position for case in self.cases} - {case.position for case in cases}
        answers = self.attack.run(self._left(), rounds=self.turn.rounds, skip=skip)
        found: dict[Case, Verdict] = {}
        for case in cases:
            answer = answers[case.position]
            if isinstance(answer, Unknown):
                case.reasons.append(f"falsify: {answer.reason}")
            else:
                found[case] = answer
        return found

    def _split_inputs(self, cases: list[Case]) -> dict[Case, Verdict]:
        (case,) = cases
        return self._search(case, "boxes", partial(split_inputs, begun=case.begun), rounds=(0,))

    def _split_neurons(self, cases: list[Case]) -> dict[Case, Verdict]:
        (case,) = cases
        return self._search(case, "split", branch_and_bound, rounds=GOAL_STEPS)

    def _split_by_programs(self, cases: list[Case]) -> dict[Case, Verdict]:
        (case,) = cases
        return self._search(case, "lp", lp_search, rounds=(0,))

    def _prove_lemmas(self, cases: list[Case]) -> dict[Case, Verdict]:
        """Bound neurons by small trees of cases, under what all disjuncts share; later searches begin from these bounds."""
        (case,) = cases
        assert not case.prelude, "proofs that rest on the lemmas of an earlier turn would lose them"
        pieces = [_Piece(case, n) for n in range(len(case.groups)) if n not in case.proofs]
        shared = Group(case.query, tuple(range(len(case.query.disjuncts))), shared_atoms(case.query), ())
        proved, case.prelude = prove_lemmas(
            start_batch([shared]), leaves=self.turn.splits or MOST_LEAVES, out_of_time=self._out_of_time
        )
        batch = narrowed(start_batch([case.groups[p.number] for p in pieces]), proved)
        before, roots = case.bounds, dict(case.roots)
        case.bounds = {}
        for k, piece in enumerate(pieces):
            case.roots[piece.number] = entries_of(batch, [k])
        self._close(batch, pieces, rounds=GOAL_STEPS)
        open_ = [p.number for p in pieces if p.number not in case.proofs]
        if len(open_) == len(pieces) and all(case.bounds.get(n, -math.inf) < before.get(n, -math.inf) for n in open_):
            case.roots, case.prelude = roots, ()  # time ended before lemmas came as far as the bounds that were known
        case.bounds = {n: max(before.get(n, -math.inf), case.bounds.get(n, -math.inf)) for n in {**before, **case.bounds}}
        case.reasons.append("lemmas: " + ("timeout" if self._out_of_time() else "incomplete"))
        return _certified(cases)

    def _search(self, case: Case, name: str, engine: Callable[..., Searched], *, rounds: Sequence[int]) -> dict[Case, Verdict]:
        """Prove the groups still open by cases."""
        hits: list[Array] = []
        test = point_test(case.query)

        def try_points(_: int, points: Tensor) -> bool:
            hit = test(points)
            if hit is not None:
                hits.append(hit)
            return hit is not None

        pieces = [_Piece(case, n) for n in range(len(case.groups)) if n not in case.proofs]
        if not all(case.groups[p.number].goals for p in pieces):
            case.reasons.append(f"{name}: a disjunct without atoms, which nothing refutes")
            return {}
        roots = [] if name == "boxes" else [case.roots[p.number] for p in pieces if p.number in case.roots]
        batch = resumed(roots) if len(roots) == len(pieces) else self._batch(pieces)
        closed = self._close(batch, pieces, rounds=rounds)
        left = {
            k: frozenset(batch.groups[k].disjuncts) - {close.disjunct for close in closed[k]}
            for k, piece in enumerate(pieces)
            if piece.number not in case.proofs
        }
        if not left:  # the bounds at the roots were enough
            return _certified(cases=[case])

        def report(bounds: Callable[[], Mapping[int, float]], splits: int) -> None:
            self._tell(case, lambda: {pieces[k].number: bound for k, bound in bounds().items()}, splits)

        search = engine(
            batch,
            left,
            closed=closed,
            target=target_of(batch),
            out_of_time=self._out_of_time,
            try_points=try_points,
            most_splits=self.turn.splits,
            report=report,
        )
        case.splits += sum(search.splits.values())
        if hits:
            return {case: Refuted(hits[0])}
        whole = {k: (ProofGroup(batch.groups[k].disjuncts, root),) for k, root in search.proofs.items()}
        for k, parts in {**whole, **search.parts}.items():
            case.proofs[pieces[k].number] = parts
            case.bounds.pop(pieces[k].number, None)  # the root's bound says nothing of a proof by cases
        for k, bound in search.open_bounds.items():
            known = case.bounds.get(pieces[k].number, bound)
            case.bounds[pieces[k].number] = max(bound, known)
        case.reasons.append(f"{name}: " + ("timeout" if self._out_of_time() else "incomplete"))
        return _certified(cases=[case])

    def _ask_smt(self, cases: list[Case]) -> dict[Case, Verdict]:
        (case,) = cases
        verdict = decide_smt(case.query, timeout_s=self._left()).verdict
        if isinstance(verdict, Unknown):
            case.reasons.append(f"smt: {verdict.reason}")
            return {}
        return {case: verdict}

    def _ask_milp(self, cases: list[Case]) -> dict[Case, Verdict]:
        """A mixed integer program finds counterexamples; what its floats say besides is no proof."""
        (case,) = cases
        verdict = decide_milp(case.query, timeout_s=self._left()).verdict
        if isinstance(verdict, Refuted):
            return {case: verdict}
        assert isinstance(verdict, Unknown)
        case.reasons.append(f"milp: {verdict.reason}")
        return {}

    def _give_up(self, case: Case) -> Decision:
        late = time.monotonic() > self.deadline or case.seconds >= self.timeout_s
        reasons = "; ".join(dict.fromkeys(case.reasons))
        verdict = Unknown("timeout" if late else "incomplete", reasons, case.bound)
        return Decision(verdict, self.name, case.seconds, case.bound, case.splits)


def _suits(turn: Turn, case: Case) -> bool:
    if turn.engine == "boxes" and not can_split_inputs(case.query.network):
        return False
    if turn.engine == "lemmas" and not has_lemmas(case.query.network):
        return False
    if turn.engine == "lp" and not all(isinstance(node.op, Relu) for node in relaxed_nodes(case.query.network)):
        return False
    if turn.most_inputs is not None and case.query.region.size > turn.most_inputs:
        return False
    if turn.engine == "smt" and _weights(case.query.network) > MOST_WEIGHTS:
        return False
    if turn.most_cases is None:
        return True
    # a linear program keeps only what is undecided; the other solvers see the whole network
    few = turn.engine == "lp" or _weights(case.query.network) <= FEW_WEIGHTS
    return few and (case.undecided or 0) <= turn.most_cases


def _weights(network: Network) -> int:
    """How many products an evaluation takes in its linear maps."""
    ops = [(node.op, network.size(node.output)) for node in network.nodes]
    return sum(size * op.weight[0].size for op, size in ops if isinstance(op, Linear | Conv))


def _count_undecided(batch: Batch, pieces: Sequence[_Piece]) -> None:
    values = values_read(batch.network)
    counts = sum((undecided(batch.network, batch.bounds, value).sum(1) for value in values), torch.zeros(len(pieces)))
    for piece, count in zip(pieces, counts.tolist(), strict=True):
        piece.case.undecided = max(int(count), piece.case.undecided or 0)


def target_of(batch: Batch) -> float:
    """The bound a goal must pass in floating point before the kernel is asked, in the scale of the outputs."""
    low, high = batch.bounds[batch.network.output]
    size = torch.maximum(low.abs(), high.abs())
    known = size[torch.isfinite(size)]
    return 1e-9 * (1e-3 + min(LARGEST_SCALE, float(known.max()) if len(known) else 0.0))


def _certified(cases: Sequence[Case]) -> dict[Case, Verdict]:
    """The cases whose groups all have proofs, each confirmed by the kernel; a rejected proof is dropped."""
    verdicts: dict[Case, Verdict] = {}
    for case in cases:
        if len(case.proofs) < len(case.groups):
            continue
        parts = tuple(part for _, found in sorted(case.proofs.items()) for part in found)
        certificate = Certificate(case.query.network.sha256, case.query.sha256, parts, case.prelude)
        result = check(case.query, certificate)
        if result.accepted:
            verdicts[case] = Proved(certificate)
        else:
            case.proofs.clear()
            case.roots.clear()
            case.prelude = ()
            case.reasons.append(f"rounding: the check rejected a proof ({result.reason})")
    return verdicts
