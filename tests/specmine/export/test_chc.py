"""Constrained Horn clauses: Spacer reads the files and tells a sound theory from one with a wrong clause."""

import numpy as np
import pytest
import toy
import z3

from specmine.errors import BadTheory
from specmine.export import chc as exported
from specmine.export.chc import chc, export_chc
from specmine.pipeline.stages import verify_stage
from specmine.rules.syntax import parse_clauses
from specmine.rules.theory import Theory
from specmine.tracing import Sites, trace
from verifier.errors import UnsupportedOp
from verifier.network import Network, Node
from verifier.ops import Linear, Relu, Scale, frozen_array
from verifier.region import Box

SITES = Sites(toy.network())
REGION = Box(np.zeros(2), np.ones(2))
SOUND = """
class(0) :- above(h1,0,0.25), inactive(h1,1).
above(h1,0,0.5) :- above(x,0,0.75), below(x,1,0.25).
inactive(h1,1) :- above(x,0,0.5), below(x,1,0.5).
false :- active(h1,0), active(h1,1).
"""
BROKEN = {
    "a class of its own": "class(1) :- inactive(h1,1).",
    "a layer in between": "above(h1,0,0.625) :- above(x,0,0.75), below(x,1,0.25).",
    "a tie": "class(0) :- above(x,0,0.5), below(x,1,0.5).",
    "what some input does": "false :- active(h1,0), above(x,0,0.99).",
}


def answer(text):
    """What Spacer says: sat for a theory without violations."""
    solver = z3.SolverFor("HORN")
    solver.set("timeout", 60_000)
    solver.from_string(text)
    return str(solver.check())


def theory(text):
    clauses = parse_clauses(text, sites=SITES)
    return Theory(clauses, frozenset(clauses))


def test_spacer_confirms_a_sound_theory():
    text = chc(theory(SOUND), SITES, REGION, header=["one line"])
    assert text.startswith("; one line") and "(set-logic HORN)" in text and text.count("(check-sat)") == 1
    assert answer(text) == "sat"


@pytest.mark.parametrize("name", BROKEN)
def test_spacer_finds_what_is_wrong(name):
    text = chc(theory(SOUND + BROKEN[name]), SITES, REGION)
    assert answer(text) == "unsat"


def test_over_a_smaller_region_a_wrong_clause_is_right():
    """The tie at (0.5, 0.5) is outside."""
    text = chc(theory(SOUND + BROKEN["a tie"]), SITES, Box(np.array([0.6, 0.0]), np.ones(2)))
    assert answer(text) == "sat"


def test_the_answer_is_that_of_enumeration_on_random_clauses():
    """Thresholds on a grid of sixteenths: a violation, if any, is at one of the grid's corners or just beside them."""
    generator = np.random.default_rng(3)
    points = np.array([[a, b] for a in np.linspace(0, 1, 65) for b in np.linspace(0, 1, 65)])
    values = trace(SITES, points, keep=["x", "h1", "y"])
    seen = set()
    for _ in range(12):
        t, u, v = generator.integers(1, 12, 3) / 16
        clause = f"above(h1,0,{v}) :- above(x,0,{t}), below(x,1,{u})."
        broken = bool(((points[:, 0] >= t) & (points[:, 1] <= u) & (values.values["h1"][:, 0] < v)).any())
        seen.add(broken)
        assert answer(chc(theory(clause), SITES, REGION)) == ("unsat" if broken else "sat"), clause
    assert seen == {True, False}


def test_a_network_with_a_mask_is_not_written():
    """It is what its file says only where values are small against the mask, of which the clauses know nothing."""
    mask = Scale(frozen_array(np.ones((1, 1))), frozen_array(np.array([[-1e30, 0.0]])))
    nodes = (Node("h", Relu(), ("in",)), Node("masked", mask, ("in",)), Node("y", Relu(), ("h",)))
    sites = Sites(Network("in", (1, 2), nodes, "y"))
    with pytest.raises(UnsupportedOp, match=r"'masked'.*small against a mask"):
        chc(Theory(parse_clauses("class(0) :- active(h1,0).", sites=sites)), sites, Box(np.zeros(2), np.ones(2)))


def test_a_large_network_is_not_written():
    weight = frozen_array(np.ones((60, 60)))
    nodes = tuple(
        node
        for k in range(2)
        for node in (
            Node(f"z{k}", Linear(weight, frozen_array(np.zeros(60))), ("in" if k == 0 else "h0",)),
            Node(f"h{k}", Relu(), (f"z{k}",)),
        )
    )
    large = Sites(Network("in", (1, 60), nodes, "h1"))
    with pytest.raises(UnsupportedOp, match="300 entries"):
        chc(Theory(parse_clauses("class(0) :- active(h1,0).", sites=large)), large, Box(np.zeros(60), np.ones(60)))


@pytest.fixture(scope="module")
def exhibit(tmp_path_factory):
    run = toy.run(tmp_path_factory.mktemp("run"))
    verify_stage(run)
    return run.exhibit


def test_a_run_is_exported_with_its_proved_clauses_alone(exhibit, tmp_path):
    (path,) = export_chc(exhibit, tmp_path)
    text = path.read_text()
    assert answer(text) == "sat" and "model sha256" in text
    assert "class(0) :- above(h1,0,0.125)." in text and "class(0) :- inactive(h1,1)." not in text


def test_samples_stand_for_a_network_that_is_too_large(exhibit, tmp_path, monkeypatch):
    monkeypatch.setattr(exported, "MAX_ENTRIES", 1)
    whole, one = export_chc(exhibit, tmp_path)
    text = whole.read_text()
    assert answer(text) == "sat" and "it has 8 entries" in text
    assert answer(one.read_text()) == "unsat", "the class of that sample is derived"
    covered = next(row for row in exhibit.test_rows if f"(assert (|above(h1,1,0.25)| {row}))" in text)
    wrong = text.replace("(check-sat)", f"(assert (|above(h1,0,0.125)| {covered}))\n(check-sat)")
    assert answer(wrong) == "unsat", "both classes would follow for one sample"


def test_a_cycle_is_no_theory():
    with pytest.raises(BadTheory):
        chc(theory("active(h1,0) :- active(x,0).  active(x,0) :- active(h1,0)."), SITES, REGION)
