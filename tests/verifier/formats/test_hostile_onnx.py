"""Hostile ONNX graphs: cycles, values from nowhere, files outside the folder, numbers out of all bounds."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto
from onnx.helper import make_function, make_node, make_opsetid

from verifier.errors import BadNetwork, VerifierError

WEIGHTS = {"w": np.ones((1, 4), dtype=np.float32), "s": np.array([1, 4]), "i": np.array([0, 1]), "a": np.array([1])}
NODES = [
    make_node("Slice", ["x", "i", "s", "a"], ["y"]),
    make_node("Reshape", ["x", "s"], ["y"]),
    make_node("Transpose", ["x"], ["y"], perm=[1, 0]),
    make_node("Gather", ["x", "i"], ["y"], axis=1),
    make_node("Clip", ["x"], ["y"]),
    make_node("Softmax", ["x"], ["y"], axis=1),
    make_node("LeakyRelu", ["x"], ["y"], alpha=0.1),
    make_node("Concat", ["x", "x"], ["y"], axis=1),
    make_node("Mul", ["x", "w"], ["y"]),
]


@pytest.mark.parametrize("place", ["/etc/passwd", "../../../../etc/passwd", "", "no/such/file", "."])
def test_external_data_elsewhere_is_refused(place, model, read):
    given_model = model([make_node("Mul", ["x", "w"], ["y"])], (1, 4), WEIGHTS)
    tensor = given_model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", place
    with pytest.raises(BadNetwork):
        read(given_model)


def test_cycles_and_values_from_nowhere_are_refused(model, read):
    cycle = model([make_node("Relu", ["x"], ["h"]), make_node("Relu", ["h"], ["y"])], (1, 2))
    cycle.graph.node[0].input[0] = "y"
    missing = model([make_node("Relu", ["x"], ["y"])], (1, 2))
    missing.graph.node[0].input[0] = "elsewhere"
    for given_model in (cycle, missing):
        with pytest.raises(VerifierError):
            read(given_model)


def test_standard_operators_defined_anew_are_refused(model, read):
    given_model = model([make_node("Relu", ["x"], ["y"])], (1, 2))
    body = [make_node("Neg", ["a"], ["b"])]
    given_model.functions.append(make_function("", "Relu", ["a"], ["b"], body, [make_opsetid("", 13)]))
    with pytest.raises(BadNetwork, match="Relu anew"):
        read(given_model)


ODD = st.sampled_from([-(2**63), -(10**12), -2, -1, 0, 1, 2, 3, 7, 10**6, 10**12, 2**63 - 1])


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(number=st.integers(0, len(NODES) - 1), data=st.data())
def test_odd_numbers_anywhere_are_read_or_refused(number, data, model, read):
    """Attributes, constants and shapes with any whole number in place of one: a network, or one of our errors."""
    weights = {name: array.copy() for name, array in WEIGHTS.items()}
    name = data.draw(st.sampled_from(["s", "i", "a"]))
    weights[name].flat[data.draw(st.integers(0, weights[name].size - 1))] = data.draw(ODD)
    given_model = model([NODES[number]], (1, 4), WEIGHTS)
    changed = model([NODES[0]], (1, 4), weights).graph.initializer if data.draw(st.booleans()) else []
    for tensor in changed:
        next(t for t in given_model.graph.initializer if t.name == tensor.name).CopyFrom(tensor)
    for attribute in given_model.graph.node[0].attribute:
        if attribute.ints and data.draw(st.booleans()):
            attribute.ints[0] = data.draw(ODD)
        elif attribute.HasField("i"):
            attribute.i = data.draw(ODD)
    try:
        network = read(given_model)
    except VerifierError as error:
        assert "\n" not in str(error)
    else:
        assert network.size(network.output) >= 0
