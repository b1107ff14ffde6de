"""Decide many claims: look each up in the store, ask the verifier for the rest, write every verdict down as it comes."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import assert_never

import numpy as np

from specmine.folder import writing
from specmine.progress import SILENT, Progress
from specmine.queries import claim_body_query, claim_query
from specmine.spec import Claim, Outcome, Witness
from specmine.tracing import Sites
from specmine.verification.store import Record, Store
from verifier.check import write_certificate
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


def prove(claims: Sequence[Claim], sites: Sites, store: Store, *, effort: Effort, progress: Progress = SILENT) -> list[Claim]:
    """The claims with their outcomes, in the given order; those that the budget does not reach stay unchecked.

    A proof without a witness is followed by the question whether the body can hold at all; where it cannot, the claim is
    vacuous.
    """
    deadline = time.monotonic() + effort.budget_s
    _decide(claims, [claim_query(claim, sites) for claim in claims], store, deadline, effort, progress, "verify")
    open_ = [
        claim for claim in outcomes(claims, sites, store) if claim.outcome.verdict == "proved" and not claim.outcome.witness
    ]
    if open_:
        _decide(open_, [claim_body_query(claim, sites) for claim in open_], store, deadline, effort, progress, "vacuity")
    return outcomes(claims, sites, store)


def outcomes(claims: Sequence[Claim], sites: Sites, store: Store) -> list[Claim]:
    """The claims with what the store says of them; a refuted claim shows its counterexample instead of a witness."""
    return [replace(claim, outcome=_outcome(claim, sites, store)) for claim in claims]


def _outcome(claim: Claim, sites: Sites, store: Store) -> Outcome:
    witness = claim.outcome.witness
    record = store.records.get(claim_query(claim, sites).sha256)
    if record is None:
        return Outcome(witness=witness)
    verdict = record.verdict
    if verdict == "proved" and witness is None:
        body = store.records.get(claim_body_query(claim, sites).sha256)
        if body is not None and body.verdict == "proved":
            verdict = "vacuous"
        if body is not None and body.counterexample is not None:
            witness = Witness(input=body.counterexample)
    return Outcome(
        verdict=verdict,  # type: ignore[arg-type]  (a record holds proved, refuted or unknown)
        reason=record.reason,
        bound=record.bound,
        engine=record.engine,
        seconds=record.seconds,
        certificate=record.certificate,
        witness=None if verdict == "refuted" else witness,
        counterexample=record.counterexample,
    )


def _decide(
    claims: Sequence[Claim],
    queries: Sequence[Query],
    store: Store,
    deadline: float,
    effort: Effort,
    progress: Progress,
    stage: str,
) -> None:
    """Brings a record of every query into the store, as far as the time goes."""
    missing = [i for i, query in enumerate(queries) if not store.answers(query.sha256, effort.engine, effort.timeout_s)]
    progress.start(stage, len(queries))
    progress.advance(len(queries) - len(missing), "from the store")
    for begin in range(0, len(missing), effort.batch):
        if time.monotonic() >= deadline:
            break
        chunk = missing[begin : begin + effort.batch]
        timeout_s = min(effort.timeout_s, max(deadline - time.monotonic(), 0.1) / len(chunk))

        def written(place: int, decision: Decision, chunk: list[int] = chunk, timeout_s: float = timeout_s) -> None:
            i = chunk[place]
            record = _write(queries[i], decision, store, effort.engine, timeout_s)
            progress.advance(1, f"{record.verdict}: {claims[i].clause}")

        verify_many([queries[i] for i in chunk], timeout_s=timeout_s, engine=effort.engine, on_decision=written)
    progress.finish()


def _write(query: Query, decision: Decision, store: Store, engine: str, timeout_s: float) -> Record:
    """The decision as a record, its certificate first, then the line that names it."""
    certificate = None
    match decision.verdict:
        case Proved(certificate=proof):
            verdict, reason, point = "proved", "", None
            if proof is not None:
                certificate = f"{CERTIFICATES}/{query.sha256[:32]}.npz"
                with writing(store.folder / certificate) as path:
                    write_certificate(query, proof, path)
        case Refuted(counterexample=x):
            verdict, reason, point = "refuted", "", tuple(float(v) for v in np.asarray(x).reshape(-1))
        case Unknown(reason=reason, detail=detail):
            verdict, point = "unknown", None
            reason = f"{reason}: {detail}" if detail else reason
        case _:
            assert_never(decision.verdict)
    record = Record(
        key=query.sha256,
        verdict=verdict,
        engine_asked=engine,
        timeout_s=timeout_s,
        reason=reason,
        bound=_finite(decision.bound),
        engine=decision.engine,
        seconds=decision.seconds,
        certificate=certificate,
        counterexample=point,
    )
    store.add(record)
    return record


def _finite(bound: float | None) -> float | None:
    return float(bound) if bound is not None and np.isfinite(bound) else None
