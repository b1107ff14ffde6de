"""Layered theories of a run: clauses about the last hidden layer, their literals derived from the layers before (METHODS 6).

Every clause is proved by itself, a clause between two layers by a query about these layers alone, and a clause composed of
such ones needs no proof of its own. All verdicts stand in the run's store under the clause's own query over the domain.
"""

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from specmine.pipeline.propose import layers_back
from specmine.pipeline.refinement import Refinery
from specmine.pipeline.target import Target
from specmine.predicates.families import FORMS
from specmine.predicates.form import Bits
from specmine.predicates.predicate import Predicate
from specmine.predicates.table import PredicateTable, unpack
from specmine.queries import clause_query, local_query
from specmine.rules.boxes import Sides
from specmine.rules.clause import HornClause
from specmine.rules.layered import Step, bodies, step_between
from specmine.rules.reduce import limits_of
from specmine.rules.theory import Derivation, unfold
from specmine.spec import BETWEEN, RESOLUTION
from specmine.stats import body_bits
from specmine.tracing import Trace, trace
from specmine.verification.proving import decide
from specmine.verification.store import Record
from verifier.domains import Bounds, region_bounds

WAYS = 4
"""Clauses looked for, for each literal of a layer."""

MOST_LITERALS = 400
"""Literals of one layer that are looked at for one class, those that the most samples need first."""

ASKED, SHARE = 32, 0.1
"""Integrity constraints asked for at each layer, and the share of samples that each of their literals at least holds on."""

QUESTION_S = 1.0
ENGINE = "bound"

Defined = Mapping[Predicate, Sequence[tuple[HornClause, Bits]]]
"""For each literal the proved clauses that derive it, each with the samples (samples,) its body holds on."""


@dataclass(frozen=True, eq=False)
class Ladder:
    """The layers of a network from the last hidden one backwards, and the values of the mining rows there."""

    refinery: Refinery

    @cached_property
    def layers(self) -> tuple[str, ...]:
        """Sites, the last hidden layer first."""
        return layers_back(self.refinery.sites, self.refinery.config)

    @cached_property
    def trace(self) -> Trace:
        """The values of the layers on the mining rows."""
        return trace(self.refinery.sites, self.refinery.inputs, keep=[*self.layers, "y"])

    @cached_property
    def bounds(self) -> Bounds:
        """What every value of the network can be at all over the region."""
        return region_bounds(self.refinery.sites.network, self.refinery.region)

    @cached_property
    def steps(self) -> tuple[Step, ...]:
        """From the last hidden layer backwards, as far as one linear map and a ReLU lead from each layer to the next."""
        found: list[Step] = []
        for later, site in pairwise(self.layers):
            value = self.refinery.sites.value(site)
            reach = Sides(self.bounds.lower[value][0].numpy(), self.bounds.upper[value][0].numpy())
            step = step_between(self.refinery.sites, site, later, reach)
            if step is None:
                break
            found.append(step)
        return tuple(found)


def layered_clauses(ladder: Ladder, target: Target, seeds: Sequence[HornClause]) -> list[HornClause]:
    """Clauses from the earliest layer reached to the head, and the proved clauses that they are composed of.

    seeds: clauses for the head; those about the last hidden layer alone are used. At most as many composed clauses as
    configured, each for positives that the ones before leave uncovered. Nothing where no seed is proved, or no literal of
    one can be derived.
    """
    last = ladder.layers[0] if ladder.layers else None
    usable = [seed for seed in seeds if last is not None and sites_read(seed, ladder.refinery) == {last}]
    sound = proved_locally(ladder, usable)
    usable = [seed for seed in usable if seed in sound]
    held = dict(zip(usable, body_bits(usable, ladder.trace), strict=True))
    needed: dict[Predicate, Bits] = {}
    for seed in usable:
        _need(needed, seed.body, held[seed] & target.positives)
    defined = definitions(ladder, needed)
    found = composed(ladder, target.positives, held, defined)
    used = dict.fromkeys(clause for derivation in found for clause in sorted(derivation.clauses, key=str))
    return [*dict.fromkeys(derivation.composed for derivation in found), *used]


def sites_read(clause: HornClause, refinery: Refinery) -> set[str]:
    """The sites that a body reads."""
    return {site for p in clause.body for site in FORMS[p.form].sites(p.arguments, refinery.sites)}


def _need(needed: dict[Predicate, Bits], literals: Collection[Predicate], rows: Bits) -> None:
    for literal in literals:
        needed[literal] = needed[literal] | rows if literal in needed else rows


def definitions(ladder: Ladder, needed: Mapping[Predicate, Bits]) -> dict[Predicate, list[tuple[HornClause, Bits]]]:
    """Proved clauses for the needed literals of the last hidden layer, for those of their bodies, and so on back.

    needed: for each literal the samples (samples,) where it is to be derived. Each layer gets the seconds of refinement of
    one head; literals that the most samples need come first.
    """
    config, found = ladder.refinery.config, dict[Predicate, list[tuple[HornClause, Bits]]]()
    for step in ladder.steps:
        end = time.monotonic() + config.refine_s
        made: dict[HornClause, Bits] = {}
        for literal in sorted(needed, key=lambda p: (-int(needed[p].sum()), p))[:MOST_LITERALS]:
            if time.monotonic() < end:
                made |= dict(bodies(literal, step, ladder.trace, needed[literal], count=WAYS, seed=config.seed))
        sound = proved_locally(ladder, list(made))
        below: dict[Predicate, Bits] = {}
        for clause in (clause for clause in made if clause in sound):
            assert clause.head is not None
            found.setdefault(clause.head, []).append((clause, made[clause]))
            _need(below, clause.body, made[clause] & needed[clause.head])
        needed = below
    return found


def proved_locally(ladder: Ladder, clauses: Sequence[HornClause]) -> set[HornClause]:
    """The clauses that are proved over the region by the layers between body and head alone; the store says so too."""
    refinery = ladder.refinery
    store, config = refinery.store, refinery.config
    queries = {c: local_query(c, refinery.region, refinery.sites, bounds=ladder.bounds) for c in dict.fromkeys(clauses)}
    timeout_s = min(QUESTION_S, config.timeout_s)
    known = {key for key, record in store.records.items() if record.verdict == "proved"}
    open_ = [q for q in queries.values() if q.sha256 not in known and not store.answers(q.sha256, ENGINE, timeout_s)]
    decide(open_, store, engine=ENGINE, timeout_s=timeout_s)
    sound = {clause for clause, query in queries.items() if store.records[query.sha256].verdict == "proved"}
    for clause in sorted(sound, key=str):
        record = store.records[queries[clause].sha256]
        # sound: a counterexample to the clause would be one to the smaller question, whose layers start from all they can be
        _write(refinery, clause, replace(record, engine=f"{record.engine}, {BETWEEN}"))
    return sound


def _write(refinery: Refinery, clause: HornClause, record: Record) -> None:
    """Keeps a proof of a clause over the region, unless there is one already."""
    key = clause_query(clause, refinery.region, refinery.sites).sha256
    known = refinery.store.records.get(key)
    assert known is None or known.verdict != "refuted", f"proved between its layers, and refuted: {clause}"
    if known is None or known.verdict != "proved":
        config = refinery.config
        refinery.store.add(replace(record, key=key, engine_asked=config.engine, timeout_s=config.timeout_s))


def composed(
    ladder: Ladder, positives: NDArray[np.bool_], seeds: Mapping[HornClause, Bits], defined: Defined
) -> list[Derivation]:
    """Derivations of the head, each of the positives that those before leave uncovered; the store says that they are proved.

    seeds: proved clauses with the samples (samples,) they hold on; every other clause used is one of `defined`, and so proved.
    """
    refinery, left = ladder.refinery, positives.copy()
    found: list[Derivation] = []
    for sample, seed in _by_worth(positives, seeds, defined):
        if not left[sample] or len(found) == refinery.config.max_clauses:
            continue
        derivation = unfold(seed, _chosen(seed.body, sample, defined))
        if derivation.length < 2:
            break
        number = len(derivation.clauses)
        # sound: the resolvent of valid clauses is valid
        proof = Record("", "proved", "", 0.0, reason=f"resolves {number} proved clauses", engine=RESOLUTION)
        _write(refinery, derivation.composed, proof)
        left &= ~body_bits([derivation.composed], ladder.trace)[0]
        found.append(derivation)
    return found


def _by_worth(
    positives: NDArray[np.bool_], seeds: Mapping[HornClause, Bits], defined: Defined
) -> Iterator[tuple[int, HornClause]]:
    """Samples with a seed each, first those on which the largest share of the seed's literals is derived."""
    worth = []
    for number, (seed, held) in enumerate(seeds.items()):
        derived = np.zeros(len(positives))
        for literal in seed.body:
            derived += np.any([bits for _, bits in defined.get(literal, ())] or [np.zeros(len(positives), bool)], axis=0)
        share = derived / max(1, len(seed.body))
        worth += [(-share[sample], number, int(sample)) for sample in np.flatnonzero(held & positives)]
    listed = list(seeds)
    return ((sample, listed[number]) for _, number, sample in sorted(worth))


def _chosen(literals: Collection[Predicate], sample: int, defined: Defined) -> dict[Predicate, HornClause]:
    """For each literal that is derived on the sample, the clause that is derived furthest itself, and so on back."""
    chosen: dict[Predicate, HornClause] = {}
    for literal in literals:
        held = [clause for clause, bits in defined.get(literal, ()) if bits[sample]]
        if held:
            best = max(
                held, key=lambda clause: sum(_derived(p, sample, defined) for p in clause.body) / max(1, len(clause.body))
            )
            chosen |= {literal: best} | _chosen(best.body, sample, defined)
    return chosen


def _derived(literal: Predicate, sample: int, defined: Defined) -> bool:
    return any(bits[sample] for _, bits in defined.get(literal, ()))


def constraints(ladder: Ladder, table: PredicateTable) -> list[HornClause]:
    """Integrity constraints `false :- p, q` that are proved: two literals of one hidden layer that no input satisfies together,
    though each holds on a good share of the samples; at most as many for each layer as clauses for a head."""
    refinery, found = ladder.refinery, list[HornClause]()
    for site in ladder.refinery.sites.hidden:
        rows = [row for row, p in enumerate(table.predicates) if p.arguments[0] == site and limits_of(p) is not None]
        pairs = list(_apart(table, rows))[:ASKED]
        clauses = [HornClause(None, (table.predicates[i], table.predicates[j])) for i, j in pairs]
        queries = [clause_query(clause, refinery.region, refinery.sites) for clause in clauses]
        timeout_s = min(QUESTION_S, refinery.config.timeout_s)
        open_ = [query for query in queries if not refinery.store.answers(query.sha256, ENGINE, timeout_s)]
        decide(open_, refinery.store, engine=ENGINE, timeout_s=timeout_s)
        verdicts = [refinery.store.records[query.sha256].verdict for query in queries]
        sound = [clause for clause, verdict in zip(clauses, verdicts, strict=True) if verdict == "proved"]
        found += sound[: refinery.config.max_clauses]
    return found


def _apart(table: PredicateTable, rows: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Pairs of rows about different neurons that hold on no sample together, those first that chance would join most often."""
    held = unpack(table.bits[rows], table.samples).astype(np.float32)
    common = [row for row, share in zip(range(len(rows)), held.mean(axis=1), strict=True) if SHARE <= share <= 1 - SHARE]
    held, listed = held[common], [rows[place] for place in common]
    share = held.mean(axis=1)
    apart = np.triu(held @ held.T == 0, 1)
    neurons = np.array([table.predicates[row].arguments[1] for row in listed])
    first, second = np.nonzero(apart & (neurons[:, None] != neurons))
    for place in np.argsort(-share[first] * share[second], kind="stable").tolist():
        yield listed[first[place]], listed[second[place]]
