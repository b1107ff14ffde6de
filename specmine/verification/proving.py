"""Decide many claims: look each up in the store, ask the verifier for the rest, write every verdict down as it comes."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import assert_never

import numpy as np

from specmine.folder import writing
from specmine.progress import SILENT, Progress
from specmine.queries import claim_body_query, claim_query
from specmine.spec import Claim, Outcome, VerdictText, Witness
from specmine.tracing import Sites
from specmine.verification.store import Record, Store
from verifier.certificate import Certificate
from verifier.check import write_certificate
from verifier.errors import BadQuery
from verifier.ops import Array
from verifier.query import Query
from verifier.solve import verify_many
from verifier.verdict import Decision, Proved, Refuted, Unknown

CERTIFICATES = "certificates"


@dataclass(frozen=True)
class Effort:
    """How long to try: seconds for each claim and for all of them, and the verifier's engine.

    batch: how many queries the verifier gets at once; between batches the budget is looked at.
    """

    timeout_s: float = 20.0
    budget_s: float = 600.0
    engine: str = "auto"
    batch: int = 32


def prove(
    claims: Sequence[Claim],
    sites: Sites,
    store: Store,
    *,
    effort: Effort,
    starts: Array | None = None,
    progress: Progress = SILENT,
) -> list[Claim]:
    """The claims with their outcomes, in the given order; those that the budget does not reach stay unchecked.

    A proof without a witness is followed by the question whether the body can hold at all; where it cannot, the claim is
    vacuous. starts: inputs (count, size) from which counterexamples are searched.
    """
    asking = _Asking(store, effort, time.monotonic() + effort.budget_s, starts, progress)
    asking.decide(claims, [claim_query(claim, sites) for claim in claims], "verify")
    known = outcomes(claims, sites, store)
    bare = [claim for claim in known if claim.outcome.verdict == "proved" and claim.outcome.witness is None]
    if not bare:
        return known
    asking.decide(bare, [claim_body_query(claim, sites) for claim in bare], "vacuity")
    return outcomes(claims, sites, store)


def outcomes(claims: Sequence[Claim], sites: Sites, store: Store) -> list[Claim]:
    """The claims with what the store says of them; a refuted claim shows its counterexample instead of a witness."""
    return [replace(claim, outcome=_outcome(claim, sites, store)) for claim in claims]


def _outcome(claim: Claim, sites: Sites, store: Store) -> Outcome:
    witness = claim.outcome.witness
    record = store.records.get(claim_query(claim, sites).sha256)
    if record is None:
        return Outcome(witness=witness)
    verdict: VerdictText = record.verdict
    # `false :- body` proved says itself that nothing satisfies the body; that is its point, not a flaw
    if verdict == "proved" and witness is None and claim.clause.head is not None:
        body = store.records.get(claim_body_query(claim, sites).sha256)
        if body is not None and body.verdict == "proved":
            verdict = "vacuous"
        if body is not None and body.counterexample is not None:
            witness = Witness(input=body.counterexample)
    return Outcome(
        verdict=verdict,
        reason=record.reason,
        bound=record.bound,
        engine=record.engine,
        seconds=record.seconds,
        certificate=record.certificate,
        witness=None if verdict == "refuted" else witness,
        counterexample=record.counterexample,
    )


@dataclass(frozen=True, eq=False)
class _Asking:
    """One budget spent on queries, batch by batch."""

    store: Store
    effort: Effort
    deadline: float
    starts: Array | None
    progress: Progress

    def decide(self, claims: Sequence[Claim], queries: Sequence[Query], stage: str) -> None:
        """Brings a record of every query into the store, as far as the time goes."""
        effort, store = self.effort, self.store
        missing = [i for i, query in enumerate(queries) if not store.answers(query.sha256, effort.engine, effort.timeout_s)]
        self.progress.start(stage, len(queries))
        self.progress.advance(len(queries) - len(missing), "from the store")
        for begin in range(0, len(missing), effort.batch):
            left = self.deadline - time.monotonic()
            if left <= 0:
                break
            chunk = missing[begin : begin + effort.batch]
            self._ask([claims[i] for i in chunk], [queries[i] for i in chunk], min(effort.timeout_s, left / len(chunk)))
        self.progress.finish()

    def _ask(self, claims: Sequence[Claim], queries: Sequence[Query], timeout_s: float) -> None:
        def written(place: int, record: Record) -> None:
            self.progress.advance(1, f"{record.verdict}: {claims[place].title}")

        engine = self.effort.engine
        decide(queries, self.store, engine=engine, timeout_s=timeout_s, starts=self.starts, on_record=written)


def decide(
    queries: Sequence[Query],
    store: Store,
    *,
    engine: str,
    timeout_s: float,
    starts: Array | None = None,
    on_record: Callable[[int, Record], None] = lambda place, record: None,
) -> None:
    """Asks the verifier and writes every decision down as it comes; a query that it cannot take, such as one with more ways to
    fail than it can count, is unknown."""
    taken = []
    for place, query in enumerate(queries):
        problem = _refusal(query)
        if problem is None:
            taken.append(place)
            continue
        refused = Decision(Unknown("unsupported", problem), engine, 0.0)
        on_record(place, write_down(query, refused, store, engine=engine, timeout_s=timeout_s))

    def written(number: int, decision: Decision) -> None:
        place = taken[number]
        on_record(place, write_down(queries[place], decision, store, engine=engine, timeout_s=timeout_s))

    asked = [queries[place] for place in taken]
    verify_many(asked, timeout_s=timeout_s, engine=engine, starts=starts, on_decision=written)


def _refusal(query: Query) -> str | None:
    try:
        _ = query.disjuncts
    except BadQuery as error:
        return str(error)
    return None


def write_down(query: Query, decision: Decision, store: Store, *, engine: str, timeout_s: float) -> Record:
    """Keeps the decision of an engine that was asked with this time: its certificate first, then the line that names it."""
    asked = Record(
        key=query.sha256,
        verdict="unknown",
        engine_asked=engine,
        timeout_s=timeout_s,
        bound=_finite(decision.bound),
        engine=decision.engine,
        seconds=decision.seconds,
    )
    match decision.verdict:
        case Proved(certificate=proof):
            record = replace(asked, verdict="proved", certificate=_write_proof(query, proof, store))
        case Refuted(counterexample=x):
            record = replace(asked, verdict="refuted", counterexample=tuple(float(v) for v in np.asarray(x).reshape(-1)))
        case Unknown(reason=reason, detail=detail):
            record = replace(asked, reason=f"{reason}: {detail}" if detail else reason)
        case _:
            assert_never(decision.verdict)
    store.add(record)
    return record


def _write_proof(query: Query, proof: Certificate | None, store: Store) -> str | None:
    if proof is None:
        return None
    name = f"{CERTIFICATES}/{query.sha256[:32]}.npz"
    with writing(store.folder / name) as path:
        write_certificate(query, proof, path)
    return name


def _finite(bound: float | None) -> float | None:
    return float(bound) if bound is not None and np.isfinite(bound) else None
