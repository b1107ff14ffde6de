"""Compare the network with the model it was read from: the adapter of onnxruntime, onnx and torch."""

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import onnx
import torch
from onnx.reference import ReferenceEvaluator

from specmine.errors import BadModel
from specmine.tracing.trace import check_samples
from verifier.evaluate import output
from verifier.network import Network
from verifier.ops import Array

try:
    import onnxruntime
except ImportError:
    onnxruntime = None

Run: TypeAlias = Callable[[Array], Array]
COMPARED = 64
TOLERANCE = 1e-4


def compare_with_original(network: Network, original: Path | str | torch.nn.Module, samples: Any) -> float:
    """The largest difference between the network in float64 and its original, over the first 64 samples.

    original: the torch module, or the ONNX file (maybe packed by gzip), which is run by onnxruntime where that is installed
    and else by onnx's reference evaluator. Raises BadModel, naming the worst output, where they differ by more than 1e-4 of
    the largest output (at least 1e-4), which float32 arithmetic does not explain.
    """
    x = check_samples(network, samples)[:COMPARED]
    run = _run_module(original) if isinstance(original, torch.nn.Module) else _run_file(Path(original))
    ours = output(network, torch.from_numpy(np.array(x))).numpy()
    theirs = np.stack([run(row.reshape(network.input_shape)).reshape(-1) for row in x])
    if ours.shape != theirs.shape:
        raise BadModel(f"the network has {ours.shape[1]} outputs but its original has {theirs.shape[1]}")
    difference = np.abs(ours - theirs)
    difference[np.isnan(difference)] = np.inf
    worst = tuple(int(i) for i in np.unravel_index(difference.argmax(), difference.shape))
    if not difference[worst] <= TOLERANCE * max(1.0, float(np.abs(theirs).max())):
        raise BadModel(
            f"the network computes {ours[worst]:.6g} where its original computes {theirs[worst]:.6g}, at output {worst[1]} of "
            f"sample {worst[0]}; the model uses something that was read wrongly: please report it with the file"
        )
    return float(difference[worst])


def _run_module(module: torch.nn.Module) -> Run:
    parameter = next(module.parameters(), None)
    like = torch.zeros(()) if parameter is None else parameter

    @torch.no_grad()
    def run(x: Array) -> Array:
        training = {part: part.training for part in module.modules()}
        module.eval()
        try:
            return module(torch.from_numpy(np.array(x)).to(like)).double().cpu().numpy()
        finally:
            for part, flag in training.items():
                part.training = flag

    return run


def _run_file(path: Path) -> Run:
    try:
        packed = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else None
        if onnxruntime:
            return _run_onnxruntime(str(path) if packed is None else packed)
        return _run_reference(onnx.load(path) if packed is None else onnx.load_from_string(packed))
    except Exception as error:  # both libraries raise many unrelated types for a bad file
        raise BadModel(f"cannot run {path}: {error}; give an ONNX file that onnxruntime runs") from error


def _run_onnxruntime(model: str | bytes) -> Run:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    dtype = np.float64 if given.type == "tensor(double)" else np.float32
    return lambda x: np.asarray(
        session.run([session.get_outputs()[0].name], {given.name: x.astype(dtype)})[0], dtype=np.float64
    )


def _run_reference(model: onnx.ModelProto) -> Run:
    evaluator = ReferenceEvaluator(model)
    constants = {tensor.name for tensor in model.graph.initializer}
    (given,) = [value for value in model.graph.input if value.name not in constants]
    dtype = np.float64 if given.type.tensor_type.elem_type == onnx.TensorProto.DOUBLE else np.float32

    def run(x: Array) -> Array:
        outputs: Any = evaluator.run(None, {given.name: x.astype(dtype)})
        return np.asarray(outputs[0], dtype=np.float64)

    return run
