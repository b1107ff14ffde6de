"""Masks of attention scores: minus infinity added to a value, or in the place of one, on the way to a softmax."""

import numpy as np
import pytest
import torch
import z3
from onnx import TensorProto
from onnx.helper import make_node
from torch import nn

from specmine.queries import starting_later
from verifier.check import check, confirms
from verifier.errors import BadNetwork, BadQuery, UnsupportedOp
from verifier.evaluate import evaluate
from verifier.formats.smtlib import smtlib
from verifier.formats.torch_export import read_module
from verifier.formula import TRUE, And, at_least, at_most
from verifier.query import Query
from verifier.region import Box
from verifier.solve import ENGINES, verify
from verifier.verdict import Proved

LOW = float(np.finfo(np.float32).min)
MASK = np.array([[0, -np.inf, -np.inf], [0.5, 1, -np.inf], [0, 0, 0]], dtype=np.float32)
SOFTMAX = make_node("Softmax", ["s"], ["y"], axis=-1)


class Do(nn.Module):
    """A module that computes one function of a (1, 2, 3, 3) value, with the mask at hand."""

    def __init__(self, function):
        super().__init__()
        self.function = function
        self.register_buffer("mask", torch.tensor(MASK, dtype=torch.float64))
        self.register_buffer("low", self.mask.clamp(min=LOW))
        self.register_buffer("hidden", torch.isinf(self.mask))
        self.register_buffer("row", torch.tensor([0.0, -torch.inf, 2.0], dtype=torch.float64))

    def forward(self, x):
        return self.function(self, x)


READ = {
    "added": lambda m, x: (x + m.mask).softmax(-1),
    "added to both sides": lambda m, x: (m.mask + x + m.row).softmax(-1),
    "added before a scale": lambda m, x: ((x + m.mask) / 3).softmax(-1),
    "subtracted": lambda m, x: (x - -m.low).softmax(-1),
    "lowest float": lambda m, x: (x + m.low).softmax(-1),
    "filled": lambda m, x: x.masked_fill(m.hidden, -torch.inf).softmax(-1),
    "filled with a low number": lambda m, x: x.masked_fill(m.hidden, LOW).softmax(-1),
    "chosen": lambda m, x: torch.where(m.hidden, m.mask, x).softmax(-1),
    "moved": lambda m, x: (x + m.mask).transpose(-1, -2).reshape(1, 3, 6)[:, :, :3].softmax(1),
    "along another axis": lambda m, x: (x + m.mask.flip(0)).softmax(-2),
    "of two values": lambda m, x: (torch.where(m.hidden, x + m.mask, 2 * x)).softmax(-1),
    "sum of masked values": lambda m, x: ((x + m.mask) + x.relu()).softmax(-1),
    "all but one": lambda m, x: (x + torch.where(torch.eye(3, dtype=torch.bool), 0.0, -torch.inf)).softmax(-1) + x,
    "none": lambda m, x: x.masked_fill(torch.zeros(3, 3, dtype=torch.bool), -torch.inf).relu(),
    "question of minus infinity": lambda m, x: torch.where((x + m.mask == -torch.inf), x, 2 * x),
}


@pytest.mark.parametrize("name", READ)
def test_masked_softmax_agrees_with_torch(name):
    module, x = Do(READ[name]), 3 * torch.randn(4, 2, 3, 3, dtype=torch.float64)
    network = read_module(module, x[:1])
    wanted = torch.cat([module(row[None]) for row in x])
    found = evaluate(network, x.numpy(), keep=[network.output])[network.output][:, 0]
    np.testing.assert_allclose(found, wanted, rtol=1e-12)
    assert ((found == 0) == (wanted == 0)).all(), "what is masked has no share at all"


REFUSED = {
    "a curve": (lambda m, x: (x + m.mask).exp(), UnsupportedOp, "Exp .*minus infinity"),
    "a negative multiple": (lambda m, x: ((x + m.mask) * -1).softmax(-1), UnsupportedOp, "Scale .*minus infinity"),
    "a product": (lambda m, x: (x + m.mask) * x, UnsupportedOp, "Product .*minus infinity"),
    "a row with nothing left": (lambda m, x: (x + m.row[1]).softmax(-1), UnsupportedOp, "entries are all minus infinity"),
    "an output": (lambda m, x: x + m.mask, BadNetwork, "is minus infinity in places"),
    "a weight": (lambda m, x: x * m.mask, BadNetwork, "'.*mask' has NaN or infinite entries"),
    "plus infinity": (lambda m, x: (x - m.mask).softmax(-1), BadNetwork, "'.*mask' has NaN or infinite entries"),
    "a condition": (lambda m, x: torch.where(x == 1.0, x, 0.0), UnsupportedOp, "comparison that depends"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_masked_is_refused(name):
    function, error, message = REFUSED[name]
    with pytest.raises(error, match=message):
        read_module(Do(function), torch.zeros(1, 2, 3, 3, dtype=torch.float64))


def hidden() -> np.ndarray:
    return np.isinf(MASK)


ONNX = {
    "added": ([make_node("Add", ["x", "m"], ["s"])], {"m": MASK}),
    "added low": ([make_node("Add", ["m", "x"], ["s"])], {"m": np.maximum(MASK, np.float32(LOW))}),
    "filled": ([make_node("Where", ["c", "m", "x"], ["s"])], {"c": hidden(), "m": np.float32(-np.inf)}),
    "kept": ([make_node("Where", ["c", "x", "m"], ["s"])], {"c": ~hidden(), "m": MASK}),
    "of two values": (
        [make_node("Relu", ["x"], ["r"]), make_node("Where", ["c", "x", "r"], ["w"]), make_node("Add", ["w", "m"], ["s"])],
        {"c": hidden(), "m": MASK},
    ),
    "computed": (
        [
            make_node("Trilu", ["ones"], ["t"], upper=0),
            make_node("Equal", ["t", "zero"], ["c"]),
            make_node("Where", ["c", "m", "x"], ["s"]),
        ],
        {"ones": np.ones((3, 3), dtype=np.float32), "zero": np.float32(0), "m": np.float32(-np.inf)},
    ),
}


@pytest.mark.parametrize("name", ONNX)
def test_masked_softmax_agrees_with_onnxruntime(name, model, agrees):
    nodes, weights = ONNX[name]
    agrees(model([*nodes, SOFTMAX], (1, 2, 3, 3), weights, opset=16))


def test_shares_are_numbers(model, agrees):
    """What exporters put behind a softmax for rows that are masked altogether."""
    nodes = [
        make_node("Add", ["x", "m"], ["s"]),
        make_node("Softmax", ["s"], ["p"], axis=-1),
        make_node("IsNaN", ["p"], ["c"]),
        make_node("Where", ["c", "zero", "p"], ["y"]),
    ]
    agrees(model(nodes, (1, 2, 3, 3), {"m": MASK, "zero": np.float32(0)}, opset=16))


def test_a_condition_on_the_input_is_refused(model, read):
    nodes = [make_node("Greater", ["x", "m"], ["c"]), make_node("Where", ["c", "x", "m"], ["y"])]
    with pytest.raises(UnsupportedOp, match="Greater"):
        read(model(nodes, (1, 2, 3, 3), {"m": np.float32(0)}, kind=TensorProto.FLOAT))


PAIR = np.array([[-1e30, 0]], dtype=np.float32)
UNDONE = {
    "scaled back": ([make_node("Add", ["x", "m"], ["t"]), make_node("Mul", ["t", "k"], ["s"])], {"k": np.float32(1e-30)}),
    "divided": ([make_node("Add", ["x", "m"], ["t"]), make_node("Div", ["t", "k"], ["s"])], {"k": np.float32(1e30)}),
    "chosen and scaled back": (
        [make_node("Where", ["c", "m", "x"], ["t"]), make_node("Mul", ["t", "k"], ["s"])],
        {"c": PAIR < 0, "k": np.float32(1e-30)},
    ),
    "halved": ([make_node("Add", ["x", "m"], ["t"]), make_node("Mul", ["t", "k"], ["s"])], {"k": np.float32(0.5)}),
}


@pytest.mark.parametrize("name", UNDONE)
def test_a_mask_that_is_undone_is_no_mask(name, model, read):
    nodes, weights = UNDONE[name]
    with pytest.raises(UnsupportedOp, match="Scale at node 's'"):
        read(model([*nodes, SOFTMAX], (1, 2), {"m": PAIR, **weights}))


def undone_by_a_sum(model, read):
    nodes = [make_node("Add", ["x", "m"], ["t"]), make_node("Add", ["t", "n"], ["s"]), SOFTMAX]
    return read(model(nodes, (1, 2), {"m": PAIR, "n": -PAIR}))


def beaten(model, read):
    nodes = [make_node("Mul", ["x", "k"], ["t"]), make_node("Add", ["t", "m"], ["s"]), SOFTMAX]
    return read(model(nodes, (1, 2), {"m": PAIR, "k": np.float32(1e31)}))


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("network", [beaten, undone_by_a_sum])
def test_nothing_is_decided_where_scores_are_as_large_as_their_mask(network, engine, model, read):
    """The model gives the first entry all or a good part of the share, the network none."""
    query = Query(network(model, read), Box([0.5, 0.0], [1.0, 0.1]), at_least("y", 0, 0.2))
    assert not isinstance(verify(query, timeout_s=2, engine=engine).verdict, Proved)
    assert not confirms(Query(query.network, query.region, at_most("y", 0, 0.1)), np.array([1.0, 0.0]))


@pytest.mark.parametrize("network", [beaten, undone_by_a_sum])
def test_no_smaller_question_and_no_text_hides_a_beaten_mask(network, model, read):
    query = Query(network(model, read), Box([0.5, 0.0], [1.0, 0.1]), at_least("y", 0, 0.2))
    assert not list(starting_later(query))
    solver = z3.Solver()
    solver.from_string(smtlib(query))
    assert solver.check() == z3.sat


def test_smaller_questions_begin_from_finite_bounds_alone(model, read):
    nodes = [make_node("Mul", ["x", "k"], ["t"]), make_node("Exp", ["t"], ["e"]), make_node("Neg", ["e"], ["y"])]
    network = read(model(nodes, (1, 2), {"k": np.float32(1000)}))
    query = Query(network, Box([0.0, 0.0], [1.0, 1.0]), at_least("y", 0, 0.2))
    assert [later.network.input for later in starting_later(query)] == ["t"]


def test_a_mask_holds_where_scores_are_small(model, read):
    rows = np.array([[-1e30, 0, 0]], dtype=np.float32)
    network = read(model([make_node("Add", ["x", "m"], ["s"]), SOFTMAX], (1, 3), {"m": rows}))
    query = Query(network, Box([0.0] * 3, [1.0] * 3), at_least("y", 1, 0.9))
    verdict = verify(query, timeout_s=20).verdict
    assert isinstance(verdict, Proved) and verdict.certificate is not None and check(query, verdict.certificate).accepted
    assert confirms(Query(network, query.region, at_least("y", 1, 0.4)), np.array([1.0, 1.0, 1.0]))


def test_masked_values_are_what_the_model_has_under_their_name(model, read):
    network = read(model([make_node("Add", ["x", "m"], ["s"]), SOFTMAX], (1, 2), {"m": PAIR}))
    point = np.array([[0.5, 0.25]])
    np.testing.assert_array_equal(evaluate(network, point, keep=["s"])["s"].numpy(), [[[PAIR[0, 0], 0.25]]])
    always = And((at_most("s", 0, -1000),))
    assert confirms(Query(network, Box([0.0, 0.0], [1.0, 1.0]), always), point)


def test_minus_infinity_has_no_name(model, read):
    network = read(model([make_node("Add", ["x", "m"], ["s"]), SOFTMAX], (1, 2), {"m": np.array([[-np.inf, 0]], np.float32)}))
    assert confirms(Query(network, Box([0.0, 0.0], [1.0, 1.0]), TRUE), np.array([0.5, 0.5]))
    with pytest.raises(BadQuery, match="no value 's' in the network; it has x, s/unmasked"):
        Query(network, Box([0.0, 0.0], [1.0, 1.0]), at_most("s", 0, -1000))
