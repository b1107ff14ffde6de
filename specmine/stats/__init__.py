"""What the data says: counts, intervals, tests."""

from specmine.stats.counts import benjamini_hochberg, fisher_p, wilson
from specmine.stats.evidence import (
    SPLITS,
    Evidence,
    SplitEvidence,
    body_bits,
    evidence_of,
    evidence_text,
    fill_q,
    measure,
    read_split,
    share_text,
    split_evidence,
)
from specmine.stats.ranking import Ranking, Shares, evidence_at, rank, shares, strongest

__all__ = [
    "SPLITS",
    "Evidence",
    "Ranking",
    "Shares",
    "SplitEvidence",
    "benjamini_hochberg",
    "body_bits",
    "evidence_at",
    "evidence_of",
    "evidence_text",
    "fill_q",
    "fisher_p",
    "measure",
    "rank",
    "read_split",
    "share_text",
    "shares",
    "split_evidence",
    "strongest",
    "wilson",
]
