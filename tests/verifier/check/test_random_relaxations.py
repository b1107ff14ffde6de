"""Random choices over networks of every kind never refute what a sampled input satisfies; planted bugs do."""

from fractions import Fraction

import numpy as np
import pytest
import torch
from laws.networks import ALL_KINDS, random_network, sample_box

from verifier.certificate import Certificate, Close, Group, Plane, ProofNode, Relaxation, Split
from verifier.check import check, curves, float_backward, lines
from verifier.check.choices import under_planes
from verifier.check.float_model import prepare_floats
from verifier.evaluate import output
from verifier.formula import atom
from verifier.network import Network, Node
from verifier.ops import ACTIVATION_OPS, CURVE_OPS, LeakyRelu, MaxPool, Product
from verifier.query import Query
from verifier.region import Box

WIDTHS = (0.0, 2.0**-12, 0.25, 2.0)


def attained(network: Network, form: np.ndarray, points: np.ndarray) -> float:
    """The smallest value of a form of the output at some points."""
    values = output(network, torch.tensor(points).reshape(-1, *network.input_shape[1:]))
    return float((values.flatten(1).numpy() @ form).min())


def relaxation(network: Network, rng: np.random.Generator) -> Relaxation:
    slopes, upper_slopes, held = {}, {}, ({}, {})
    for node in network.nodes:
        size = network.size(node.output)
        if rng.random() < 0.3 or isinstance(node.op, MaxPool):
            continue
        if isinstance(node.op, ACTIVATION_OPS):
            least = node.op.slope if isinstance(node.op, LeakyRelu) else 0.0
            slopes[node.output] = rng.uniform(least, 1, size=(1, size))
        elif isinstance(node.op, Product):
            slopes[node.output], upper_slopes[node.output] = rng.uniform(size=(1, size)), rng.uniform(size=(1, size))
        elif isinstance(node.op, CURVE_OPS):
            slopes[node.output], upper_slopes[node.output] = rng.normal(size=(2, 1, size)) * rng.choice([0.1, 1.0])
        for side in held:
            if rng.random() < 0.1:
                side[node.output] = rng.exponential(size=(1, size)) * (rng.random((1, size)) < 0.2) * 0.1
    planes = {node.output: plane(network, node, rng) for node in network.nodes if takes_planes(network, node.output)}
    return Relaxation(slopes, held[0], held[1], np.full((1, 1), rng.choice([1.0, 0.3])), upper_slopes, planes)


def takes_planes(network: Network, name: str) -> bool:
    return under_planes(prepare_floats(network), name) is not None


def plane(network: Network, node: Node, rng: np.random.Generator, *, rows: int = 1) -> Plane:
    """Random shares of some columns, often 0 or 1, above some entries."""
    jump = under_planes(prepare_floats(network), node.output)
    assert jump is not None
    entries, columns = (
        np.flatnonzero(rng.random(size) < 0.7) for size in (network.size(node.output), network.size(jump.source))
    )
    shape = (rows, len(entries), len(columns))
    shares = np.where(rng.random(shape) < 0.5, rng.integers(0, 256, size=shape), 255 * rng.integers(0, 2, size=shape))
    return Plane(entries, columns, shares.astype(np.uint8), rng.choice([0.5, 1.0, 0.3, 0.0], size=(rows, len(entries))))


def wrong_and_right(kind: str, seeds: range) -> tuple[int, int]:
    """How many of the refuted claims a sample satisfies, and how many claims are refuted where all are far from samples."""
    wrong = right = 0
    for seed in seeds:
        rng = np.random.default_rng(seed)
        network = random_network(kind, seed=seed)
        low = rng.normal(size=network.size(network.input)) * 0.5
        high = low + WIDTHS[seed % len(WIDTHS)] * rng.random(low.size)
        form = rng.normal(size=network.size(network.output))
        least = attained(network, form, sample_box(low, high, count=60, seed=seed))
        if not np.isfinite(least):
            continue
        scale = 1.0 + abs(least)
        for gap in (1e-9 * scale, -1e-6 * scale, -50.0 * scale):
            terms = {(network.output, i): Fraction(c) for i, c in enumerate(form.tolist())}
            query = Query(network, Box(low, high), atom(terms, Fraction(-(least + gap))))
            closes = [(Close(0, relaxation(network, rng)),) for _ in range(3)]
            halves = ProofNode((), closes[1], rebound=True), ProofNode((), closes[2])
            cut = Split(network.input, 0, float((low[0] + high[0]) / 2), *halves)
            for root in (ProofNode((), closes[0]), ProofNode((), closes[0], rebound=True), ProofNode(split=cut)):
                certificate = Certificate(network.sha256, query.sha256, (Group((0,), root),))
                accepted = check(query, certificate).accepted
                wrong += accepted and gap > 0
                right += accepted and gap < 0
    return wrong, right


@pytest.mark.parametrize("kind", ALL_KINDS)
def test_no_claim_that_a_sample_satisfies_is_refuted(kind: str) -> None:
    wrong, right = wrong_and_right(kind, range(12))
    assert wrong == 0
    assert right > 0


def swapped(shape: object, slope: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    return curves.offset_below(shape, slope, low, high)


def outside(run, node, coefficients, weights, upper_weights) -> None:
    """Planes that the factors' bounds do not keep on their side."""
    through(run, node, coefficients, np.full((1, 1, 1), -1.0), np.full((1, 1, 1), 2.0))


def for_zero_alone(source, weight, bias, slopes, columns) -> np.ndarray:
    """Planes that stay above 0, but not above what the Relu reads."""
    return offsets(source, weight, bias - 1e9, slopes, columns)


offsets = float_backward._plane_offsets
through = float_backward._through_product
wave_offset = curves._wave_offset


@pytest.mark.parametrize(
    ("module", "name", "bug", "kind"),
    [
        (lines, "offset_above", swapped, "waves"),
        (lines, "offset_above", swapped, "sigmoids"),
        (curves, "_wave_offset", lambda op, slope, low, high, sign: wave_offset(op, slope, low, high, -sign), "waves"),
        (curves, "_wave_offset", lambda op, slope, low, high, sign: wave_offset(op, slope, low, low, sign), "waves"),
        (float_backward, "_through_product", outside, "polynomial"),
        (float_backward, "_plane_offsets", for_zero_alone, "deep"),
    ],
)
def test_planted_bugs_refute_what_samples_satisfy(monkeypatch: pytest.MonkeyPatch, module, name: str, bug, kind: str) -> None:
    monkeypatch.setattr(module, name, bug)
    assert wrong_and_right(kind, range(12))[0] > 0
