"""Judges of an imported network: onnxruntime and torch."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from verifier.evaluate import evaluate
from verifier.formats.onnx import read_onnx
from verifier.network import Network

BENCHMARKS = Path(os.environ.get("SPECMINE_BENCHMARKS", Path(__file__).parents[4] / "shared" / "benchmarks"))


def make_model(
    nodes: Sequence[NodeProto],
    shape: Sequence[int | str],
    weights: dict[str, np.ndarray] | None = None,
    *,
    opset: int = 13,
    output: str = "y",
    kind: int = TensorProto.FLOAT,
) -> ModelProto:
    """A model from `x` of this shape to `output`."""
    tensors = [numpy_helper.from_array(array, name) for name, array in (weights or {}).items()]
    graph = helper.make_graph(
        list(nodes),
        "graph",
        [helper.make_tensor_value_info("x", kind, shape)],
        [helper.make_tensor_value_info(output, kind, None)],
        tensors,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)
    inferred = onnx.shape_inference.infer_shapes(model)
    if not inferred.graph.output[0].type.tensor_type.HasField("shape"):
        inferred.graph.output[0].type.tensor_type.shape.dim.add().dim_param = "any"
    return inferred


def run_onnxruntime(content: bytes, samples: np.ndarray) -> np.ndarray:
    """Outputs of onnxruntime, one sample at a time."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return np.stack([session.run(None, {name: sample})[0] for sample in samples])


def run_network(network: Network, samples: np.ndarray) -> np.ndarray:
    return evaluate(network, samples, keep=[network.output])[network.output].numpy()


@pytest.fixture
def model() -> Callable[..., ModelProto]:
    return make_model


@pytest.fixture
def read(tmp_path: Path) -> Callable[[ModelProto | bytes], Network]:
    """Read a model by way of a file."""

    def read_model(given: ModelProto | bytes) -> Network:
        path = tmp_path / "model.onnx"
        path.write_bytes(given if isinstance(given, bytes) else given.SerializeToString())
        return read_onnx(path)

    return read_model


@pytest.fixture
def agrees(read: Callable[[ModelProto], Network]) -> Callable[..., Network]:
    """Import a model and compare it with onnxruntime on small integer samples, where float32 rarely rounds."""

    def compare(given: ModelProto, *, seed: int = 0, rtol: float = 1e-5) -> Network:
        network = read(given)
        samples = np.random.default_rng(seed).integers(-8, 9, size=(4, *network.input_shape))
        kind = helper.tensor_dtype_to_np_dtype(given.graph.input[0].type.tensor_type.elem_type)
        wanted = run_onnxruntime(given.SerializeToString(), samples.astype(kind))
        found = run_network(network, samples.astype(np.float64))
        assert found.shape == wanted.shape
        np.testing.assert_allclose(found, wanted, rtol=rtol, atol=rtol)
        return network

    return compare


@pytest.fixture
def benchmarks() -> Path:
    if not BENCHMARKS.is_dir():
        pytest.skip(f"no benchmark folder at {BENCHMARKS}; set SPECMINE_BENCHMARKS to it")
    return BENCHMARKS


@pytest.fixture
def judge() -> Callable[[bytes, np.ndarray], np.ndarray]:
    return run_onnxruntime


@pytest.fixture
def save_external(tmp_path: Path) -> Callable[[ModelProto], Path]:
    """Write a model with its weights in a file beside it."""

    def save(given: ModelProto, **settings: Any) -> Path:
        path = tmp_path / "external.onnx"
        onnx.save_model(
            given, path, save_as_external_data=True, all_tensors_to_one_file=True, location="weights.bin", size_threshold=0
        )
        return path

    return save
