"""Run a counterexample through onnxruntime, which shares no code with the verifier, and measure how far it misses the query."""

import gzip
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import onnxruntime

from verifier.bench.replay_types import Replay, ReplayRequest
from verifier.formula import And, Atom, Formula, Or, atoms_of
from verifier.ops import Array
from verifier.query import Query
from verifier.region import constraints, exact_bounds
from verifier.task import load

TYPES = {"tensor(float)": np.float32, "tensor(double)": np.float64, "tensor(float16)": np.float16}


def replay(request: ReplayRequest) -> Replay:
    """The violation of the query by onnxruntime's run of the counterexample, in the types of the model file.

    Hidden values are read from the same run; without a violation where one of them has no counterpart in the file.
    """
    query = load(request.network, request.query).query
    named = {term.value for atom in _atoms(query) for term in atom.terms}
    values = _run(request.network, query, np.array(request.counterexample), named)
    missing = sorted(named - set(values))
    if missing:
        return Replay(None, f"not replayed: {missing[0]!r} is no value of the file")
    return Replay(max(_outside(query, values[query.network.input]), *(_missed(f, values) for f in _formulas(query))))


def _formulas(query: Query) -> list[Formula]:
    return [query.assertion, *constraints(query.region)]


def _atoms(query: Query) -> list[Atom]:
    return [atom for formula in _formulas(query) for atom in atoms_of(formula)]


def _run(path: str, query: Query, point: Array, named: set[str]) -> dict[str, Array]:
    model = onnx.load_model_from_string(_bytes(path))
    computed = {name for node in model.graph.node for name in node.output}
    kept = {output.name for output in model.graph.output}
    for name in sorted((named & computed) - kept):
        model.graph.output.append(onnx.helper.make_empty_tensor_value_info(name))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    constants = {tensor.name for tensor in model.graph.initializer}
    (given,) = (entry for entry in session.get_inputs() if entry.name not in constants)
    x = point.astype(TYPES[given.type]).reshape(query.network.input_shape)
    names = [entry.name for entry in session.get_outputs()]
    results = zip(names, session.run(names, {given.name: x}), strict=True)
    values = {name: np.asarray(result, dtype=np.float64).reshape(-1) for name, result in results}
    return {query.network.input: x.astype(np.float64).reshape(-1), **values}


def _bytes(path: str) -> bytes:
    return gzip.decompress(Path(path).read_bytes()) if path.endswith(".gz") else Path(path).read_bytes()


def _outside(query: Query, x: Array) -> float:
    lower, upper = (np.array([float(v) for v in side]) for side in exact_bounds(query.region))
    return float(np.max(np.maximum(np.maximum(lower - x, x - upper), 0.0)))


def _missed(formula: Formula, values: Mapping[str, Array]) -> float:
    """How far the values miss the formula: an atom by its left side, an `and` by its worst part, an `or` by its best."""
    match formula:
        case Atom(terms=terms, bias=bias):
            return max(0.0, sum(float(t.coefficient) * float(values[t.value][t.index]) for t in terms) + float(bias))
        case And(parts=parts):
            return max((_missed(part, values) for part in parts), default=0.0)
        case Or(parts=parts):
            return min((_missed(part, values) for part in parts), default=float("inf"))
