"""Candidates: chosen on the mining samples, tabulated on all of them, and the strongest for each head."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from specmine.config import Config
from specmine.data import MINE, Dataset
from specmine.errors import BadClause
from specmine.exhibit import Strong
from specmine.pipeline.cluster import executor_at
from specmine.predicates.families import FAMILIES, FORMS, candidates, default_sites
from specmine.predicates.form import Grid
from specmine.predicates.head_values import WORDS, Heads, heads_of
from specmine.predicates.predicate import Predicate
from specmine.predicates.store import StoredTable, write_table
from specmine.progress import SILENT, Progress
from specmine.rules.syntax import parse_clause
from specmine.stats.ranking import Ranking, evidence_at, rank, strongest
from specmine.tracing import Sites, Source, part_of
from verifier.ops import ACTIVATION_OPS

TABLE = "predicates.zarr"
STRONGEST = 20


@dataclass(frozen=True, eq=False)
class Proposed:
    """The table of every candidate on all samples, and the head value of each sample."""

    table: StoredTable
    heads: Heads


def propose(source: Source, dataset: Dataset, config: Config, folder: Path, progress: Progress = SILENT) -> Proposed:
    """The candidates of the configured families, proposed from the mining samples alone, and their truth on all samples.

    The table is built in the run folder; one that was begun there is gone on with.
    """
    grid = grid_of(source, config)
    heads = head_values(source, dataset, config)
    rows = np.flatnonzero(dataset.split == MINE)
    memory, values = config.memory_mb, heads.values[rows]
    with executor_at(config.cluster) as executor:
        found = candidates(
            config.families,
            part_of(source, rows),
            grid=grid,
            heads=values,
            executor=executor,
            memory_mb=memory,
            progress=progress,
        )
        path = folder.resolve() / TABLE
        table = write_table(path, found, source, executor=executor, memory_mb=memory, progress=progress)
    return Proposed(table, heads)


def grid_of(source: Source, config: Config) -> Grid:
    """Where the configuration takes candidates from; for a head of a later layer, only sites that come before it."""
    sites = config.sites or default_sites(source)
    head = head_predicate(config, source.sites)
    return Grid(
        sites if head is None else before(head, sites, source.sites),
        thresholds=config.thresholds,
        head_levels=tuple(sorted(set(config.deltas))),
        partners=config.partners,
        locality=config.locality,
    )


def head_values(source: Source, dataset: Dataset, config: Config) -> Heads:
    """The head value of every sample, as the configuration asks."""
    head = head_predicate(config, source.sites)
    wanted = config.head if head is None else head
    return heads_of(wanted, source, labels=dataset.y, classes=dataset.classes)


def head_predicate(config: Config, sites: Sites) -> Predicate | None:
    """The predicate that the configured head is, None where it is a word or a column."""
    if config.head in WORDS or "(" not in config.head:
        return None
    head = parse_clause(f"{config.head} :- true.", sites=sites).head
    if head is None:
        raise BadClause(f"{config.head!r} is no head to rank by; write class, label, right, FILE.npz:COLUMN or a predicate")
    return head


def sites_needed(sites: Sites, config: Config) -> tuple[str, ...]:
    """The sites that candidates and heads of a configuration are about, and the output."""
    head = head_predicate(config, sites)
    own = () if head is None else FORMS[head.form].sites(head.arguments, sites)
    attention = sites.attention_sites if "attention" in config.families else ()
    return tuple(sorted({*(config.sites or sites.hidden), *attention, *own, "y"}))


def before(head: Predicate, wanted: Sequence[str], sites: Sites) -> tuple[str, ...]:
    """The wanted sites that come before every site of the head, and before what its activation is taken of, so that a body is
    never about the head's own layer."""
    network = sites.network
    depth = {value: place for place, value in enumerate(network.shapes)}
    own = [sites.value(site) for site in FORMS[head.form].sites(head.arguments, sites)]
    made = [network.producers[value] for value in own if value in network.producers]
    nodes = [node for node in made if isinstance(node.op, ACTIVATION_OPS)]
    first = min(depth[value] for value in (*own, *(name for node in nodes for name in node.inputs)))
    kept = tuple(site for site in wanted if depth[sites.value(site)] < first)
    if not kept:
        raise BadClause(f"no site comes before the layer of {head}; name earlier ones with --site, such as x")
    return kept


def strongest_predicates(proposed: Proposed, dataset: Dataset, *, count: int = STRONGEST) -> list[Strong]:
    """The strongest candidates of each family for each head value, by Fisher's test on the mining samples."""
    table, heads = proposed.table, proposed.heads
    ranking = rank(table, heads.words, dataset.split)
    return list(_listed(table.predicates, heads, ranking, count))


def _listed(predicates: Sequence[Predicate], heads: Heads, ranking: Ranking, count: int) -> Iterator[Strong]:
    family_of = {form: family.name for family in FAMILIES.values() for form in family.forms}
    families = np.array([family_of[predicate.form] for predicate in predicates], dtype=object)
    for family in FAMILIES:
        chosen = strongest(ranking.log_p[0], count, among=families == family)
        for head, name in enumerate(heads.names):
            for row in chosen[head][chosen[head] >= 0].tolist():
                yield Strong(name, family, predicates[row], evidence_at(ranking, head, row))
