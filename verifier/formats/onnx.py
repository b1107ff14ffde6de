"""ONNX files as networks."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
from onnx import GraphProto, ModelProto, NodeProto

from verifier.errors import BadNetwork, UnsupportedOp
from verifier.formats.build import MAX_ENTRIES, NetworkBuilder
from verifier.formats.onnx_call import Call
from verifier.formats.onnx_constants import Constant, constant_node, fold, stored
from verifier.formats.onnx_model import graph_input, graph_output, load_model
from verifier.formats.onnx_operators import OPERATORS
from verifier.network import Network


def read_onnx(path: str | Path) -> Network:
    """The network of an ONNX file (`.onnx` or `.onnx.gz`).

    Value names and shapes are the file's; an open batch axis has length 1. Weights are taken exactly into float64; the
    reciprocal of a constant divisor, the factor and offset of a batch normalisation, and a product alpha * B or
    beta * C of a Gemm that is no float64 number are rounded once. What depends on constants alone is computed in the types
    of the file. An operator that becomes several nodes names the inner ones `<value>/<step>`.

    Raises BadNetwork for a damaged or unreadable file, and UnsupportedOp for an operator with no rule here.
    """
    path = Path(path)
    model = load_model(path)
    try:
        return _Reader(model.graph, _opsets(model)).network()
    except BadNetwork as error:
        raise BadNetwork(f"{path}: {error}") from error
    except UnicodeDecodeError as error:
        raise BadNetwork(f"{path}: a name in the model is not text ({error}); export the model again") from error


def _opsets(model: ModelProto) -> dict[str, int]:
    """Versions by domain, the standard's as ""."""
    opsets: dict[str, int] = {}
    for entry in model.opset_import:
        domain = "" if entry.domain == "ai.onnx" else entry.domain
        if opsets.setdefault(domain, entry.version) != entry.version:
            both = f"{opsets[domain]} and {entry.version}"
            raise BadNetwork(f"operators of {entry.domain or 'ai.onnx'!r} in two versions, {both}; export the model again")
    return opsets


FACTS = ("Shape", "IsNaN")
"""Operators whose result is the same for all real numbers: that of zeros in the value's shape."""


class _Reader:
    """The walk over one graph: every node is folded, or appended to the network."""

    def __init__(self, graph: GraphProto, opsets: Mapping[str, int]) -> None:
        self.graph, self.opsets = graph, opsets
        self.opset = opsets.get("", 1)
        self.output = graph_output(graph)
        names = {name for node in graph.node for name in node.output}
        self.builder = NetworkBuilder(*graph_input(graph), reserved=names)
        self.constants: dict[str, Constant] = {}
        self.entries = 0

    def network(self) -> Network:
        nodes = self._needed_nodes()
        used = {name for node in nodes for name in node.input}
        for tensor in self.graph.initializer:
            if tensor.name in used:
                self._keep(tensor.name, stored(tensor, tensor.name))
        for node in nodes:
            self._read(node)
        return self.builder.build(self.output)

    def _needed_nodes(self) -> list[NodeProto]:
        """The nodes that the output depends on, in order: what is dead can be unsupported without harm."""
        needed, kept = {self.output}, []
        for node in reversed(self.graph.node):
            if needed & set(node.output):
                needed |= set(node.input)
                kept.append(node)
        return kept[::-1]

    def _read(self, node: NodeProto) -> None:
        label = node.name or next(filter(None, node.output), node.op_type)
        if node.domain not in ("", "ai.onnx"):
            raise UnsupportedOp(f"{node.domain}::{node.op_type}", label, "only operators of the ONNX standard are")
        inputs = [name for name in node.input if name]
        if node.op_type == "Constant":
            self._keep(node.output[0], constant_node(node, label))
        elif node.op_type in FACTS and node.input[0] in self.builder.shapes:
            stand_in = np.broadcast_to(np.float32(0), self.builder.shapes[node.input[0]])
            self._keep(node.output[0], *fold(node, label, [stand_in], self.opsets))
        elif all(name in self.constants for name in inputs):
            results = fold(node, label, [self.constants.get(name) for name in node.input], self.opsets)
            for name, result in zip(node.output, results, strict=True):
                self._keep(name, result)
        elif node.op_type not in OPERATORS:
            known = ", ".join(sorted(OPERATORS))
            raise UnsupportedOp(node.op_type, label, f"those that are: {known}; export the model without it")
        else:
            OPERATORS[node.op_type](self._call(node, label))

    def _call(self, node: NodeProto, label: str) -> Call:
        attributes = {entry.name: onnx.helper.get_attribute_value(entry) for entry in node.attribute}
        inputs, outputs = tuple(node.input), tuple(node.output)
        return Call(node.op_type, label, inputs, outputs, attributes, self.opset, self.builder, self.constants)

    def _keep(self, name: str, array: Constant) -> None:
        self.entries += array.size
        if self.entries > MAX_ENTRIES:
            raise BadNetwork(f"constants have more than {MAX_ENTRIES} entries together; the model is too large")
        self.constants[name] = array
