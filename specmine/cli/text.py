"""A Spec as plain text."""

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

from specmine.errors import BadConfig
from specmine.exhibit import Exhibit, Strong
from specmine.pipeline.run import CLAIMS, Run
from specmine.rules.theory import Derivation, derivation_text
from specmine.spec import Claim, Spec
from specmine.stats import evidence_text, share_text
from specmine.verification import Recheck


def summary_text(spec: Spec) -> str:
    """The figures of a run in two lines, and a third where clauses keep less recall than was asked."""
    counts = ", ".join(f"{count} {verdict}" for verdict, count in spec.verdicts.items() if count)
    coverage = spec.coverage
    found = f"{len(spec.clauses)} clauses, {len(spec.claims)} claims: {counts or 'none'}"
    if not any(clause.head is not None and clause.head.form == "class" for clause in spec.clauses):
        return found  # recall is of classes
    return (
        f"{found}\n"
        f"verified recall {spec.verified_recall:.4f}, recall {spec.recall:.4f} of {coverage.test_inputs} test inputs "
        f"({coverage.correct} classified correctly)"
        f"{_shortfall_text(len(spec.short))}"
    )


def _shortfall_text(count: int) -> str:
    if not count:
        return ""
    return f"\nrefined clauses below the asked recall: {count}; with it none was proved, or they add to one (show marks them)"


def no_claims_text(run: Run, folder: object) -> str:
    """Why a run has no claims: it has not come that far, or it found no clause."""
    if not (run.folder / CLAIMS).exists():
        return f"no claims yet in {folder}; go on with: specmine verify {folder}"
    if not run.strongest:
        return f"the run in {folder} found no clause and no predicate that says anything of {run.config.head!r}"
    found = f"the run in {folder} found no clause for {run.config.head!r}"
    return f"{found}; its strongest predicates: specmine show {folder} --predicates"


def spec_text(spec: Spec) -> str:
    """Every claim with evidence and verdict, then the figures of the run."""
    return "\n".join([line for claim in spec.claims for line in claim_lines(claim)] + [summary_text(spec)])


def check_text(checked: Recheck) -> str:
    """The claims that lost their proof, each with the reason, then the counts."""
    lost = [f"{claim.clause}\n  over {claim.region.name}: {claim.outcome.reason}\n" for claim in checked.lost]
    return "\n".join([*lost, checked.summary])


def check_document(checked: Recheck) -> dict[str, Any]:
    """The same as plain data; `lost` holds the ids of claims."""
    lost = [{"id": claim.id, "clause": str(claim.clause), "reason": claim.outcome.reason} for claim in checked.lost]
    return {"accepted": checked.accepted, "without_certificate": checked.bare, "lost": lost}


def predicates_text(strongest: Sequence[Strong], count: int) -> str:
    """The first `count` predicates of each head and family, with hold-out precision and recall and their q."""
    groups = groupby(sorted(strongest, key=lambda s: (s.head, s.family)), key=lambda s: (s.head, s.family))
    return "\n".join(line for (head, family), group in groups for line in _group_lines(head, family, list(group)[:count]))


def why_text(exhibit: Exhibit, row: int) -> str:
    """The derivation of a sample's class, and the clause that it amounts to; or what is known of the sample without one."""
    found = _why(exhibit, row)
    if found is None:
        return f"sample {row} is given {_class_text(exhibit, row)}; no proved clause derives it"
    tree = derivation_text(found, proved=exhibit.longest.proved)
    return f"sample {row} is given {_class_text(exhibit, row)}\n{tree}\nin one step: {found.composed}"


def why_document(exhibit: Exhibit, row: int) -> dict[str, Any]:
    """The same as plain data; `derivation` is null where there is none."""
    found = _why(exhibit, row)
    return {
        "sample": row,
        "predicted": int(exhibit.predictions[row]),
        "derivation": None if found is None else _tree(found),
        "composed": None if found is None else str(found.composed),
    }


def _why(exhibit: Exhibit, row: int) -> Derivation | None:
    samples = len(exhibit.predictions)
    if row >= samples:
        raise BadConfig(f"there is no sample {row}; give a row of the data, 0 to {samples - 1}")
    return exhibit.why(row)


def _class_text(exhibit: Exhibit, row: int) -> str:
    label = int(exhibit.predictions[row])
    return "no class, since outputs tie" if label < 0 else f"class {label} ({exhibit.dataset.classes[label]})"


def _tree(derivation: Derivation) -> dict[str, Any]:
    return {
        "literal": "false" if derivation.goal is None else str(derivation.goal),
        "clause": None if derivation.clause is None else derivation.clause.id,
        "because": [_tree(premise) for premise in derivation.premises],
    }


def _group_lines(head: str, family: str, group: Sequence[Strong]) -> Iterator[str]:
    yield f"{head}: {family}"
    for strong in group:
        mine, holdout = strong.evidence.mine, strong.evidence.holdout
        shares = f"precision {share_text(holdout, 'precision')}, recall {share_text(holdout, 'recall')}"
        yield f"  {strong.predicate}  hold-out: {shares}; mining q {mine.q:.2g}"
    yield ""


def claim_lines(claim: Claim) -> Iterator[str]:
    """One claim in a few lines: the clause, what the data says, what is proved."""
    yield str(claim.clause)
    yield f"  evidence  hold-out: {evidence_text(claim.evidence.holdout)}; test: {evidence_text(claim.evidence.test)}"
    if claim.shortfall is not None:
        yield f"  refined   {claim.shortfall}"
    yield f"  verdict   {verdict_text(claim)}"
    yield ""


def verdict_text(claim: Claim) -> str:
    """The verdict with region, engine, time and what backs it."""
    outcome = claim.outcome
    parts = [f"{outcome.verdict} over {claim.region.name}"]
    parts += [f"({outcome.reason})"] if outcome.reason else []
    parts += [f"by {outcome.engine} in {outcome.seconds:.2f} s"] if outcome.engine else []
    parts += [f"bound {outcome.bound:.6g}"] if outcome.bound is not None else []
    parts += [f"certificate {outcome.certificate}"] if outcome.certificate else []
    if outcome.witness is not None:
        sample = outcome.witness.sample
        parts += ["witness found by search" if sample is None else f"witness sample {sample}"]
    parts += ["counterexample replayed exactly"] if outcome.counterexample is not None else []
    return ", ".join([" ".join(parts[:2]), *parts[2:]]) if outcome.reason else ", ".join(parts)
