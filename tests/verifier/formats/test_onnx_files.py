"""ONNX files: what is real, what is damaged, what is hostile."""

import gzip
import resource
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from onnx.helper import make_node

from verifier.errors import BadNetwork, UnsupportedOp, VerifierError
from verifier.evaluate import evaluate, output
from verifier.formats import read_network
from verifier.formats.onnx import read_onnx
from verifier.ops import Conv, Linear, Relu

WEIGHT = np.array([[1, -2], [3, 0.5]], dtype=np.float32)
MLP = [make_node("MatMul", ["x", "w"], ["h"], name="first"), make_node("Relu", ["h"], ["y"], name="second")]

SUPPORTED_FOLDERS = {
    "acasxu": 45,
    "collins_rul_cnn": 3,
    "cora": 3,
    "eran": 2,
    "linearizenn": 3,
    "lsnc": 2,
    "ml4acopf": 3,
    "mnist_fc": 3,
    "oval21": 3,
    "prophecy_models": 6,
    "reach_prob_density": 3,
    "rl_benchmarks": 3,
    "safenlp": 2,
    "test": 5,
    "tllverifybench": 12,
    "verivital": 2,
    "vit": 2,
}


@pytest.mark.benchmarks
@pytest.mark.parametrize("folder", SUPPORTED_FOLDERS)
def test_real_networks_agree_with_onnxruntime(folder, benchmarks, judge):
    paths = sorted((benchmarks / folder).rglob("*.onnx")) + sorted((benchmarks / folder).rglob("*.onnx.gz"))
    assert len(paths) == SUPPORTED_FOLDERS[folder]
    for path in paths:
        network = read_network(path)
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        samples = np.random.default_rng(0).uniform(-1, 1, size=(8, *network.input_shape)).astype(np.float32)
        wanted = judge(content, samples)
        found = evaluate(network, samples.astype(np.float64), keep=[network.output])[network.output].numpy()
        assert found.shape == wanted.shape
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=5e-6 * np.abs(wanted).max(), err_msg=str(path))


@pytest.mark.benchmarks
def test_inner_values_agree_with_onnxruntime(benchmarks, judge):
    """Every value of the file that the network names, not only its output, is the one onnxruntime computes."""
    path = benchmarks / "prophecy_models" / "mnist" / "cnn_max_mninst2.onnx"
    network, model = read_onnx(path), onnx.load(path)
    samples = np.random.default_rng(1).uniform(size=(2, *network.input_shape)).astype(np.float32)
    found = evaluate(network, samples.astype(np.float64))
    named = [name for node in model.graph.node for name in node.output if name in network.shapes]
    assert len(named) == len(model.graph.node)
    for name in named:
        del model.graph.output[:]
        model.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, network.shapes[name]))
        np.testing.assert_allclose(found[name], judge(model.SerializeToString(), samples), rtol=1e-4, atol=1e-5)


def test_values_keep_their_names(model, read):
    network = read(model(MLP, ("batch", 2), {"w": WEIGHT}))
    assert (network.input, network.input_shape, network.output) == ("x", (1, 2), "y")
    assert [(node.output, type(node.op), node.inputs) for node in network.nodes] == [
        ("h", Linear, ("x",)),
        ("y", Relu, ("h",)),
    ]
    assert network.nodes[0].op.weight.tolist() == WEIGHT.T.tolist()


def test_initializers_listed_as_inputs_are_no_inputs(model, read):
    given_model = model(MLP, (1, 2), {"w": WEIGHT})
    given_model.graph.input.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, (2, 2)))
    assert read(given_model).input == "x"


def test_shape_computations_are_folded(model, agrees):
    """The usual export of `x.view(x.size(0), -1)`: Shape, Gather, Unsqueeze, Concat, Reshape."""
    nodes = [
        make_node("Shape", ["x"], ["s"]),
        make_node("Constant", [], ["zero"], value=numpy_helper.from_array(np.array(0))),
        make_node("Gather", ["s", "zero"], ["n"], axis=0),
        make_node("Constant", [], ["axes"], value_ints=[0]),
        make_node("Unsqueeze", ["n", "axes"], ["n1"]),
        make_node("Constant", [], ["rest"], value_ints=[-1]),
        make_node("Concat", ["n1", "rest"], ["shape"], axis=0),
        make_node("Reshape", ["x", "shape"], ["y"]),
    ]
    assert agrees(model(nodes, (1, 2, 3))).shapes["y"] == (1, 6)


def test_constants_are_folded_in_the_opset_of_the_file(model, agrees):
    """Unsqueeze takes its axes as an attribute before opset 13."""
    nodes = [make_node("Unsqueeze", ["w"], ["v"], axes=[0]), make_node("Add", ["x", "v"], ["y"])]
    agrees(model(nodes, (1, 3), {"w": np.array([1, 2, 3], dtype=np.float32)}, opset=11))


def test_dead_nodes_do_no_harm(model, read):
    nodes = [make_node("Tan", ["x"], ["dead"]), make_node("Relu", ["x"], ["y"])]
    assert [node.output for node in read(model(nodes, (1, 2))).nodes] == ["y"]


def test_old_opsets_are_converted(model, read):
    nodes = [make_node("Add", ["x", "w"], ["y"], broadcast=1)]
    network = read(model(nodes, (1, 2, 2), {"w": np.array([1, 2], dtype=np.float32)}, opset=6))
    assert output(network, np.array([[1.0, 2.0, 3.0, 4.0]])).tolist() == [[2, 4, 4, 6]]


def test_old_broadcasting_along_an_axis_is_refused(model, read):
    """onnx's version converter turns it into another sum."""
    nodes = [make_node("Add", ["x", "w"], ["y"], broadcast=1, axis=1)]
    with pytest.raises(UnsupportedOp, match=r"Add at node 'y' .*along an axis"):
        read(model(nodes, (2, 2, 2), {"w": np.array([1, 2], dtype=np.float32)}, opset=6))


def test_unknown_opsets_are_refused(model, read):
    given_model = model(MLP, (1, 2), {"w": WEIGHT})
    given_model.opset_import[0].version = 1000
    with pytest.raises(BadNetwork):
        read(given_model)


def test_external_weights_are_read(model, save_external, judge):
    path = save_external(model(MLP, (1, 2), {"w": WEIGHT}))
    assert read_onnx(path).nodes[0].op.weight.tolist() == WEIGHT.T.tolist()


def test_missing_external_weights_are_named(model, save_external):
    path = save_external(model(MLP, (1, 2), {"w": WEIGHT}))
    path.with_name("weights.bin").unlink()
    with pytest.raises(BadNetwork, match=r"external data of 'w' at 'weights.bin' cannot be read"):
        read_onnx(path)


def test_external_weights_outside_the_folder_are_refused(model, save_external, tmp_path):
    path = save_external(model(MLP, (1, 2), {"w": WEIGHT}))
    inner = tmp_path / "inner"
    inner.mkdir()
    stored = onnx.load(path, load_external_data=False)
    for entry in stored.graph.initializer[0].external_data:
        if entry.key == "location":
            entry.value = "../weights.bin"
    (inner / "model.onnx").write_bytes(stored.SerializeToString())
    with pytest.raises(BadNetwork, match="external data of 'w'"):
        read_onnx(inner / "model.onnx")


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_weights_that_are_no_numbers_are_named(bad, model, read):
    weight = WEIGHT.copy()
    weight[1, 0] = bad
    with pytest.raises(BadNetwork, match="'w' has NaN or infinite entries"):
        read(model(MLP, (1, 2), {"w": weight}))


def test_several_inputs_or_outputs_are_refused(model, read):
    two_in, two_out = model(MLP, (1, 2), {"w": WEIGHT}), model(MLP, (1, 2), {"w": WEIGHT})
    two_in.graph.input.append(helper.make_tensor_value_info("x2", TensorProto.FLOAT, (1, 2)))
    two_out.graph.output.append(helper.make_tensor_value_info("h", TensorProto.FLOAT, (1, 2)))
    with pytest.raises(BadNetwork, match="exactly one input, the model has 'x', 'x2'; join"):
        read(two_in)
    with pytest.raises(BadNetwork, match="exactly one output, the model has 'y', 'h'; export"):
        read(two_out)


def test_open_axes_but_the_batch_are_refused(model, read):
    with pytest.raises(BadNetwork, match="axis 2 of input 'x' has no fixed length"):
        read(model([make_node("Relu", ["x"], ["y"])], ("batch", 1, "width")))


def test_integer_input_is_refused(model, read):
    with pytest.raises(BadNetwork, match="input 'x' is not a floating-point tensor"):
        read(model([make_node("Cast", ["x"], ["y"], to=TensorProto.FLOAT)], (1, 2), kind=TensorProto.INT64))


def test_constant_output_is_refused(model, read):
    nodes = [make_node("Relu", ["x"], ["h"]), make_node("Add", ["w", "w"], ["y"])]
    with pytest.raises(BadNetwork, match="output 'y' does not depend on the input 'x'"):
        read(model(nodes, (1, 2), {"w": WEIGHT}))


def test_shapes_that_do_not_fit_are_named(model, read):
    given_model = model([make_node("Relu", ["x"], ["h"]), make_node("MatMul", ["h", "w"], ["y"])], (1, 2), {"w": WEIGHT})
    given_model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 5
    with pytest.raises(BadNetwork, match=r"Linear at 'y' does not fit its inputs 'h' \(1, 5\): last axis must have length 2"):
        read(given_model)


def test_operators_of_other_domains_are_refused(model, read):
    given_model = model([make_node("Relu", ["x"], ["y"], name="odd")], (1, 2))
    given_model.graph.node[0].domain = "com.example"
    given_model.opset_import.append(helper.make_opsetid("com.example", 1))
    with pytest.raises(UnsupportedOp, match=r"com\.example::Relu at node 'odd'"):
        read(given_model)


@pytest.mark.parametrize("domains", [("", "ai.onnx"), ("", "")])
def test_operators_in_two_versions_are_refused(model, read, domains):
    """onnxruntime takes one of the two, and which one changes what Softmax means."""
    given_model = model([make_node("Softmax", ["x"], ["y"], axis=0)], (2, 2))
    del given_model.opset_import[:]
    given_model.opset_import.extend(helper.make_opsetid(d, v) for d, v in zip(domains, (13, 11), strict=True))
    with pytest.raises(BadNetwork, match="in two versions, 13 and 11"):
        read(given_model)


HOSTILE = 10**12


def hostile_models(model):
    big = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[HOSTILE, 2], raw_data=b"1234")
    wide = model(MLP, (1, 2), {"w": WEIGHT})
    wide.graph.initializer[0].CopyFrom(big)
    yield "initializer", wide
    attribute = model(MLP, (1, 2), {"w": WEIGHT})
    del attribute.graph.initializer[:]
    attribute.graph.node.insert(0, make_node("Constant", [], ["w"], value=big))
    yield "constant", attribute
    sizes = np.array([HOSTILE, 2], dtype=np.int64)
    for op, inputs in (("ConstantOfShape", ["s"]), ("Expand", ["w", "s"])):
        nodes = [make_node(op, inputs, ["c"]), make_node("Add", ["x", "c"], ["y"])]
        yield op, model(nodes, (1, 2), {"s": sizes, "w": np.ones((1, 1), dtype=np.float32)})
    column, row = np.ones((10**6, 1), dtype=np.float32), np.ones((1, 10**6), dtype=np.float32)
    for op in ("Add", "MatMul"):
        yield (
            op,
            model([make_node(op, ["a", "b"], ["c"]), make_node("Add", ["x", "c"], ["y"])], (1, 1), {"a": column, "b": row}),
        )
    weights = {"s": sizes, "w": np.ones((1, 1), dtype=np.float32), "i": np.array(0), "j": np.array(HOSTILE), "k": np.array(1)}
    weights["pads"] = np.array([0, 0, HOSTILE, 0])
    for op, inputs in (("Tile", ["w", "s"]), ("Pad", ["w", "pads"]), ("Range", ["i", "j", "k"])):
        nodes = [make_node(op, inputs, ["c"]), make_node("Cast", ["c"], ["f"], to=1), make_node("Add", ["x", "f"], ["y"])]
        yield f"constant {op}", model(nodes, (1, 2), weights)
    for op, inputs in (("Tile", ["x", "s"]), ("Pad", ["x", "pads"]), ("Expand", ["x", "s"])):
        yield f"value {op}", model([make_node(op, inputs, ["y"])], (1, 2), weights)
    many = {"g": np.zeros(10**6, dtype=np.int64), "w": np.ones(10**6, dtype=np.float32)}
    yield "gathers", model([make_node("Gather", ["x", "g"], ["h"]), make_node("Gather", ["h", "g"], ["y"])], (1, 10**3), many)
    nodes = [make_node("Reshape", ["x", "g"], ["h"]), make_node("Mul", ["h", "w"], ["m"]), make_node("Mul", ["x", "m"], ["y"])]
    yield "broadcast", model(nodes, (1, 10**3), many | {"g": np.array([10**3, 1, 1])})
    yield "softmax", model([make_node("Softmax", ["x"], ["y"])], (1, 10**7))
    yield "input", model([make_node("Relu", ["x"], ["y"])], (1, HOSTILE))
    for op in ("MaxPool", "AveragePool"):
        node = make_node(op, ["x"], ["y"], kernel_shape=[HOSTILE], pads=[HOSTILE, 0])
        yield op, model([node], (1, 1, 4))
    node = make_node("AveragePool", ["x"], ["y"], kernel_shape=[1, 1], pads=[0, 0, 10**6, 10**6], count_include_pad=1)
    yield "pads", model([node], (1, 1, 4, 4))


def test_hostile_sizes_cost_no_memory(model, read):
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
    for name, given_model in hostile_models(model):
        with pytest.raises(VerifierError) as caught:
            read(given_model)
        assert "\n" not in str(caught.value), name
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000, "kilobytes"
    assert time.perf_counter() - start < 20


def test_gzip_bombs_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("verifier.formats.onnx_model.MAX_UNPACKED_BYTES", 10**6)
    (tmp_path / "m.onnx.gz").write_bytes(gzip.compress(bytes(10**7)))
    with pytest.raises(BadNetwork, match="unpacks to more than 1000000 bytes"):
        read_network(tmp_path / "m.onnx.gz")


def test_gzip_files_are_read(model, tmp_path):
    (tmp_path / "m.onnx.gz").write_bytes(gzip.compress(model(MLP, (1, 2), {"w": WEIGHT}).SerializeToString()))
    assert read_network(tmp_path / "m.onnx.gz").output == "y"


def conv_model(model):
    nodes = [
        make_node("Conv", ["x", "w", "b"], ["c"], kernel_shape=[3]),
        make_node("Relu", ["c"], ["h"]),
        make_node("Flatten", ["h"], ["f"]),
        make_node("Gemm", ["f", "g"], ["y"]),
    ]
    ramp = {"w": (2, 1, 3), "b": (2,), "g": (6, 2)}
    weights = {name: np.arange(1, np.prod(shape) + 1, dtype=np.float32).reshape(shape) for name, shape in ramp.items()}
    return model(nodes, (1, 1, 5), weights)


def test_truncated_files_are_refused_at_every_cut(model, read):
    content = conv_model(model).SerializeToString()
    assert isinstance(read(content).nodes[0].op, Conv)
    for cut in range(len(content)):
        with pytest.raises(BadNetwork) as caught:
            read(content[:cut])
        assert "\n" not in str(caught.value)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=400))
def test_random_bytes_are_refused(data, read):
    with pytest.raises(BadNetwork) as caught:
        read(data)
    assert "\n" not in str(caught.value)


@settings(max_examples=600, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_bytes_are_read_or_refused(data, model, read):
    """A flipped byte may leave a valid model; nothing else than a network or one of our errors may come of it."""
    content = bytearray(conv_model(model).SerializeToString())
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        network = read(bytes(content))
    except VerifierError as error:
        assert "\n" not in str(error)
    else:
        assert network.shapes[network.output]


@pytest.mark.parametrize("name, message", [("m.txt", "unknown file ending; allowed are .onnx"), ("m.onnx", "no such file")])
def test_unknown_and_missing_files(name, message, tmp_path):
    with pytest.raises(BadNetwork, match=message):
        read_network(tmp_path / name)


def test_folders_are_no_networks(tmp_path):
    (tmp_path / "m.onnx").mkdir()
    with pytest.raises(BadNetwork, match="not a file"):
        read_network(Path(tmp_path / "m.onnx"))


def test_empty_files_are_refused(read):
    with pytest.raises(BadNetwork, match="the file is empty"):
        read(b"")
