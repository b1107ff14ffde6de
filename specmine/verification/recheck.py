"""Check the certificates of a run again: every rounding accounted for, no solver."""

from collections.abc import Sequence
from dataclasses import replace

from specmine.progress import SILENT, Progress
from specmine.queries import claim_query, local_query
from specmine.regions import DOMAIN
from specmine.rules.theory import Theory, follows
from specmine.spec import BETWEEN, RESOLUTION, Claim
from specmine.tracing import Sites
from specmine.verification.store import Store
from verifier.check import check, read_certificate


def check_claims(claims: Sequence[Claim], sites: Sites, store: Store, *, progress: Progress = SILENT) -> list[Claim]:
    """The claims, those whose certificate is not accepted as unknown; raises BadCertificate for a damaged file."""
    progress.start("check", len(claims))
    checked = []
    for claim in claims:
        checked.append(_check(claim, sites, store))
        progress.advance(1, f"{checked[-1].outcome.verdict}: {claim.title}")
    checked = _with_parts(checked)
    with_proof = [after for after in checked if after.outcome.certificate is not None]
    refused = sum(after.outcome.verdict == "unknown" for after in with_proof)
    bare = sum(after.outcome.certificate is None and _rests_on_proof(after) for after in checked)
    unseen = f", {bare} proofs have none to check" if bare else ""
    progress.finish(f"{len(with_proof) - refused} certificates accepted, {refused} refused{unseen}")
    return checked


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
    _, certificate = read_certificate(store.folder / outcome.certificate, query.network)
    result = check(query, certificate)
    if result.accepted:
        return claim
    return replace(claim, outcome=replace(outcome, verdict="unknown", reason=f"certificate refused: {result.reason}"))
