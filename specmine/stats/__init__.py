"""What the data says: counts, intervals, tests."""

from specmine.stats.counts import benjamini_hochberg, fisher_p, wilson
from specmine.stats.evidence import (
    Evidence,
    SplitEvidence,
    body_bits,
    evidence_of,
    evidence_text,
    fill_q,
    measure,
    share_text,
    split_evidence,
)

__all__ = [
    "Evidence",
    "SplitEvidence",
    "benjamini_hochberg",
    "body_bits",
    "evidence_of",
    "evidence_text",
    "fill_q",
    "fisher_p",
    "measure",
    "share_text",
    "split_evidence",
    "wilson",
]
