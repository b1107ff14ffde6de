import json
from dataclasses import replace

import pytest
import toy

from specmine.cli.text import spec_text, summary_text
from specmine.document import document, from_json, to_json
from specmine.errors import BadRun
from specmine.pipeline.stages import verify_stage
from specmine.spec import Shortfall
from verifier.formula import And, Or, atom

CLAIM_KEYS = {
    "head", "body", "region", "support", "errors", "precision", "recall", "verdict", "bound", "engine", "seconds",
    "certificate", "witness", "counterexample",
}  # fmt: skip


@pytest.fixture(scope="module")
def spec(tmp_path_factory):
    return verify_stage(toy.run(tmp_path_factory.mktemp("run"), regions=("domain", "ball:0.05")))


def test_the_document_has_every_field(spec):
    data = document(spec)
    assert {"schema", "provenance", "summary", "claims"} <= data.keys()
    assert {"recall", "verified_recall", "clauses", "proved", "refuted", "unknown", "vacuous", "seconds"} <= data[
        "summary"
    ].keys()
    for claim in data["claims"]:
        assert claim.keys() >= CLAIM_KEYS
        assert claim["body"]["text"] and claim["body"]["atoms"]
        assert {"holdout", "test"} <= claim["precision"].keys()


def test_the_document_reads_back_as_itself(spec):
    text = to_json(spec)
    assert to_json(from_json(text)) == text


def test_a_shortfall_is_kept_and_shown(spec):
    first, *rest = spec.claims
    marked = replace(spec, claims=(replace(first, shortfall=Shortfall(0.95, 0.91)), *rest))
    again = from_json(to_json(marked))
    assert [claim.shortfall for claim in again.claims] == [Shortfall(0.95, 0.91), *[None] * len(rest)]
    assert again.short == (first.clause,) and spec.short == ()
    assert "refined   below the asked recall of 0.95: 0.9100\n" in spec_text(again)
    assert "refined clauses below the asked recall: 1;" in summary_text(again)
    assert "below the asked recall" not in spec_text(spec)


def test_hand_computed_figures(spec):
    data = toy.dataset()
    x, y = data.test
    difference = x[:, 0] - x[:, 1]
    assert spec.verified_recall == pytest.approx(((difference >= 0.125) | (difference <= -0.25)).mean())
    assert spec.recall == pytest.approx(((y == 0) | (difference <= -0.25)).mean())
    assert 0 < spec.verified_recall < spec.recall < 1


def test_atoms_of_the_body(spec):
    claim = next(c for c in document(spec)["claims"] if c["clause"] == "class(1) :- above(h1,1,0.25).")
    assert claim["body"]["atoms"] == [
        {"terms": [{"value": "post", "index": 1, "coefficient": "-1"}], "bias": "1/4", "strict": False}
    ]


def test_only_the_domain_counts_as_verified(tmp_path):
    spec = verify_stage(toy.run(tmp_path, "class(0) :- active(h1,0).", regions=("ball:0.01",)))
    assert {claim.outcome.verdict for claim in spec.claims} == {"proved"} and len(spec.claims) == 3
    assert spec.verified_recall == 0 and spec.recall > 0


@pytest.mark.parametrize(
    ("text", "message"),
    [("{", "damaged"), ("{}", "damaged"), ('{"schema": "other/9"}', "has schema 'other/9'"), ("[]", "damaged")],
)
def test_bad_documents(text, message):
    with pytest.raises(BadRun, match=message):
        from_json(text)


def test_a_document_with_a_missing_key(spec):
    data = document(spec)
    del data["claims"][0]["body"]
    with pytest.raises(BadRun, match="damaged: KeyError 'body'"):
        from_json(json.dumps(data))


def test_a_body_with_a_disjunction_reads_back(spec):
    first, second = (atom({("post", k): -1}, 0, strict=True) for k in (0, 1))
    parts = (first, Or((second, And((first, second)))))
    claim = replace(spec.claims[0], body_parts=parts)
    document = json.loads(to_json(replace(spec, claims=(claim,))))
    atoms = document["claims"][0]["body"]["atoms"]
    assert list(atoms[1]) == ["any"] and list(atoms[1]["any"][1]) == ["all"]
    assert from_json(json.dumps(document)).claims[0].body_parts == parts
