"""A Spec as a JSON document, and back.

The document has the keys
- schema: SCHEMA;
- provenance: hashes of model, data and configuration, versions, seed, the configuration itself, the classes;
- summary: recall (share of all test inputs that are classified correctly and satisfy the body of some clause with their
  class as head, whatever its verdict), verified_recall (the same over clauses proved on the whole input domain and not
  vacuous), the number of distinct clauses, the number of claims by verdict, and seconds by stage;
- regions: what each region name stands for;
- claims: see `claim_document`;
- coverage: by clause id, the places in the test split that the clause covers.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict
from fractions import Fraction
from typing import Any, assert_never

from specmine.errors import BadRun
from specmine.predicates.predicate import Predicate
from specmine.regions import NamedRegion
from specmine.rules.clause import HornClause
from specmine.spec import Claim, Coverage, Outcome, Shortfall, Spec, Witness
from specmine.stats import Evidence, SplitEvidence, read_split
from specmine.stats.evidence import SPLITS
from verifier.formula import And, Atom, Formula, Or, Term
from verifier.region import Ball, Box

SCHEMA = "specmine.spec/1"


def document(spec: Spec) -> dict[str, Any]:
    """The Spec as plain data, ready for JSON."""
    regions = {claim.region.name: region_document(claim.region) for claim in spec.claims}
    return {
        "schema": SCHEMA,
        "provenance": dict(spec.provenance),
        "summary": summary(spec),
        "regions": regions,
        "claims": [claim_document(claim) for claim in spec.claims],
        "coverage": {
            "test_inputs": spec.coverage.test_inputs,
            "correct": spec.coverage.correct,
            "covered": {clause_id: list(places) for clause_id, places in spec.coverage.covered.items()},
        },
    }


def summary(spec: Spec) -> dict[str, Any]:
    """The figures of the run; everything in it follows from the rest of the document."""
    return {
        "recall": spec.recall,
        "verified_recall": spec.verified_recall,
        "clauses": len(spec.clauses),
        "claims": len(spec.claims),
        **{str(verdict): count for verdict, count in spec.verdicts.items()},
        "test_inputs": spec.coverage.test_inputs,
        "correct": spec.coverage.correct,
        "seconds": dict(spec.seconds),
    }


def to_json(spec: Spec) -> str:
    """The document as text."""
    return json.dumps(document(spec), indent=1, allow_nan=False) + "\n"


def from_json(text: str, source: str = "spec") -> Spec:
    """The Spec of a JSON document; raises BadRun where it is damaged or of another schema."""
    try:
        data = json.loads(text)
        schema = data["schema"]
        if schema == SCHEMA:
            return _read_spec(data)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadRun(f"{source} is damaged: {type(error).__name__} {error}; delete it and run again") from error
    raise BadRun(f"{source} has schema {schema!r}; this version reads {SCHEMA!r}; delete it and run again")


def _read_spec(data: Mapping[str, Any]) -> Spec:
    regions = {name: _read_region(name, content) for name, content in data["regions"].items()}
    claims = tuple(_read_claim(content, regions) for content in data["claims"])
    counts = data["coverage"]
    covered = {clause_id: tuple(places) for clause_id, places in counts["covered"].items()}
    coverage = Coverage(counts["test_inputs"], counts["correct"], covered)
    return Spec(claims, data["provenance"], coverage, data["summary"]["seconds"])


def claim_document(claim: Claim) -> dict[str, Any]:
    """One claim as plain data.

    body holds its text, its predicates and the atoms they denote, all of which must hold (sum of coefficient * value[index],
    plus bias, <= 0 or < 0 if strict; exact rationals as text); in the place of an atom may stand {"any": [...]}, one of which
    must hold, and within it {"all": [...]}. support and errors are counts over all splits: samples that satisfy the body, and
    those among them whose predicted class is not the head's. precision and recall carry a 95 % Wilson interval. shortfall: the
    recall asked of a refined body and the smaller one it keeps on the mining samples, else null.
    """
    evidence, outcome = claim.evidence, claim.outcome
    splits = {name: getattr(evidence, name) for name in SPLITS}
    return {
        "id": claim.id,
        "clause": str(claim.clause),
        "head": "false" if claim.clause.head is None else str(claim.clause.head),
        "body": {
            "text": ", ".join(map(str, claim.clause.body)) or "true",
            "predicates": [_predicate_document(p) for p in claim.clause.body],
            "atoms": [formula_document(part) for part in claim.body_parts],
        },
        "head_predicate": None if claim.clause.head is None else _predicate_document(claim.clause.head),
        "region": claim.region.name,
        "support": sum(split.support for split in splits.values()),
        "errors": sum(split.errors for split in splits.values()),
        "evidence": {name: asdict(split) for name, split in splits.items()},
        "precision": {name: _interval(splits[name], "precision") for name in ("holdout", "test")},
        "recall": {name: _interval(splits[name], "recall") for name in ("holdout", "test")},
        "shortfall": None if claim.shortfall is None else asdict(claim.shortfall),
        "verdict": outcome.verdict,
        "reason": outcome.reason,
        "bound": outcome.bound,
        "engine": outcome.engine,
        "seconds": outcome.seconds,
        "certificate": outcome.certificate,
        "witness": None if outcome.witness is None else asdict(outcome.witness),
        "counterexample": None if outcome.counterexample is None else list(outcome.counterexample),
    }


def atom_document(atom: Atom) -> dict[str, Any]:
    """An atom as plain data: exact rationals as text."""
    terms = [{"value": t.value, "index": t.index, "coefficient": str(t.coefficient)} for t in atom.terms]
    return {"terms": terms, "bias": str(atom.bias), "strict": atom.strict}


def formula_document(formula: Formula) -> dict[str, Any]:
    """A formula as plain data: an atom, or all or any of several."""
    match formula:
        case Atom():
            return atom_document(formula)
        case And(parts=parts):
            return {"all": [formula_document(part) for part in parts]}
        case Or(parts=parts):
            return {"any": [formula_document(part) for part in parts]}
        case _:
            assert_never(formula)


def _read_formula(content: Mapping[str, Any]) -> Formula:
    if "all" in content:
        return And(tuple(map(_read_formula, content["all"])))
    if "any" in content:
        return Or(tuple(map(_read_formula, content["any"])))
    return _read_atom(content)


def _predicate_document(predicate: Predicate) -> dict[str, Any]:
    return {"form": predicate.form, "arguments": list(predicate.arguments)}


def _interval(split: SplitEvidence, measure: str) -> dict[str, Any]:
    low, high = getattr(split, f"{measure}_interval")
    return {"value": getattr(split, measure), "low": low, "high": high}


def region_document(named: NamedRegion) -> dict[str, Any]:
    """A region as plain data: a box, or a ball with its centre, all that it is clipped to, and the sample it is around."""
    match named.region:
        case Box(lower=lower, upper=upper):
            return {"kind": "box", "lower": lower.tolist(), "upper": upper.tolist()}
        case Ball(center=center, radius=radius, domain=domain):
            box = {"lower": domain.lower.tolist(), "upper": domain.upper.tolist()}
            return {"kind": "ball", "sample": named.sample, "radius": radius, "center": center.tolist(), "domain": box}


def _read_region(name: str, content: Mapping[str, Any]) -> NamedRegion:
    if content["kind"] == "box":
        return NamedRegion(name, Box(content["lower"], content["upper"]))
    domain = Box(content["domain"]["lower"], content["domain"]["upper"])
    return NamedRegion(name, Ball(content["center"], content["radius"], domain), content["sample"])


def _read_predicate(content: Mapping[str, Any]) -> Predicate:
    return Predicate(content["form"], tuple(content["arguments"]))


def _read_atom(content: Mapping[str, Any]) -> Atom:
    terms = tuple(Term(t["value"], t["index"], Fraction(t["coefficient"])) for t in content["terms"])
    return Atom(terms, Fraction(content["bias"]), content["strict"])


def _read_claim(content: Mapping[str, Any], regions: Mapping[str, NamedRegion]) -> Claim:
    head = content["head_predicate"]
    clause = HornClause(
        None if head is None else _read_predicate(head), tuple(_read_predicate(p) for p in content["body"]["predicates"])
    )
    parts = tuple(map(_read_formula, content["body"]["atoms"]))
    evidence = Evidence(*(read_split(content["evidence"][name]) for name in SPLITS))
    short = content.get("shortfall")
    shortfall = None if short is None else Shortfall(**short)
    return Claim(clause, parts, evidence, regions[content["region"]], _read_outcome(content), shortfall)


def _read_outcome(content: Mapping[str, Any]) -> Outcome:
    witness, point = content["witness"], content["counterexample"]
    return Outcome(
        verdict=content["verdict"],
        reason=content["reason"],
        bound=content["bound"],
        engine=content["engine"],
        seconds=content["seconds"],
        certificate=content["certificate"],
        witness=None if witness is None else _read_witness(witness),
        counterexample=None if point is None else tuple(point),
    )


def _read_witness(content: Mapping[str, Any]) -> Witness:
    point = content["input"]
    return Witness(content["sample"], None if point is None else tuple(point))
