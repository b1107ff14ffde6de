"""The graph: immutable, in static single assignment, every value with a name and a fixed shape."""

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from typing import assert_never

import numpy as np

from verifier.errors import BadNetwork
from verifier.ops import (
    MASK_LIMIT,
    AveragePool,
    Concat,
    Conv,
    Cos,
    Erf,
    Exp,
    Floor,
    LeakyRelu,
    Linear,
    MaxPool,
    Op,
    Power,
    Product,
    Reciprocal,
    Relu,
    Reshape,
    Scale,
    Select,
    Shape,
    Sigmoid,
    Sign,
    Sin,
    Sqrt,
    Sum,
    Tanh,
    Transpose,
)


@dataclass(frozen=True)
class Node:
    """output = op(*inputs); `inputs` are value names."""

    output: str
    op: Op
    inputs: tuple[str, ...]


@dataclass(frozen=True)
class Network:
    """One input, a topologically ordered list of nodes, one output.

    Value names are those of the model file. `sha256` is a function of the content (names, operators, weights), so it is
    the same however the network was read.
    """

    input: str
    input_shape: Shape
    nodes: tuple[Node, ...]
    output: str

    def __post_init__(self) -> None:
        seen = {self.input}
        for node in self.nodes:
            missing = [name for name in node.inputs if name not in seen]
            if missing or node.output in seen:
                problem = f"reads {missing[0]!r} before it is computed" if missing else "is assigned twice"
                raise BadNetwork(f"value {node.output!r} {problem}; nodes must be in topological order with unique outputs")
            seen.add(node.output)
        if self.output not in seen:
            raise BadNetwork(f"output {self.output!r} is not computed by any node")

    @cached_property
    def shapes(self) -> Mapping[str, Shape]:
        """Shape of every value, by name. Raises BadNetwork where an operator does not fit its inputs."""
        shapes = {self.input: self.input_shape}
        for node in self.nodes:
            try:
                shapes[node.output] = output_shape(node.op, [shapes[name] for name in node.inputs])
            except (AssertionError, ValueError, IndexError) as error:
                given = ", ".join(f"{name!r} {shapes[name]}" for name in node.inputs)
                kind = type(node.op).__name__
                raise BadNetwork(f"{kind} at {node.output!r} does not fit its inputs {given}: {error}") from error
        return shapes

    @cached_property
    def producers(self) -> Mapping[str, Node]:
        """The node that computes each value, by value name; the input has none."""
        return {node.output: node for node in self.nodes}

    @cached_property
    def sha256(self) -> str:
        """Names the network in queries, certificates and reports."""
        digest = hashlib.sha256(repr((self.input, self.input_shape, self.output)).encode())
        for node in self.nodes:
            digest.update(repr((node.output, type(node.op).__name__, node.inputs)).encode())
            for field in fields(node.op):
                value = getattr(node.op, field.name)
                if isinstance(value, np.ndarray):
                    digest.update(repr(value.shape).encode() + np.ascontiguousarray(value).tobytes())
                else:
                    digest.update(repr(value).encode())
        return digest.hexdigest()

    def up_to(self, value: str) -> "Network":
        """The part that a value depends on, with it as the output; all values there keep their names."""
        needed, nodes = {value}, []
        for node in reversed(self.nodes):
            if node.output in needed:
                nodes.append(node)
                needed.update(node.inputs)
        return Network(self.input, self.input_shape, tuple(reversed(nodes)), value)

    def size(self, name: str) -> int:
        """Number of entries of a value."""
        return math.prod(self.shapes[name])


def mask_nodes(network: Network) -> list[Node]:
    """The nodes that add a mask. The network is what its file says only where the values that they read are small against it:
    readers leave masked scores out of a softmax, and bounds as large as a mask out of the graph."""
    return [node for node in network.nodes if isinstance(node.op, Scale) and (node.op.offset <= MASK_LIMIT).any()]


def pooled_length(length: int, kernel: int, stride: int, padding: tuple[int, int], dilation: int) -> int:
    """Output positions of a sliding window along one axis (floor mode; ceil mode is expressed by end padding)."""
    span = dilation * (kernel - 1) + 1
    out = (length + sum(padding) - span) // stride + 1
    assert out >= 1, f"window of {span} does not fit length {length} with padding {padding}"
    return out


def output_shape(op: Op, inputs: list[Shape]) -> Shape:
    """Shape of op's result; an assertion fails with the reason where the inputs do not fit."""
    x = inputs[0]
    match op:
        case Linear(weight=weight, bias=bias):
            assert weight.ndim == 2 and bias.shape == weight.shape[:1], "weight must be (out, in), bias (out,)"
            assert x and x[-1] == weight.shape[1], f"last axis must have length {weight.shape[1]}"
            return (*x[:-1], weight.shape[0])
        case Conv():
            assert len(x) == op.weight.ndim and x[0] == 1, f"needs rank {op.weight.ndim} with leading axis 1"
            assert x[1] == op.weight.shape[1] * op.groups, f"needs {op.weight.shape[1] * op.groups} channels"
            return (1, op.weight.shape[0], *_window_shape(x[2:], op.weight.shape[2:], op))
        case AveragePool() | MaxPool():
            assert len(x) == len(op.kernel) + 2 and x[0] == 1, f"needs rank {len(op.kernel) + 2} with leading axis 1"
            return (1, x[1], *_window_shape(x[2:], op.kernel, op))
        case Scale():
            assert op.factor.ndim == op.offset.ndim == len(x), f"factor and offset must have rank {len(x)}"
            assert np.broadcast_shapes(x, op.factor.shape, op.offset.shape) == x, "factor and offset must not widen x"
            return x
        case Sum():
            assert len(inputs) == len(op.coefficients) and all(s == x for s in inputs), "inputs must share one shape"
            return x
        case Reshape():
            assert math.prod(op.shape) == math.prod(x), f"{op.shape} has another number of entries"
            return op.shape
        case Transpose():
            assert sorted(op.permutation) == list(range(len(x))), f"{op.permutation} does not permute the axes"
            return tuple(x[axis] for axis in op.permutation)
        case Concat(axis=axis):
            assert 0 <= axis < len(x), f"axis {axis} is out of range"
            rest = {s[:axis] + s[axis + 1 :] for s in inputs}
            assert len(rest) == 1, "inputs must agree off the joined axis"
            return (*x[:axis], sum(s[axis] for s in inputs), *x[axis + 1 :])
        case Select(indices=indices, shape=shape):
            assert indices.dtype == np.int64, f"indices must be int64, got {indices.dtype}"
            assert indices.shape == (math.prod(shape),), f"needs {math.prod(shape)} indices"
            assert ((indices >= -1) & (indices < math.prod(x))).all(), f"indices must lie in -1..{math.prod(x) - 1}"
            return shape
        case Product():
            assert len(inputs) == 2 and inputs[1] == x, "the two factors must share one shape"
            return x
        case Power(exponent=exponent):
            assert exponent >= 2, f"the exponent must be a whole number >= 2, got {exponent}"
            return x
        case LeakyRelu(slope=slope):
            assert 0 <= slope <= 1, f"slope must lie in [0, 1], got {slope}"
            return x
        case Relu() | Sigmoid() | Tanh() | Sin() | Cos() | Exp() | Reciprocal() | Sqrt() | Erf():
            return x
        case Sign() | Floor():
            return x
        case _:
            assert_never(op)


def _window_shape(space: Shape, kernel: Shape, op: Conv | AveragePool | MaxPool) -> Shape:
    dilation = (1,) * len(space) if isinstance(op, AveragePool) else op.dilation
    return tuple(
        pooled_length(n, k, s, p, d) for n, k, s, p, d in zip(space, kernel, op.stride, op.padding, dilation, strict=True)
    )
