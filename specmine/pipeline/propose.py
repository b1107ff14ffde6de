"""Candidates: chosen on the mining samples, tabulated on all of them, and the strongest for each head."""

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from specmine.config import Config
from specmine.data import MINE, Dataset
from specmine.errors import BadClause, BadConfig
from specmine.exhibit import Strong
from specmine.pipeline.cluster import executor_at
from specmine.predicates.families import FAMILIES, FORMS, candidates, default_sites
from specmine.predicates.form import Grid, Rows
from specmine.predicates.head_values import WORDS, Heads, heads_of
from specmine.predicates.predicate import Predicate
from specmine.predicates.store import StoredTable, write_table
from specmine.predicates.words import word_count
from specmine.progress import SILENT, Progress
from specmine.rules.syntax import parse_clause
from specmine.stats.ranking import Ranking, evidence_at, rank, strongest
from specmine.tracing import Sites, Source, Stream, part_of
from verifier.ops import ACTIVATION_OPS

TABLE = "predicates.zarr"
STRONGEST = 20


@dataclass(frozen=True, eq=False)
class Proposed:
    """The table of every candidate on all samples, the head value of each sample, and the evidence of each candidate."""

    table: StoredTable
    heads: Heads
    ranking: Ranking

    def rows(self, memory_mb: float) -> Rows:
        """The candidates that clauses are made of: all where their bits take less than half the memory, else as many as fit,
        the unary ones first, then the strongest others for each head."""
        most = int(memory_mb * 2**20 / 2 / (8 * word_count(self.table.samples)))
        if len(self.table.predicates) <= most:
            return np.arange(len(self.table.predicates))
        unary = np.flatnonzero(_families_of(self.table.predicates) == "unary")[:most]
        each = (most - len(unary)) // max(1, len(self.heads.names))
        others = strongest(self.ranking.log_p[0], max(each, 1))
        return np.union1d(unary, others[others >= 0])


def propose(source: Source, dataset: Dataset, config: Config, folder: Path, progress: Progress = SILENT) -> Proposed:
    """The candidates of the configured families, proposed from the mining samples alone, and their truth on all samples.

    The table is built in the run folder; one that was begun there is gone on with.
    """
    grid = grid_of(source, config)
    heads = head_values(source, dataset, config)
    if "attention" in config.families and not source.sites.attention_sites:
        progress.start("warning", None)
        progress.finish("attention adds nothing: this network has no attention heads")
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
        _check_room(found, source.samples, path)
        table = write_table(path, found, source, executor=executor, memory_mb=memory, progress=progress)
    return Proposed(table, heads, rank(table, heads.words, dataset.split))


def _check_room(found: Sequence[Predicate], samples: int, path: Path) -> None:
    """Raises BadConfig where the table of these candidates does not fit on the disk, before hours are spent on it."""
    needed, free = 8 * len(found) * word_count(samples), shutil.disk_usage(path.parent).free
    if needed > free and not path.exists():
        raise BadConfig(
            f"{len(found)} candidates on {samples} samples make a table of {needed / 1e9:.1f} GB, and {path.parent} has "
            f"{free / 1e9:.1f} GB left; mine fewer sites (--site), thresholds, partners or families"
        )


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


def check_head(sites: Sites, dataset: Dataset, config: Config) -> None:
    """Raises BadClause or BadData where the configured head cannot be had of this network and these samples."""
    source = Stream(sites, dataset.x)
    grid_of(source, config)
    if config.head not in WORDS and head_predicate(config, sites) is None:
        head_values(source, dataset, config)


def sites_needed(sites: Sites, config: Config) -> tuple[str, ...]:
    """The sites that candidates, heads and clauses of the last hidden layer are about, and the output."""
    head = head_predicate(config, sites)
    own = () if head is None else FORMS[head.form].sites(head.arguments, sites)
    attention = sites.attention_sites if "attention" in config.families else ()
    chained = layers_back(sites, config) if "layered" in config.synthesis else ()
    return tuple(sorted({*(config.sites or sites.hidden), *sites.hidden[-1:], *attention, *chained, *own, "y"}))


def layers_back(sites: Sites, config: Config) -> tuple[str, ...]:
    """The layers of a layered theory, the last hidden one first; as many before it as configured, else down to the first hidden
    one. The input comes before the first."""
    hidden = sites.hidden[::-1]
    return hidden if config.depth is None else (*hidden, "x")[: config.depth + 1]


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


def strongest_predicates(proposed: Proposed, *, count: int = STRONGEST) -> list[Strong]:
    """The strongest candidates of each family for each head value, by Fisher's test on the mining samples."""
    return list(_listed(proposed.table.predicates, proposed.heads, proposed.ranking, count))


def _listed(predicates: Sequence[Predicate], heads: Heads, ranking: Ranking, count: int) -> Iterator[Strong]:
    families = _families_of(predicates)
    for family in FAMILIES:
        chosen = strongest(ranking.log_p[0], count, among=families == family)
        for head, name in enumerate(heads.names):
            for row in chosen[head][chosen[head] >= 0].tolist():
                yield Strong(name, family, predicates[row], evidence_at(ranking, head, row))


def _families_of(predicates: Sequence[Predicate]) -> NDArray[np.object_]:
    family_of = {form: family.name for family in FAMILIES.values() for form in family.forms}
    return np.array([family_of[predicate.form] for predicate in predicates], dtype=object)
