"""Runs with layered theories and covers: every claim proved there is confirmed by Z3 on the whole network, checked again,
explained and exported."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import z3

from specmine.cli import main
from specmine.errors import BadRun
from specmine.pipeline import check_run, mine, open_run
from specmine.pipeline.layered import Ladder, proved_locally
from specmine.pipeline.propose import propose
from specmine.pipeline.stages import refinery_of
from specmine.pipeline.synthesis import material_of
from specmine.progress import Silent
from specmine.queries import claim_query, clause_query, local_query
from specmine.report import report_html
from specmine.rules.clause import HornClause
from specmine.rules.syntax import parse_clause
from specmine.rules.theory import derive, follows
from specmine.spec import BETWEEN, RESOLUTION
from specmine.verification.recheck import check_claims
from verifier.formats.smtlib import smtlib
from verifier.network import Network, Node
from verifier.ops import Linear, Relu, frozen_array

EFFORT = {
    "timeout_s": 5.0,
    "budget_s": 60.0,
    "jobs": 1,
    "thresholds": 4,
    "refine": False,
    "max_clauses": 3,
    "exports": ("chc",),
}


def network():
    """Three inputs, two hidden layers of six and five ReLUs, two classes of about the same size."""
    generator = np.random.default_rng(5)
    nodes, source = [], "in"
    for k, (before, after) in enumerate(((3, 6), (6, 5), (5, 2)), 1):
        weight, bias = generator.normal(size=(after, before)), generator.normal(size=after) / 3
        nodes.append(Node(f"z{k}", Linear(frozen_array(weight.round(3)), frozen_array(bias.round(3))), (source,)))
        source = f"z{k}"
        if k < 3:
            nodes.append(Node(f"r{k}", Relu(), (source,)))
            source = f"r{k}"
    y = outputs(Network("in", (1, 3), tuple(nodes), source), np.random.default_rng(0).uniform(0, 1, (500, 3)))
    last = nodes[-1].op
    shift = np.array([np.median(y[:, 1] - y[:, 0]).round(3), 0.0])
    nodes[-1] = Node(source, Linear(last.weight, frozen_array(last.bias + shift)), nodes[-1].inputs)
    return Network("in", (1, 3), tuple(nodes), source)


def arrays():
    x = np.random.default_rng(1).uniform(0, 1, (300, 3)).round(3)
    return x, outputs(network(), x).argmax(axis=1)


def outputs(network, values):
    for node in network.nodes:
        values = np.maximum(values, 0) if isinstance(node.op, Relu) else values @ node.op.weight.T + node.op.bias
    return values


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("layered") / "run"
    mine(network(), arrays(), out=folder, synthesis=("layered", "cover"), depth=2, **EFFORT)
    return folder


@pytest.fixture(scope="module")
def run(folder):
    return open_run(folder)


def by_z3(query):
    solver = z3.Solver()
    solver.set("timeout", 60_000)
    solver.from_string(smtlib(query))
    return str(solver.check())


def of_engine(spec, name):
    return [claim for claim in spec.claims if claim.outcome.engine.endswith(name)]


def test_every_clause_of_the_theory_is_confirmed_on_the_whole_network(run):
    spec = run.spec
    local, composed = of_engine(spec, BETWEEN), of_engine(spec, RESOLUTION)
    assert len(local) > 4 and composed
    assert {str(claim.clause.head).split("(")[1][:2] for claim in local} >= {"h1", "h2"}, "heads at both hidden layers"
    for claim in (*local, *composed):
        assert claim.outcome.verdict in ("proved", "vacuous")
        assert by_z3(claim_query(claim, run.sites)) == "unsat", str(claim.clause)


def test_composed_clauses_reach_back_to_the_input(run):
    composed = [claim.clause for claim in of_engine(run.spec, RESOLUTION)]
    sites = {str(p.arguments[0]) for clause in composed for p in clause.body}
    assert "x" in sites and all(clause.head.form == "class" for clause in composed)
    assert all(follows(run.exhibit.longest, clause) for clause in composed)


def test_a_wrong_clause_is_not_called_proved(run):
    proposed = propose(run.source, run.dataset, run.config, run.folder)
    ladder = Ladder(refinery_of(run, material_of(run.source, proposed, run.dataset, run.config)))
    wrong = [parse_clause("active(h2,0) :- inactive(h1,0), inactive(h1,1).", sites=run.sites)]
    wrong += [HornClause(c.head, c.body[:-1]) for c in run.exhibit.longest.clauses if len(c.body) > 1]
    truly = {clause for clause in wrong if by_z3(clause_query(clause, run.dataset.domain, run.sites)) == "unsat"}
    assert len(truly) < len(wrong)
    assert proved_locally(ladder, wrong) <= truly


def test_the_small_question_is_stronger_than_the_whole(run):
    clause = next(c for c in run.exhibit.longest.clauses if c.head is not None and c.head.arguments[0] == "h2" and c.body)
    query = local_query(clause, run.dataset.domain, run.sites)
    assert query.network.input != run.sites.network.input and query.network.output == run.sites.value("h2")
    assert by_z3(query) == "unsat"
    nothing = HornClause(clause.head, ())
    if by_z3(clause_query(nothing, run.dataset.domain, run.sites)) == "sat":
        assert by_z3(local_query(nothing, run.dataset.domain, run.sites)) == "sat"


def test_certificates_and_compositions_are_checked_again(folder, run):
    spec, checked = check_run(folder)
    assert checked.exit_code == 0 and spec.verdicts == run.spec.verdicts
    # without the clauses between the layers, what was composed of them does not follow
    parts = [claim for claim in run.spec.claims if not claim.outcome.engine.endswith(BETWEEN)]
    left = check_claims(parts, run.sites, run.store).lost
    composed = of_engine(run.spec, RESOLUTION)
    assert [c.clause for c in left] == [c.clause for c in composed] and {c.outcome.verdict for c in left} == {"unknown"}
    # a certificate of another clause between the same layers is refused
    between = [c for c in run.spec.claims if c.outcome.engine.endswith(BETWEEN) and c.outcome.certificate and c.clause.body]
    one, other, *_ = (c for c in between if c.clause.head.arguments[:1] == between[0].clause.head.arguments[:1])
    swapped = replace(one, outcome=replace(one.outcome, certificate=other.outcome.certificate))
    bare = replace(one, outcome=replace(one.outcome, certificate=None))
    refused, unbacked = check_claims([swapped, bare], run.sites, run.store).lost
    assert refused.outcome.verdict == "unknown" and "refused" in refused.outcome.reason
    assert unbacked.outcome.verdict == "unknown" and unbacked.outcome.reason == "no certificate"


def test_proofs_without_a_certificate_are_counted(run):
    class Heard(Silent):
        said = ""

        def finish(self, text=""):
            self.said = text

    heard = Heard()
    one = next(c for c in run.spec.claims if c.outcome.certificate is not None and not c.outcome.engine.endswith(BETWEEN))
    check_claims([one, replace(one, outcome=replace(one.outcome, certificate=None))], run.sites, run.store, progress=heard)
    assert heard.said == "certificates accepted: 1; claims that lost their proof: 0; proofs without a certificate to check: 1"


@pytest.mark.parametrize("other", ["domain", "elsewhere", "ball:0.1:300"])
def test_a_region_is_what_its_name_says(folder, tmp_path, other):
    copy = shutil.copytree(folder, tmp_path / "run")
    content = json.loads((copy / "claims.json").read_text())
    region = content["regions"].pop("domain")
    content["regions"][other] = region | ({"upper": [0.5, 0.5, 0.5]} if other == "domain" else {})
    for claim in content["claims"]:
        claim["region"] = other
    (copy / "claims.json").write_text(json.dumps(content))
    with pytest.raises(BadRun, match=f"its region '{other}' is not that of the run's data"):
        check_run(copy)


def test_a_sample_is_explained(folder, run, capsys):
    rows = [row for row in run.exhibit.test_rows if (why := run.exhibit.why(row)) is not None and why.length > 1]
    assert rows
    found = run.exhibit.why(rows[0])
    assert found.goal.arguments == (int(run.predictions[rows[0]]),) and found.clauses <= run.exhibit.longest.proved
    assert main(["show", str(folder), "--why", str(rows[0])]) == 0
    said = capsys.readouterr().out
    assert "because (clause" in said and "observed" in said and "not proved" not in said and "in one step: class(" in said
    assert main(["show", str(folder), "--why", str(rows[0]), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["derivation"]["because"] and document["composed"] == str(found.composed)
    assert main(["show", str(folder), "--why", "100000"]) == 2
    assert "0 to 299" in capsys.readouterr().err
    page = report_html(run.exhibit)
    assert '<pre id="why">class(' in page and "because (clause" in page


def test_a_sample_that_nothing_derives_says_so(folder, run, capsys):
    row = next(row for row in range(300) if run.exhibit.why(row) is None)
    assert main(["show", str(folder), "--why", str(row)]) == 0
    assert "no proved clause derives it" in capsys.readouterr().out
    assert derive(run.exhibit.longest, [], None) is None


def test_the_exported_theory_is_read_by_z3(run):
    text = (run.folder / "exports" / "chc" / "theory.smt2").read_text()
    rules = z3.parse_smt2_string(text)
    assert "The network is part of the question" in text and len(rules) > len(run.exhibit.longest.clauses)
    assert all(f"clause {clause.id}: {clause}" in text for clause in run.exhibit.longest.clauses)


def test_the_cover_says_how_good_it_is(run):
    lines = [json.loads(line) for line in (run.folder / "cover.jsonl").read_text().splitlines()]
    assert {line["head"] for line in lines} == {"class(0)", "class(1)"}
    for line in lines:
        assert line["candidates"] >= len(line["clauses"]) > 0 and line["lower_bound"] <= line["cost"]
        assert line["optimal"] == (line["lower_bound"] == line["cost"]) and line["reason"]


def test_a_resumed_run_gives_the_same(folder, run):
    before = [str(clause) for clause in run.spec.clauses]
    records = len(run.store.records)
    for name in ("claims.json", "clauses.json"):
        (folder / name).unlink()
    spec = mine(network(), arrays(), out=folder, synthesis=("layered", "cover"), depth=2, **EFFORT)
    assert [str(clause) for clause in spec.clauses] == before
    assert len(open_run(folder).store.records) == records, "nothing is asked twice"


def test_another_depth_is_another_run(folder):
    with pytest.raises(BadRun, match="depth"):
        mine(network(), arrays(), out=folder, synthesis=("layered", "cover"), depth=1, **EFFORT)
