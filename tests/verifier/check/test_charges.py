"""The charges and roundings of the float64 replay are needed: without them bounds pass exact values, with them none does."""

from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from verifier.certificate import Certificate, Close, Group, ProofNode, Relaxation
from verifier.check import boxes as boxes_module
from verifier.check import check, curves, float_backward, lines, replay, rounding
from verifier.check.boxes import first_boxes
from verifier.check.float_backward import Choices, Seen, atom_forms, lower_bounds
from verifier.check.float_model import prepare_floats
from verifier.check.rebound import rebounded
from verifier.formula import Atom, Term, atom, left_side
from verifier.network import Network, Node
from verifier.ops import LeakyRelu, Linear, MaxPool, Power, Product, Relu, Scale, frozen_array
from verifier.query import Query
from verifier.region import Box


def affine(rng: np.random.Generator) -> Network:
    """Layers whose entries nearly cancel: what is left is far smaller than what is added."""
    nodes, last = [], "x"
    for k in range(3):
        weight = rng.normal(size=(4, 4)) * 2.0 ** rng.integers(-30, 30, size=(4, 4))
        nodes.append(Node(f"z{k}", Linear(frozen_array(weight), frozen_array(rng.normal(size=4))), (last,)))
        last = f"z{k}"
    return Network("x", (1, 4), tuple(nodes), last)


def layered(rng: np.random.Generator) -> Network:
    """Activations over layers that make entries large and alike in turn, and take differences of them."""
    nodes, last = [], "x"
    for k in range(4):
        alike = 2.0**20 * rng.random(4) + rng.normal(size=(4, 4))
        differing = rng.integers(-40, 40, size=(4, 4)) / 8
        differing[:, 0] -= differing.sum(axis=1)
        weight, bias = (alike, np.zeros((1, 4))) if k % 2 == 0 else (differing, 4 * rng.random((1, 4)))
        nodes.append(Node(f"z{k}", Linear(frozen_array(weight), frozen_array(np.zeros(4))), (last,)))
        nodes.append(Node(f"b{k}", Scale(frozen_array(np.ones((1, 4))), frozen_array(bias)), (f"z{k}",)))
        nodes.append(Node(f"a{k}", LeakyRelu(float(rng.random())), (f"b{k}",)))
        last = f"a{k}"
    return Network("x", (1, 4), tuple(nodes), last)


def bent(rng: np.random.Generator) -> Network:
    op = Relu() if rng.random() < 0.5 else LeakyRelu(float(rng.random()))
    return Network("x", (1, 4), (Node("y", op, ("x",)),), "y")


def multiplied(rng: np.random.Generator) -> Network:
    weight, bias = frozen_array(rng.normal(size=(4, 4))), frozen_array(rng.normal(size=4))
    nodes = (Node("z", Linear(weight, bias), ("x",)), Node("p", Product(), ("x", "z")), Node("y", Product(), ("p", "p")))
    return Network("x", (1, 4), nodes, "y")


def squared(rng: np.random.Generator) -> Network:
    return Network("x", (1, 4), (Node("y", Product(), ("x", "x")),), "y")


def cubed(rng: np.random.Generator) -> Network:
    return Network("x", (1, 4), (Node("y", Power(int(rng.integers(2, 6))), ("x",)),), "y")


def pooled(rng: np.random.Generator) -> Network:
    return Network("x", (1, 1, 4), (Node("y", MaxPool((2,), (1,), ((0, 0),), (1,)), ("x",)),), "y")


def violations(family: Callable[[np.random.Generator], Network], seed: int) -> int:
    """How many bounds pass the exact value at a corner of their box, which is a point or small."""
    rng = np.random.default_rng(seed)
    network = family(rng)
    model, center = prepare_floats(network), rng.normal(size=4)
    radius = rng.choice([0.0, 0.0, 2.0**-40, 1.0])
    low, high = center - radius, center + radius
    corners = [replay(network, point) for point in (low, high, np.where(rng.random(4) < 0.5, low, high))]
    exact = {name: [values[name] for values in corners] for name in network.shapes}
    last = network.output
    terms = {(last, i): Fraction(int(rng.integers(-99, 99)), 7) for i in range(3)}
    atoms = (atom(terms, Fraction(1, 3)), atom({("x", 0): Fraction(1, 3)}, Fraction(-5, 7)))
    start = first_boxes(model, low, high, ())
    count = 0
    for found in (start, rebounded(model, start, np.array([True]))):
        for name, (lower, upper) in found.sides.items():
            for values in exact[name]:
                count += sum(Fraction(lo) > v for lo, v in zip(lower[0], values, strict=True) if np.isfinite(lo))
                count += sum(Fraction(hi) < v for hi, v in zip(upper[0], values, strict=True) if np.isfinite(hi))
        forms = rng.normal(size=(1, 6, network.size(last)))
        multipliers = rng.exponential(size=(1, 6, 2)) * (rng.random((1, 6, 1)) < 0.5)
        held = {"x": rng.exponential(size=(1, 6, 4)) * (rng.random((1, 6, 1)) < 0.3)}
        choices = Choices(lower=held, atoms=multipliers)
        proven = lower_bounds(model, Seen(found, None), {last: forms}, (1, 6), choices, atom_forms(network, atoms))[0]
        for k, bound in enumerate(proven):
            for values in corners:
                total = sum(Fraction(c) * v for c, v in zip(forms[0, k], values[last], strict=True))
                total += sum(Fraction(m) * left_side(a, values) for m, a in zip(multipliers[0, k], atoms, strict=True))
                ends = zip(held["x"][0, k], found.sides["x"][0][0], values["x"], strict=True)
                total += sum(Fraction(m) * (Fraction(lo) - v) for m, lo, v in ends)
                count += bool(np.isfinite(bound)) and Fraction(bound) > total
    return count


FAMILIES = (affine, layered, bent, multiplied, squared, cubed, pooled)


def found(family: Callable[[np.random.Generator], Network]) -> int:
    with np.errstate(all="ignore"):
        return sum(violations(family, seed) for seed in range(40))


@pytest.mark.parametrize("family", FAMILIES)
def test_no_bound_passes_an_exact_value(family) -> None:
    assert found(family) == 0


def unchanged(result: np.ndarray) -> np.ndarray:
    return result


PLANTED = [
    (float_backward, "gamma", lambda terms: 0.0, affine),
    (float_backward, "gamma", lambda terms: 0.0, pooled),
    (float_backward, "_charge", lambda absolute, error, terms: np.zeros(absolute.shape[:2]), affine),
    (boxes_module, "gamma", lambda terms: 0.0, affine),
    (boxes_module, "below", unchanged, squared),
    (boxes_module, "above", unchanged, squared),
    (boxes_module, "below", unchanged, bent),
    (curves, "gamma", lambda terms: 0.0, cubed),
    (curves, "above", lambda result: result * (1 - 2.0**-40), cubed),
]


@pytest.mark.parametrize(("module", "name", "bug", "family"), PLANTED)
def test_a_planted_bug_is_seen(monkeypatch: pytest.MonkeyPatch, module, name: str, bug: object, family) -> None:
    monkeypatch.setattr(module, name, bug)
    assert found(family) > 0


def test_layers_passed_at_once_need_their_charge(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(float_backward, "gamma", lambda terms: 0.0)
    monkeypatch.setattr(float_backward, "UNIT", 0.0)
    assert found(layered) > 0


def test_jumps_compose_only_what_needs_no_arithmetic() -> None:
    rng = np.random.default_rng(0)
    network = layered(rng)
    assert prepare_floats(network).jumps["b2"].source == "a1"
    nodes = (
        Node("r", Scale(frozen_array([[1.0, 1.0]]), frozen_array([[1.0, 0.0]])), ("x",)),
        Node("z", Linear(frozen_array(rng.normal(size=(2, 2))), frozen_array([1.0, 0.0])), ("r",)),
        Node("u", Scale(frozen_array([[1.0, 1.0]]), frozen_array([[0.0, 3.0]])), ("z",)),
        Node("v", Scale(frozen_array([[1.0, 1.0]]), frozen_array([[0.1, 0.0]])), ("u",)),
        Node("w", Scale(frozen_array([[1.0, 2.0]]), frozen_array([[0.0, 0.0]])), ("u",)),
    )
    jumps = prepare_floats(Network("x", (1, 2), nodes, "w")).jumps
    assert {name: jump.source for name, jump in jumps.items()} == {"r": "x", "z": "r", "u": "r", "v": "u", "w": "u"}
    assert jumps["u"].mapped.bias.tolist() == [1.0, 3.0]


@example(1.7976931348623157e308)
@example(2.0**-1022)
@given(st.floats(allow_nan=True, allow_infinity=True))
def test_one_operation_is_rounded_beyond_its_neighbour(result: float) -> None:
    low, high = float(rounding.below(np.array([result]))[0]), float(rounding.above(np.array([result]))[0])
    if np.isfinite(result):
        assert low <= np.nextafter(result, -np.inf) and high >= np.nextafter(result, np.inf)
        assert abs(result) > 1e308 or high - low <= 2.0**-50 * abs(result) + 2.0**-958
    else:
        assert (low, high) == (-np.inf, np.inf)


def line_violations(seed: int) -> int:
    """Lines of an activation that cross it at an end of its bounds or at 0."""
    rng = np.random.default_rng(seed)
    least = float(rng.random())
    node = Node("y", LeakyRelu(least), ("x",))
    low, high = np.sort(rng.normal(size=(1, 30)) * 10.0 ** rng.integers(-9, 9), axis=0), np.zeros((1, 30))
    low, high = -np.abs(low), np.abs(rng.normal(size=(1, 30)))
    made = lines.activation_lines(node, low, high, None)
    count = 0
    for k in range(30):
        for z in (Fraction(low[0, k]), Fraction(high[0, k]), Fraction(0)):
            y = max(z, Fraction(least) * z)
            count += Fraction(made.low[0, 0, k]) * z > y
            count += Fraction(made.high[0, 0, k]) * z + Fraction(made.high_offset[0, 0, k]) < y
    return count


def test_lines_of_activations_hold_exactly_at_the_ends() -> None:
    assert sum(map(line_violations, range(30))) == 0


@pytest.mark.parametrize("bug", [unchanged, lambda result: np.nextafter(result, -np.inf)])
def test_lines_rounded_wrongly_are_seen(monkeypatch: pytest.MonkeyPatch, bug: Callable) -> None:
    monkeypatch.setattr(lines, "above", bug)
    assert sum(map(line_violations, range(30))) > 0


def fooling() -> tuple[Network, Atom]:
    """y = x + 2**10 terms of 2**-56 x, each lost against 1 in float64, and y <= -1 - 2**-47 on [-1, -1/2], true at -1."""
    count = 2**10
    spread = Node("z", Linear(frozen_array(np.full((count + 1, 1), 1.0)), frozen_array(np.zeros(count + 1))), ("x",))
    weights = np.full((1, count + 1), 2.0**-56)
    weights[0, 0] = 1.0
    gather = Node("y", Linear(frozen_array(weights), frozen_array([0.0])), ("z",))
    return Network("x", (1, 1), (spread, gather), "y"), Atom((Term("y", 0, Fraction(1)),), 1 + Fraction(1, 2**47))


def test_a_sum_that_floats_lose_is_not_lost() -> None:
    """The claim is satisfiable; sums that drop what is lost say that it is not."""
    network, claim = fooling()
    query = Query(network, Box([-1.0], [-0.5]), Atom((*claim.terms, Term("x", 0, Fraction(1, 2**90))), claim.bias))
    assert replay(network, np.array([-1.0]))["y"][0] < -1 - Fraction(1, 2**47)
    proof = ProofNode((), (Close(0, Relaxation(atoms=np.ones((1, 1)))),))
    certificate = Certificate(network.sha256, query.sha256, (Group((0,), proof),))
    assert not check(query, certificate).accepted
    model = prepare_floats(network)

    def bound() -> float:
        seen = Seen(first_boxes(model, np.array([-1.0]), np.array([-0.5]), ()), None)
        choices = Choices(atoms=np.ones((1, 1, 1)))
        return float(lower_bounds(model, seen, {}, (1, 1), choices, atom_forms(network, query.disjuncts[0]))[0, 0])

    assert bound() <= 0
    naive = 0.0
    for weight in network.producers["y"].op.weight[0].tolist():
        naive -= weight
    assert Fraction(naive) > -1 - Fraction(1, 2**47)


@pytest.mark.parametrize("scale", [1e30, 1e-30, 5e-324, 1e300])
def test_weights_at_the_ends_of_float64(scale: float) -> None:
    """What is accepted is true, whatever overflows or underflows on the way."""
    rng = np.random.default_rng(0)
    first = Node("z", Linear(frozen_array(rng.normal(size=(3, 2)) * scale), frozen_array(rng.normal(size=3))), ("x",))
    last = Node("y", Linear(frozen_array(rng.normal(size=(2, 3)) / max(scale, 1e-300)), frozen_array([0.0, 0.0])), ("a",))
    network = Network("x", (1, 2), (first, Node("a", Relu(), ("z",)), last), "y")
    x = np.array([0.5, -0.25])
    value = replay(network, x)["y"][0]
    proof = ProofNode((), (Close(0, Relaxation(atoms=np.ones((1, 1)))),))
    size = max(abs(value), Fraction(1))
    for shift, is_true in ((Fraction(0), True), (size / 2**60, True), (-size / 1000, False)):
        terms = (Term("x", 0, Fraction(1, 2**200)), Term("y", 0, Fraction(1)))
        query = Query(network, Box(x, x), Atom(terms, -value - shift - Fraction(1, 2) * Fraction(1, 2**200)))
        accepted = check(query, Certificate(network.sha256, query.sha256, (Group((0,), proof),))).accepted
        assert not (accepted and is_true)


def test_ties_and_margins_below_rounding_are_decided_exactly() -> None:
    network = Network("x", (1, 1), (Node("y", Linear(frozen_array([[0.5]]), frozen_array([0.25])), ("x",)),), "y")
    proof = ProofNode((), (Close(0, Relaxation(atoms=np.ones((1, 1)))),))
    for slack, strict, accepted in ((0, True, True), (0, False, False), (Fraction(1, 2**80), False, True)):
        terms = (Term("x", 0, Fraction(-1, 4)), Term("y", 0, Fraction(1)))
        query = Query(network, Box([0.75], [0.75]), Atom(terms, Fraction(-7, 16) + slack, strict))
        result = check(query, Certificate(network.sha256, query.sha256, (Group((0,), proof),)))
        assert result.accepted is accepted and result.exact == 1


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
def test_closes_with_slopes_of_any_precision_are_decided_in_floats(kind: type) -> None:
    rng = np.random.default_rng(0)
    first = Node("z", Linear(frozen_array(rng.normal(size=(3, 2))), frozen_array(rng.normal(size=3))), ("x",))
    last = Node("y", Linear(frozen_array(rng.normal(size=(1, 3))), frozen_array([0.0])), ("a",))
    network = Network("x", (1, 2), (first, Node("a", Relu(), ("z",)), last), "y")
    query = Query(network, Box([-1.0, -1.0], [1.0, 1.0]), atom({("y", 0): 1, ("x", 0): 1}, 100))
    for slopes, accepted in ((np.full((1, 3), 0.5), True), (np.array([[0.5, 0.5, 2.0]]), False), ([[0.5, 1.0, np.nan]], False)):
        held = {"z": np.full((1, 3), 0.25, dtype=kind)}
        choices = Relaxation({"a": np.array(slopes, dtype=kind)}, held, atoms=np.ones((1, 1), dtype=kind))
        certificate = Certificate(network.sha256, query.sha256, (Group((0,), ProofNode((), (Close(0, choices),))),))
        result = check(query, certificate)
        assert (result.accepted, result.exact) == (accepted, 0), result.reason
