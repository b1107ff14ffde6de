"""What the data says about a clause, split by split."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol, get_args

import numpy as np

from specmine.errors import BadData
from specmine.predicates.form import Bits
from specmine.predicates.predicate import Predicate
from specmine.predicates.table import build_table, conjunction
from specmine.predicates.words import unpack
from specmine.stats.counts import benjamini_hochberg, fisher_p, wilson
from specmine.tracing.stream import Source

Interval = tuple[float, float]
Share = Literal["precision", "recall"]
SHARES: tuple[Share, ...] = get_args(Share)
SPLITS = ("mine", "holdout", "test")
"""In the order of their numbers in a split array."""


class Clause(Protocol):
    """Any clause: a head (None for `false`) and a body."""

    @property
    def head(self) -> Predicate | None: ...

    @property
    def body(self) -> tuple[Predicate, ...]: ...


@dataclass(frozen=True)
class SplitEvidence:
    """Counts of a clause on the samples of one split, and what follows from them.

    positives: samples where the head holds; support: where the body holds; errors: where the body holds and the head does
    not. precision, recall and lift are None where they divide by zero; intervals are 95 % Wilson intervals, (0, 1)
    without data. p: one-sided Fisher exact test that the body is independent of the head; q: p adjusted for all
    candidates tried, None until `fill_q`.
    """

    samples: int
    positives: int
    support: int
    errors: int
    precision: float | None
    precision_interval: Interval
    recall: float | None
    recall_interval: Interval
    lift: float | None
    p: float
    q: float | None = None


@dataclass(frozen=True)
class Evidence:
    """Evidence on the three splits: clauses are chosen on mine and holdout; test is for reporting only."""

    mine: SplitEvidence
    holdout: SplitEvidence
    test: SplitEvidence


def measure(clauses: Sequence[Clause], source: Source, split: Any, *, bodies: Sequence[Bits] | None = None) -> list[Evidence]:
    """Evidence of each clause on the samples of a source; split: (samples,) numbers 0 mine, 1 hold-out, 2 test.

    class(c) holds where the network's own output c is strictly the largest. A head of None holds nowhere. bodies: what
    `body_bits` gives, where it is already known. Raises BadClause where the source cannot give a predicate's site.
    """
    bodies = body_bits(clauses, source) if bodies is None else bodies
    distinct = tuple(dict.fromkeys(clause.head for clause in clauses if clause.head is not None))
    table = build_table(distinct, source)
    heads: dict[Predicate | None, Bits] = dict(zip(distinct, unpack(table.bits, source.samples), strict=True))
    heads[None] = np.zeros(source.samples, dtype=bool)
    return [evidence_of(body, heads[clause.head], split) for clause, body in zip(clauses, bodies, strict=True)]


def body_bits(clauses: Sequence[Clause], source: Source) -> list[Bits]:
    """Where (samples,) each clause's whole body holds; everywhere for an empty body.

    Predicates that many clauses share are looked at once.
    """
    distinct = tuple(dict.fromkeys(predicate for clause in clauses for predicate in clause.body))
    table = build_table(distinct, source)
    row = {predicate: place for place, predicate in enumerate(distinct)}
    return [unpack(conjunction(table, [row[p] for p in clause.body]), source.samples) for clause in clauses]


def evidence_of(body: Bits, head: Bits, split: Any) -> Evidence:
    """Evidence from the truth (samples,) of body and head on each sample."""
    parts = np.asarray(split)
    if not body.shape == head.shape == parts.shape:
        raise BadData(f"body, head and split must speak of the same samples, got {body.shape}, {head.shape}, {parts.shape}")
    return Evidence(*(_count(body[parts == part], head[parts == part]) for part in range(len(SPLITS))))


def _count(body: Bits, head: Bits) -> SplitEvidence:
    hits = int(np.count_nonzero(body & head))
    return split_evidence(samples=len(body), positives=int(head.sum()), support=int(body.sum()), hits=hits)


def split_evidence(*, samples: int, positives: int, support: int, hits: int, q: float | None = None) -> SplitEvidence:
    """Evidence from four counts; hits: samples where body and head both hold.

    >>> split_evidence(samples=100, positives=20, support=10, hits=9).lift
    4.5
    """
    precision = hits / support if support else None
    return SplitEvidence(
        samples=samples,
        positives=positives,
        support=support,
        errors=support - hits,
        precision=precision,
        precision_interval=wilson(hits, support),
        recall=hits / positives if positives else None,
        recall_interval=wilson(hits, positives),
        lift=hits * samples / (support * positives) if support and positives else None,
        p=fisher_p(samples=samples, positives=positives, support=support, hits=hits),
        q=q,
    )


def read_split(content: Mapping[str, Any]) -> SplitEvidence:
    """The evidence back from plain data, as `dataclasses.asdict` and JSON made it."""
    intervals = {f"{share}_interval": tuple(content[f"{share}_interval"]) for share in SHARES}
    return SplitEvidence(**{**content, **intervals})


def share_text(split: SplitEvidence, measure: Share) -> str:
    """A share with its 95 % interval, `none` where it divides by zero.

    >>> share_text(split_evidence(samples=20, positives=10, support=10, hits=9), "precision")
    '0.900 [0.596, 0.982]'
    """
    value, (low, high) = getattr(split, measure), getattr(split, f"{measure}_interval")
    return "none" if value is None else f"{value:.3f} [{low:.3f}, {high:.3f}]"


def evidence_text(split: SplitEvidence) -> str:
    """Counts, precision and recall with their 95 % intervals."""
    shares = ", ".join(f"{measure} {share_text(split, measure)}" for measure in SHARES)
    return f"support {split.support}, errors {split.errors}, {shares}"


def fill_q(evidence: Sequence[Evidence], *, tried: int | None = None) -> list[Evidence]:
    """The same evidence with Benjamini-Hochberg q on every split.

    tried: how many candidates were tested in all, those not listed counting as p = 1; by default the listed ones.
    """
    filled = list(evidence)
    for name in SPLITS:
        q = benjamini_hochberg([getattr(item, name).p for item in evidence], tried=tried)
        filled = [replace(item, **{name: replace(getattr(item, name), q=float(v))}) for item, v in zip(filled, q, strict=True)]
    return filled
