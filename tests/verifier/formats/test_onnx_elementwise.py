"""Arithmetic of two values, powers, softmax and casts beyond single nodes."""

import numpy as np
import pytest
from onnx import TensorProto
from onnx.helper import make_node
from onnx_cases.building import drawn, two_values

from verifier.errors import UnsupportedOp
from verifier.formula import at_least
from verifier.ops import LeakyRelu, Power
from verifier.query import Query
from verifier.region import Box
from verifier.solve import ENGINES, verify
from verifier.verdict import Proved

ints, _ = drawn(8)


@pytest.mark.parametrize("op", ["Add", "Sub", "Mul", "Max", "Min", "Sum"])
@pytest.mark.parametrize("shapes", [((1, 3), (1, 3)), ((2, 1), (1, 3)), ((3,), (2, 3)), ((1,), (2, 2)), ((2, 1, 2), (3, 1))])
def test_two_values_broadcast(op, shapes, model, agrees):
    nodes, shape, weights = two_values(op, *shapes)
    agrees(model(nodes, shape, weights))


@pytest.mark.parametrize("shapes", [((1, 3), (1, 3)), ((2, 1), (1, 3)), ((2, 3), (1,))])
def test_a_value_is_divided_by_another(shapes, model, agrees):
    """The divisor is 3 + |b|."""
    nodes, shape, weights = two_values("Div", *shapes)
    nodes[-1:] = [
        make_node("Abs", ["b"], ["size"]),
        make_node("Add", ["size", "three"], ["divisor"]),
        make_node("Div", ["a", "divisor"], ["y"]),
    ]
    agrees(model(nodes, shape, weights | {"three": np.float32(3)}))


@pytest.mark.parametrize("op, weights", [("Reciprocal", {}), ("Div", {"w": ints(2, 3)}), ("Pow", {"w": np.float32(-1)})])
def test_inverses(op, weights, model, agrees):
    inputs = {"Reciprocal": ["h"], "Div": ["w", "h"], "Pow": ["h", "w"]}[op]
    nodes = [make_node("Exp", ["x"], ["h"]), make_node(op, inputs, ["y"])]
    agrees(model(nodes, (1, 3), weights))


@pytest.mark.parametrize("op, exponent", [("Sqrt", None), ("Pow", 0.5), ("Pow", -0.5)])
def test_roots(op, exponent, model, agrees):
    weights = {} if exponent is None else {"w": np.float32(exponent)}
    agrees(model([make_node("Exp", ["x"], ["h"]), make_node(op, ["h", *weights], ["y"])], (1, 3), weights))


def test_negative_powers(model, agrees):
    nodes = [make_node("Exp", ["x"], ["h"]), make_node("Pow", ["h", "w"], ["y"])]
    agrees(model(nodes, (1, 3), {"w": np.float32(-2)}), rtol=1e-4)


@pytest.mark.parametrize("op", ["Floor", "Sign"])
def test_steps_between_whole_numbers(op, model, agrees):
    agrees(model([make_node("Mul", ["x", "w"], ["h"]), make_node(op, ["h"], ["y"])], (1, 9), {"w": np.float32(0.375)}))


def test_a_square_is_a_power(model, read):
    """The square has tighter bounds than a product of two values that do not know of each other."""
    op = read(model([make_node("Mul", ["x", "x"], ["y"])], (1, 3))).nodes[0].op
    assert isinstance(op, Power) and op.exponent == 2


def test_softmax_keeps_its_inner_names_apart(model, agrees):
    """The model itself uses a name that the rewriting would take."""
    nodes = [
        make_node("Softmax", ["x"], ["y/own"]),
        make_node("Softmax", ["y/own"], ["y/own/own"]),
        make_node("Softmax", ["y/own/own"], ["y"]),
    ]
    network = agrees(model(nodes, (1, 3)))
    assert {"y/own", "y/own/own", "y", "y/own'"} <= set(network.shapes)


def test_large_differences_do_not_overflow_a_softmax(model, agrees):
    nodes = [make_node("Mul", ["x", "w"], ["h"]), make_node("Softmax", ["h"], ["y"])]
    agrees(model(nodes, (1, 4), {"w": np.float32(200)}))


def test_cast_to_double_and_back_is_a_copy(model, agrees):
    nodes = [make_node("Cast", ["x"], ["h"], to=TensorProto.DOUBLE), make_node("Cast", ["h"], ["y"], to=TensorProto.FLOAT)]
    agrees(model(nodes, (1, 3)))


def test_a_cast_that_rounds_is_refused(model, read):
    nodes = [make_node("Cast", ["x"], ["h"], to=TensorProto.FLOAT16), make_node("Cast", ["h"], ["y"], to=TensorProto.FLOAT)]
    with pytest.raises(UnsupportedOp, match="to FLOAT16, which rounds values"):
        read(model(nodes, (1, 3)))


def test_leaky_slope_is_the_stored_float32(model, read):
    op = read(model([make_node("LeakyRelu", ["x"], ["y"], alpha=0.1)], (1, 1))).nodes[0].op
    assert isinstance(op, LeakyRelu) and op.slope == float(np.float32(0.1))


@pytest.mark.parametrize("kind, first", [(TensorProto.DOUBLE, 1e39), (TensorProto.FLOAT, 3e38)])
def test_a_clip_at_the_extremes_of_float32_bounds_what_passes_them(model, read, kind, first):
    number = np.float64 if kind == TensorProto.DOUBLE else np.float32
    nodes = [
        make_node("Mul", ["x", "a"], ["s"]),
        make_node("Mul", ["s", "b"], ["t"]),
        make_node("Clip", ["t", "low"], ["r"]),
        make_node("Mul", ["r", "c"], ["y"]),
    ]
    weights = {"a": number(first), "b": number(2), "low": number(-np.finfo(np.float32).max), "c": number(1e-38)}
    network = read(model(nodes, (1, 1), weights, kind=kind))
    query = Query(network, Box([-1.0], [-0.9]), at_least("y", 0, -5.0))  # the model has -3.4 there
    for engine in ENGINES:
        assert not isinstance(verify(query, timeout_s=2, engine=engine).verdict, Proved), engine


def test_a_clip_at_the_extremes_of_float32_costs_small_values_nothing(model, read):
    weights = {"low": np.float32(0), "high": np.finfo(np.float32).max}
    network = read(model([make_node("Clip", ["x", "low", "high"], ["y"])], (1, 1), weights))
    query = Query(network, Box([-1.0], [1.0]), at_least("y", 0, 1.001))
    for engine in ("bound", "auto"):
        assert isinstance(verify(query, timeout_s=5, engine=engine).verdict, Proved)
