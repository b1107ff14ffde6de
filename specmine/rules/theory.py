"""Layered theories: clauses whose heads are literals of hidden layers, chained from layer to layer (METHODS 6).

Every clause holds by itself, so whatever forward chaining derives holds, and resolving the clauses of a derivation gives a
clause from its leaves to its root that needs no proof of its own. The program that chains is `encodings/chaining.lp`.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files

import clingo
import networkx as nx
import numpy as np

from specmine.errors import BadTheory
from specmine.predicates.predicate import Predicate
from specmine.rules.clause import HornClause
from specmine.rules.dominance import quantity_limits
from specmine.rules.reduce import Limits, implies, reduce_body

_ENCODING = files("specmine.rules").joinpath("encodings", "chaining.lp")
FALSE = "false"

Goal = Predicate | None
"""What a clause derives: a predicate, or None for `false`."""


@dataclass(frozen=True)
class Theory:
    """Clauses that may use one another's heads, without a cycle; proved: those of them that are.

    Raises BadTheory, naming the cycle, where a literal depends on itself through a clause, and where a clause is called proved
    that is not one of the theory.
    """

    clauses: tuple[HornClause, ...]
    proved: frozenset[HornClause] = frozenset()

    def __post_init__(self) -> None:
        foreign = self.proved - set(self.clauses)
        if foreign:
            raise BadTheory(f"{min(map(str, foreign))} is called proved but is no clause of the theory; add it to the clauses")
        cycle = _cycle(self)
        if cycle:
            raise BadTheory(f"literals depend on themselves: {' <- '.join(cycle)}; leave out one of these clauses")

    @property
    def is_proved(self) -> bool:
        """Whether every clause is."""
        return self.proved == set(self.clauses)

    @cached_property
    def sound(self) -> "Theory":
        """The proved clauses alone: all that they derive holds."""
        return Theory(tuple(clause for clause in self.clauses if clause in self.proved), self.proved)

    @cached_property
    def predicates(self) -> tuple[Predicate, ...]:
        """Every literal of the theory, in order."""
        return tuple(sorted({p for clause in self.clauses for p in (*clause.body, *_heads(clause))}))

    @cached_property
    def defined(self) -> frozenset[Predicate]:
        """The literals that some clause derives, maybe through a stronger one; the others are to be observed."""
        found = {p for clause in self.clauses for p in _heads(clause)}
        weaker: dict[Predicate, list[Predicate]] = {}
        for p, q in self.weakenings:
            weaker.setdefault(p, []).append(q)
        waiting = list(found)
        while waiting:
            new = [q for q in weaker.get(waiting.pop(), ()) if q not in found]
            found.update(new)
            waiting += new
        return frozenset(found)

    @cached_property
    def weakenings(self) -> tuple[tuple[Predicate, Predicate], ...]:
        """The background theory: (stronger, weaker) literals of the theory on one quantity, such as above 2 and above 1. Steps
        that lead by way of another literal are left out."""
        groups: dict[object, list[tuple[Predicate, Limits]]] = {}
        for predicate in self.predicates:
            found = quantity_limits(predicate)
            if found is not None:
                groups.setdefault(found[0], []).append((predicate, found[1]))
        return tuple(pair for members in groups.values() for pair in _next_weaker(members))

    @cached_property
    def graph(self) -> nx.DiGraph:
        """Which literal is needed for which: an edge from each literal of a body to the head, and to what it implies."""
        graph = nx.DiGraph()
        graph.add_nodes_from(map(str, self.predicates))
        graph.add_edges_from((str(p), str(q)) for p, q in self.weakenings)
        graph.add_edges_from((str(p), _name(clause.head)) for clause in self.clauses for p in clause.body)
        return graph

    @cached_property
    def strata(self) -> tuple[tuple[str, ...], ...]:
        """The literals as text, level by level: each depends on literals of earlier levels alone, or says the same as one."""
        condensed = nx.condensation(self.graph)
        return tuple(
            tuple(sorted(name for part in level for name in condensed.nodes[part]["members"]))
            for level in nx.topological_generations(condensed)
        )

    @cached_property
    def steps(self) -> int:
        """The number of clauses on the longest chain."""
        steps: dict[str, int] = {}
        clauses = {(str(p), _name(clause.head)) for clause in self.clauses for p in clause.body}
        for level in self.strata:
            for name in level:
                before = [steps.get(p, 0) + ((p, name) in clauses) for p in self.graph.predecessors(name)]
                steps[name] = max(before, default=0)
        alone = [1 for clause in self.clauses if not clause.body]
        return max([*steps.values(), *alone], default=0)


def _next_weaker(members: Sequence[tuple[Predicate, Limits]]) -> Iterator[tuple[Predicate, Predicate]]:
    """Literals on one quantity with the ones that they imply and nothing between; those that say the same imply each other."""
    floors = sorted({(limits.lower, limits.strict) for _, limits in members})
    floor = np.array([floors.index((limits.lower, limits.strict)) for _, limits in members])
    upper = np.array([limits.upper for _, limits in members])
    implied = (floor[:, None] >= floor) & (upper[:, None] <= upper)
    strictly = implied & ~implied.T
    between = strictly.astype(np.float32) @ strictly.astype(np.float32) > 0
    same = implied & implied.T & ~np.eye(len(members), dtype=bool)
    for stronger, weaker in zip(*np.nonzero((strictly & ~between) | same), strict=True):
        yield members[stronger][0], members[weaker][0]


def _heads(clause: HornClause) -> tuple[Predicate, ...]:
    return () if clause.head is None else (clause.head,)


def _name(goal: Goal) -> str:
    return FALSE if goal is None else str(goal)


def _cycle(theory: Theory) -> list[str]:
    """The literals of a cycle through a clause, the first one again at the end; empty where there is none."""
    graph = theory.graph
    place = {name: number for number, part in enumerate(nx.strongly_connected_components(graph)) for name in part}
    for clause in theory.clauses:
        head = _name(clause.head)
        for literal in map(str, clause.body):
            if place[literal] == place[head]:
                return [head, *reversed(nx.shortest_path(graph, head, literal))]
    return []


@dataclass(frozen=True)
class Derivation:
    """Why a literal holds. clause: what derives it, from one premise for each literal of its body; without a clause it was
    observed, or it follows from its only premise, which says more."""

    goal: Goal
    clause: HornClause | None = None
    premises: tuple["Derivation", ...] = ()

    @cached_property
    def leaves(self) -> frozenset[Predicate]:
        """The literals that were observed."""
        if self.clause is None and not self.premises:
            return frozenset(() if self.goal is None else (self.goal,))
        return frozenset().union(*(premise.leaves for premise in self.premises))

    @cached_property
    def clauses(self) -> frozenset[HornClause]:
        """The clauses that are used anywhere."""
        own = frozenset(() if self.clause is None else (self.clause,))
        return own.union(*(premise.clauses for premise in self.premises))

    @cached_property
    def length(self) -> int:
        """The number of clauses on the longest way from a leaf to the root."""
        return (self.clause is not None) + max((premise.length for premise in self.premises), default=0)

    @cached_property
    def composed(self) -> HornClause:
        """The resolvent of all clauses used: from the leaves to the root, at most one literal a neuron.

        sound: where the leaves hold, each premise holds in turn, if every clause used is valid.
        """
        return reduce_body(HornClause(self.goal, tuple(self.leaves)))


def unfold(clause: HornClause, definitions: Mapping[Predicate, HornClause]) -> Derivation:
    """The derivation that resolves each literal that is defined with its clause, and those of that clause in turn.

    Raises BadTheory where definitions lead back to a literal.
    """
    theory = Theory((clause, *definitions.values()))
    done: dict[Predicate, Derivation] = {}
    for literal in sorted(definitions, key=lambda p: _level(theory, p)):
        done[literal] = _by_clause(definitions[literal], done)
    return _by_clause(clause, done)


def _level(theory: Theory, literal: Predicate) -> int:
    name = str(literal)
    return next((number for number, level in enumerate(theory.strata) if name in level), -1)


def _by_clause(clause: HornClause, done: Mapping[Predicate, Derivation]) -> Derivation:
    return Derivation(clause.head, clause, tuple(done.get(p) or Derivation(p) for p in clause.body))


def chain(theory: Theory, given: Sequence[Iterable[Predicate]]) -> list[frozenset[Goal]]:
    """All that the theory derives for each sample from the literals that are given of it, these included; None is `false`."""
    return [frozenset(known) for known in (run.known for run in _run(theory, [set(some) for some in given]))]


@dataclass(frozen=True, eq=False)
class _Chained:
    """What chaining came to on one sample: known literals, the clauses that fired, and what followed from what."""

    known: set[Goal]
    fired: list[HornClause]
    weakened: list[tuple[Predicate, Predicate]]


def _run(theory: Theory, given: Sequence[set[Predicate]]) -> list[_Chained]:
    goals: list[Goal] = [None, *theory.predicates]
    number = {goal: place for place, goal in enumerate(goals)}
    control = clingo.Control(message_limit=0)
    control.add("base", [], _ENCODING.read_text(encoding="utf-8"))
    control.add("base", [], " ".join(_facts(theory, given, number)))
    control.ground([("base", [])])
    runs = [_Chained(set(), [], []) for _ in given]
    with control.solve(yield_=True) as handle:
        for symbol in next(iter(handle)).symbols(shown=True):
            sample, *rest = (argument.number for argument in symbol.arguments)
            if symbol.name == "holds":
                runs[sample].known.add(goals[rest[0]])
            elif symbol.name == "fires":
                runs[sample].fired.append(theory.clauses[rest[0]])
            else:
                runs[sample].weakened.append((goals[rest[1]], goals[rest[0]]))  # type: ignore[arg-type]
    return runs


def _facts(theory: Theory, given: Sequence[set[Predicate]], number: Mapping[Goal, int]) -> Iterator[str]:
    for place, clause in enumerate(theory.clauses):
        yield f"clause({place},{number[clause.head]})."
        yield from (f"body({place},{number[p]})." for p in clause.body)
    yield from (f"implies({number[p]},{number[q]})." for p, q in theory.weakenings)
    for sample, literals in enumerate(given):
        yield f"sample({sample})."
        yield from (f"given({sample},{number[p]})." for p in literals if p in number)


def derive(theory: Theory, observed: Iterable[Predicate], goal: Goal) -> Derivation | None:
    """A shortest derivation of the goal from literals that hold on one sample; None where there is none.

    Literals that some clause derives are taken as observed only where the goal does not follow without them.
    """
    seen = set(observed) - ({goal} if goal is not None else set())
    base = seen - theory.defined
    for given in (base, base | (seen - chain(theory, [base])[0])):
        (run,) = _run(theory, [given])
        if goal in run.known:
            return _tree(run, given)[goal]
    return None


def follows(theory: Theory, clause: HornClause) -> bool:
    """Whether the theory derives the head of a clause from its body, each literal of the body as it stands or weakened."""
    return derive(theory, _weakened(theory, clause.body), clause.head) is not None


def _weakened(theory: Theory, body: Sequence[Predicate]) -> set[Predicate]:
    """The literals of a body, and those of the theory that one of them implies."""
    limits = [found for found in map(quantity_limits, body) if found is not None]
    known = set(body)
    for literal in theory.predicates:
        own = quantity_limits(literal)
        if own is not None and any(quantity == own[0] and implies(stronger, own[1]) for quantity, stronger in limits):
            known.add(literal)
    return known


def _tree(run: _Chained, given: set[Predicate]) -> dict[Goal, Derivation]:
    """A derivation of everything known, each found in as few rounds as possible."""
    found: dict[Goal, Derivation] = {literal: Derivation(literal) for literal in given}
    while len(found) < len(run.known | given):
        new: dict[Goal, Derivation] = {}
        for clause in run.fired:
            if clause.head not in found and all(p in found for p in clause.body):
                best = Derivation(clause.head, clause, tuple(found[p] for p in clause.body))
                other = new.get(clause.head)
                new[clause.head] = best if other is None or len(best.leaves) < len(other.leaves) else other
        for stronger, weaker in run.weakened:
            if weaker not in found and stronger in found:
                new.setdefault(weaker, Derivation(weaker, None, (found[stronger],)))
        assert new, "what chaining derived has a derivation"
        found |= new
    return found


def derivation_text(derivation: Derivation, *, proved: frozenset[HornClause] = frozenset(), shown: int | None = None) -> str:
    """The derivation as an indented tree; a literal that was explained before is not explained again.

    proved: clauses to be marked as such. shown: premises shown of each clause, all by default.

    >>> active, one = Predicate("active", ("h1", 0)), Predicate("class", (1,))
    >>> print(derivation_text(Derivation(one, HornClause(one, (active,)), (Derivation(active),))))
    class(1) because (clause e8ee709e2d46, not proved)
      active(h1,0), observed
    """
    return "\n".join(_lines(derivation, proved, shown, 0, set()))


def _lines(
    derivation: Derivation, proved: frozenset[HornClause], shown: int | None, depth: int, told: set[Goal]
) -> Iterator[str]:
    goal, indent = _name(derivation.goal), "  " * depth
    if derivation.clause is None and not derivation.premises:
        yield f"{indent}{goal}, observed"
        return
    if derivation.goal in told:
        yield f"{indent}{goal}, as above"
        return
    told.add(derivation.goal)
    if derivation.clause is None:
        yield f"{indent}{goal}, which is weaker than"
    else:
        status = "proved" if derivation.clause in proved else "not proved"
        always = "" if derivation.premises else " always holds"
        yield f"{indent}{goal}{always} because (clause {derivation.clause.id}, {status})"
    for premise in derivation.premises[:shown]:
        yield from _lines(premise, proved, shown, depth + 1, told)
    if shown is not None and len(derivation.premises) > shown:
        yield f"{indent}  ... and {len(derivation.premises) - shown} more"
