"""Write a sequence of layers as an ONNX file: plain graph and weights, the same bytes each time, nothing pickled."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper
from torch import Tensor, nn

from specmine.errors import BadModel
from specmine.folder import writing
from specmine.training.architectures import Affine

OPSET, IR_VERSION = 17, 8


@dataclass
class _Graph:
    """The graph under construction; value names are the site names x, z1, h1, ..., y where there is one."""

    batch: int
    value: str = "x"
    depth: int = 1
    nodes: list[NodeProto] = field(default_factory=list)
    weights: list[TensorProto] = field(default_factory=list)
    taken: set[str] = field(default_factory=lambda: {"x", "y"})

    def fresh(self, name: str) -> str:
        spellings = (name, *(f"{name}_{k}" for k in range(2, len(self.taken) + 3)))
        free = next(spelling for spelling in spellings if spelling not in self.taken)
        self.taken.add(free)
        return free

    def constant(self, name: str, array: np.ndarray) -> str:
        name = self.fresh(name)
        self.weights.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def add(self, op: str, output: str, *constants: str, **attributes: Any) -> None:
        output = output if output == "y" else self.fresh(output)
        self.nodes.append(helper.make_node(op, [self.value, *constants], [output], name=f"{op}_{output}", **attributes))
        self.value = output


def write_onnx(module: nn.Sequential, example: Tensor, path: Path | str) -> None:
    """Writes the ONNX file of a sequence of the layers in LAYERS, whole or not at all.

    example: an input of the batch size that the file will have. Raises BadModel for another kind of layer, BadRun where
    the file cannot be written.
    """
    graph = _Graph(len(example))
    layers = [layer for layer in module if not isinstance(layer, nn.Identity | nn.Dropout)]
    for place, layer in enumerate(layers):
        if type(layer) not in LAYERS:
            known = ", ".join(kind.__name__ for kind in LAYERS)
            raise BadModel(f"layer {place} is a {type(layer).__name__}; write_onnx knows {known}: export it with torch.onnx")
        LAYERS[type(layer)](graph, layer, "y" if place == len(layers) - 1 else None)
    if not graph.nodes or graph.value != "y":
        raise BadModel("a model must end in a layer that computes its outputs, such as Linear")
    model = _model(graph, tuple(example.shape), tuple(module(example).shape))
    with writing(Path(path)) as temporary:
        temporary.write_bytes(model.SerializeToString(deterministic=True))


def _model(graph: _Graph, given: tuple[int, ...], gives: tuple[int, ...]) -> onnx.ModelProto:
    made = helper.make_graph(
        graph.nodes,
        "network",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, given)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, gives)],
        graph.weights,
    )
    model = helper.make_model(
        made, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION, producer_name="specmine"
    )
    onnx.checker.check_model(model, full_check=True)
    return model


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().cpu().numpy()


def _affine(graph: _Graph, layer: Affine, output: str | None) -> None:
    factor, offset = _array(layer.factor), _array(layer.offset)
    last = output or "scaled"
    shifted = bool(offset.any())
    graph.add("Mul", "product" if shifted else last, graph.constant("factor", factor))
    if shifted:
        graph.add("Add", last, graph.constant("offset", offset))


def _linear(graph: _Graph, layer: nn.Linear, output: str | None) -> None:
    names = _weights(graph, layer)
    graph.add("Gemm", output or f"z{graph.depth}", *names, transB=1)


def _conv(graph: _Graph, layer: nn.Conv2d, output: str | None) -> None:
    if layer.padding_mode != "zeros" or isinstance(layer.padding, str):
        raise BadModel(f"a convolution must have zero padding given by numbers, got {layer.padding!r} {layer.padding_mode!r}")
    settings = {"strides": list(layer.stride), "dilations": list(layer.dilation), "group": layer.groups}
    graph.add("Conv", output or f"z{graph.depth}", *_weights(graph, layer), pads=[*layer.padding, *layer.padding], **settings)


def _weights(graph: _Graph, layer: nn.Linear | nn.Conv2d) -> list[str]:
    names = [graph.constant(f"W{graph.depth}", _array(layer.weight))]
    return names if layer.bias is None else [*names, graph.constant(f"b{graph.depth}", _array(layer.bias))]


def _relu(graph: _Graph, layer: nn.ReLU, output: str | None) -> None:
    graph.add("Relu", output or f"h{graph.depth}")
    graph.depth += 1


def _max_pool(graph: _Graph, layer: nn.MaxPool2d, output: str | None) -> None:
    if layer.ceil_mode or layer.padding not in (0, (0, 0)) or layer.dilation not in (1, (1, 1)):
        raise BadModel("maximum pooling must be without padding, dilation and ceil mode")
    kernel, stride = _pair(layer.kernel_size), _pair(layer.stride)
    graph.add("MaxPool", output or f"pool{graph.depth - 1}", kernel_shape=kernel, strides=stride)


def _pair(value: Any) -> list[int]:
    return [value, value] if isinstance(value, int) else list(value)


def _flatten(graph: _Graph, layer: nn.Flatten, output: str | None) -> None:
    if (layer.start_dim, layer.end_dim) != (1, -1):
        raise BadModel("flattening must keep only the batch axis, nn.Flatten()")
    graph.add("Flatten", output or f"flat{graph.depth}", axis=1)


def _unflatten(graph: _Graph, layer: nn.Unflatten, output: str | None) -> None:
    if graph.value not in ("x", "scaled") or layer.dim != 1:
        raise BadModel("only the flat input can be unflattened, along axis 1")
    shape = np.array([graph.batch, *layer.unflattened_size], dtype=np.int64)
    graph.add("Reshape", output or "image", graph.constant("image_shape", shape))


LAYERS: dict[type[nn.Module], Callable[[_Graph, Any, str | None], None]] = {
    Affine: _affine,
    nn.Linear: _linear,
    nn.Conv2d: _conv,
    nn.ReLU: _relu,
    nn.MaxPool2d: _max_pool,
    nn.Flatten: _flatten,
    nn.Unflatten: _unflatten,
}
