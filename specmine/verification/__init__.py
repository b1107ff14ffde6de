"""From claims to verdicts: many at once, each written down, each proof with a witness or found vacuous."""

from specmine.verification.proving import CERTIFICATES, Effort, outcomes, prove
from specmine.verification.radius import Radius, largest_radius
from specmine.verification.recheck import Recheck, check_claims
from specmine.verification.store import Record, Store
from specmine.verification.witness import sample_witness

__all__ = [
    "CERTIFICATES",
    "Effort",
    "Radius",
    "Recheck",
    "Record",
    "Store",
    "check_claims",
    "largest_radius",
    "outcomes",
    "prove",
    "sample_witness",
]
