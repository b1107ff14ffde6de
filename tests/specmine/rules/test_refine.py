"""Refinement on networks so small that every body can be judged: by Z3, which shares no code with the verifier's bounds."""

from fractions import Fraction
from itertools import combinations

import numpy as np
import pytest
import z3

from specmine.predicates.families import candidates, denote
from specmine.predicates.form import Grid
from specmine.predicates.predicate import Predicate
from specmine.predicates.table import build_table, unpack
from specmine.rules.clause import HornClause
from specmine.rules.oracle import Answer
from specmine.rules.refine import refine
from specmine.tracing.sites import Sites
from specmine.tracing.trace import trace
from specmine.verification import Store
from specmine.verification.oracle import VerifierOracle
from verifier.formula import atoms_of
from verifier.network import Network, Node
from verifier.ops import Linear, Relu, frozen_array
from verifier.region import Box


def network(generator, inputs=2, neurons=3, classes=2):
    def layer(rows, columns):
        return Linear(frozen_array(generator.integers(-4, 5, (rows, columns))), frozen_array(generator.integers(-2, 3, rows)))

    nodes = (Node("z", layer(neurons, inputs), ("x",)), Node("h", Relu(), ("z",)), Node("y", layer(classes, neurons), ("h",)))
    return Network("x", (inputs,), nodes, "y")


def exact(value):
    fraction = Fraction(value) if isinstance(value, Fraction) else Fraction(float(value))
    return z3.Q(fraction.numerator, fraction.denominator)


class Z3Judge:
    """Whether a body implies class 0 over the unit box, exactly."""

    def __init__(self, sites):
        self.sites = sites
        x = [z3.Real(f"x{i}") for i in range(sites.size("x"))]
        self.solver = z3.Solver()
        self.solver.add(*(z3.And(v >= 0, v <= 1) for v in x))
        self.values = {"x": x}
        for node in sites.network.nodes:
            source = self.values[node.inputs[0]]
            if isinstance(node.op, Relu):
                self.values[node.output] = [z3.If(v > 0, v, 0) for v in source]
            else:
                rows = zip(node.op.weight, node.op.bias, strict=True)
                self.values[node.output] = [
                    sum((exact(w) * v for w, v in zip(row, source, strict=True)), exact(b)) for row, b in rows
                ]
        y = self.values["y"]
        self.solver.add(z3.Or([y[j] >= y[0] for j in range(1, len(y))]))

    def valid(self, literals):
        self.solver.push()
        for literal in literals:
            for a in atoms_of(denote(literal, self.sites)):
                left = sum((exact(t.coefficient) * self.values[t.value][t.index] for t in a.terms), exact(a.bias))
                self.solver.add(left < 0 if a.strict else left <= 0)
        answer = self.solver.check()
        self.solver.pop()
        assert answer != z3.unknown
        return answer == z3.unsat


class Setting:
    """A network with samples, candidates, and what refine needs of them."""

    def __init__(self, seed, folder, samples=60, thresholds=2):
        generator = np.random.default_rng(seed)
        share = 0.0
        while not 0.2 <= share <= 0.8:
            self.sites = Sites(network(generator))
            self.x = generator.random((samples, 2))
            found = trace(self.sites, self.x, keep=("h1", "y"))
            share = float((found.predictions == 0).mean())
        predicates = candidates(["unary"], found, grid=Grid(("h1",), thresholds=thresholds, head_levels=()))
        self.table = build_table(predicates, found)
        self.positives, self.negatives = found.predictions == 0, found.predictions != 0
        self.oracle = VerifierOracle(self.sites, Box(np.zeros(2), np.ones(2)), Store(folder))
        self.judge = Z3Judge(self.sites)

    def truths(self, point):
        there = trace(self.sites, point[None], keep=("h1", "y"))
        return unpack(build_table(self.table.predicates, there).bits, 1)

    def refine(self, **options):
        settings = {
            "head": Predicate("class", (0,)),
            "oracle": self.oracle,
            "truths": self.truths,
            "timeout_s": 60.0,
            "question_s": 20.0,
        }
        worth = np.zeros(len(self.table.predicates))
        return refine(self.table, self.positives, self.negatives, **(settings | {"worth": worth} | options))

    def literals(self, body):
        return [self.table.predicates[row] for row in body]

    def smallest(self, recall):
        """The size of the smallest body that Z3 proves and that keeps the recall, None where there is none."""
        held = unpack(self.table.bits, self.table.samples)[:, self.positives]
        rows = range(len(self.table.predicates))
        for size in range(len(rows) + 1):
            for body in combinations(rows, size):
                kept = held[list(body)].all(axis=0).sum()
                if kept >= recall * self.positives.sum() - 1e-9 and self.judge.valid(self.literals(body)):
                    return size
            if size == 4:
                return None
        return None


@pytest.mark.parametrize("recall", [0.5, 0.9])
@pytest.mark.parametrize("seed", range(8))
def test_the_body_is_as_small_as_any_that_z3_proves(seed, recall, tmp_path):
    made = Setting(seed, tmp_path)
    result = made.refine(recall=recall)
    expected = made.smallest(recall)
    if expected is None:
        assert not result.found or result.size > 4
        return
    assert result.found and result.valid and result.optimal, result.reason
    assert result.size == result.lower_bound == expected
    assert made.judge.valid(made.literals(result.body))
    assert result.recall >= recall


def test_brute_force_meets_every_kind_of_answer(tmp_path):
    """The comparison above is worth something: among its networks are bodies of several sizes, and such without one."""
    made = [Setting(seed, tmp_path / str(seed)) for seed in range(8)]
    sizes = {setting.smallest(0.5) for setting in made}
    assert len(sizes) >= 3, sizes


def test_counterexamples_change_the_body(tmp_path):
    """With a few samples, what they allow is refuted by the verifier, again and again, until a longer or other body is left."""
    changed = 0
    for seed in range(8):
        made = Setting(seed, tmp_path / str(seed), samples=12)
        result = made.refine(recall=0.5)
        first, last = result.iterations[0], result.iterations[-1]
        if first.valid is False and result.found:
            changed += 1
            assert not made.judge.valid(made.literals(first.body)), "refuted means refuted"
            assert result.body != first.body and last.valid
            assert result.counterexamples
        for point in map(np.array, result.counterexamples):
            assert trace(made.sites, point[None], keep=("y",)).predictions[0] != 0
    assert changed >= 2


def test_what_was_asked_is_not_asked_again(tmp_path, monkeypatch):
    seed = 3
    result = Setting(seed, tmp_path).refine(recall=0.5)
    monkeypatch.setattr("specmine.verification.oracle.decide", lambda *a, **o: pytest.fail("asked again"))
    again = Setting(seed, tmp_path).refine(recall=0.5)
    assert (again.body, again.reason, again.counterexamples) == (result.body, result.reason, result.counterexamples)
    assert [i.valid for i in again.iterations] == [i.valid for i in result.iterations]


class Stubborn:
    """An oracle that cannot tell of anything but bodies that contain all of `core`."""

    def __init__(self, core):
        self.core = set(core)

    def ask(self, clauses, *, timeout_s, likely=False):
        return [Answer(True if self.core <= set(clause.body) else None, oracle="stubborn") for clause in clauses]


def test_where_proposals_stay_open_a_start_is_shrunk(tmp_path):
    made = Setting(0, tmp_path)
    rows = np.flatnonzero(unpack(made.table.bits, made.table.samples)[:, made.positives].all(axis=1))
    core = made.literals(rows[:3])
    result = made.refine(recall=1.0, oracle=Stubborn(core), starts=[tuple(rows.tolist())], timeout_s=6.0)
    assert result.found and set(made.literals(result.body)) == set(core)
    assert {iteration.phase for iteration in result.iterations} >= {"start", "shrink"} or result.optimal


def test_where_nothing_keeps_the_recall_the_best_start_is_the_answer(tmp_path):
    made = Setting(0, tmp_path)
    held = unpack(made.table.bits, made.table.samples)[:, made.positives].mean(axis=1)
    some = int(np.argmin(np.where(held > 0, held, 2)))
    core = made.literals([some])
    assert 0 < held[some] < 0.9
    result = made.refine(recall=0.95, oracle=Stubborn(core), starts=[(some,)], timeout_s=6.0)
    assert result.valid and not result.found and result.body == (some,)
    assert "no body that keeps the recall 0.95 was proved; the best one proved keeps" in result.reason


def test_an_unreachable_recall_says_what_was_best(tmp_path):
    made = Setting(1, tmp_path)
    everywhere = np.ones(made.table.samples, dtype=bool)
    half = everywhere.copy()
    half[::2] = False  # samples of both kinds at random: no body parts them
    made.positives, made.negatives = half, ~half
    result = made.refine(recall=1.0, oracle=Stubborn([Predicate("active", ("h1", 99))]), timeout_s=5.0)
    assert not result.found and not result.valid
    assert "no body" in result.reason and "recall" in result.reason


def test_no_candidate_at_all(tmp_path):
    made = Setting(1, tmp_path)
    made.table = build_table([], trace(made.sites, made.x, keep=("h1", "y")))
    result = made.refine(recall=0.9, timeout_s=5.0)
    assert not result.found and result.body == () and result.reason


def test_candidates_that_exclude_each_other(tmp_path):
    made = Setting(2, tmp_path)
    pair = [Predicate("active", ("h1", 0)), Predicate("inactive", ("h1", 0))]
    made.table = build_table(pair, trace(made.sites, made.x, keep=("h1", "y")))
    result = made.refine(recall=0.9, timeout_s=10.0)
    assert result.size <= 1, "both together hold nowhere"
    assert result.found == (made.smallest(0.9) is not None)


def test_where_no_body_keeps_the_recall_one_that_keeps_less_is_proved(tmp_path):
    """Which is known without the clock: that none keeps more is proved by the counterexamples, and Z3 agrees."""
    made = next(made for made in (Setting(seed, tmp_path / str(seed)) for seed in range(30)) if lower_only(made))
    result = made.refine(recall=1.0)
    assert result.valid and not result.found and 0 < result.recall < 1
    assert made.judge.valid(made.literals(result.body))
    assert "no body that keeps the recall 1 was proved; the best one proved keeps" in result.reason


def lower_only(made):
    """Whether no body of samples keeps all positives, yet one keeps some."""
    held = unpack(made.table.bits, made.table.samples)[:, made.positives]
    every = [literal for literal, kept in zip(made.table.predicates, held, strict=True) if kept.all()]
    return not made.judge.valid(every) and made.smallest(0.3) is not None


def test_a_short_time_is_kept_and_the_gap_said(tmp_path):
    made = Setting(4, tmp_path, samples=200, thresholds=12)
    result = made.refine(recall=0.9, oracle=Stubborn([Predicate("active", ("h1", 99))]), timeout_s=1.0)
    assert not result.found and result.reason
    assert result.lower_bound <= max(result.size, len(made.table.predicates))


def test_longer_than_allowed_is_no_answer(tmp_path):
    made = Setting(0, tmp_path)
    rows = np.flatnonzero(unpack(made.table.bits, made.table.samples)[:, made.positives].all(axis=1))
    core = made.literals(rows[:3])
    result = made.refine(recall=1.0, max_body=2, oracle=Stubborn(core), starts=[tuple(rows.tolist())], timeout_s=6.0)
    assert result.valid and not result.found
    assert "no body of at most 2 literals was proved; the shortest one proved has 3" in result.reason


def test_clauses_are_about_the_head(tmp_path):
    made, asked = Setting(0, tmp_path), []

    class Listening(Stubborn):
        def ask(self, clauses, *, timeout_s, likely=False):
            asked.extend(clauses)
            return super().ask(clauses, timeout_s=timeout_s, likely=likely)

    made.refine(recall=0.9, oracle=Listening([]), timeout_s=5.0)
    assert asked and all(isinstance(clause, HornClause) and str(clause.head) == "class(0)" for clause in asked)
