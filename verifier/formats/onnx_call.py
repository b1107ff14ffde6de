"""One ONNX node as its operator's function sees it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from verifier.errors import BadNetwork, UnsupportedOp
from verifier.formats.build import NetworkBuilder
from verifier.formats.onnx_constants import Constant, weights
from verifier.ops import Array, Shape


@dataclass(frozen=True, eq=False)
class Call:
    """One node with its attributes decoded; an absent optional input has the name ''."""

    op: str
    label: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]
    opset: int
    builder: NetworkBuilder
    constants: Mapping[str, Constant]

    @property
    def output(self) -> str:
        return self.outputs[0]

    def refuse(self, detail: str) -> UnsupportedOp:
        return UnsupportedOp(self.op, self.label, detail)

    def name(self, position: int) -> str:
        return self.inputs[position] if position < len(self.inputs) else ""

    def is_constant(self, position: int) -> bool:
        return self.name(position) in self.constants

    def value(self, position: int) -> str:
        """Name of an input that must be a network value."""
        if self.is_constant(position) or not self.name(position):
            raise self.refuse(f"input {position} must be computed from the network's input")
        return self.inputs[position]

    def shape(self, position: int) -> Shape:
        return self.builder.shapes[self.value(position)]

    def weights(self, position: int) -> Array:
        """An input that must be a floating-point constant, as exact float64."""
        if not self.is_constant(position):
            raise self.refuse(f"input {position} must be constant")
        return weights(self.constants[self.inputs[position]], self.inputs[position])

    def addend(self, position: int, sign: float = 1.0) -> Array:
        """sign * a constant that is added to a value, or takes its place; it may hold -inf, which is a mask."""
        if not self.is_constant(position):
            raise self.refuse(f"input {position} must be constant")
        name = self.inputs[position]
        return weights(sign * weights(self.constants[name], name, masks=True), name, masks=True)

    def integers(self, position: int) -> list[int]:
        """An input that must be a constant list of integers."""
        if not self.is_constant(position) or self.constants[self.inputs[position]].dtype.kind not in "iu":
            raise self.refuse(f"input {position} must be a constant list of integers")
        return [int(n) for n in self.constants[self.inputs[position]].reshape(-1)]

    def one_output(self) -> None:
        if any(self.outputs[1:]):
            raise self.refuse(f"only its first output is, not {self.outputs[1]!r}")

    def text(self, name: str, default: str) -> str:
        """An attribute that is a word."""
        value = self.attributes.get(name, default)
        return value.decode(errors="replace") if isinstance(value, bytes) else str(value)

    def axis(self, default: int, rank: int, *, end: bool = True) -> int:
        """The axis attribute, counted from the front; `end` allows the place behind the last axis too."""
        axis = int(self.attributes.get("axis", default))
        if not -rank <= axis < rank + end:
            raise BadNetwork(f"{self.op} at {self.label!r}: axis {axis} is out of range for rank {rank}")
        return axis + rank if axis < 0 else axis

    def axes(self, rank: int) -> set[int] | None:
        """The axes attribute (of older opsets) or second input, counted from the front; None where it is absent."""
        given = self.attributes.get("axes")
        if given is None and not self.name(1):
            return None
        axes = [int(n) for n in (given if given is not None else self.integers(1))]
        if any(not -rank <= axis < rank for axis in axes) or len({axis % rank for axis in axes}) != len(axes):
            raise BadNetwork(f"{self.op} at {self.label!r}: axes {axes} are repeated or out of range for rank {rank}")
        return {axis % rank for axis in axes}
