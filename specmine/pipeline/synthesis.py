"""From candidates to clauses: every wanted way of synthesis, head by head."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from specmine.config import Config
from specmine.data import HOLDOUT, MINE, Dataset
from specmine.errors import BadModel
from specmine.pipeline.cover import CoverLog, cover, many_bodies
from specmine.pipeline.layered import Ladder, constraints, layered_clauses
from specmine.pipeline.propose import Proposed, head_predicate
from specmine.pipeline.refinement import Refinery, refine_clauses
from specmine.pipeline.target import Target
from specmine.predicates.families import FAMILIES
from specmine.predicates.head_values import CLASS
from specmine.predicates.predicate import Predicate
from specmine.predicates.table import PredicateTable, select, select_predicates
from specmine.progress import SILENT, Progress
from specmine.rules.clause import HornClause
from specmine.rules.peel import Readout, peel, readout_of
from specmine.rules.polytopes import polytopes
from specmine.rules.smallest import smallest_bodies
from specmine.rules.threshold import compose
from specmine.tracing import NO_CLASS, Source, Trace, column, part_of, traced


@dataclass(frozen=True, eq=False)
class Material:
    """What clauses are made of: the mining rows alone. source: their values; table: the truth of every candidate on them.

    holdout: the values of the hold-out rows, by which ways of synthesis choose between what the mining rows gave.
    """

    source: Source
    table: PredicateTable
    targets: tuple[Target, ...]
    config: Config
    holdout: Source

    @cached_property
    def unary(self) -> PredicateTable:
        """The rows of the unary family, all rows where it was not mined."""
        if "unary" not in self.config.families:
            return self.table
        forms = FAMILIES["unary"].forms
        return select_predicates(self.table, [row for row, p in enumerate(self.table.predicates) if p.form in forms])

    @cached_property
    def readout(self) -> Readout | None:
        """The layer from the last activation to the output, None where the network ends otherwise."""
        try:
            return readout_of(self.source.sites)
        except BadModel:
            return None

    @cached_property
    def layer(self) -> Trace:
        """The values of what the read-out reads, on the mining rows."""
        return self._read_by(self.source)

    @cached_property
    def held_layer(self) -> Trace:
        """The same on the hold-out rows."""
        return self._read_by(self.holdout)

    def _read_by(self, source: Source) -> Trace:
        assert self.readout is not None
        return traced(source, [self.readout.site])


def material_of(source: Source, proposed: Proposed, dataset: Dataset, config: Config) -> Material:
    """The mining rows of a data set. A class is to be derived where network and label agree on it, and nowhere that the network
    gives another; a head of a later layer where it holds, and nowhere else; other heads are no values of the network, so no
    clause derives them."""
    rows = np.flatnonzero(dataset.split == MINE)
    held = np.flatnonzero(dataset.split == HOLDOUT)
    part = part_of(source, rows)
    values, labels = proposed.heads.values[rows], dataset.y[rows]
    agreed = np.where(proposed.heads.values[held] == dataset.y[held], dataset.y[held], NO_CLASS)
    targets: list[Target] = []
    head = head_predicate(config, source.sites)
    if head is not None:
        targets = [Target(head, values == 0, values != 0)]
    elif config.head == CLASS:
        classes = range(len(dataset.classes))
        targets = [Target(Predicate("class", (c,)), (labels == c) & (values == c), values != c, agreed == c) for c in classes]
    wanted = tuple(target for target in targets if target.positives.any())
    table = select_predicates(proposed.table, proposed.rows(config.memory_mb))
    return Material(part, select(table, rows), wanted, config, part_of(source, held))


def by_threshold(material: Material, target: Target) -> list[HornClause]:
    """One clause of unary literals for each delta, the largest first: its body is the strongest, so the easiest to prove.

    With every pair and triple that nearly always holds, bodies would have thousands of literals, most of them idle.
    """
    table = material.unary
    deltas = sorted(material.config.deltas, reverse=True)
    made = [compose(table, target.positives, head=target.head, delta=d) for d in deltas]
    return [clause for clause in made if clause is not None]


def by_smallest(material: Material, target: Target) -> list[HornClause]:
    """The smallest bodies that keep the wanted recall and no sample of another class."""
    config, table = material.config, material.table
    found = smallest_bodies(
        table,
        target.positives,
        target.negatives,
        count=config.max_clauses,
        recalls=(config.recall,),
        precision=config.precision,
        max_body=config.max_body,
        timeout_s=config.timeout_s / 2,
        seed=config.seed,
    )
    return [HornClause(target.head, tuple(table.predicates[row] for row in result.body)) for result in found if result.body]


def by_peeling(material: Material, target: Target) -> list[HornClause]:
    """Boxes of the last hidden layer that hold over the whole domain; none where the network does not end in one layer."""
    readout = _readout(material, target)
    if readout is None:
        return []
    config = material.config
    return peel(
        material.layer,
        readout,
        label=int(target.head.arguments[0]),
        rows=target.positives,
        clauses=config.max_clauses,
        seed=config.seed,
    )


def by_polytopes(material: Material, target: Target) -> list[HornClause]:
    """Polytopes of the last hidden layer that hold over the whole domain; none where the network does not end in one layer."""
    readout = _readout(material, target)
    if readout is None:
        return []
    config = material.config
    return polytopes(
        material.layer,
        readout,
        label=int(target.head.arguments[0]),
        rows=target.positives,
        holdout=column(material.held_layer, readout.site)[target.holdout],
        clauses=config.max_clauses,
        timeout_s=4 * config.timeout_s,
        seed=config.seed,
    )


def _readout(material: Material, target: Target) -> Readout | None:
    """The layer from the last activation to the output, where the head is a class and there is such a layer."""
    return material.readout if target.head.form == "class" else None


SYNTHESES: Mapping[str, Callable[[Material, Target], list[HornClause]]] = {
    "polytope": by_polytopes,
    "peel": by_peeling,
    "threshold": by_threshold,
    "smallest": by_smallest,
}

LIKELY = ("polytope", "peel")
"""Ways of synthesis whose clauses are likely valid over the whole domain, so that refinement starts from them."""


def synthesise(material: Material, refinery: Refinery, progress: Progress = SILENT) -> list[HornClause]:
    """The clauses of all heads, without repeats: refined ones first, where they are wanted, then those of each way in turn.

    Within one way the heads take turns, so that the time for proofs reaches every head. Covers and layered theories are made
    of what the other ways found.
    """
    config = material.config
    names = [name for name in SYNTHESES if name in config.synthesis]
    progress.start("synthesis", len(names) * len(material.targets))
    by_name: dict[str, list[list[HornClause]]] = {}
    for name in names:
        by_name[name] = []
        for target in material.targets:
            by_name[name].append(SYNTHESES[name](material, target))
            progress.advance(1, f"{name}: {len(by_name[name][-1])} clauses for {target.head}")
    progress.finish(f"{sum(len(made) for heads in by_name.values() for made in heads)} clauses")
    likely = [_of_head(place, (by_name[name] for name in LIKELY if name in by_name)) for place in range(len(material.targets))]
    refined = _refined(material, refinery, likely, progress) if config.refine else [[] for _ in material.targets]
    ways = [refined, *by_name.values()]
    if "cover" in config.synthesis:
        ways.append(_covers(material, refinery, ways, progress))
    if "layered" in config.synthesis:
        ways.append(_theories(material, refinery, refined, progress))
    return _in_turns(ways)


def _of_head(place: int, ways: Iterable[list[list[HornClause]]]) -> list[HornClause]:
    return [clause for by_head in ways for clause in by_head[place]]


def _refined(
    material: Material, refinery: Refinery, likely: Sequence[list[HornClause]], progress: Progress
) -> list[list[HornClause]]:
    progress.start("refinement", None)
    refined = [refine_clauses(refinery, target, made) for target, made in zip(material.targets, likely, strict=True)]
    progress.finish(f"{sum(map(len, refined))} clauses proved")
    return refined


def _covers(
    material: Material, refinery: Refinery, ways: Sequence[list[list[HornClause]]], progress: Progress
) -> list[list[HornClause]]:
    """For each head the cheapest cover of the clauses found so far and of further ones, the choices written down."""
    progress.start("cover", len(material.targets))
    log, covers = CoverLog(refinery.store.folder, progress), []
    for place, target in enumerate(material.targets):
        clauses = [*_of_head(place, ways), *many_bodies(material.table, target, material.config)]
        kept, chosen = cover(clauses, material.source, target, material.config)
        log.note(target.head, len(clauses), kept, chosen)
        covers.append(kept)
    progress.finish(f"{sum(map(len, covers))} clauses")
    return covers


def _theories(
    material: Material, refinery: Refinery, refined: Sequence[list[HornClause]], progress: Progress
) -> list[list[HornClause]]:
    """For each head clauses of earlier and earlier layers, down from its refined and its peeled ones."""
    progress.start("layered", len(material.targets))
    ladder, theories = Ladder(refinery), []
    for target, made in zip(material.targets, refined, strict=True):
        theories.append(layered_clauses(ladder, target, [*by_peeling(material, target), *made]))
        progress.advance(1, f"layered: {len(theories[-1])} clauses for {target.head}")
    theories.append(constraints(ladder, material.table))
    progress.finish(f"{sum(map(len, theories))} clauses proved")
    return theories


def _in_turns(ways: Iterable[list[list[HornClause]]]) -> list[HornClause]:
    """Clauses by way and head as one list without repeats, heads taking turns within each way."""
    found: dict[HornClause, None] = {}
    for by_head in ways:
        longest = max(map(len, by_head), default=0)
        found |= dict.fromkeys(made[turn] for turn in range(longest) for made in by_head if turn < len(made))
    return list(found)
