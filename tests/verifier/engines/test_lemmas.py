"""Lemmas: true of every sample, accepted by the kernel, refused where they claim more than they prove, kept in files."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from laws.networks import chain, sample_box
from laws.queries import random_query

from verifier.certificate import NODE, Certificate, Close, Group, Lemmas, Prelude, ProofNode, Relaxation, Split
from verifier.check import check, read_certificate, write_certificate
from verifier.engines.bound import start_batch
from verifier.engines.lemmas import has_lemmas, prove_lemmas
from verifier.engines.problem import Group as Premise
from verifier.engines.problem import shared_atoms
from verifier.evaluate import evaluate
from verifier.formula import And, Or, at_least, atom
from verifier.network import Network
from verifier.ops import Conv, Linear, Relu, Sigmoid
from verifier.query import Query
from verifier.region import Box
from verifier.solve import verify
from verifier.strategy import Strategy, Turn
from verifier.verdict import Proved, Unknown

INPUTS = 4


def network(seed: int, *, layers: int = 3, width: int = 12) -> Network:
    rng = np.random.default_rng(seed)
    ops, size = [], INPUTS
    for _ in range(layers):
        ops += [Linear(rng.normal(size=(width, size)), rng.normal(size=width) * 0.3), Relu()]
        size = width
    return chain((1, INPUTS), *ops, Linear(rng.normal(size=(2, width)) / 4, np.zeros(2)))


def query(seed: int, *, premise: int | None = None) -> Query:
    """That an output is out of reach, under a premise on a neuron and on a difference of two of this node, if one is given."""
    net = network(seed)
    region = Box(-np.ones(INPUTS), np.ones(INPUTS))
    hidden = net.nodes[premise or 0].output
    common = [atom({(hidden, 0): 1}, -0.5), atom({(hidden, 1): 1, (hidden, 2): -1}, -1.0)] if premise is not None else []
    far = Or(tuple(atom({(net.output, k): -1}, 1e4) for k in range(2)))
    return Query(net, region, And((*common, far)))


def proved(asked: Query, *, leaves: int = 300) -> Prelude:
    group = Premise(asked, (0, 1), shared_atoms(asked), ())
    _, prelude = prove_lemmas(start_batch([group]), leaves=leaves, out_of_time=lambda: False)
    return prelude


def certificate(asked: Query, prelude: Prelude) -> Certificate:
    """A certificate that ends with what intervals know of the outputs."""
    closes = tuple(_by_bounds(asked, d) for d in range(2))
    return Certificate(asked.network.sha256, asked.sha256, (Group((0, 1), ProofNode(closed=closes)),), prelude)


def _by_bounds(asked: Query, disjunct: int) -> Close:
    """-y + 10000 <= 0 against the proven upper bound of y."""
    atoms = np.zeros((1, len(asked.disjuncts[disjunct])))
    goal = next(k for k, a in enumerate(asked.disjuncts[disjunct]) if a.terms[0].value == asked.network.output)
    atoms[0, goal] = 1.0
    upper = np.zeros((1, 2))
    upper[0, disjunct] = 1.0
    return Close(disjunct, Relaxation(upper={asked.network.output: upper}, atoms=atoms))


def lemmas_in(prelude: Prelude) -> Iterator[tuple[int, Lemmas]]:
    return ((k, part) for k, part in enumerate(prelude) if isinstance(part, Lemmas))


def values_at(asked: Query, count: int, seed: int) -> dict[str, np.ndarray]:
    """All values at samples of the region that satisfy the premise."""
    low, high = asked.region.lower, asked.region.upper
    values = {
        v: t.flatten(1).numpy() for v, t in evaluate(asked.network, sample_box(low, high, count=count, seed=seed)).items()
    }
    inside = np.ones(len(values[asked.network.input]), dtype=bool)
    for a in shared_atoms(asked):
        inside &= sum(float(t.coefficient) * values[t.value][:, t.index] for t in a.terms) + float(a.bias) <= 0
    return {v: x[inside] for v, x in values.items()}


@pytest.mark.parametrize("premise", [None, 2, 4])
@pytest.mark.parametrize("seed", range(6))
def test_lemmas_hold_at_samples_and_are_accepted(seed: int, premise: int | None) -> None:
    """A premise on node 4 lies behind what most lemmas depend on."""
    asked = query(seed, premise=premise)
    prelude = proved(asked)
    found = list(lemmas_in(prelude))
    assert found, "networks of this kind leave neurons undecided"
    values = values_at(asked, 20_000, seed)
    for _, part in found:
        x = values[part.value][:, part.indices] * part.signs
        assert (x >= part.ats * part.signs - 1e-9).all()
    result = check(asked, certificate(asked, prelude))
    assert result.accepted, result.reason


@pytest.mark.parametrize("seed", range(6))
def test_a_lemma_that_a_sample_refutes_is_not_accepted(seed: int) -> None:
    """Each lemma's number moved beyond the farthest sample, its trees as they are, and trees of a root alone."""
    asked = query(seed, premise=2 if seed % 2 else None)
    prelude = proved(asked)
    values = values_at(asked, 20_000, seed)
    for k, part in lemmas_in(prelude):
        for row in range(0, len(part.indices), 3):
            reached = (values[part.value][:, part.indices[row]] * part.signs[row]).min()
            ats = part.ats.copy()
            ats[row] = part.signs[row] * (reached + 1e-6)
            alone = ProofNode(closed=_leaf(part.trees[row]).closed)
            for trees in (part.trees, (*part.trees[:row], alone, *part.trees[row + 1 :])):
                bent = (*prelude[:k], replace(part, ats=ats, trees=trees))
                assert not check(asked, certificate(asked, bent)).accepted


def _leaf(node: ProofNode) -> ProofNode:
    while node.split is not None:
        node = node.split.low
    return node


def test_lemmas_come_back_from_files(tmp_path: Path) -> None:
    asked = query(1, premise=2)
    given = certificate(asked, proved(asked))
    write_certificate(asked, given, tmp_path / "c.npz")
    again, read = read_certificate(tmp_path / "c.npz", asked.network)
    assert again.sha256 == asked.sha256 and len(read.prelude) == len(given.prelude)
    for old, new in zip(given.prelude, read.prelude, strict=True):
        assert type(old) is type(new) and old.value == new.value and (old.indices == new.indices).all()
        assert (old.signs == new.signs).all()
        if isinstance(old, Lemmas) and isinstance(new, Lemmas):
            assert (old.ats == new.ats).all() and len(old.trees) == len(new.trees)
    first, second = check(asked, given), check(again, read)
    assert second.accepted and (first.splits, first.closes) == (second.splits, second.closes)


def test_ill_formed_lemmas_are_refused() -> None:
    asked = query(0)
    prelude = proved(asked)
    k, part = next(lemmas_in(prelude))
    tree = part.trees[0]
    wrong = {
        "lacks": replace(part, value="nothing"),
        "out of range": replace(part, indices=part.indices + 1000),
        "1 or -1": replace(part, signs=part.signs * 2),
        "not finite": replace(part, ats=part.ats * np.inf),
        "one number each": replace(part, ats=part.ats[:-1]),
        "one tree each": replace(part, trees=part.trees[:-1]),
        "a proof node was expected": replace(part, trees=(None, *part.trees[1:])),  # type: ignore[arg-type]
        "left open": replace(part, trees=(ProofNode(), *part.trees[1:])),
        "ill-formed": replace(part, trees=(ProofNode(closed=(Close(0, Relaxation()),)), *part.trees[1:])),
        "a step or lemmas": "lemma",
    }
    for message, bent in wrong.items():
        result = check(asked, certificate(asked, (*prelude[:k], bent)))  # type: ignore[arg-type]
        assert not result.accepted and message in (result.reason or ""), (message, result.reason)
        assert (result.place or "").startswith(f"prelude part {k}"), (message, result.place)
        in_a_tree = message in ("a proof node was expected", "left open", "ill-formed")
        assert ("lemma 0" in (result.place or "")) == in_a_tree, (message, result.place)
    # the disjunct of lemmas closes nothing in a group
    closes = (Close(NODE, _by_bounds(asked, 0).relaxation),)
    group = Group((0, 1), ProofNode(split=Split(asked.network.output, 0, 0.0, tree, ProofNode(closed=closes))))
    assert not check(asked, Certificate(asked.network.sha256, asked.sha256, (group,))).accepted


@pytest.mark.parametrize("seed", [2, 3])
def test_a_query_is_proved_from_lemmas(seed: int) -> None:
    asked = query(seed)
    output = asked.network.output
    most = (values_at(asked, 20_000, 0)[output].max(0) * 3).tolist()
    above = Query(asked.network, asked.region, Or(tuple(atom({(output, k): -1}, most[k]) for k in range(2))))
    assert isinstance(verify(above, engine="bound", timeout_s=60).verdict, Unknown)
    verdict = verify(above, engine="lemmas", timeout_s=60).verdict
    assert isinstance(verdict, Proved) and verdict.certificate is not None and verdict.certificate.prelude


def test_networks_that_lemmas_are_not_made_for() -> None:
    one = Linear(np.ones((2, 2)), np.zeros(2))
    assert has_lemmas(network(0))
    assert not has_lemmas(chain((1, 2), one, Relu(), one))
    assert not has_lemmas(chain((1, 2), one, Relu(), one, Sigmoid(), one))
    window = Conv(np.ones((1, 1, 1)), np.zeros(1), (1,), ((0, 0),), (1,), 1)
    assert not has_lemmas(chain((1, 1, 3), window, Relu(), window, Relu()))


def test_trees_without_anything_to_split_end() -> None:
    """A query of the random ones whose reduced network keeps nothing: a batch of splits was empty."""
    asked = random_query("deep", seed=1010)
    group = Premise(asked, tuple(range(len(asked.disjuncts))), shared_atoms(asked), ())
    batch, _ = prove_lemmas(start_batch([group]), leaves=60, out_of_time=lambda: False)
    assert batch.bounds.keys() == asked.network.shapes.keys()


def test_lemmas_that_time_cut_short_leave_the_bounds_that_were_known(monkeypatch) -> None:
    net, region = network(0), Box(-np.ones(INPUTS), np.ones(INPUTS))
    highest = values_at(query(0), 20_000, seed=0)[net.output][:, 0].max()
    asked = Query(net, region, at_least(net.output, 0, highest + 0.01))
    bounds = []
    for turns in ((Turn("optimise"),), (Turn("optimise"), Turn("lemmas", splits=100))):
        strategy = Strategy([asked], turns, name="given", timeout_s=60, starts=None, seed=0)
        monkeypatch.setattr("verifier.strategy.prove_lemmas", lambda batch, **_: (batch, ()))
        list(strategy.run())
        (case,) = strategy.cases
        low, high = case.roots[0].bounds[net.output]
        bounds.append((case.bound, float(low[0, 0]), float(high[0, 0])))
    assert bounds[0] == bounds[1] and bounds[0][0] is not None and bounds[0][0] < 0
