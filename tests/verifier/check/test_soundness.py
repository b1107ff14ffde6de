"""The checker against truth: certificates of an independent writer, exact values at sampled points, false claims."""

import itertools
from collections.abc import Iterator
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from verifier.certificate import Certificate, Close, Group, ProofNode, Relaxation, Split, Step
from verifier.check import check, confirms, replay
from verifier.check.backward import atom_rows, lower_bounds
from verifier.check.bounds import start
from verifier.check.model import prepare
from verifier.formula import Atom, Term, atom, conjoin, left_side
from verifier.network import Network
from verifier.ops import LINEAR_OPS, LeakyRelu, MaxPool, Relu
from verifier.query import Query
from verifier.region import Ball, Box, outer_bounds

FAMILIES = range(5)
seeds = st.integers(0, 2**32 - 1)


def region_of(network: Network, rng: np.random.Generator, radius: float) -> Ball:
    size = network.size(network.input)
    return Ball(rng.normal(size=size), radius, Box(np.full(size, -10.0), np.full(size, 10.0)))


def accepts(query: Query, root: ProofNode) -> bool:
    group = Group(tuple(range(len(query.disjuncts))), root)
    return check(query, Certificate(query.network.sha256, query.sha256, (group,))).accepted


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("radius", [0.05, 1.0])
def test_bounds_equal_those_of_an_independent_float_pass(networks, writer, family: int, radius: float) -> None:
    rng = np.random.default_rng(10 * family)
    network = networks.families[family](rng)
    region = region_of(network, rng, radius)
    judge = writer(network, *outer_bounds(region))
    chosen = judge.slopes()
    for form in ([1.0, -0.5], [-0.25, 1.0]):
        bound = judge.lower_bound({"y" if network.output == "y" else network.output: np.array(form)}, chosen)
        terms = {(network.output, i): c for i, c in enumerate(form)}
        margin = 1e-7 * (1 + abs(bound))
        close = ProofNode(closed=(Close(0, Relaxation(slopes=chosen, atoms=np.ones((1, 1)))),))
        assert accepts(Query(network, region, atom(terms, -(bound - margin))), close)
        assert not accepts(Query(network, region, atom(terms, -(bound + margin))), close)


@pytest.mark.parametrize("family", FAMILIES)
def test_steps_give_the_tighter_bounds_of_an_independent_float_pass(networks, writer, family: int) -> None:
    rng = np.random.default_rng(family)
    network = networks.families[family](rng)
    region = region_of(network, rng, 0.5)
    judge = writer(network, *outer_bounds(region))
    plain = judge.lower_bound({network.output: np.array([1.0, -1.0])}, judge.slopes())
    steps = []
    for node in network.nodes:
        if isinstance(node.op, Relu | LeakyRelu | MaxPool):
            steps.append(tightened_step(judge, node.inputs[0]))
    chosen = judge.slopes()
    bound = judge.lower_bound({network.output: np.array([1.0, -1.0])}, chosen)
    margin = 1e-6 * (1 + abs(bound))
    claim = atom({(network.output, 0): 1, (network.output, 1): -1}, -(bound - margin))
    close = (Close(0, Relaxation(slopes=chosen, atoms=np.ones((1, 1)))),)
    query = Query(network, region, claim)
    assert accepts(query, ProofNode(tuple(steps), close))
    if bound > plain + 2 * margin:
        assert not accepts(query, ProofNode((), close))


def tightened_step(judge, value: str) -> Step:
    """Both bounds of every entry of a value by the float pass, kept by the judge too."""
    low, high = judge.bounds[value]
    size, chosen = len(low), judge.slopes()
    rows = np.eye(size)
    lower = np.array([judge.lower_bound({value: row}, chosen) for row in rows])
    upper = np.array([-judge.lower_bound({value: -row}, chosen) for row in rows])
    judge.bounds[value] = np.maximum(low, lower), np.minimum(high, upper)
    for node in judge.network.nodes:
        old, new = judge.bounds[node.output], judge._image(node)
        judge.bounds[node.output] = np.maximum(old[0], new[0]), np.minimum(old[1], new[1])
    signs = np.repeat([1, -1], size)
    return Step(value, np.tile(np.arange(size), 2), signs, Relaxation(slopes=chosen))


@pytest.mark.parametrize("seed", range(3))
def test_accepted_bounds_never_pass_the_true_minimum(networks, writer, seed: int) -> None:
    """The true minimum is found by one linear program for each pattern of phases."""
    rng = np.random.default_rng(seed)
    network = networks.mlp(rng, 2, 3, 3, 2)
    region = Box([-1.0, -1.0], [1.0, 1.0])
    form = np.array([1.0, -1.0])
    true = min(minima_by_phase(network, form))
    judge = writer(network, region.lower, region.upper)
    chosen = judge.slopes()
    assert judge.lower_bound({"z2": form}, chosen) <= true + 1e-9
    close = ProofNode(closed=(Close(0, Relaxation(slopes=chosen, atoms=np.ones((1, 1)))),))
    for threshold in true + np.array([1e-9, 0.01, 1.0]):
        assert not accepts(Query(network, region, atom({("z2", 0): 1, ("z2", 1): -1}, -threshold)), close)


def minima_by_phase(network: Network, form: np.ndarray) -> Iterator[float]:
    """The least value of form @ output over the box [-1, 1]^2 within each feasible pattern of a ReLU network's phases."""
    layers = [(n.op.weight, n.op.bias) for n in network.nodes if isinstance(n.op, LINEAR_OPS)]
    count = sum(len(bias) for _, bias in layers[:-1])
    for phases in itertools.product([0.0, 1.0], repeat=count):
        matrix, offset, left, right, start_ = np.eye(2), np.zeros(2), [], [], 0
        for weight, bias in layers[:-1]:
            matrix, offset = weight @ matrix, weight @ offset + bias
            on = np.array(phases[start_ : start_ + len(bias)])
            side = 1 - 2 * on
            left.append(side[:, None] * matrix)
            right.append(-side * offset)
            matrix, offset, start_ = on[:, None] * matrix, on * offset, start_ + len(bias)
        weight, bias = layers[-1]
        cost = form @ weight @ matrix
        found = linprog(cost, np.vstack(left), np.concatenate(right), bounds=[(-1, 1)] * 2)
        if found.status == 0:
            yield found.fun + form @ (weight @ offset + bias)


def random_relaxation(network: Network, rng: np.random.Generator, rows: int, atoms: int) -> Relaxation:
    model, slopes = prepare(network), {}
    for node in network.nodes:
        size = network.size(node.output)
        shape = (int(rng.choice([1, rows])), size)
        if isinstance(node.op, MaxPool):
            inside = [[rng.choice(w[w >= 0]) for w in model.windows[node.output]] for _ in range(shape[0])]
            slopes[node.output] = np.array(inside)
        elif isinstance(node.op, Relu | LeakyRelu) and rng.random() < 0.8:
            slopes[node.output] = np.clip(rng.normal(0.5, 0.6, size=shape), getattr(node.op, "slope", 0.0), 1.0)
    lower, upper = (
        {
            name: rng.exponential(size=(rows, network.size(name))) * (rng.random((rows, network.size(name))) < 0.2)
            for name in network.shapes
            if rng.random() < 0.3
        }
        for _ in range(2)
    )
    return Relaxation(slopes, lower, upper, rng.exponential(size=(rows, atoms)) * (rng.random((rows, atoms)) < 0.7))


def touching_atom(network: Network, values: dict[str, tuple[Fraction, ...]], rng: np.random.Generator) -> Atom:
    """A non-strict atom with two to four terms that holds at the point with equality."""
    names = rng.choice(list(network.shapes), size=int(rng.integers(2, 5)))
    places = {(str(n), int(rng.integers(network.size(str(n))))) for n in names}
    coefficients = {p: Fraction(int(rng.integers(-9, 10)), int(rng.choice([1, 4, 3]))) for p in places}
    loose = atom(coefficients, 0)
    return Atom(loose.terms, -left_side(loose, values))


@settings(max_examples=120, deadline=None)
@given(seeds, st.sampled_from(FAMILIES), st.sampled_from([0.0, 1e-13, 1e-6, 0.1, 2.0]))
def test_every_bound_holds_at_every_sampled_point(networks, seed: int, family: int, radius: float) -> None:
    rng = np.random.default_rng(seed)
    network = networks.families[family](rng)
    region = region_of(network, rng, radius)
    model = prepare(network)
    box = outer_bounds(region)
    middle = replay(network, region.center)
    atoms = tuple(touching_atom(network, middle, rng) for _ in range(2))
    bounds = start(model, *box, atoms)
    assert bounds is not None
    points = [region.center, *rng.uniform(*box, size=(2, region.size)), *(np.where(rng.random(region.size) < 0.5, *box),)]
    exact = [values for values in (replay(network, x) for x in points) if all(left_side(a, values) <= 0 for a in atoms)]
    for values in exact:
        for name, interval in bounds.items():
            assert all(lo <= v <= hi for lo, v, hi in zip(interval.lower, values[name], interval.upper, strict=True))
    value = str(rng.choice(list(network.shapes)))
    forms = rng.integers(-3, 4, size=(3, network.size(value))).astype(float)
    relaxation = random_relaxation(network, rng, 3, len(atoms))
    proven, _ = lower_bounds(model, bounds, 3, {value: forms}, relaxation, atom_rows(model, atoms))
    for values in exact:
        for form, bound in zip(forms, proven, strict=True):
            assert bound <= sum(Fraction(c) * v for c, v in zip(form, values[value], strict=True))


def random_tree(network: Network, rng: np.random.Generator, atoms: int, depth: int) -> ProofNode:
    steps = []
    for _ in range(int(rng.integers(0, 3))):
        value = str(rng.choice(list(network.shapes)))
        indices = rng.integers(network.size(value), size=2)
        steps.append(Step(value, indices, rng.choice([-1, 1], size=2), random_relaxation(network, rng, 2, atoms)))
    close = Close(0, random_relaxation(network, rng, 1, atoms))
    if depth == 0 or rng.random() < 0.3:
        return ProofNode(tuple(steps), (close,))
    value = str(rng.choice(list(network.shapes)))
    halves = (random_tree(network, rng, atoms, depth - 1) for _ in range(2))
    return ProofNode(tuple(steps), (), Split(value, int(rng.integers(network.size(value))), float(rng.normal()), *halves))


@settings(max_examples=120, deadline=None)
@given(seeds, st.sampled_from(FAMILIES), st.sampled_from([0.0, 1e-13, 1e-6, 0.1]))
def test_no_certificate_of_a_false_claim_is_accepted(networks, seed: int, family: int, radius: float) -> None:
    """The assertion holds, with equality, at the middle of the region."""
    rng = np.random.default_rng(seed)
    network = networks.families[family](rng)
    region = region_of(network, rng, radius)
    middle = replay(network, region.center)
    count = int(rng.integers(1, 4))
    query = Query(network, region, conjoin(*(touching_atom(network, middle, rng) for _ in range(count))))
    assert confirms(query, region.center)
    assert not accepts(query, random_tree(network, rng, len(query.disjuncts[0]), depth=2))


@settings(max_examples=40, deadline=None)
@given(seeds, st.sampled_from(FAMILIES))
def test_weights_of_any_size_are_bounded_exactly(networks, seed: int, family: int) -> None:
    """Weights scaled by wild powers of two, denormal ones among them, fall partly below the slices."""
    rng = np.random.default_rng(seed)
    plain = networks.families[family](rng)
    network = wild(plain, rng)
    x = rng.normal(size=network.size(network.input))
    region = Box(x, x + 2.0**-30)
    values = replay(network, x)
    form = {(network.output, 0): 1, (network.output, 1): Fraction(-1, 2)}
    at_x = left_side(atom(form, 0), values)
    close = ProofNode(closed=(Close(0, Relaxation(atoms=np.ones((1, 1)))),))
    assert not accepts(Query(network, region, atom(form, -at_x)), close)
    slack = Fraction(1, 1000) * (1 + max(abs(v) for flat in values.values() for v in flat))
    assert accepts(Query(network, region, atom(form, -at_x + slack)), close)


def wild(network: Network, rng: np.random.Generator) -> Network:
    nodes = []
    for node in network.nodes:
        op = node.op
        if hasattr(op, "weight"):
            powers = rng.choice([0, -10, -25, -45, -70, -1060], size=op.weight.shape, p=[0.5, 0.1, 0.1, 0.1, 0.1, 0.1])
            op = type(op)(**{**vars(op), "weight": np.ldexp(op.weight, powers)})
        nodes.append(type(node)(node.output, op, node.inputs))
    return Network(network.input, network.input_shape, tuple(nodes), network.output)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_changed_claim_is_no_longer_accepted(networks, writer, family: int) -> None:
    """A proved threshold moved past what a sampled point attains; a sign flipped; a region grown."""
    rng = np.random.default_rng(family)
    network = networks.families[family](rng)
    region = region_of(network, rng, 0.02)
    judge = writer(network, *outer_bounds(region))
    chosen, out = judge.slopes(), network.output
    bound = judge.lower_bound({out: np.array([1.0, -1.0])}, chosen) - 1e-6
    close = ProofNode(closed=(Close(0, Relaxation(slopes=chosen, atoms=np.ones((1, 1)))),))
    claim = atom({(out, 0): 1, (out, 1): -1}, -bound)
    assert accepts(Query(network, region, claim), close)
    values = replay(network, region.center)
    attained = values[out][0] - values[out][1]
    flipped = Atom(tuple(Term(t.value, t.index, -t.coefficient) for t in claim.terms), -claim.bias)
    assert not accepts(Query(network, region, Atom(claim.terms, -attained)), close)
    assert not accepts(Query(network, region, flipped), close)
    grown = Ball(region.center, 9.0, region.domain)
    low = min(a - b for a, b in (replay(network, x)[out] for x in rng.uniform(*outer_bounds(grown), size=(40, grown.size))))
    if low <= bound:
        assert not accepts(Query(network, grown, claim), close)
