"""From a trace to clauses: every wanted way of synthesis, class by class."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from specmine.config import Config
from specmine.data import MINE, Dataset
from specmine.errors import BadModel
from specmine.predicates.families import FAMILIES, candidates, default_sites
from specmine.predicates.form import Grid
from specmine.predicates.predicate import Predicate
from specmine.predicates.table import PredicateTable, build_table, select_predicates
from specmine.progress import SILENT, Progress
from specmine.rules.clause import HornClause
from specmine.rules.peel import peel, readout_of
from specmine.rules.smallest import smallest_bodies
from specmine.rules.threshold import compose
from specmine.tracing import Trace, select_samples


@dataclass(frozen=True, eq=False)
class Material:
    """What clauses are made of: the mining rows alone. trace: of those rows; labels: their classes."""

    trace: Trace
    labels: NDArray[np.int64]
    classes: int
    config: Config

    @cached_property
    def table(self) -> PredicateTable:
        """The truth of every candidate predicate on the mining rows."""
        config = self.config
        sites = config.sites or default_sites(self.trace)
        grid = Grid(
            sites,
            thresholds=config.thresholds,
            head_levels=tuple(sorted(set(config.deltas))),
            partners=config.partners,
            locality=config.locality,
        )
        wanted = candidates(config.families, self.trace, grid=grid)
        return build_table(wanted, self.trace)

    @property
    def unary(self) -> PredicateTable:
        """The rows of the unary family, all rows where it was not mined."""
        if "unary" not in self.config.families:
            return self.table
        forms = FAMILIES["unary"].forms
        return select_predicates(self.table, [row for row, p in enumerate(self.table.predicates) if p.form in forms])

    def positives(self, label: int) -> NDArray[np.bool_]:
        """The mining rows of a class that the network classifies correctly."""
        return (self.labels == label) & (self.trace.predictions == label)

    def negatives(self, label: int) -> NDArray[np.bool_]:
        """The mining rows to which the network gives another class."""
        return self.trace.predictions != label


def by_threshold(material: Material, label: int) -> list[HornClause]:
    """One clause of unary literals for each delta, the largest first: its body is the strongest, so the easiest to prove.

    With every pair and triple that nearly always holds, bodies would have thousands of literals, most of them idle.
    """
    table = material.unary
    head = Predicate("class", (label,))
    deltas = sorted(material.config.deltas, reverse=True)
    made = [compose(table, material.positives(label), head=head, delta=d) for d in deltas]
    return [clause for clause in made if clause is not None]


def by_smallest(material: Material, label: int) -> list[HornClause]:
    """The smallest bodies that keep the wanted recall and no sample of another class."""
    config, table = material.config, material.table
    found = smallest_bodies(
        table,
        material.positives(label),
        material.negatives(label),
        count=config.max_clauses,
        recalls=(config.recall,),
        timeout_s=config.timeout_s,
        seed=config.seed,
    )
    head = Predicate("class", (label,))
    return [HornClause(head, tuple(table.predicates[row] for row in result.body)) for result in found if result.body]


def by_peeling(material: Material, label: int) -> list[HornClause]:
    """Boxes of the last hidden layer that hold over the whole domain; none where the network does not end in one layer."""
    try:
        readout = readout_of(material.trace.sites)
    except BadModel:
        return []
    config = material.config
    return peel(
        material.trace,
        readout,
        label=label,
        rows=material.positives(label),
        clauses=config.max_clauses,
        seed=config.seed,
    )


SYNTHESES: Mapping[str, Callable[[Material, int], list[HornClause]]] = {
    "peel": by_peeling,
    "threshold": by_threshold,
    "smallest": by_smallest,
}


def material_of(trace: Trace, dataset: Dataset, config: Config) -> Material:
    """The mining rows of a traced data set."""
    rows = np.flatnonzero(dataset.split == MINE)
    return Material(select_samples(trace, rows), dataset.y[rows], len(dataset.classes), config)


def synthesise(material: Material, progress: Progress = SILENT) -> list[HornClause]:
    """The clauses of all classes, without repeats.

    Clauses come in the order of SYNTHESES and, within one, take turns among the classes, so that the time for proofs
    reaches every class.
    """
    config = material.config
    progress.start("synthesis", len(config.synthesis) * material.classes)
    found: dict[HornClause, None] = {}
    for name in (name for name in SYNTHESES if name in config.synthesis):
        by_class = []
        for label in range(material.classes):
            made = SYNTHESES[name](material, label) if material.positives(label).any() else []
            progress.advance(1, f"{name}: {len(made)} clauses for class {label}")
            by_class.append(made)
        longest = max(map(len, by_class), default=0)
        found |= dict.fromkeys(made[turn] for turn in range(longest) for made in by_class if turn < len(made))
    progress.finish(f"{len(found)} clauses")
    return list(found)
