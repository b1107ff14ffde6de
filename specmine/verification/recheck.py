"""Check the certificates of a run again: every rounding accounted for, no solver."""

from collections.abc import Sequence
from dataclasses import replace

from specmine.progress import SILENT, Progress
from specmine.queries import claim_query
from specmine.spec import Claim
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
    with_proof = [after for after in checked if after.outcome.certificate is not None]
    refused = sum(after.outcome.verdict == "unknown" for after in with_proof)
    progress.finish(f"{len(with_proof) - refused} certificates accepted, {refused} refused")
    return checked


def _check(claim: Claim, sites: Sites, store: Store) -> Claim:
    outcome = claim.outcome
    if outcome.certificate is None:
        return claim
    _, certificate = read_certificate(store.folder / outcome.certificate, sites.network)
    result = check(claim_query(claim, sites), certificate)
    if result.accepted:
        return claim
    return replace(claim, outcome=replace(outcome, verdict="unknown", reason=f"certificate refused: {result.reason}"))
