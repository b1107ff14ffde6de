"""Planes above a Relu over the box of what its map reads: exact at corners, kept in files, refused where they do not fit."""

from dataclasses import replace
from fractions import Fraction
from itertools import product

import numpy as np
import pytest
from laws.networks import chain

from verifier.certificate import Certificate, Close, Group, Plane, ProofNode, Relaxation, Step
from verifier.check import check, read_certificate, write_certificate
from verifier.check.float_backward import _plane_offsets
from verifier.formula import atom
from verifier.ops import Linear, Relu, Reshape
from verifier.query import Query
from verifier.region import Box


def exact(values: np.ndarray) -> list[Fraction]:
    return [Fraction(v) for v in values.tolist()]


@pytest.mark.parametrize("seed", range(40))
def test_planes_lie_above_at_every_corner_and_touch_one(seed: int) -> None:
    """max(0, W v + b) - p v is convex in v, so its maximum over a box is at a corner: all are looked at in exact arithmetic."""
    rng = np.random.default_rng(seed)
    inputs, scale = 5, 10.0 ** rng.integers(-6, 7)
    weight, bias = rng.normal(size=(3, inputs)) * scale, rng.normal(size=3) * scale
    weight[rng.random(weight.shape) < 0.2] = 0.0
    low = rng.normal(size=(2, inputs))
    high = low + rng.random((2, inputs)) * rng.choice([0.0, 1e-9, 1.0, 30.0], size=inputs)
    columns = np.flatnonzero(rng.random(inputs) < 0.7)
    shares = rng.integers(0, 256, size=(2, 1, 3, len(columns))) / 255
    slopes = shares * weight[:, columns]
    offsets = _plane_offsets((low, high), weight, bias, slopes, columns)
    assert offsets.shape == (2, 1, 3)
    for node in range(2):
        corners = [exact(np.array(c)) for c in product(*zip(low[node], high[node], strict=True))]
        for j in range(3):
            w, p, b = exact(weight[j]), [Fraction(0)] * inputs, Fraction(float(bias[j]))
            for i, c in zip(columns.tolist(), exact(slopes[node, 0, j]), strict=True):
                p[i] = c
            needed = []
            for v in corners:
                z = sum((a * x for a, x in zip(w, v, strict=True)), b)
                needed.append(max(z, Fraction(0)) - sum(a * x for a, x in zip(p, v, strict=True)))
            gap = Fraction(float(offsets[node, 0, j])) - max(needed)
            assert 0 <= gap <= Fraction(1e-9) * (1 + Fraction(float(np.abs(weight[j]).sum() * 32 + abs(bias[j]))))


# the sum of relu(x1 + x2) and relu(x1 - x2) over [-1, 1]^2: at most 2, by chords 3, by the planes 1 + x2 and 1 - x2 again 2
BOTH = Linear(np.array([[1.0, 1.0], [1.0, -1.0]]), np.zeros(2))
NETWORK = chain((1, 2), Reshape((1, 2)), BOTH, Relu(), Linear(np.array([[-1.0, -1.0]]), np.zeros(1)))
RELU = NETWORK.nodes[2].output
BEST = Plane(np.arange(2), np.arange(2), np.array([[[0, 255], [0, 255]]], dtype=np.uint8), np.ones((1, 2)))


def claim(plane: Plane | None, bound: float) -> tuple[Query, Certificate]:
    """That the sum is below the bound."""
    query = Query(NETWORK, Box(-np.ones(2), np.ones(2)), atom({(NETWORK.output, 0): Fraction(1)}, Fraction(bound)))
    relaxation = Relaxation(atoms=np.ones((1, 1)), planes={} if plane is None else {RELU: plane})
    root = ProofNode((), (Close(0, relaxation),))
    return query, Certificate(NETWORK.sha256, query.sha256, (Group((0,), root),))


def test_planes_prove_what_chords_do_not() -> None:
    proved = {bound: [check(*claim(plane, bound)).accepted for plane in (None, BEST)] for bound in (1.99, 2.01, 2.99, 3.01)}
    assert proved == {1.99: [False, False], 2.01: [False, True], 2.99: [False, True], 3.01: [True, True]}


def test_a_part_of_a_coefficient_goes_to_the_plane() -> None:
    half = replace(BEST, weights=np.full((1, 2), 0.5))
    assert not check(*claim(half, 2.49)).accepted and check(*claim(half, 2.51)).accepted
    one = Plane(np.array([1]), np.array([1]), np.array([[[255]]], dtype=np.uint8), np.ones((1, 1)))
    assert not check(*claim(one, 2.49)).accepted and check(*claim(one, 3.01)).accepted


@pytest.mark.parametrize(
    "change",
    [
        {"entries": np.array([1, 0])},
        {"entries": np.array([1, 1])},
        {"entries": np.array([0, 2])},
        {"entries": np.array([0.0, 1.0])},
        {"columns": np.array([0, 2])},
        {"columns": np.array([-1, 1])},
        {"shares": BEST.shares.astype(np.int16)},
        {"shares": BEST.shares[:, :1]},
        {"shares": np.ma.masked_array(BEST.shares, mask=True)},
        {"weights": np.full((1, 2), 1.01)},
        {"weights": np.full((1, 2), -0.5)},
        {"weights": np.full((1, 2), np.nan)},
        {"weights": np.ones((2, 2))},
    ],
)
def test_planes_that_do_not_fit_prove_nothing(change: dict[str, np.ndarray]) -> None:
    assert check(*claim(BEST, 3.5)).accepted
    assert not check(*claim(replace(BEST, **change), 3.5)).accepted


def test_planes_stand_above_relus_of_one_map_alone() -> None:
    query, certificate = claim(BEST, 3.5)
    for name in (NETWORK.output, NETWORK.input, "nothing", NETWORK.nodes[1].output):
        relaxation = Relaxation(atoms=np.ones((1, 1)), planes={name: BEST})
        groups = (Group((0,), ProofNode((), (Close(0, relaxation),))),)
        assert not check(query, replace(certificate, groups=groups)).accepted


def test_steps_take_no_planes() -> None:
    query, certificate = claim(BEST, 3.5)
    ((close,),) = [part.root.closed for part in certificate.groups]
    step = Step(NETWORK.output, np.array([0]), np.array([1]), replace(close.relaxation, atoms=np.zeros((1, 1))))
    for given, accepted in ((step, False), (replace(step, relaxation=Relaxation()), True)):
        groups = (Group((0,), ProofNode((given,), (close,))),)
        assert check(query, replace(certificate, groups=groups)).accepted == accepted


def test_planes_come_back_from_files(tmp_path) -> None:
    query, certificate = claim(BEST, 2.01)
    write_certificate(query, certificate, tmp_path / "c.npz")
    same, again = read_certificate(tmp_path / "c.npz", NETWORK)
    plane = again.groups[0].root.closed[0].relaxation.planes[RELU]
    for name in ("entries", "columns", "shares", "weights"):
        assert np.array_equal(getattr(plane, name), getattr(BEST, name)), name
    assert check(same, again).accepted
