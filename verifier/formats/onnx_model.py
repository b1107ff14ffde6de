"""From a file's bytes to a checked ONNX graph, with bounded memory and one clear message for whatever is wrong."""

import gzip
import math
import zlib
from collections.abc import Iterator
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError
from onnx import AttributeProto, GraphProto, ModelProto, TensorProto, external_data_helper, version_converter

from verifier.errors import BadNetwork, UnsupportedOp
from verifier.formats.build import MAX_ENTRIES
from verifier.ops import Shape

OLDEST_OPSET = 7
CONVERTED_OPSET = 8
ALIGNED_BY_AXIS = ("Add", "Sub", "Mul", "Div", "Pow")
MAX_UNPACKED_BYTES = 2**30
FLOAT_TYPES = (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16)


def load_model(path: Path) -> ModelProto:
    """The checked model of a file, weights included, in opset 7 or later. Raises BadNetwork with the path in front."""
    try:
        model = _parse(_read_bytes(path))
        _check_tensors(model)
        _load_external(model, path.parent)
        onnx.checker.check_model(model)
        return _in_known_opset(model)
    except BadNetwork as error:
        raise BadNetwork(f"{path}: {error}") from error
    except (onnx.checker.ValidationError, UnicodeDecodeError) as error:
        # names that are no text make the checker fail on its own message
        raise BadNetwork(f"{path}: not a valid ONNX model ({_first_line(error)}); export the model again") from error


def graph_input(graph: GraphProto) -> tuple[str, Shape]:
    """Name and shape of the only input that is not an initializer; an open batch axis has length 1."""
    initializers = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in initializers]
    if len(inputs) != 1:
        names = ", ".join(repr(value.name) for value in inputs) or "none"
        raise BadNetwork(f"needs exactly one input, the model has {names}; join or fix the others before exporting")
    (value,) = inputs
    if not value.type.HasField("tensor_type") or value.type.tensor_type.elem_type not in FLOAT_TYPES:
        raise BadNetwork(f"input {value.name!r} is not a floating-point tensor; export the model with a float input")
    tensor = value.type.tensor_type
    if not tensor.HasField("shape"):
        raise BadNetwork(f"input {value.name!r} has no shape; export the model with a fixed input shape")
    lengths = [dim.dim_value if dim.HasField("dim_value") else 0 for dim in tensor.shape.dim]
    for axis, length in enumerate(lengths):
        if length < 1 and axis > 0:
            raise BadNetwork(f"axis {axis} of input {value.name!r} has no fixed length; export with a fixed input shape")
    return value.name, tuple(max(length, 1) for length in lengths)


def graph_output(graph: GraphProto) -> str:
    """Name of the only output."""
    if len(graph.output) != 1:
        names = ", ".join(repr(value.name) for value in graph.output) or "none"
        raise BadNetwork(f"needs exactly one output, the model has {names}; export the one to be verified")
    return graph.output[0].name


def _read_bytes(path: Path) -> bytes:
    try:
        if path.suffix != ".gz":
            return path.read_bytes()
        with gzip.open(path) as stream:
            content = stream.read(MAX_UNPACKED_BYTES + 1)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise BadNetwork(f"damaged gzip file ({error}); fetch it again") from error
    except OSError as error:
        raise BadNetwork(f"cannot be read ({error.strerror or error})") from error
    if len(content) > MAX_UNPACKED_BYTES:
        raise BadNetwork(f"unpacks to more than {MAX_UNPACKED_BYTES} bytes; unpack it yourself and give the .onnx file")
    return content


def _parse(content: bytes) -> ModelProto:
    if not content:
        raise BadNetwork("the file is empty; export the model again")
    model = ModelProto()
    try:
        model.ParseFromString(content)
    except (DecodeError, RecursionError) as error:
        raise BadNetwork(f"not an ONNX file, or a truncated one ({_first_line(error)}); export it again") from error
    if not model.HasField("graph") or not model.graph.node:
        raise BadNetwork("holds no ONNX graph; it is empty, truncated or in another format")
    redefined = [function.name for function in model.functions if function.domain in ("", "ai.onnx")]
    if redefined:
        raise BadNetwork(f"defines the standard operator {redefined[0]} anew; give the function a domain of its own")
    return model


def _check_tensors(model: ModelProto) -> None:
    """Refuses declared sizes before anything is allocated for them."""
    for tensor in _tensors(model.graph):
        if any(n < 0 for n in tensor.dims) or math.prod(tensor.dims) > MAX_ENTRIES:
            raise BadNetwork(
                f"tensor {tensor.name!r} declares shape {tuple(tensor.dims)}; lengths must not be negative and at most "
                f"{MAX_ENTRIES} entries are allowed"
            )
    if model.graph.sparse_initializer:
        raise BadNetwork("sparse initializers are not supported; store the weights as dense tensors")


def _tensors(graph: GraphProto) -> Iterator[TensorProto]:
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == AttributeProto.TENSOR:
                yield attribute.t
            yield from attribute.tensors
            for inner in (attribute.g, *attribute.graphs) if attribute.type == AttributeProto.GRAPH else attribute.graphs:
                yield from _tensors(inner)


def _load_external(model: ModelProto, folder: Path) -> None:
    for tensor in _tensors(model.graph):
        if not external_data_helper.uses_external_data(tensor):
            continue
        entries = {entry.key: entry.value for entry in tensor.external_data}
        try:
            # the helper refuses locations outside the folder, links included
            if "length" not in entries and (folder / entries.get("location", "")).stat().st_size > 8 * MAX_ENTRIES:
                raise BadNetwork(f"external data of {tensor.name!r} is too large and declares no length")
            external_data_helper.load_external_data_for_tensor(tensor, str(folder))
        except (OSError, ValueError, onnx.checker.ValidationError) as error:
            raise BadNetwork(
                f"external data of {tensor.name!r} at {entries.get('location', '')!r} cannot be read "
                f"({_first_line(error)}); keep it beside the model file"
            ) from error
        tensor.data_location = TensorProto.DEFAULT
        del tensor.external_data[:]


def _in_known_opset(model: ModelProto) -> ModelProto:
    versions = [entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")]
    version, newest = max(versions, default=1), onnx.defs.onnx_opset_version()
    if version > newest:
        raise BadNetwork(f"uses opset {version}, the installed onnx package knows {newest}; update it or export with less")
    if version >= OLDEST_OPSET:
        return model
    for node in model.graph.node:
        if node.op_type in ALIGNED_BY_AXIS and any(entry.name == "axis" for entry in node.attribute):
            # sound: the version converter aligns such a constant with other axes than opset 6 does, so it is not asked
            raise UnsupportedOp(node.op_type, node.name or node.output[0], "broadcasting along an axis; export with opset 13")
    try:
        return version_converter.convert_version(model, CONVERTED_OPSET)
    except (RuntimeError, ValueError) as error:
        raise BadNetwork(f"opset {version} cannot be converted ({_first_line(error)}); export with opset 13") from error


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].strip() if lines else type(error).__name__
