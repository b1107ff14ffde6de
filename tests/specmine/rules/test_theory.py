"""Layered theories: chaining against evaluation by hand, composition against enumeration, cycles refused."""

import numpy as np
import pytest
import toy

from specmine.errors import BadTheory
from specmine.predicates.predicate import Predicate
from specmine.rules.syntax import parse_clause, parse_clauses
from specmine.rules.theory import Derivation, Theory, chain, derivation_text, derive, unfold
from specmine.stats import body_bits
from specmine.tracing import Sites, trace

# h1 = relu(x0 - x1, x1 - x0), y = h1 (see toy); each holds over [0, 1]^2.
CLAUSES = parse_clauses("""
class(0) :- above(h1,0,0.25), inactive(h1,1).
above(h1,0,0.5) :- above(x,0,0.75), below(x,1,0.25).
inactive(h1,1) :- above(x,0,0.5), below(x,1,0.5).
class(1) :- active(h1,1).
false :- active(h1,0), active(h1,1).
""")
THEORY = Theory(CLAUSES, frozenset(CLAUSES))
SITES = Sites(toy.network())
GRID = np.array([[a, b] for a in np.linspace(0, 1, 41) for b in np.linspace(0, 1, 41)])


def literal(text):
    return parse_clause(f"{text} :- true.").head


def true_at(point):
    made = trace(SITES, np.array([point]), keep=["x", "h1", "y"])
    predicates = THEORY.predicates
    bits = body_bits([parse_clause(f"false :- {p}.") for p in predicates], made)
    return {p for p, held in zip(predicates, bits, strict=True) if held[0]}


def test_everything_derived_from_what_is_given_is_true():
    points = GRID[::7]
    everything = [true_at(point) for point in points]
    base = [seen - THEORY.defined for seen in everything]
    for seen, known in zip(everything, chain(THEORY, base), strict=True):
        assert known <= seen, "what proved clauses derive holds"
    (known,) = chain(THEORY, [{literal("above(x,0,0.75)"), literal("below(x,1,0.25)")}])
    assert literal("class(0)") in known, "above 0.75 implies above 0.5, and below 0.25 implies below 0.5"
    (known,) = chain(THEORY, [{literal("above(x,0,0.75)"), literal("below(x,1,0.5)")}])
    assert literal("inactive(h1,1)") in known and not {literal("above(h1,0,0.25)"), literal("class(0)")} & known


def test_a_derivation_is_a_tree_down_to_what_was_observed():
    found = derive(THEORY, true_at([0.9, 0.1]), literal("class(0)"))
    assert found.length == 2 and all(p.arguments[0] == "x" for p in found.leaves)
    text = derivation_text(found, proved=THEORY.proved)
    assert text.startswith("class(0) because (clause ") and "not proved" not in text
    assert "above(h1,0,0.25), which is weaker than" in text and "above(x,0,0.75), observed" in text
    assert "not proved" in derivation_text(found)
    assert derivation_text(found, shown=1).count("... and 1 more") >= 1


def test_a_hidden_literal_is_observed_where_no_clause_derives_it():
    observed = true_at([0.6, 0.2])
    found = derive(THEORY, observed, literal("class(0)"))
    assert literal("above(h1,0,0.25)") in found.leaves and found.length == 2
    assert derive(THEORY, observed, literal("class(1)")) is None


def test_composed_clauses_hold_without_a_proof_of_their_own():
    made = trace(SITES, GRID, keep=["x", "h1", "y"])
    for point in GRID[::5]:
        observed = true_at(point)
        for label in (0, 1):
            found = derive(THEORY, observed, Predicate("class", (label,)))
            if found is None:
                continue
            composed = found.composed
            held = body_bits([composed], made)[0]
            assert held.any() and (made.predictions[held] == label).all(), composed


def test_unfolding_resolves_literals_with_their_clauses():
    whole = unfold(CLAUSES[0], {literal("inactive(h1,1)"): CLAUSES[2]})
    assert str(whole.composed) == "class(0) :- above(h1,0,0.25), above(x,0,0.5), below(x,1,0.5)."
    assert whole.clauses == {CLAUSES[0], CLAUSES[2]} and whole.length == 2
    alone = unfold(CLAUSES[3], {})
    assert alone.composed == CLAUSES[3] and alone.length == 1


def test_a_cycle_is_refused_by_name():
    with pytest.raises(BadTheory, match=r"active\(h1,0\) <- active\(x,0\) <- active\(h1,0\)"):
        Theory(parse_clauses("active(h1,0) :- active(x,0).  active(x,0) :- active(h1,0)."))
    # above 2 implies above 1, so this one leans on itself through the background theory
    with pytest.raises(BadTheory, match="depend on themselves"):
        Theory(parse_clauses("above(h1,0,2) :- above(h1,0,1), active(x,0).  class(0) :- above(h1,0,1)."))
    with pytest.raises(BadTheory, match="depend on themselves"):
        unfold(*_looped())
    # two literals that say the same are no cycle
    assert Theory(parse_clauses("class(0) :- inactive(h1,0).  class(1) :- below(h1,0,0).")).steps == 1


def _looped():
    one, other = parse_clauses("active(h1,0) :- active(x,0).  active(x,0) :- active(h1,0).")
    return one, {other.head: other}


def test_strata_follow_the_layers():
    level = {name: number for number, names in enumerate(THEORY.strata) for name in names}
    assert level["above(x,0,0.75)"] < level["above(h1,0,0.5)"] < level["above(h1,0,0.25)"] < level["class(0)"]
    assert THEORY.steps == 2


def test_a_theory_with_an_unproved_clause_is_not_proved():
    wrong = parse_clause("class(1) :- above(x,0,0.5).")
    theory = Theory((*CLAUSES, wrong), frozenset(CLAUSES))
    assert THEORY.is_proved and not theory.is_proved
    assert theory.sound.is_proved and wrong not in theory.sound.clauses
    assert derive(theory.sound, [literal("above(x,0,0.5)")], literal("class(1)")) is None
    with pytest.raises(BadTheory, match="called proved but is no clause"):
        Theory(CLAUSES, frozenset([wrong]))


def test_false_is_derived_too():
    found = derive(THEORY, [literal("active(h1,0)"), literal("active(h1,1)")], None)
    assert found.goal is None and str(found.composed) == "false :- active(h1,0), active(h1,1)."
    assert derivation_text(found).startswith("false because (clause ")


def test_an_empty_body_always_fires():
    theory = Theory(parse_clauses("above(h1,0,0.0) :- true.  class(0) :- above(h1,0,0.0)."))
    found = derive(theory, [], literal("class(0)"))
    assert found.composed.body == () and "always holds because" in derivation_text(found)


def test_a_derivation_without_clause_is_what_was_observed():
    leaf = Derivation(literal("active(h1,0)"))
    assert leaf.leaves == {leaf.goal} and leaf.length == 0 and not leaf.clauses
