"""The report: what a run found, what is proved of it, and how to check it again."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby, islice
from pathlib import Path

import numpy as np
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from specmine.exhibit import Exhibit, Strong
from specmine.predicates.predicate import Predicate
from specmine.report.figures import frontier_figure, picture, seconds_figure
from specmine.report.pictures import predicate_picture
from specmine.rules.clause import HornClause
from specmine.rules.theory import Derivation, derivation_text
from specmine.spec import BETWEEN, RESOLUTION, Claim, Spec
from specmine.stats import share_text

TEMPLATE = Path(__file__).with_name("template.html.j2")
EXAMPLES = 6
BODY_SHOWN = 6
STRONGEST_SHOWN = 3
EXPLAINED, PREMISES_SHOWN = 8, 12


@dataclass(frozen=True)
class Gallery:
    """Pictures of one class: the mean of the test samples under its clauses, some of them, and counterexamples."""

    label: str
    covered: int
    mean: str | None
    examples: tuple[str, ...]
    counterexamples: tuple[str, ...]


@dataclass(frozen=True)
class Group:
    """The strongest predicates of one family for one head, each with its picture where it has one."""

    head: str
    family: str
    rows: tuple[tuple[Strong, str | None], ...]


def report_html(exhibit: Exhibit) -> str:
    """The whole report as one HTML text without links to other files; the same for the same run."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["share"] = share_text
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    spec = exhibit.spec
    return template.render(
        spec=spec,
        tiles=list(_tiles(spec)),
        rows=[_row(claim) for claim in spec.claims],
        galleries=list(_galleries(exhibit)),
        gains=exhibit.gains,
        groups=list(_groups(exhibit)),
        why=explanation(exhibit),
        strata=len(exhibit.longest.strata),
        steps=exhibit.longest.steps,
        frontier=Markup(frontier_figure(spec.claims)),
        seconds=Markup(seconds_figure(spec.seconds)),
        provenance=json.dumps(spec.provenance, indent=1),
        data=exhibit.dataset,
    )


def _tiles(spec: Spec) -> Iterator[tuple[str, str, str]]:
    """Figure, name, explanation."""
    coverage = spec.coverage
    explanation = "test inputs, classified correctly, under a clause proved over the whole domain"
    yield f"{spec.verified_recall:.3f}", "verified recall", explanation
    yield f"{spec.recall:.3f}", "recall", "the same under any clause, proved or not"
    for verdict, count in spec.verdicts.items():
        yield str(count), verdict, "claims"
    yield str(len(spec.clauses)), "clauses", "distinct"
    yield str(coverage.test_inputs), "test inputs", f"{coverage.correct} classified correctly"
    yield f"{sum(spec.seconds.values()):.0f} s", "time", "all stages"


def _row(claim: Claim) -> dict[str, object]:
    body = claim.clause.body
    return {
        "claim": claim,
        "head": "false" if claim.clause.head is None else str(claim.clause.head),
        "short": [str(predicate) for predicate in body[:BODY_SHOWN]],
        "rest": [str(predicate) for predicate in body[BODY_SHOWN:]],
        "recheck": recheck_command(claim),
    }


def recheck_command(claim: Claim) -> str:
    """The command, run in the run folder, that checks this claim again."""
    if claim.outcome.engine.endswith((BETWEEN, RESOLUTION)):
        return "specmine verify . --check"
    if claim.outcome.certificate is not None:
        return f"verifier check {claim.outcome.certificate} --network model.network"
    if claim.outcome.verdict in ("proved", "vacuous"):
        return f"z3 exports/smtlib/{claim.id}.smt2"
    region = claim.region.name.rsplit(":", 1)[0] if claim.region.sample is not None else claim.region.name
    text = str(claim.clause).replace("'", "'\\''")
    return f"specmine verify . --region {region} --clause '{text}'"


def _galleries(exhibit: Exhibit) -> Iterator[Gallery]:
    dataset = exhibit.dataset
    if dataset.image_shape is None:
        return
    test = np.array(exhibit.test_rows, dtype=np.int64)
    for label, name in enumerate(dataset.classes):
        clauses = [c for c in exhibit.spec.clauses if c.head == Predicate("class", (label,))]
        rows = test[_covered(exhibit, clauses)[test]]
        points = [
            np.array(c.outcome.counterexample)
            for c in exhibit.spec.claims
            if c.clause in clauses and c.outcome.counterexample is not None
        ]
        yield Gallery(
            label=name,
            covered=len(rows),
            mean=_picture(exhibit, dataset.x[rows].mean(axis=0)) if len(rows) else None,
            examples=tuple(_picture(exhibit, dataset.x[row]) for row in rows[:EXAMPLES]),
            counterexamples=tuple(_picture(exhibit, point) for point in points[:EXAMPLES]),
        )


def explanation(exhibit: Exhibit) -> tuple[int, str] | None:
    """A test sample with the derivation of its class that takes the most steps, by proved clauses; None without any."""
    theory = exhibit.longest
    covered = [row for row in exhibit.test_rows if any(exhibit.fires[clause][row] for clause in theory.clauses)]
    best: tuple[int, Derivation] | None = None
    for row in covered[:EXPLAINED]:
        found = exhibit.why(row)
        if found is not None and (best is None or found.length > best[1].length):
            best = row, found
    if best is None:
        return None
    return best[0], derivation_text(best[1], proved=theory.proved, shown=PREMISES_SHOWN)


def _groups(exhibit: Exhibit) -> Iterator[Group]:
    ordered = sorted(exhibit.strongest, key=lambda strong: (strong.head, strong.family))
    for (head, family), group in groupby(ordered, key=lambda strong: (strong.head, strong.family)):
        rows = tuple((strong, predicate_picture(exhibit, strong.predicate)) for strong in islice(group, STRONGEST_SHOWN))
        yield Group(head, family, rows)


def _covered(exhibit: Exhibit, clauses: list[HornClause]) -> np.ndarray:
    covered = np.zeros(len(exhibit.dataset.y), dtype=bool)
    for clause in clauses:
        covered |= exhibit.fires[clause]
    return covered


def _picture(exhibit: Exhibit, values: np.ndarray) -> str:
    domain = exhibit.dataset.domain
    return picture(values, exhibit.dataset.image_shape or (), float(domain.lower.min()), float(domain.upper.max()))
