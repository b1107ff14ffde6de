"""The stages of a run, each reading what the one before wrote: clauses, claims, verdicts, exports, report."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path

import numpy as np

from specmine.config import unknown_name
from specmine.data import MINE, TEST
from specmine.errors import BadConfig
from specmine.export import EXPORTERS
from specmine.folder import read_json, write_json, write_text
from specmine.pipeline.comparison import comparison
from specmine.pipeline.propose import Proposed, propose, strongest_predicates
from specmine.pipeline.provenance import provenance
from specmine.pipeline.refinement import Refinery, refined_recalls
from specmine.pipeline.run import CLAIMS, FAMILIES, STRONGEST, Run
from specmine.pipeline.synthesis import Material, material_of, synthesise
from specmine.predicates.form import Bits
from specmine.queries import body_parts
from specmine.regions import NamedRegion, ball_around, ball_centers, box_of, radius_of
from specmine.report import report_html
from specmine.rules.clause import HornClause
from specmine.rules.syntax import parse_clause
from specmine.spec import Claim, Coverage, Outcome, Shortfall, Spec
from specmine.stats import body_bits, fill_q, measure
from specmine.verification import Effort, prove, sample_witness
from verifier.network import Network
from verifier.ops import Array

CLAUSES, EXPORTS, REPORT = "clauses.json", "exports", "report.html"
STARTS = 512
MAX_SMTLIB_WEIGHTS = 100_000  # some 4 MB a file


def finish_run(run: Run) -> Spec:
    """Runs every stage up to the verdicts that is not done yet, and returns what the run gives."""
    clauses, tried = clause_stage(run)
    claim_stage(run, clauses, tried)
    return verify_stage(run)


def present_run(run: Run) -> Spec:
    """Writes the exports that the configuration names and the report.

    A network's weights stand in every SMT-LIB file, so those of a large network wait until they are asked for.
    """
    with run.stage("export"):
        for name in run.config.exports:
            weights = weight_count(run.sites.network)
            if name == "smtlib" and weights > MAX_SMTLIB_WEIGHTS:
                run.progress.start("export smtlib", None)
                run.progress.finish(f"left out, each file would hold {weights} weights; `specmine export` writes them")
            else:
                export_run(run, name)
    with run.stage("report"):
        write_report(run)
    return run.spec


def weight_count(network: Network) -> int:
    """How many numbers the network's operators hold."""
    arrays = (getattr(node.op, field.name) for node in network.nodes for field in fields(node.op))
    return sum(array.size for array in arrays if isinstance(array, np.ndarray))


def clause_stage(run: Run) -> tuple[list[HornClause], int]:
    """The mined clauses and how many candidate predicates they were chosen from."""
    path = run.folder / CLAUSES
    if not path.exists():
        with run.stage("trace"):
            source = run.source
        with run.stage("predicates"):
            proposed = propose_stage(run)
        with run.stage("synthesis"):
            material = material_of(source, proposed, run.dataset, run.config)
            clauses = synthesise(material, refinery_of(run, material), run.progress)
        compare_stage(run, material)
        write_json(path, {"candidates": len(proposed.table.predicates), "clauses": [str(clause) for clause in clauses]})
    content = read_json(path)
    return [parse_clause(text, sites=run.sites) for text in content["clauses"]], content["candidates"]


def refinery_of(run: Run, material: Material) -> Refinery:
    """What refinement works with: the material of synthesis, and the inputs behind it."""
    rows = np.flatnonzero(run.dataset.split == MINE)
    inputs = np.asarray(run.dataset.x[rows], dtype=np.float64).reshape(len(rows), -1)
    return Refinery(material.source, material.table, inputs, run.dataset.domain, run.store, run.config, run.progress)


def propose_stage(run: Run) -> Proposed:
    """The candidates with their table, and the strongest of them written down."""
    proposed = propose(run.source, run.dataset, run.config, run.folder, run.progress)
    if not (run.folder / STRONGEST).exists():
        found = strongest_predicates(proposed)
        write_json(run.folder / STRONGEST, [strong.document() for strong in found])
    return proposed


def compare_stage(run: Run, material: Material) -> None:
    """Writes what each family adds to short clauses, where more than one was mined and the comparison is wanted."""
    if run.config.compare_families and len(run.config.families) > 1 and not (run.folder / FAMILIES).exists():
        with run.stage("families"):
            gains = comparison(material, run.source, run.dataset, run.progress)
            write_json(run.folder / FAMILIES, [asdict(gain) for gain in gains])


def claim_stage(run: Run, clauses: Sequence[HornClause], tried: int) -> None:
    """Writes each clause over each of its regions, with evidence and a witness."""
    if not (run.folder / CLAIMS).exists():
        with run.stage("evidence"):
            spec = make_claims(run, clauses, run.config.regions, tried=tried)
        run.write_claims(_with_shortfalls(spec, refined_recalls(run.folder), run.config.recall))


def _with_shortfalls(spec: Spec, kept: Mapping[str, float], asked: float) -> Spec:
    """The Spec, the clauses marked that keep less than the asked recall; kept: the recall of refined clauses, by their text."""
    short = {text: Shortfall(asked, recall) for text, recall in kept.items() if recall < asked * (1 - 1e-12)}
    return replace(spec, claims=tuple(replace(claim, shortfall=short.get(str(claim.clause))) for claim in spec.claims))


def verify_stage(run: Run) -> Spec:
    """Asks for every claim that has no verdict yet, as far as the budget goes."""
    config = run.config
    effort = Effort(timeout_s=config.timeout_s, budget_s=config.budget_s, engine=config.engine)
    with run.stage("verify"):
        starts = search_starts(run)
        prove(run.spec.claims, run.sites, run.store, effort=effort, starts=starts, progress=run.progress)
    return run.spec


def search_starts(run: Run) -> Array:
    """Samples (at most STARTS, chosen by the seed) from which counterexamples are searched."""
    dataset = run.dataset
    order = np.random.default_rng(run.config.seed).permutation(len(dataset.x))[:STARTS]
    return np.array(dataset.x[order]).reshape(len(order), -1)


def make_claims(run: Run, clauses: Sequence[HornClause], regions: Sequence[str], *, tried: int) -> Spec:
    """Claims without verdicts: clauses measured on the data, over the whole domain or balls around samples."""
    source, dataset = run.source, run.dataset
    bodies = body_bits(clauses, source)
    heads = len({clause.head for clause in clauses})
    measured = fill_q(measure(clauses, source, dataset.split, bodies=bodies), tried=max(tried * heads, len(clauses)))
    evidence = dict(zip(clauses, measured, strict=True))
    fires = dict(zip(clauses, bodies, strict=True))
    run.progress.start("evidence", None)
    claims = []
    for clause, region in _pairs(run, clauses, regions, fires):
        rows = np.flatnonzero(fires[clause])
        rows = rows if region.sample is None else rows[rows == region.sample]
        witness = sample_witness(clause, region, run.sites, rows.tolist(), dataset.x)
        claims.append(Claim(clause, body_parts(clause, run.sites), evidence[clause], region, Outcome(witness=witness)))
        run.progress.advance()
    run.progress.finish(f"{len(claims)} claims")
    return Spec(tuple(claims), provenance(run.inputs, run.config), _coverage(run, fires), run.seconds)


def _pairs(
    run: Run, clauses: Sequence[HornClause], wanted: Sequence[str], fires: Mapping[HornClause, Bits]
) -> Iterator[tuple[HornClause, NamedRegion]]:
    """Every clause over every wanted region; a ball belongs to the clauses that fire at its center for its class."""
    config, dataset = run.config, run.dataset
    for text in wanted:
        radius = radius_of(text)
        if radius is None:
            box = box_of(dataset, text)
            yield from ((clause, box) for clause in clauses)
            continue
        for clause in clauses:
            rows = np.flatnonzero(fires[clause] & (dataset.split != MINE))
            of_class = class_of(clause)
            if of_class is not None:
                rows = rows[dataset.y[rows] == of_class]
            centers = ball_centers(dataset, run.predictions, rows, per_class=config.balls_per_class, seed=config.seed)
            yield from ((clause, ball_around(dataset, center, radius)) for center in centers)


def _coverage(run: Run, fires: Mapping[HornClause, Bits]) -> Coverage:
    """What each clause covers among the correctly classified test inputs of its class."""
    test = run.dataset.split == TEST
    labels, predictions = run.dataset.y[test], run.predictions[test]
    correct = labels == predictions
    covered = {
        clause.id: tuple(int(i) for i in np.flatnonzero(correct & (labels == class_of(clause)) & rows[test]))
        for clause, rows in fires.items()
    }
    return Coverage(int(test.sum()), int(correct.sum()), covered)


def class_of(clause: HornClause) -> int | None:
    """The class that the head derives, None where it is another predicate or false."""
    return int(clause.head.arguments[0]) if clause.head is not None and clause.head.form == "class" else None


def export_run(run: Run, name: str) -> list[Path]:
    """Writes one export of what the run has reached into its folder; raises BadConfig for an unknown exporter."""
    if name not in EXPORTERS:
        raise BadConfig(unknown_name("exporter", [name], tuple(EXPORTERS)))
    exhibit = run.exhibit
    run.progress.start(f"export {name}", None)
    paths = EXPORTERS[name](exhibit, run.folder / EXPORTS / name)
    run.progress.finish(f"{len(paths)} files")
    return paths


def write_report(run: Run) -> Path:
    """Writes the report of what the run has reached; one self-contained HTML file."""
    exhibit = run.exhibit
    run.progress.start("report", None)
    path = run.folder / REPORT
    write_text(path, report_html(exhibit))
    run.progress.finish(str(path))
    return path
