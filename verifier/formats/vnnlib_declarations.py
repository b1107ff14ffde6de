"""What a VNN-LIB 2.0 text declares: its version, its networks and their tensors."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import Literal, TypeAlias

from verifier.errors import BadQuery
from verifier.formats.vnnlib_tokens import Source, Token, commands, shown
from verifier.ops import Shape

Kind: TypeAlias = Literal["input", "hidden", "output"]
KINDS: tuple[Kind, ...] = ("input", "hidden", "output")

NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*", re.ASCII)
WHOLE = re.compile(r"\d{1,18}", re.ASCII)
VERSION = re.compile(r"<(\d{1,9})\.(\d{1,9})>", re.ASCII)
FLOATS = ("real", "float16", "bfloat16", "float32", "float64", "float", "double", "f16", "bf16", "f32", "f64")
EQUIVALENCES = ("equal-to", "isomorphic-to")
MAX_RANK = 64
ESCAPES = {"n": "\n", "t": "\t", '"': '"', "\\": "\\"}


@dataclass(frozen=True)
class Tensor:
    """A declared tensor: `kind` of value, name in the text, element type as written, shape, and the model's own name of it."""

    kind: Kind
    name: str
    element_type: str
    shape: Shape
    onnx_name: str | None
    at: int

    @property
    def size(self) -> int:
        """Number of entries."""
        return prod(self.shape)


@dataclass(frozen=True)
class Declaration:
    """A declared network; `equivalence` is (equal-to or isomorphic-to, the other network's name) where it has one."""

    name: str
    tensors: tuple[Tensor, ...]
    equivalence: tuple[str, str] | None
    at: int

    def of_kind(self, kind: Kind) -> tuple[Tensor, ...]:
        """The tensors of one kind, in the order of their declaration."""
        return tuple(tensor for tensor in self.tensors if tensor.kind == kind)


def version(source: Source) -> tuple[int, int]:
    """The version that the first command states, (1, 0) where it states none. Raises BadQuery for one that is not read."""
    first = next(commands(source), None)
    if first is None or first[1].text != "vnnlib-version":
        return 1, 0
    match = VERSION.fullmatch(first[2].text)
    if match is None or len(first) != 4 or (int(match[1]), int(match[2])) not in ((1, 0), (2, 0)):
        raise source.error(first[2].at, f"version {shown(first[2].text)} is not read; allowed are <1.0> and <2.0>")
    return int(match[1]), int(match[2])


def read_declaration(command: Sequence[Token], source: Source) -> Declaration:
    """The network that a `(declare-network ...)` command declares.

    Raises BadQuery where it does not keep to the standard: inputs first, then hidden values, then outputs; an input and an
    output at least; names of letters, digits and underscores; whole positive dimensions; a quoted name for a hidden value.
    """
    cursor = _Cursor(command, source)
    cursor.expect("(", "declare-network")
    name = cursor.name()
    equivalence: tuple[str, str] | None = None
    tensors: list[Tensor] = []
    while cursor.peek().text == "(":
        head = cursor.peek(1)
        if head.text in EQUIVALENCES:
            if equivalence or tensors:
                raise source.error(head.at, f"{head.text} must come once, before the tensors of the network")
            cursor.expect("(", head.text)
            equivalence = head.text, cursor.name().text
            cursor.expect(")")
        else:
            tensors.append(_tensor(cursor, source))
            _check_order(tensors, source)
    cursor.expect(")")
    for kind in ("input", "output"):
        if not any(tensor.kind == kind for tensor in tensors):
            raise source.error(name.at, f"network {name.text} declares no {kind}; add (declare-{kind} NAME real [SHAPE])")
    return Declaration(name.text, tuple(tensors), equivalence, name.at)


def _tensor(cursor: "_Cursor", source: Source) -> Tensor:
    head = cursor.peek(1)
    kind = next((kind for kind in KINDS if head.text == f"declare-{kind}"), None)
    if kind is None:
        allowed = ", ".join([*(f"declare-{kind}" for kind in KINDS), *EQUIVALENCES])
        raise source.error(head.at, f"expected one of {allowed}, found {shown(head.text)}")
    cursor.expect("(", head.text)
    name, element = cursor.name(), cursor.take()
    if element.text.lower() not in FLOATS:
        raise source.error(
            element.at,
            f"element type {shown(element.text)} is not supported; allowed are {', '.join(FLOATS)}, all read as real",
        )
    shape = cursor.shape()
    onnx_name = cursor.string() if cursor.peek().text[0] == '"' or kind == "hidden" else None
    cursor.expect(")")
    return Tensor(kind, name.text, element.text, shape, onnx_name, name.at)


def _check_order(tensors: Sequence[Tensor], source: Source) -> None:
    if len(tensors) < 2:
        return
    before, last = tensors[-2:]
    if KINDS.index(last.kind) < KINDS.index(before.kind):
        raise source.error(
            last.at, f"{last.kind} {last.name} is declared after {before.kind} {before.name}; inputs come first, outputs last"
        )


class _Cursor:
    """A place in the tokens of one command."""

    def __init__(self, tokens: Sequence[Token], source: Source) -> None:
        self._tokens, self._source, self._at = tokens, source, 0

    def peek(self, ahead: int = 0) -> Token:
        return self._tokens[min(self._at + ahead, len(self._tokens) - 1)]

    def take(self) -> Token:
        token = self.peek()
        self._at += 1
        return token

    def expect(self, *texts: str) -> None:
        for text in texts:
            token = self.take()
            if token.text != text:
                raise self._source.error(token.at, f"expected {text!r}, found {shown(token.text)}")

    def name(self) -> Token:
        token = self.take()
        if NAME.fullmatch(token.text) is None:
            raise self._source.error(
                token.at, f"expected a name, a letter and then letters, digits and underscores, found {shown(token.text)}"
            )
        return token

    def string(self) -> str:
        token = self.take()
        if token.text[0] != '"':
            raise self._source.error(
                token.at, f"expected the value's name in the model in double quotes, found {shown(token.text)}"
            )
        return unquoted(token.text)

    def shape(self) -> Shape:
        self.expect("[")
        shape: list[int] = []
        while self.peek().text != "]":
            if shape:
                self.expect(",")
            token = self.take()
            if WHOLE.fullmatch(token.text) is None or not int(token.text) or len(shape) == MAX_RANK:
                raise self._source.error(
                    token.at,
                    f"expected a dimension, a whole number from 1, at most {MAX_RANK} of them, found {shown(token.text)}",
                )
            shape.append(int(token.text))
        self.expect("]")
        return tuple(shape)


def unquoted(text: str) -> str:
    """The string that quoted text stands for."""
    return re.sub(r"\\(.)", lambda match: ESCAPES.get(match[1], match[0]), text[1:-1], flags=re.DOTALL)


def quoted(text: str) -> str:
    """The string in double quotes, as `unquoted` reads it."""
    for letter, meant in reversed(ESCAPES.items()):
        text = text.replace(meant, "\\" + letter)
    return f'"{text}"'


def read_declarations(source: Source) -> tuple[Declaration, ...]:
    """The networks that a VNN-LIB 2.0 text declares, in their order; none for a text of version 1.0.

    Only the head of the text is read, up to its first assertion. Raises BadQuery for a name declared twice.
    """
    return tuple(_declared(source)) if version(source)[0] == 2 else ()


def _declared(source: Source) -> Iterator[Declaration]:
    networks: set[str] = set()
    tensors: set[str] = set()
    for command in commands(source):
        match command[1].text:
            case "vnnlib-version":
                continue
            case "declare-network":
                declaration = read_declaration(command, source)
                _check_new(networks, declaration.name, declaration.at, source)
                for tensor in declaration.tensors:
                    _check_new(tensors, tensor.name, tensor.at, source)
                yield declaration
            case _:
                return


def _check_new(seen: set[str], name: str, at: int, source: Source) -> None:
    if name in seen:
        raise source.error(at, f"{name} is declared twice; every name must be unique in the text")
    seen.add(name)


def error_without_network(source: Source) -> BadQuery:
    """The error for a text of version 2.0 that declares no network."""
    return BadQuery(f"{source.name}: no network is declared; add (declare-network f (declare-input ...) (declare-output ...))")
