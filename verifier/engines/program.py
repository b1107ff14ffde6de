"""The part of a network that some entries depend on, ready to run many times; slopes may be softened where it is flat."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from verifier.evaluate import FORWARD
from verifier.network import Network, Node
from verifier.ops import Floor, Relu, Shape, Sign


@dataclass(frozen=True, eq=False)
class Program:
    """The nodes to run in order, and after each the values that nothing later reads.

    columns: the entries wanted, by value, in the order of the result's columns.
    """

    input: str
    input_shape: Shape
    nodes: tuple[Node, ...]
    spent: tuple[tuple[str, ...], ...]
    columns: Mapping[str, Tensor]


def program_for(network: Network, entries: Iterable[tuple[str, int]]) -> Program:
    """A program for entries (value, index), whose columns come in their sorted order."""
    indices: dict[str, list[int]] = {}
    for value, index in sorted(entries):
        indices.setdefault(value, []).append(index)
    needed, nodes = set(indices), []
    for node in reversed(network.nodes):
        if node.output in needed:
            needed.update(node.inputs)
            nodes.append(node)
    nodes.reverse()
    last = {name: place for place, node in enumerate(nodes) for name in node.inputs if name not in indices}
    spent = tuple(tuple({n for n in node.inputs if last.get(n) == place}) for place, node in enumerate(nodes))
    columns = {value: torch.tensor(places) for value, places in indices.items()}
    return Program(network.input, network.input_shape, tuple(nodes), spent, columns)


def run(program: Program, points: Tensor, *, leak: float = 0.0) -> Tensor:
    """The wanted entries at points (count, inputs): (count, entries), differentiable in the points.

    leak: the slope, in the backward pass alone, of a rectifier that is off; steps then have slopes too. Values never change.
    """
    values = {program.input: points.reshape(len(points), *program.input_shape)}
    for node, spent in zip(program.nodes, program.spent, strict=True):
        inputs = [values[name] for name in node.inputs]
        soft = _Softened if leak and isinstance(node.op, (Relu, Sign, Floor)) else None
        values[node.output] = soft.apply(inputs[0], node.op, leak) if soft else FORWARD[type(node.op)](node.op, inputs)
        for name in spent:
            del values[name]
    parts = [values[value].flatten(1)[:, index] for value, index in program.columns.items()]
    return torch.cat(parts, 1) if parts else points.new_zeros(len(points), 0)


class _Softened(torch.autograd.Function):
    """The operator's values with a slope that is nowhere 0."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, op: Relu | Sign | Floor, leak: float) -> Tensor:
        ctx.save_for_backward(x)
        ctx.op, ctx.leak = op, leak
        return FORWARD[type(op)](op, [x])

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor, None, None]:
        (x,) = ctx.saved_tensors
        match ctx.op:
            case Relu():
                factor = torch.where(x > 0, 1.0, ctx.leak)
            case Sign():
                factor = 1 / (1 + x.square())
            case _:
                factor = torch.ones_like(x)
        return slopes[0] * factor.to(x.dtype), None, None
