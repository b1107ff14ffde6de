"""Grow a network value by value, refusing what does not fit or would not fit in memory."""

import math
from collections.abc import Collection, Mapping

import numpy as np
from numpy.typing import NDArray

from verifier.errors import BadNetwork, UnsupportedOp
from verifier.formats.masks import Levels, passed_on
from verifier.network import Network, Node, output_shape
from verifier.ops import (
    MASK_LIMIT,
    Array,
    AveragePool,
    Conv,
    Linear,
    MaxPool,
    Op,
    Power,
    Reshape,
    Scale,
    Select,
    Shape,
    Transpose,
    frozen_array,
)

MAX_ENTRIES = 2**27
"""Most entries of one value, of one weight array, or of all folded constants of a file: 1 GiB as float64."""

MAX_SELECTED = 2**26
"""Most indices of all Select operators of a network together; a single one may hold a quarter of them."""

MAX_EXPONENT = 64
"""Greatest exponent of a Power: exact arithmetic grows with it."""

POSITIVE_FIELDS = ("stride", "dilation", "kernel", "shape")


class NetworkBuilder:
    """Collects nodes in topological order and knows the shape of every value so far.

    reserved: names that the model itself uses, which no intermediate value may take.
    """

    def __init__(self, name: str, shape: Shape, *, reserved: Collection[str] = ()) -> None:
        self.input = name
        self._reserved = frozenset(reserved)
        self._selected = 0
        self._levels: dict[str, Levels] = {}
        self._shapes: dict[str, Shape] = {name: shape}
        self._nodes: list[Node] = []
        if any(length < 1 for length in shape):
            raise BadNetwork(f"input {name!r} has shape {shape}; every axis needs a length of at least 1")
        check_entries(shape, f"input {name!r}")

    @property
    def shapes(self) -> Mapping[str, Shape]:
        return self._shapes

    def add(self, output: str, op: Op, *inputs: str) -> str:
        """Append output = op(*inputs); returns the output's name. Raises BadNetwork where it cannot be right."""
        try:
            _check_settings(op)
            _check_padded(op, [self._shapes[name] for name in inputs])
            shape = output_shape(op, [self._shapes[name] for name in inputs])
            if isinstance(op, AveragePool):
                assert op.divisor.shape == shape[2:], f"divisor must have shape {shape[2:]}, got {op.divisor.shape}"
        except (AssertionError, ValueError, IndexError, AttributeError, TypeError) as error:
            given = ", ".join(f"{name!r} {self._shapes[name]}" for name in inputs)
            raise BadNetwork(f"{type(op).__name__} at {output!r} does not fit its inputs {given}: {error}") from error
        if output in self._shapes:
            raise BadNetwork(f"value {output!r} is assigned twice; every value needs a name of its own")
        check_entries(shape, f"value {output!r}")
        if isinstance(op, Select):
            self._selected += op.indices.size
            if self._selected > MAX_SELECTED:
                raise BadNetwork(f"value {output!r}: more than {MAX_SELECTED} entries are selected; the model is too large")
        levels = self._passed_on(output, op, inputs, shape)
        self._shapes[output] = shape
        self._nodes.append(Node(output, op, inputs))
        if levels is not None:
            self.mask(output, levels)
        return output

    def masked(self, value: str) -> NDArray[np.bool_]:
        """Which entries of a value a mask leaves out (see `masks`), in its shape."""
        return self._levels_of(value) < 0

    def is_minus_infinity(self, value: str) -> NDArray[np.bool_]:
        """At which entries a value is minus infinity itself, in its shape."""
        return np.isneginf(self._levels_of(value))

    def mask(self, value: str, levels: Levels) -> None:
        """Adds levels of masks to those of a value; they broadcast to its shape."""
        if levels.any():
            self._levels[value] = self._levels_of(value) + levels

    def assume_small(self, value: str) -> None:
        """Lets `verifier.check` accept nothing where this value may come near the size of a mask."""
        ones = np.ones((1,) * len(self._shapes[value]))
        self.step(value, "small", Scale(frozen_array(ones), frozen_array(MASK_LIMIT * ones)), value)

    def _levels_of(self, value: str) -> Levels:
        return self._levels.get(value, np.zeros(self._shapes[value]))

    def _passed_on(self, output: str, op: Op, inputs: tuple[str, ...], shape: Shape) -> Levels | None:
        if not any(name in self._levels for name in inputs):
            return None
        levels = passed_on(op, [self._levels_of(name) for name in inputs], shape)
        if levels is None:
            raise UnsupportedOp(type(op).__name__, output, "of minus infinity, which a mask stands for; Softmax of it is")
        return levels

    def _with_masks(self) -> tuple[Node, ...]:
        """The nodes, where a masked value has its levels too, and what goes on without them has a name of its own."""
        names = {value: self.fresh(value, "unmasked") for value in self._levels}
        nodes = []
        for node in self._nodes:
            nodes.append(Node(names.get(node.output, node.output), node.op, tuple(names.get(v, v) for v in node.inputs)))
            if node.output in names:
                levels = self._levels[node.output]
                finite = np.where(np.isfinite(levels), levels, 0.0)
                if finite.any():
                    whole = node.output if np.isfinite(levels).all() else self.fresh(node.output, "masked")
                    added = Scale(frozen_array(np.ones((1,) * finite.ndim)), frozen_array(finite))
                    nodes.append(Node(whole, added, (names[node.output],)))
        return tuple(nodes)

    def fresh(self, output: str, suffix: str) -> str:
        """A name, made of both words, that no value has and the model does not use."""
        name = f"{output}/{suffix}"
        while name in self._shapes or name in self._reserved:
            name += "'"
        return name

    def step(self, output: str, suffix: str, op: Op, *inputs: str) -> str:
        """Append an intermediate value on the way to `output`, under a fresh name made of both words."""
        return self.add(self.fresh(output, suffix), op, *inputs)

    def copy(self, output: str, source: str) -> str:
        """The same value under another name."""
        return self.add(output, Reshape(self._shapes[source]), source)

    def build(self, output: str) -> Network:
        """The network of all values so far, with this one as its output."""
        if output not in self._shapes:
            raise BadNetwork(f"output {output!r} does not depend on the input {self.input!r}; check the model's export")
        if output in self._levels:
            raise BadNetwork(f"output {output!r} is minus infinity in places, where a mask was added to it")
        return Network(self.input, self._shapes[self.input], self._with_masks(), output)


def check_entries(shape: Shape, owner: str) -> None:
    """Raises BadNetwork where an array of this shape is too large to be held."""
    if math.prod(shape) > MAX_ENTRIES:
        raise BadNetwork(f"{owner} has shape {shape}, {math.prod(shape)} entries; at most {MAX_ENTRIES} are allowed")


def swapped_axes(rank: int) -> Transpose:
    """The transposition of the last two axes."""
    return Transpose((*range(rank - 2), rank - 1, rank - 2))


def affine(weight: Array, bias: Array | None = None) -> Linear:
    """The linear operator over the last axis; weight (out, in), bias any shape that broadcasts to (out,) or None."""
    return Linear(
        frozen_array(np.ascontiguousarray(weight)),
        frozen_array(np.broadcast_to(0.0 if bias is None else bias, weight.shape[:1])),
    )


def _check_settings(op: Op) -> None:
    for name, field in vars(op).items():
        if isinstance(field, np.ndarray):
            wanted = np.int64 if name == "indices" else np.float64
            assert field.dtype == wanted, f"{name} must be an array of {wanted.__name__}, got {field.dtype}"
            assert field.size and np.isfinite(field).all(), f"{name} must be finite and not empty"
        elif name in POSITIVE_FIELDS:
            assert all(isinstance(n, int) and n >= 1 for n in field), f"{name} must be positive integers, got {field}"
        elif name == "padding":
            fits = all(isinstance(n, int) and n >= 0 for pair in field for n in pair)
            assert fits, f"padding must not be negative, got {field}"
    match op:
        case Conv(weight=weight, bias=bias, groups=groups):
            assert weight.ndim in (3, 4), f"weight must have one or two space axes, got shape {weight.shape}"
            assert bias.shape == weight.shape[:1], f"bias must have shape {weight.shape[:1]}, got {bias.shape}"
            assert groups >= 1 and weight.shape[0] % groups == 0, f"{groups} groups do not divide {weight.shape[0]} channels"
        case AveragePool(kernel=kernel):
            assert len(kernel) in (1, 2) and (op.divisor > 0).all(), "needs one or two space axes and positive divisors"
        case MaxPool(kernel=kernel):
            assert len(kernel) in (1, 2), "needs one or two space axes"
        case Power(exponent=exponent):
            assert exponent <= MAX_EXPONENT, f"the exponent must be at most {MAX_EXPONENT}, got {exponent}"
        case Select(indices=indices):
            assert indices.ndim == 1, f"indices must be one row, got shape {indices.shape}"


def _check_padded(op: Op, inputs: list[Shape]) -> None:
    if isinstance(op, Conv | AveragePool | MaxPool):
        padded = [length + sum(pair) for length, pair in zip(inputs[0][2:], op.padding, strict=True)]
        check_entries((*inputs[0][:2], *padded), "padded input")
