import json
from dataclasses import replace

import numpy as np
import pytest
import toy

from specmine.errors import BadRun
from specmine.pipeline.stages import verify_stage
from specmine.queries import claim_query
from specmine.regions import NamedRegion
from specmine.rules.syntax import parse_clause
from specmine.verification import Effort, Store, check_claims, prove, sample_witness
from specmine.verification.store import FILE, Record
from verifier.check import confirms
from verifier.errors import BadQuery
from verifier.formula import disjuncts


def test_verdicts_by_hand(tmp_path):
    run = toy.run(tmp_path)
    spec = verify_stage(run)
    assert tuple(claim.outcome.verdict for claim in spec.claims) == toy.VERDICTS
    proved, _, refuted, vacuous = spec.claims
    assert proved.outcome.witness is not None and proved.outcome.witness.sample is not None
    assert vacuous.outcome.witness is None
    assert refuted.outcome.counterexample is not None
    assert confirms(claim_query(refuted, run.sites), np.array(refuted.outcome.counterexample))
    assert refuted.outcome.counterexample[0] == refuted.outcome.counterexample[1], "only ties violate this clause"


def test_a_proved_constraint_is_not_called_vacuous(tmp_path):
    (claim,) = verify_stage(toy.run(tmp_path, "false :- above(h1,0,5.0).")).claims
    assert claim.outcome.verdict == "proved" and claim.outcome.witness is None


def test_a_witness_is_found_by_search_where_no_sample_is_one(tmp_path):
    spec = verify_stage(toy.run(tmp_path, "class(0) :- above(h1,0,0.999)."))
    (claim,) = spec.claims
    assert claim.outcome.verdict == "proved" and claim.outcome.witness.sample is None
    assert claim.outcome.witness.input[0] - claim.outcome.witness.input[1] >= 0.999


def test_a_sample_witness_must_lie_in_the_region(tmp_path):
    run = toy.run(tmp_path)
    clause = parse_clause("class(0) :- active(h1,0).")
    far = NamedRegion("corner", type(run.dataset.domain)([0.0, 0.0], [0.0, 0.0]))
    assert sample_witness(clause, far, run.sites, range(5), run.dataset.x) is None


def test_nothing_is_asked_twice(tmp_path, monkeypatch):
    run = toy.run(tmp_path)
    first = verify_stage(run)
    monkeypatch.setattr("specmine.verification.proving.verify_many", lambda *args, **options: pytest.fail("asked again"))
    again = prove(run.spec.claims, run.sites, Store(tmp_path), effort=Effort(timeout_s=5.0))
    assert [c.outcome for c in again] == [c.outcome for c in first.claims]


def test_a_lost_certificate_is_proved_again(tmp_path):
    run = toy.run(tmp_path)
    verify_stage(run)
    for path in (tmp_path / "certificates").iterdir():
        path.unlink()
    spec = verify_stage(replace(run))
    assert spec.claims[0].outcome.certificate and (tmp_path / spec.claims[0].outcome.certificate).exists()


def test_no_budget_leaves_claims_unchecked(tmp_path):
    run = toy.run(tmp_path, budget_s=1e-9)
    spec = verify_stage(run)
    assert {claim.outcome.verdict for claim in spec.claims} == {"unchecked"} and spec.exit_code == 3


def test_the_kernel_refuses_a_foreign_certificate(tmp_path):
    run = toy.run(tmp_path)
    spec = verify_stage(run)
    good = check_claims(spec.claims, run.sites, run.store).claims
    assert [c.outcome.verdict for c in good] == list(toy.VERDICTS)
    paths = [claim.outcome.certificate for claim in spec.claims[:2]]
    (tmp_path / paths[0]).write_bytes((tmp_path / paths[1]).read_bytes())
    checked = check_claims(spec.claims, run.sites, run.store).claims
    assert checked[0].outcome.verdict == "unknown" and "certificate refused" in checked[0].outcome.reason
    assert checked[1].outcome.verdict == "proved"


def test_certificates_that_are_not_accepted_are_all_found(tmp_path):
    run = toy.run(tmp_path)
    spec = verify_stage(run)
    assert check_claims(spec.claims, run.sites, run.store).exit_code == 0, "a refuted claim has no certificate to accept"
    missing, damaged, _, vacuous = spec.claims
    (tmp_path / missing.outcome.certificate).unlink()
    (tmp_path / damaged.outcome.certificate).write_bytes(b"PK")
    checked = check_claims(spec.claims, run.sites, run.store)
    assert [claim.clause for claim in checked.lost] == [missing.clause, damaged.clause]
    assert "No such file" in checked.lost[0].outcome.reason and "is damaged" in checked.lost[1].outcome.reason
    assert [claim.outcome.verdict for claim in checked.claims] == ["unknown", "unknown", "refuted", "vacuous"]
    assert (checked.accepted, checked.bare, checked.exit_code) == (1, 0, 1) and vacuous.outcome.certificate


def record(key: str, **fields: object) -> Record:
    return Record(**({"key": key, "verdict": "proved", "engine_asked": "auto", "timeout_s": 1.0} | fields))


def test_the_store_survives_a_torn_last_line(tmp_path):
    store = Store(tmp_path)
    store.add(record("a", counterexample=(0.5, 1.0), verdict="refuted"))
    store.add(record("b"))
    content = (tmp_path / FILE).read_bytes()
    lines = len(content.split(b"\n")[0]) + 1
    for cut in range(lines, len(content) - 1):
        (tmp_path / FILE).write_bytes(content[:cut])
        torn = Store(tmp_path)
        assert set(torn.records) == {"a"}
        torn.add(record("c"))
        assert set(Store(tmp_path).records) == {"a", "c"}
    assert Store(tmp_path).records["a"].counterexample == (0.5, 1.0)


def test_a_damaged_store_is_named(tmp_path):
    (tmp_path / FILE).write_text('{"key": "a"}\n')
    with pytest.raises(BadRun, match=r"verdicts.jsonl line 1 is damaged"):
        Store(tmp_path)


def test_more_time_asks_the_undecided_again(tmp_path):
    store = Store(tmp_path)
    store.add(record("u", verdict="unknown", timeout_s=1.0))
    store.add(record("p"))
    assert store.answers("u", "auto", 1.0) and not store.answers("u", "auto", 2.0)
    assert store.answers("p", "auto", 99.0) and not store.answers("p", "smt", 1.0)
    assert not store.answers("none", "auto", 1.0)


def test_a_store_that_cannot_be_written(tmp_path):
    store = Store(tmp_path)
    (tmp_path / FILE).mkdir()
    with pytest.raises(BadRun, match="cannot write"):
        store.add(record("a"))


def test_records_are_json_lines(tmp_path):
    store = Store(tmp_path)
    store.add(record("a"))
    assert json.loads((tmp_path / FILE).read_text())["key"] == "a"


def test_a_query_of_too_many_cases_is_unknown_and_the_others_are_decided(tmp_path, monkeypatch):
    run = toy.run(tmp_path)
    refused = claim_query(run.spec.claims[2], run.sites).assertion

    def counted(formula):
        if set(refused.parts) <= set(getattr(formula, "parts", ())):
            raise BadQuery("over 100000 disjuncts; split the query")
        return disjuncts(formula)

    monkeypatch.setattr("verifier.query.disjuncts", counted)
    outcomes = [claim.outcome for claim in verify_stage(run).claims]
    assert [outcome.verdict for outcome in outcomes] == ["proved", "proved", "unknown", "vacuous"]
    assert outcomes[2].reason == "unsupported: over 100000 disjuncts; split the query"
