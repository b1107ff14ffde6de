"""Check the certificates of a run again: every rounding accounted for, no solver."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from specmine.progress import SILENT, Progress
from specmine.queries import claim_query, local_query
from specmine.regions import DOMAIN
from specmine.rules.theory import Theory, follows
from specmine.spec import BETWEEN, RESOLUTION, Claim
from specmine.tracing import Sites
from specmine.verification.store import Store
from verifier.check import check, read_certificate
from verifier.errors import BadCertificate
from verifier.query import Query


@dataclass(frozen=True, eq=False)
class Recheck:
    """What checking the certificates of claims again came to.

    claims: all of them, those that lost their proof as unknown, with the reason. lost: these alone: their certificate, or that
    of what they were composed of, was refused, damaged or missing. accepted: how many certificates were accepted; bare: how
    many proofs came without one.
    """

    claims: tuple[Claim, ...]
    lost: tuple[Claim, ...]
    accepted: int
    bare: int

    @property
    def exit_code(self) -> int:
        """0: every certificate was accepted; 1: one was not."""
        return 1 if self.lost else 0

    @property
    def summary(self) -> str:
        """The counts in a line."""
        unseen = f"; proofs without a certificate to check: {self.bare}" if self.bare else ""
        return f"certificates accepted: {self.accepted}; claims that lost their proof: {len(self.lost)}{unseen}"


def check_claims(claims: Sequence[Claim], sites: Sites, store: Store, *, progress: Progress = SILENT) -> Recheck:
    """Checks every certificate that the claims name, also after one that is refused, damaged or missing."""
    progress.start("check", len(claims))
    single = []
    for claim in claims:
        single.append(_check(claim, sites, store))
        progress.advance(1, f"{single[-1].outcome.verdict}: {claim.title}")
    checked = _with_parts(single)
    lost = [after for before, after in zip(claims, checked, strict=True) if before.outcome.verdict != after.outcome.verdict]
    kept = [claim for claim in checked if _rests_on_proof(claim)]
    accepted = sum(claim.outcome.certificate is not None for claim in kept)
    result = Recheck(tuple(checked), tuple(lost), accepted, len(kept) - accepted)
    progress.finish(result.summary)
    return result


def _rests_on_proof(claim: Claim) -> bool:
    """Whether the claim is proved by itself, not composed of others."""
    return claim.outcome.verdict in ("proved", "vacuous") and claim.outcome.engine != RESOLUTION


def _with_parts(claims: Sequence[Claim]) -> list[Claim]:
    """The claims, those that were composed of others as unknown where the ones still proved do not give them any more."""
    composed = {claim.clause for claim in claims if claim.outcome.engine == RESOLUTION}
    parts = tuple(
        dict.fromkeys(
            claim.clause
            for claim in claims
            if claim.outcome.verdict in ("proved", "vacuous") and claim.region.name == DOMAIN and claim.clause not in composed
        )
    )
    theory = Theory(parts if composed else (), frozenset(parts if composed else ()))
    return [
        replace(claim, outcome=replace(claim.outcome, verdict="unknown", reason="it does not follow from what is proved"))
        if claim.outcome.engine == RESOLUTION and not follows(theory, claim.clause)
        else claim
        for claim in claims
    ]


def _check(claim: Claim, sites: Sites, store: Store) -> Claim:
    outcome, local = claim.outcome, claim.outcome.engine.endswith(BETWEEN)
    if outcome.certificate is None:
        lost = local and outcome.verdict in ("proved", "vacuous")  # such a proof always has one
        return replace(claim, outcome=replace(outcome, verdict="unknown", reason="no certificate")) if lost else claim
    query = local_query(claim.clause, claim.region.region, sites) if local else claim_query(claim, sites)
    problem = _problem(query, store.folder / outcome.certificate)
    return replace(claim, outcome=replace(outcome, verdict="unknown", reason=problem)) if problem else claim


def _problem(query: Query, path: Path) -> str:
    """Why a certificate file does not prove the query; nothing where it does."""
    try:
        _, certificate = read_certificate(path, query.network)
    except BadCertificate as error:
        return str(error)
    result = check(query, certificate)
    return "" if result.accepted else f"certificate refused: {result.reason}"
