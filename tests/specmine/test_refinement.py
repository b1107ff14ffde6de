"""Refinement as a stage of a run: its log, a run killed in the middle of it, and what it does for digits."""

import json
import multiprocessing
import os
import signal

import numpy as np
import pytest
import toy

from specmine.data import MINE, load_dataset
from specmine.errors import BadConfig
from specmine.pipeline import mine, open_run
from specmine.pipeline.refinement import LOG, Journal
from specmine.predicates.families import bits
from specmine.queries import clause_query
from specmine.rules.syntax import parse_clause
from specmine.tracing import trace
from specmine.verification import oracle

EFFORT = {
    "timeout_s": 10.0,
    "exports": (),
    "jobs": 1,
    "thresholds": 3,
    "synthesis": ("threshold",),
    "refine_s": 60.0,
    "max_clauses": 2,
    "recall": 0.6,
}
TIMES = ("seconds",)


def log(folder):
    lines = [json.loads(text) for text in (folder / LOG).read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in TIMES} for line in lines]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "toy"
    return folder, mine(toy.network(), toy.arrays(), out=folder, **EFFORT)


def test_heads_get_proved_clauses_as_short_as_can_be(finished):
    folder, spec = finished
    ends = {line["head"]: line["clauses"] for line in log(folder) if "clauses" in line}
    assert set(ends) == {"class(0)", "class(1)"}
    proved = {str(claim.clause) for claim in spec.claims if claim.outcome.verdict == "proved"}
    for clauses in ends.values():
        assert clauses and set(clauses) <= proved
        assert len(parse_clause(clauses[0]).body) == 1, "h1 is relu(x0 - x1), relu(x1 - x0), so one literal tells the class"


def test_every_question_is_in_the_log(finished):
    folder, _ = finished
    questions = [line for line in log(folder) if "phase" in line]
    assert questions and {line["verdict"] for line in questions} >= {"valid"}
    for line in questions:
        assert line["size"] == len(line["body"]) >= line["lower_bound"] or line["verdict"] != "valid"
        assert (line["excluded"] is not None) == (line["learned"] is not None) == (line["verdict"] == "refuted")


def test_the_switch_turns_it_off(tmp_path):
    spec = mine(toy.network(), toy.arrays(), out=tmp_path / "run", refine=False, **EFFORT)
    assert not (tmp_path / "run" / LOG).exists() and spec.claims


def test_bodies_are_no_longer_than_allowed(tmp_path):
    mine(toy.network(), toy.arrays(), out=tmp_path / "run", max_body=1, **EFFORT)
    assert all(len(parse_clause(c).body) <= 1 for line in log(tmp_path / "run") for c in line.get("clauses", []))
    with pytest.raises(BadConfig, match="max_body"):
        mine(toy.network(), toy.arrays(), max_body=0, **EFFORT)
    with pytest.raises(BadConfig, match="refine_s"):
        mine(toy.network(), toy.arrays(), **EFFORT | {"refine_s": 0})


@pytest.mark.parametrize(
    "hard",
    [
        {"recall": 1.0, "max_body": 1},
        {"recall": 1.0, "max_body": 1, "sites": ("h1",), "thresholds": 1, "deltas": (0.5,)},
        {"recall": 0.01, "precision": 0.01},
    ],
)
def test_a_second_is_enough_for_an_answer(tmp_path, hard):
    """No body may be there, or many: every head ends with its clauses, and with the reason of the choice."""
    short = {"timeout_s": 1.0, "budget_s": 1.0, "refine_s": 1.0}
    mine(toy.network(), toy.arrays(), out=tmp_path / "run", **EFFORT | short | hard)
    lines = log(tmp_path / "run")
    ends = [line for line in lines if "clauses" in line]
    assert {line["head"] for line in ends} == {"class(0)", "class(1)"} and all(line["cover"] for line in ends)
    most = hard.get("max_body")
    assert most is None or all(line["size"] <= most for line in lines if line.get("verdict") == "valid")


def test_samples_that_no_candidate_tells_apart_give_no_clause(tmp_path):
    """The input site alone: no bound of one input tells which of the two is larger, but at the edge of the samples."""
    x, y = toy.arrays()
    mine(toy.network(), (x + 0.5, y), out=tmp_path / "run", sites=("x",), **EFFORT | {"thresholds": 1, "refine_s": 2.0})
    ends = [line for line in log(tmp_path / "run") if "clauses" in line]
    proved = [clause for line in ends for clause in line["clauses"]]
    assert ends and all("x," in clause for clause in proved), "only bounds of the inputs are left to speak about"


def test_a_clause_below_the_asked_recall_says_so(tmp_path):
    """Of the inputs alone no short body tells the classes apart, so none keeps nine tenths of a class and is proved."""
    hard = {"recall": 0.9, "thresholds": 4, "refine_s": 2.0}
    spec = mine(toy.network(), toy.arrays(), out=tmp_path / "run", sites=("x",), **EFFORT | hard)
    refined = {clause for line in log(tmp_path / "run") for clause in line.get("clauses", [])}
    assert refined and {str(clause) for clause in spec.short} == refined
    data = open_run(tmp_path / "run").dataset
    x, y = data.x[data.split == MINE], data.y[data.split == MINE]
    for claim in spec.claims:
        held = bits_of_box(claim.clause, x)[y == claim.clause.head.arguments[0]]
        assert (claim.shortfall is None) == (held.mean() >= 0.9)
        assert claim.shortfall is None or (claim.shortfall.asked, claim.shortfall.kept) == (0.9, pytest.approx(held.mean()))


def bits_of_box(clause, x):
    """Where (samples,) the bounds of inputs hold that a body consists of."""
    sides = [
        x[:, p.arguments[1]] >= p.arguments[2] if p.form == "above" else x[:, p.arguments[1]] <= p.arguments[2]
        for p in clause.body
    ]
    return np.all(sides, axis=0)


def test_a_body_that_keeps_the_recall_is_not_marked(finished):
    _, spec = finished
    kept = {c.clause: c.evidence.mine.recall for c in spec.claims if c.outcome.verdict == "proved"}
    assert max(kept.values()) == 1.0 and not set(spec.short) & {clause for clause, recall in kept.items() if recall == 1.0}


class Killer:
    """Progress that kills its own process at the n-th question of refinement."""

    def __init__(self, after):
        self.left, self.stage = after, ""

    def start(self, stage, total=None):
        self.stage = stage

    def advance(self, steps=1, text=""):
        if self.stage == "refinement":
            self.left -= 1
            if self.left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    def finish(self, text=""):
        self.stage = ""


def mine_in_a_process(folder, after):
    mine(toy.network(), toy.arrays(), out=folder, progress=Killer(after), **EFFORT)


@pytest.mark.parametrize("after", [1, 2])
def test_a_run_killed_in_refinement_goes_on_and_ends_the_same(finished, tmp_path, monkeypatch, after):
    folder = tmp_path / "run"
    process = multiprocessing.get_context("fork").Process(target=mine_in_a_process, args=(folder, after))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    known = [json.loads(text) for text in (folder / "verdicts.jsonl").read_text().splitlines()]
    assert len(known) == after, "a verdict is on the disk before anything is made of it"
    asked = []
    from_verifier = oracle.decide

    def listening(queries, store, **options):
        asked.extend(query.sha256 for query in queries)
        return from_verifier(queries, store, **options)

    monkeypatch.setattr(oracle, "decide", listening)
    spec = mine(toy.network(), toy.arrays(), out=folder, **EFFORT)
    assert not {line["key"] for line in known} & set(asked), "what was decided is not asked again"
    assert log(folder) == log(finished[0])
    assert [str(c.clause) for c in spec.claims] == [str(c.clause) for c in finished[1].claims]
    assert spec.verdicts == finished[1].verdicts


def test_a_log_with_half_a_line_is_read(finished, tmp_path):
    text = (finished[0] / LOG).read_text()
    first = text.index('"clauses"') + text[text.index('"clauses"') :].index("\n") + 1
    (tmp_path / LOG).write_text(text[: first + 30])
    journal = Journal(tmp_path / LOG)
    assert set(journal.done) == {"class(0)"}
    assert (tmp_path / LOG).read_text() == text[:first]


@pytest.mark.slow
def test_on_digits_counterexamples_of_the_verifier_change_the_bodies(tmp_path):
    """What the samples allow at first is refuted over the domain; what comes after is another body each time."""
    folder = tmp_path / "run"
    mine(None, "digits", out=folder, synthesis=("polytope",), exports=(), refine_s=20.0, max_clauses=1, budget_s=60.0)
    run, lines = open_run(folder), log(folder)
    dataset = load_dataset("digits")
    refuted_first, changed = 0, 0
    for label in range(10):
        proposals = [line for line in lines if line["head"] == f"class({label})" and line.get("phase") == "propose"]
        bodies = [tuple(line["body"]) for line in proposals]
        refuted_first += bool(proposals) and proposals[0]["verdict"] == "refuted"
        changed += len(bodies) > 1
        assert len(set(bodies)) == len(bodies), "no body is proposed twice"
    assert refuted_first >= 5 and changed >= 3
    for line in lines:
        if line.get("verdict") != "refuted":
            continue
        clause = parse_clause(f"{line['head']} :- {', '.join(line['body'])}.", sites=run.sites)
        record = run.store.records[clause_query(clause, dataset.domain, run.sites).sha256]
        point = np.array(record.counterexample)
        assert (dataset.domain.lower <= point).all() and (point <= dataset.domain.upper).all()
        there = trace(run.sites, point[None])
        assert there.predictions[0] != clause.head.arguments[0]
        assert all(bits(literal, there)[0] for literal in clause.body)
    assert run.spec.verified_recall >= 0.4
