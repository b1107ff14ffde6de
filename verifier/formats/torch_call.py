"""One node of an exported torch graph as its operator's function sees it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx

from verifier.errors import BadNetwork, UnsupportedOp
from verifier.formats.build import NetworkBuilder
from verifier.ops import Array, Shape, frozen_array


@dataclass(frozen=True, eq=False)
class Call:
    """One node of the exported graph, and what its arguments are so far."""

    node: fx.Node
    builder: NetworkBuilder
    values: Mapping[fx.Node, str]
    constants: Mapping[fx.Node, Tensor]

    @property
    def op(self) -> str:
        return str(self.node.target)

    @property
    def label(self) -> str:
        return self.node.name

    @property
    def output(self) -> str:
        return self.node.name

    def refuse(self, detail: str) -> UnsupportedOp:
        return UnsupportedOp(self.op, self.label, detail)

    def argument(self, position: int, name: str, default: Any = None) -> Any:
        """An argument as it stands in the graph, given by position or by name."""
        given = self.node.args[position] if position < len(self.node.args) else self.node.kwargs.get(name)
        return default if given is None else given

    def is_value(self, argument: Any) -> bool:
        return isinstance(argument, fx.Node) and argument in self.values

    def value(self, argument: Any) -> str:
        """Name of an argument that must be a network value."""
        if not self.is_value(argument):
            raise self.refuse(f"argument {argument} must be computed from the network's input")
        return self.values[argument]

    def weights(self, argument: Any) -> Array:
        """An argument that must be a constant tensor or number, as exact float64."""
        if isinstance(argument, fx.Node) and argument in self.constants:
            return exact(self.constants[argument], argument.name)
        if isinstance(argument, int | float):
            return exact(
                torch.tensor(argument, dtype=torch.float64 if isinstance(argument, float) else torch.int64), self.label
            )
        raise self.refuse(f"argument {argument} must be constant")

    def addend(self, argument: Any, factor: float = 1.0) -> Array:
        """factor * a constant that is added to a value, or takes its place; it may hold -inf, which is a mask."""
        if isinstance(argument, fx.Node) and argument in self.constants:
            return exact(factor * self.constants[argument].to(torch.float64), argument.name, masks=True)
        if isinstance(argument, float):
            return exact(torch.tensor(factor * argument, dtype=torch.float64), self.label, masks=True)
        return frozen_array(factor * self.weights(argument))

    def shape(self, argument: Any) -> Shape:
        """The shape of an argument that must be a network value."""
        return self.builder.shapes[self.value(argument)]

    def number(self, name: str, default: float) -> float:
        """A keyword argument that must be a number."""
        given = self.node.kwargs.get(name, default)
        if not isinstance(given, int | float):
            raise self.refuse(f"{name} {given} must be a number")
        return float(given)

    def integers(self, position: int, name: str, default: Sequence[int]) -> Shape:
        """An argument that must be a list of integers; an empty one means the default, a single one is repeated."""
        given = self.argument(position, name) or default
        if not all(isinstance(n, int) for n in given):
            raise self.refuse(f"{name} {given} must be integers")
        return tuple(given) * (len(default) if len(given) == 1 and default else 1)


def exact(tensor: Tensor, name: str, *, masks: bool = False) -> Array:
    """A tensor's numbers as float64. Raises BadNetwork, naming it, where one is NaN, infinite or no float64.

    masks: -inf is allowed, as in what is added to attention scores.
    """
    if tensor.is_complex() or tensor.is_quantized:
        raise BadNetwork(f"tensor {name!r} has type {tensor.dtype}; only real, unquantised tensors are allowed")
    if not tensor.is_floating_point() and (tensor.abs() > 2**53).any():
        raise BadNetwork(f"tensor {name!r} has integers past 2**53, which no float64 holds")
    array = tensor.detach().cpu().to(torch.float64).numpy()
    if not (np.isfinite(array) | (masks & np.isneginf(array))).all():
        raise BadNetwork(f"tensor {name!r} has NaN or infinite entries; every weight must be a finite number")
    return frozen_array(array)
