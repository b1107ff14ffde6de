"""The lines every exported file begins with: hashes, region, conventions, evidence, status."""

from collections.abc import Iterator

from specmine.regions import DOMAIN
from specmine.spec import Claim, Spec
from specmine.stats import evidence_text
from specmine.stats.evidence import SPLITS
from verifier.region import Ball

BOUNDARY = "boundary: active is > 0, inactive is <= 0, above is >=, below is <=; a tie with a rival class violates class(c)"
NUMBERS = "numbers: real arithmetic over the stored weights; every number below is exact unless the file says otherwise"


def run_lines(spec: Spec) -> Iterator[str]:
    """What holds for all claims of the run."""
    provenance = spec.provenance
    yield f"specmine {provenance['versions']['specmine']}"
    yield f"model sha256: {provenance['model']['sha256']}"
    yield f"data: {provenance['data']['name']}, sha256: {provenance['data']['sha256']}"
    yield BOUNDARY
    yield NUMBERS


def claim_lines(claim: Claim) -> Iterator[str]:
    """What holds for one claim: clause, region, evidence with intervals, proof status."""
    yield f"clause {claim.clause.id}: {claim.clause}"
    yield f"region: {region_text(claim)}"
    for split in SPLITS:
        yield f"evidence on {split}: {evidence_text(getattr(claim.evidence, split))}"
    outcome = claim.outcome
    parts = [f"proof status: {outcome.verdict}"]
    parts += [f"({outcome.reason})"] if outcome.reason else []
    parts += [f"by {outcome.engine}"] if outcome.engine else []
    parts += [f"certificate {outcome.certificate}"] if outcome.certificate else []
    yield " ".join(parts)


def region_text(claim: Claim) -> str:
    """The region in words."""
    region = claim.region
    if isinstance(region.region, Ball):
        radius = region.region.radius
        return f"{region.name}, the L-infinity ball of radius {radius} around row {region.sample}, clipped to the domain"
    words = "the whole input domain" if region.name == DOMAIN else "the range of the mining samples"
    return f"{region.name}, {words}, a box in {region.region.size} inputs"
