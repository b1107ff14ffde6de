"""VNN-LIB 2.0: a declared network with input, hidden values and output, and assertions over their entries."""

from collections.abc import Sequence
from fractions import Fraction
from math import prod

import numpy as np

from verifier.formats.vnnlib_declarations import (
    WHOLE,
    Declaration,
    Tensor,
    error_without_network,
    read_declarations,
)
from verifier.formats.vnnlib_query import build_query
from verifier.formats.vnnlib_terms import Grammar, Linear, Value, read_formula
from verifier.formats.vnnlib_tokens import Source, Token, commands, number, shown
from verifier.formula import Formula
from verifier.network import Network
from verifier.ops import Shape
from verifier.query import Query

SPELLINGS = ("and", "or", "<=", ">=", "<", ">", "==", "!=", "+", "-", "*")
GRAMMAR = Grammar({**{spelling: spelling for spelling in SPELLINGS}, "==": "="}, chained=False)


def parse_vnnlib2(source: Source, network: Network) -> Query:
    """The query of a VNN-LIB 2.0 text about a network.

    The one declared network is the network given, whatever its name; its input and output are matched by their place (and by
    their ONNX name, where the text has one), hidden values by their ONNX name. Shapes may differ in axes of length 1. Every
    floating-point type is read as real: the query is over the real numbers.
    """
    declarations = read_declarations(source)
    if not declarations:
        raise error_without_network(source)
    reader = _Reader(source, network, declarations)
    asserting = False
    for command in commands(source):
        head = command[1]
        if head.text == "assert":
            asserting = True
            reader.read(command)
        elif asserting or head.text not in ("vnnlib-version", "declare-network"):
            allowed = "assert" if asserting else "declare-network and assert"
            raise source.error(head.at, f"unknown or misplaced command {shown(head.text)}; allowed here are {allowed}")
    return build_query(network, reader.asserted, reader.spelled, source.name)


class _Reader:
    """Assertions over the declared tensors, command by command."""

    def __init__(self, source: Source, network: Network, declarations: Sequence[Declaration]) -> None:
        self.source = source
        self.asserted: list[Formula] = []
        declaration = _only(declarations, source)
        self.tensors = {tensor.name: (tensor, _checked_value(tensor, network, source)) for tensor in declaration.tensors}
        (self.input,) = declaration.of_kind("input")

    def read(self, command: Sequence[Token]) -> None:
        formula, end = read_formula(command, 2, self._operand, GRAMMAR, self.source)
        if end != len(command) - 1:
            raise self.source.error(command[end].at, f"'assert' takes one formula, found {shown(command[end].text)} after it")
        self.asserted.append(formula)

    def spelled(self, index: int) -> str:
        return entry_text(self.input.name, self.input.shape, index)

    def _operand(self, tokens: Sequence[Token], at: int) -> tuple[Value, int]:
        token = tokens[at]
        if token.text in self.tensors:
            tensor, value = self.tensors[token.text]
            index, end = self._index(tensor, tokens, at + 1)
            return Linear({(value, index): Fraction(1)}, Fraction(0)), end
        constant = number(token, self.source)
        if constant is not None:
            return Linear({}, constant), at + 1
        raise self.source.error(
            token.at, f"expected a formula, a number or an entry of {', '.join(self.tensors)}, found {shown(token.text)}"
        )

    def _index(self, tensor: Tensor, tokens: Sequence[Token], at: int) -> tuple[int, int]:
        """The flat index (C order) that `[i, j, ...]` at a position stands for, and the position after it."""
        places: list[Token] = []
        if tokens[at].text == "[":
            while tokens[at].text == ("," if places else "[") and WHOLE.fullmatch(tokens[at + 1].text):
                places.append(tokens[at + 1])
                at += 2
            if tokens[at].text != "]" or not places:
                raise self.source.error(tokens[at].at, f"expected an index such as [0,3], found {shown(tokens[at].text)}")
            at += 1
        if len(places) != len(tensor.shape):
            raise self.source.error(
                tokens[at].at,
                f"{tensor.name} has shape {list(tensor.shape)}; {len(tensor.shape)} indices are needed, found {len(places)}",
            )
        flat = 0
        for token, length in zip(places, tensor.shape, strict=True):
            place = int(token.text)
            if place >= length:
                raise self.source.error(
                    token.at, f"index {place} is out of range for {tensor.name} of shape {list(tensor.shape)}"
                )
            flat = flat * length + place
        return flat, at


def _only(declarations: Sequence[Declaration], source: Source) -> Declaration:
    """The text's network, which must be one with one input and one output."""
    declaration, *more = declarations
    if more:
        relation = f" ({' '.join(more[0].equivalence)})" if more[0].equivalence else ""
        raise source.error(more[0].at, f"a second network {more[0].name}{relation}; queries about one network are supported")
    if declaration.equivalence:
        raise source.error(declaration.at, f"{' '.join(declaration.equivalence)}: no such network is declared before")
    for kind in ("input", "output"):
        tensors = declaration.of_kind(kind)
        if len(tensors) > 1:
            raise source.error(tensors[1].at, f"a second {kind} {tensors[1].name}; networks with one {kind} are supported")
    return declaration


def _checked_value(tensor: Tensor, network: Network, source: Source) -> str:
    """The network's value that a declared tensor stands for, if it has the declared shape."""
    value = value_of(tensor, network)
    place = _places(network).get(tensor.kind)
    if value not in network.shapes or (place is not None and value != place):
        allowed = ", ".join(list(network.shapes)[:20]) if place is None else place
        raise source.error(
            tensor.at, f"{tensor.kind} {tensor.name}: no such value {shown(value)} in the network; allowed: {allowed}"
        )
    shape = network.shapes[value]
    if _long_axes(shape) != _long_axes(tensor.shape):
        raise source.error(
            tensor.at,
            f"{tensor.kind} {tensor.name} is declared with shape {list(tensor.shape)}, but the network's value {value!r} has "
            f"{list(shape)}, {prod(shape)} entries",
        )
    return value


def value_of(tensor: Tensor, network: Network) -> str:
    """The name of the network's value that a declared tensor stands for: by its ONNX name, else by its place."""
    return _places(network)[tensor.kind] if tensor.onnx_name is None else tensor.onnx_name


def _places(network: Network) -> dict[str, str]:
    return {"input": network.input, "output": network.output}


def _long_axes(shape: Shape) -> Shape:
    return tuple(length for length in shape if length != 1)


def entry_text(name: str, shape: Shape, index: int) -> str:
    """An entry of a tensor as the text spells it: X[0,3], or X alone for a scalar.

    >>> entry_text("X", (1, 4), 3)
    'X[0,3]'
    """
    if not shape:
        return name
    return f"{name}[{','.join(str(int(place)) for place in np.unravel_index(index, shape))}]"
