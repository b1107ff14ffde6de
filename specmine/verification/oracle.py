"""The verifier as the oracle of refinement; what it said is in the store, so a run that was stopped need not ask again."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from specmine.predicates.families import denote
from specmine.predicates.predicate import Predicate
from specmine.queries import clause_query
from specmine.rules.clause import HornClause
from specmine.rules.oracle import Answer
from specmine.tracing import Sites
from specmine.verification.proving import decide
from specmine.verification.store import Record, Store
from verifier.certificate import NODE, Certificate, Lemmas, ProofNode
from verifier.check import read_certificate
from verifier.formula import Atom, atoms_of
from verifier.ops import Array
from verifier.query import Query
from verifier.region import Region


@dataclass(frozen=True, eq=False)
class VerifierOracle:
    """Decides clauses over one region with one engine; falsification comes before any proof in every engine that proves.

    proofs: the engine for clauses that are likely valid, where that is not the one that was named. starts: inputs (count,
    size) from which counterexamples are searched.
    """

    sites: Sites
    region: Region
    store: Store
    engine: str = "auto"
    proofs: str = "lp"
    starts: Array | None = None

    def ask(self, clauses: Sequence[HornClause], *, timeout_s: float, likely: bool = False) -> list[Answer]:
        """One answer a clause, in order, within about timeout_s seconds for each; likely: that they are valid, so that no
        counterexample need be looked for."""
        engine = self.proofs if likely and self.engine == "auto" else self.engine
        queries = [clause_query(clause, self.region, self.sites) for clause in clauses]
        known = [self._answered(query, engine, timeout_s) for query in queries]
        new = [query for query, there in zip(queries, known, strict=True) if not there]
        if new:
            decide(new, self.store, engine=engine, timeout_s=timeout_s, starts=self.starts)
        records = [self.store.records[query.sha256] for query in queries]
        return [
            replace(_answer(record), idle=self._idle(clause, query, record))
            for clause, query, record in zip(clauses, queries, records, strict=True)
        ]

    def _answered(self, query: Query, engine: str, timeout_s: float) -> bool:
        """Whether the store answers with this engine, or with the one named, which takes all turns."""
        return any(self.store.answers(query.sha256, name, timeout_s) for name in {engine, self.engine})

    def _idle(self, clause: HornClause, query: Query, record: Record) -> frozenset[Predicate]:
        """The literals on several neurons that no step of the stored proof gives a multiplier."""
        if record.certificate is None:
            return frozenset()
        _, certificate = read_certificate(self.store.folder / record.certificate, self.sites.network)
        used = used_atoms(query, certificate)
        atoms = {literal: tuple(atoms_of(denote(literal, self.sites))) for literal in clause.body}
        return frozenset(
            literal for literal, own in atoms.items() if all(len(a.terms) > 1 for a in own) and not used.intersection(own)
        )


def _answer(record: Record) -> Answer:
    valid = {"proved": True, "refuted": False, "unknown": None}[record.verdict]
    point = None if record.counterexample is None else np.array(record.counterexample, dtype=np.float64)
    return Answer(valid, point, record.bound, record.engine, record.reason, record.seconds)


def used_atoms(query: Query, certificate: Certificate) -> set[Atom]:
    """The atoms that have a multiplier somewhere in a certificate; a bound of one neuron may be used without any."""
    used: set[Atom] = set()
    everywhere = _common(query, range(len(query.disjuncts)))
    trees: list[tuple[list[Atom], ProofNode]] = []
    for part in certificate.prelude:
        if isinstance(part, Lemmas):
            trees += [(everywhere, tree) for tree in part.trees]
        else:
            used |= _with_multiplier(everywhere, part.relaxation.atoms)
    trees += [(_common(query, group.disjuncts), group.root) for group in certificate.groups]
    while trees:
        common, node = trees.pop()
        for step in node.steps:
            used |= _with_multiplier(common, step.relaxation.atoms)
        for close in node.closed:
            atoms = common if close.disjunct == NODE else query.disjuncts[close.disjunct]
            used |= _with_multiplier(atoms, close.relaxation.atoms)
        if node.split is not None:
            trees += [(common, node.split.low), (common, node.split.high)]
    return used


def _common(query: Query, numbers: Iterable[int]) -> list[Atom]:
    """The atoms that some disjuncts share, in the order of the first."""
    members = [query.disjuncts[number] for number in numbers]
    shared = set(members[0]).intersection(*map(set, members))
    return [a for a in members[0] if a in shared]


def _with_multiplier(atoms: Sequence[Atom], multipliers: Array) -> set[Atom]:
    """multipliers: (rows, atoms); without entries, all are zero."""
    if not multipliers.size:
        return set()
    return {a for a, some in zip(atoms, (multipliers != 0).any(axis=0), strict=True) if some}
