"""What each family of predicates adds to short clauses: chosen on the mining rows, measured on all splits."""

from collections.abc import Mapping, Sequence

import numpy as np

from specmine.data import Dataset
from specmine.exhibit import Gain
from specmine.pipeline.synthesis import Material
from specmine.progress import SILENT, Progress
from specmine.rules.gains import Selection, compare_families
from specmine.stats import Evidence, measure
from specmine.tracing import Source

MAX_BODY = 8


def comparison(material: Material, source: Source, dataset: Dataset, progress: Progress = SILENT) -> list[Gain]:
    """The gains of unary predicates alone, of these with each other family, and of all: the best clause of at most MAX_BODY
    literals for each head, and their means on the hold-out and the test split.

    A head without a clause counts as precision, recall and F1 of 0. Empty where only one family was mined, or no head is a
    value of the network that clauses derive.
    """
    if not material.targets:
        return []
    heads = {target.head: ~target.negatives for target in material.targets}
    selections = compare_families(material.table, heads, max_body=MAX_BODY, progress=progress)
    return [_row(selection, source, dataset) for selection in selections]


def _row(selection: Selection, source: Source, dataset: Dataset) -> Gain:
    found = [clause for clause in selection.clauses if clause is not None]
    evidence = measure(found, source, dataset.split)
    missing = len(selection.clauses) - len(found)
    return Gain(
        families=selection.families,
        candidates=selection.candidates,
        clauses=tuple(map(str, found)),
        holdout=_means(evidence, "holdout", missing),
        test=_means(evidence, "test", missing),
    )


def _means(evidence: Sequence[Evidence], split: str, missing: int) -> Mapping[str, float]:
    parts = [getattr(item, split) for item in evidence]
    precision = [part.precision or 0.0 for part in parts] + [0.0] * missing
    recall = [part.recall or 0.0 for part in parts] + [0.0] * missing
    f1 = [2 * p * r / (p + r) if p + r else 0.0 for p, r in zip(precision, recall, strict=True)]
    return {name: float(np.mean(shares)) for name, shares in (("precision", precision), ("recall", recall), ("f1", f1))}
