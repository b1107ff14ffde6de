"""Bodies one layer earlier: the inequalities against the literals at points, the clauses against corners and samples."""

from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest

from specmine.predicates.families import bits, denote
from specmine.predicates.predicate import Predicate
from specmine.rules.boxes import Sides
from specmine.rules.clause import HornClause
from specmine.rules.layered import bodies, inequalities, step_between
from specmine.rules.syntax import parse_clause
from specmine.stats import body_bits
from specmine.tracing import Sites, trace
from verifier.domains import region_bounds
from verifier.formula import holds
from verifier.network import Network, Node
from verifier.ops import Linear, Relu, Sigmoid, frozen_array
from verifier.region import Box


def network(seed=0, widths=(3, 6, 5, 3), op=Relu):
    generator = np.random.default_rng(seed)
    nodes, source = [], "in"
    for k, (before, after) in enumerate(pairwise(widths), 1):
        weight = frozen_array(generator.normal(size=(after, before)))
        nodes.append(Node(f"lin{k}", Linear(weight, frozen_array(generator.normal(size=after) / 2)), (source,)))
        source = f"lin{k}"
        if k < len(widths) - 1:
            nodes.append(Node(f"act{k}", op(), (source,)))
            source = f"act{k}"
    return Network("in", (1, widths[0]), tuple(nodes), source)


SITES = Sites(network())
REGION = Box(np.full(3, -1.0), np.full(3, 1.0))


def reach(site, sites=SITES):
    bounds, value = region_bounds(sites.network, REGION), sites.value(site)
    return Sides(bounds.lower[value][0].numpy(), bounds.upper[value][0].numpy())


STEP = step_between(SITES, "h1", "h2", reach("h1"))


def literal(text):
    return parse_clause(f"{text} :- true.").head


LITERALS = [
    "active(h2,1)",
    "inactive(h2,0)",
    "above(h2,2,0.5)",
    "above(h2,2,-1)",
    "below(h2,3,0.75)",
    "within(h2,3,0.25,2)",
    "less(h2,0,h2,3)",
    "less_by(h2,1,h2,2,-0.5)",
    "less_by(h2,1,h2,2,0.5)",
    "sum_above(h2,0,h2,3,1)",
    "sum_below(h2,0,h2,3,1.5)",
    "sum_over(h2,0,h2,1,h2,2,0.25)",
    "largest(h2,2,h2,0,h2,1)",
    "between(h2,2,h2,0,h2,1)",
]


@pytest.mark.parametrize("text", LITERALS)
def test_the_inequalities_imply_the_literal_at_every_z(text):
    rows = inequalities(literal(text), STEP, SITES)
    formula, generator = denote(literal(text), SITES), np.random.default_rng(1)
    said = 0
    for z in generator.choice([-1.0, -0.25, 0.0, 0.25, 0.5, 1.0, 2.0], (4000, 5)):
        below = all(sum(c * z[i] for i, c in row.terms) + row.bias < 0 for row in rows)
        if below:
            said += 1
            values = {SITES.value("h2"): [Fraction(max(v, 0.0)) for v in z]}
            assert holds(formula, values), (text, z)
    assert said > 20, "they hold somewhere"


@pytest.mark.parametrize("text", ["active(h2,1)", "above(h2,2,0.5)", "below(h2,3,0.75)", "sum_below(h2,0,h2,3,1.5)"])
def test_without_differences_they_say_no_less_than_the_literal(text):
    rows = inequalities(literal(text), STEP, SITES)
    formula = denote(literal(text), SITES)
    for z in np.random.default_rng(2).uniform(-2, 2, (2000, 5)):
        values = {SITES.value("h2"): [Fraction(max(v, 0.0)) for v in z]}
        below = all(sum(c * z[i] for i, c in row.terms) + row.bias < 0 for row in rows)
        assert below == holds(formula, values), (text, z)


def test_literals_that_no_inequality_of_the_step_says():
    assert inequalities(literal("active(h1,0)"), STEP, SITES) is None
    assert inequalities(literal("less(h1,0,h2,0)"), STEP, SITES) is None
    assert inequalities(literal("above(h2,0,0.0)"), STEP, SITES) == [], "a ReLU is never below 0"


@pytest.mark.parametrize(("site", "later"), [("h1", "h2"), ("x", "h1"), ("h1", "z2"), ("h2", "y")])
def test_a_step_computes_what_the_network_computes(site, later):
    step = step_between(SITES, site, later, reach(site))
    made = trace(SITES, np.random.default_rng(0).uniform(-1, 1, (50, 3)), keep=[site, later])
    values = made.values[site] @ step.weight.T + step.bias
    assert step.rectified == (later[0] == "h")
    assert np.allclose(np.maximum(values, 0) if step.rectified else values, made.values[later])


def test_there_is_no_step_over_two_activations_or_other_ones():
    assert step_between(SITES, "x", "h2", reach("x")) is None
    assert step_between(SITES, "h1", "h1", reach("h1")) is None
    curved = Sites(network(op=Sigmoid))
    assert step_between(curved, curved.network.input, "act1", reach("x")) is None


@pytest.mark.parametrize("text", LITERALS)
def test_bodies_imply_the_literal_at_every_value_of_the_layer(text):
    """Values of the earlier layer drawn from its whole reach, corners included, not only those that some input gives."""
    head = literal(text)
    samples = np.random.default_rng(4).uniform(-1, 1, (400, 3))
    made = trace(SITES, samples, keep=["h1", "h2", "y"])
    rows = bits(head, made)
    found = bodies(head, STEP, made, rows, count=3)
    later = Network(SITES.value("h1"), (1, 6), SITES.network.nodes[2:], SITES.network.output)
    box, generator = reach("h1"), np.random.default_rng(5)
    anywhere = generator.uniform(box.lower, box.upper, (200_000, 6))
    corners = np.where(generator.random((100_000, 6)) < 0.5, box.lower, box.upper)
    points = np.concatenate([anywhere, corners])
    there = trace(Sites(later), points, keep=["x", "h1"])
    renamed = type(made)(SITES, {"h1": there.values["x"], "h2": there.values["h1"]}, there.predictions)
    if text == "above(h2,2,-1)":
        assert found[0][0] == HornClause(head, ())
        return
    covered = np.zeros(len(samples), dtype=bool)
    for clause, held in found:
        assert {str(p.arguments[0]) for p in clause.body} == {"h1"} and clause.head == head
        assert (body_bits([clause], made)[0] == held).all() and held.any()
        assert not (body_bits([clause], renamed)[0] & ~bits(head, renamed)).any(), clause
        covered |= held
    assert bool(found) == bool(covered.any())


def test_a_body_has_no_side_more_than_it_needs():
    """One inequality: the sides that gain most, so dropping any leaves the margin short."""
    head = Predicate("above", ("h2", 2, 0.25))
    made = trace(SITES, np.random.default_rng(4).uniform(-1, 1, (400, 3)), keep=["h1", "h2", "y"])
    ((clause, _), *_) = bodies(head, STEP, made, bits(head, made), count=1)
    (row,) = inequalities(head, STEP, SITES)
    slope = -sum(c * STEP.weight[i] for i, c in row.terms)
    for dropped in (None, *clause.body):
        low, high = STEP.reach.lower.copy(), STEP.reach.upper.copy()
        for p in clause.body:
            if p != dropped:
                place = p.arguments[1]
                if p.form in ("above", "within"):
                    low[place] = p.arguments[2]
                if p.form in ("below", "within"):
                    high[place] = p.arguments[-1]
                if p.form == "inactive":
                    high[place] = 0.0
        least = np.minimum(slope * low, slope * high).sum() - sum(c * STEP.bias[i] for i, c in row.terms) - row.bias
        assert (least > 0) == (dropped is None), (dropped, least)
