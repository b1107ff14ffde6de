"""The whole verifier against itself: proofs are bent and put under claims that an input refutes; no engine gives up loudly."""

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from laws.networks import ALL_KINDS, Weights, chain, random_box, random_network, sample_box
from laws.queries import random_query

from verifier.certificate import Certificate, Close, Lemmas, ProofNode, Relaxation, Split, Step
from verifier.check import check, confirms, read_certificate, write_certificate
from verifier.engines.lemmas import has_lemmas
from verifier.evaluate import evaluate
from verifier.formula import And, at_least, at_most
from verifier.network import Network
from verifier.ops import Linear, Relu, frozen_array
from verifier.query import Query
from verifier.region import Box
from verifier.solve import ENGINES, verify
from verifier.strategy import Strategy, Turn
from verifier.verdict import Proved, Unknown

SEARCHES: dict[str, tuple[Turn, ...]] = {
    **{name: ENGINES[name] for name in ("bound", "boxes", "split", "lp")},
    "lemmas": (Turn("lemmas", 0.7, splits=200), Turn("split")),  # without bounds first, which would leave them little
}
WITH_LEMMAS = [kind for kind in ALL_KINDS if has_lemmas(random_network(kind, seed=0, grid=True))]
BENDS = 12


def proved_and_refuted(kind: str, seed: int, search: str | None = None) -> tuple[Query, Query, Certificate] | None:
    """A proved bound on an output of a random network, and the same claim with a bound that some input passes.

    search: one of SEARCHES, by default in turn with the seed.
    """
    name = search or list(SEARCHES)[seed % len(SEARCHES)]
    network = random_network(kind, seed=seed, grid=True)
    lower, upper = (side[0] for side in random_box(network, seed=seed))
    points = sample_box(lower, upper, count=300, seed=seed)
    highest = evaluate(network, points)[network.output].flatten(1).numpy()[:, 0]
    best, spread = int(highest.argmax()), float(np.ptp(highest)) + 2.0**-6
    top = Fraction(float(highest[best]))
    for margin in (Fraction(1, 16), Fraction(1), Fraction(8)):
        query = Query(network, Box(lower, upper), at_least(network.output, 0, top + margin * Fraction(spread)))
        strategy = Strategy([query], SEARCHES[name], name=name, timeout_s=1.5, starts=None, seed=0)
        ((_, decision),) = list(strategy.run())
        verdict = decision.verdict
        if isinstance(verdict, Proved) and verdict.certificate is not None:
            false = replace(query, assertion=at_least(network.output, 0, top - Fraction(spread) / 2**20))
            assert confirms(false, points[best])
            return query, false, verdict.certificate
    return None


class Bent:
    """Random changes of a proof, most of which no honest writer makes."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)

    def certificate(self, given: Certificate, query: Query) -> Certificate:
        groups = tuple(replace(group, root=self.node(group.root)) for group in given.groups)
        prelude = tuple(self.step(part) if isinstance(part, Step) else self.lemmas(part) for part in given.prelude)
        return Certificate(query.network.sha256, query.sha256, groups, prelude)

    def lemmas(self, given: Lemmas) -> Lemmas:
        trees = tuple(self.node(tree) for tree in given.trees)
        signs = -given.signs if self.rng.random() < 0.2 else given.signs
        return Lemmas(given.value, given.indices, signs, self.array(given.ats), trees)

    def node(self, node: ProofNode) -> ProofNode:
        if self.rng.random() < 0.1:
            return ProofNode(rebound=bool(self.rng.integers(2)))
        steps = tuple(self.step(step) for step in node.steps)
        closed = tuple(Close(close.disjunct, self.relaxation(close.relaxation)) for close in node.closed)
        rebound = node.rebound != (self.rng.random() < 0.2)
        return ProofNode(steps, closed, None if node.split is None else self.split(node.split), rebound)

    def split(self, split: Split) -> Split:
        at = split.at + float(self.rng.choice([0.0, 0.0, 2.0**-30, -1.0, 1e300, np.inf, np.nan]))
        low, high = self.node(split.low), self.node(split.high)
        return Split(split.value, split.index, at, *((low, high) if self.rng.random() < 0.8 else (high, low)))

    def step(self, step: Step) -> Step:
        signs = -step.signs if self.rng.random() < 0.2 else step.signs
        return Step(step.value, step.indices, signs, self.relaxation(step.relaxation))

    def relaxation(self, given: Relaxation) -> Relaxation:
        sides = ({name: self.array(array) for name, array in side.items()} for side in (given.slopes, given.lower, given.upper))
        upper_slopes = {name: self.array(array) for name, array in given.upper_slopes.items()}
        planes = {
            name: replace(plane, shares=self.array(plane.shares), weights=self.array(plane.weights))
            for name, plane in given.planes.items()
        }
        return Relaxation(*sides, self.array(given.atoms), upper_slopes, planes)

    def array(self, array: np.ndarray) -> np.ndarray:
        if not array.size or self.rng.random() < 0.5:
            return array
        changed = array.astype(array.dtype)
        place = tuple(int(self.rng.integers(n)) for n in array.shape)
        if array.dtype.kind != "f":
            changed[place] += self.rng.integers(-2, 3)
            return changed
        changes: list[Callable[[float], float]] = [
            lambda v: -v, lambda v: 2 * v, lambda v: 1e6, lambda v: -1e-9, lambda v: np.nan, lambda v: np.inf,
            lambda v: 0.0, lambda v: 1.0, lambda v: v + 0.1, lambda v: 1 + 2.0**-10,
        ]  # fmt: skip
        with np.errstate(over="ignore"):
            changed[place] = changes[int(self.rng.integers(len(changes)))](float(array[place]))
        return changed


@pytest.mark.parametrize("kind", ALL_KINDS)
def test_no_bent_proof_shows_what_an_input_refutes(kind: str) -> None:
    tried = 0
    for seed in range(6):
        found = proved_and_refuted(kind, seed)
        if found is None:
            continue
        query, false, certificate = found
        renamed = Certificate(query.network.sha256, false.sha256, certificate.groups, certificate.prelude)
        assert not check(false, renamed).accepted
        for k in range(BENDS):
            tried += 1
            assert not check(false, Bent(100 * seed + k).certificate(certificate, false)).accepted, (seed, k)
    assert tried, "some claims about networks of every kind are proved"


@pytest.mark.parametrize("kind", WITH_LEMMAS)
def test_no_bent_prelude_shows_what_an_input_refutes(kind: str) -> None:
    tried = 0
    for seed in range(12):
        found = proved_and_refuted(kind, seed, "lemmas")
        if found is None or not found[2].prelude:
            continue
        _, false, certificate = found
        for k in range(BENDS):
            tried += 1
            assert not check(false, Bent(100 * seed + k).certificate(certificate, false)).accepted, (seed, k)
    assert tried, "some claims rest on lemmas"


@pytest.mark.parametrize("kind", ALL_KINDS)
def test_a_proof_read_from_a_file_is_accepted_for_its_query_alone(kind: str, tmp_path: Path) -> None:
    kept = [found for seed in range(6) if (found := proved_and_refuted(kind, seed)) is not None]
    assert kept
    for query, false, certificate in kept[:2]:
        write_certificate(query, certificate, tmp_path / "proof")
        read, again = read_certificate(tmp_path / "proof", query.network)
        assert read.sha256 == query.sha256 and check(read, again).accepted
        assert check(false, again).reason == "it was made for another query"


@pytest.mark.parametrize("kind", ALL_KINDS)
@pytest.mark.parametrize("engine", ["boxes", "split", "optimise"])
def test_each_search_alone_answers_every_query(kind: str, engine: str) -> None:
    """Begun without the turns before it, a search also meets what its roots' bounds decide."""
    for seed in range(4):
        query = random_query(kind, seed=seed)
        strategy = Strategy([query], (Turn(engine),), name=engine, timeout_s=0.5, starts=None, seed=0)
        ((position, decision),) = list(strategy.run())
        assert position == 0
        assert not isinstance(decision.verdict, Unknown) or decision.verdict.reason in ("timeout", "incomplete")


def one_linear_map(w: Weights) -> Network:
    return chain((1, 3), w.linear(3, 2))


@pytest.mark.parametrize("engine", ["bound", "boxes", "split", "falsify", "smt", "auto"])
@pytest.mark.parametrize("strict", [False, True])
def test_a_network_with_nothing_to_split_is_answered(engine: str, strict: bool) -> None:
    network = one_linear_map(Weights(3, grid=True))
    box = Box(np.zeros(3), np.ones(3))
    top = evaluate(network, sample_box(box.lower, box.upper, count=0, seed=0))[network.output].flatten(1).numpy()[:, 0].max()
    for threshold, holds_somewhere in ((top, not strict), (top + 0.25, False), (top - 0.25, True)):
        goal = And((at_least(network.output, 0, Fraction(float(threshold)), strict=strict), at_least(network.output, 1, -99)))
        verdict = verify(Query(network, box, goal), timeout_s=2, engine=engine).verdict
        if holds_somewhere:
            assert not isinstance(verdict, Proved)
        elif engine != "falsify":
            assert isinstance(verdict, Proved)


@pytest.mark.parametrize("engine", ["bound", "boxes", "split"])
@pytest.mark.parametrize("size", [1e100, 1e160, 1e300])
def test_bounds_beyond_floats_are_answered_and_prove_nothing_false(engine: str, size: float) -> None:
    rows = ([[size, -size], [1, 2]], [[size, 1], [1, -size]], [[1, -1], [size, size]])
    first, second, last = (Linear(frozen_array(row), frozen_array([0, 0])) for row in rows)
    network = chain((1, 2), first, Relu(), second, Relu(), last)
    # at x = (1, -1) the last output is beyond size ** 2, and at x = (-1, -1) it is 0
    for goal in (at_least(network.output, 1, 1e10), at_most(network.output, 1, 0)):
        assert not isinstance(verify(Query(network, Box([-1, -1], [1, 1]), goal), timeout_s=1, engine=engine).verdict, Proved)
