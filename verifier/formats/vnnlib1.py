"""VNN-LIB 1.0: `declare-const` of X_i (inputs) and Y_i (outputs), and assertions over them."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from verifier.errors import BadQuery
from verifier.formats.vnnlib_query import build_query
from verifier.formats.vnnlib_terms import Grammar, Linear, Value, read_formula
from verifier.formats.vnnlib_tokens import Source, Token, commands, number, shown
from verifier.formula import FALSE, TRUE, Formula
from verifier.network import Network
from verifier.query import Query

SPELLINGS = ("and", "or", "not", "=>", "<=", ">=", "<", ">", "=", "+", "-", "*", "/")
GRAMMAR = Grammar({spelling: spelling for spelling in SPELLINGS}, chained=True)
VARIABLE = re.compile(r"([XY])_(0|[1-9]\d{0,11})", re.ASCII)
# Commands of SMT-LIB scripts that say nothing about the query.
IGNORED = ("vnnlib-version", "set-logic", "set-info", "set-option", "check-sat", "get-model", "exit")


def parse_vnnlib1(source: Source, network: Network) -> Query:
    """The query of a VNN-LIB 1.0 text about a network: X_i and Y_i are its input and output entries in C order."""
    reader = _Reader(source, network)
    for command in commands(source):
        reader.read(command)
    reader.check_complete()
    return build_query(network, reader.asserted, lambda index: f"X_{index}", source.name)


@dataclass(frozen=True)
class _Kind:
    """One of the two tensors: its letter, its value in the network and the entries declared so far."""

    letter: str
    word: str
    value: str
    size: int
    declared: set[int]


class _Reader:
    """Declarations and assertions, command by command."""

    def __init__(self, source: Source, network: Network) -> None:
        self.source, self.network = source, network
        self.asserted: list[Formula] = []
        x, y = network.input, network.output
        self.kinds = {
            "X": _Kind("X", "input", x, network.size(x), set()),
            "Y": _Kind("Y", "output", y, network.size(y), set()),
        }

    def read(self, command: Sequence[Token]) -> None:
        head = command[1]
        match head.text:
            case "declare-const":
                self._declare(command, [token.text for token in command[3:]] == ["Real", ")"])
            case "declare-fun":
                self._declare(command, [token.text for token in command[3:]] == ["(", ")", "Real", ")"])
            case "assert":
                formula, end = read_formula(command, 2, self._operand, GRAMMAR, self.source)
                if end != len(command) - 1:
                    raise self.source.error(
                        command[end].at, f"'assert' takes one formula, found {shown(command[end].text)} after it"
                    )
                self.asserted.append(formula)
            case ignored if ignored in IGNORED:
                pass
            case other:
                hint = "; a text of version 2.0 begins with (vnnlib-version <2.0>)" if other == "declare-network" else ""
                raise self.source.error(head.at, f"unknown command {shown(other)}; allowed are declare-const and assert{hint}")

    def _declare(self, command: Sequence[Token], well_formed: bool) -> None:
        name = command[2]
        match = VARIABLE.fullmatch(name.text)
        if match is None or not well_formed:
            raise self.source.error(
                name.at, f"expected (declare-const X_0 Real) or (declare-const Y_0 Real), found {shown(name.text)}"
            )
        kind, index = self.kinds[match[1]], int(match[2])
        if index >= kind.size:
            shape = self.network.shapes[kind.value]
            raise self.source.error(
                name.at,
                f"{name.text} is declared, but the network's {kind.word} {kind.value!r} has shape {shape}, {kind.size} entries",
            )
        if index in kind.declared:
            raise self.source.error(name.at, f"{name.text} is declared twice")
        kind.declared.add(index)

    def check_complete(self) -> None:
        for kind in self.kinds.values():
            if len(kind.declared) != kind.size:
                missing = next(index for index in range(kind.size) if index not in kind.declared)
                raise BadQuery(
                    f"{self.source.name}: {kind.letter}_{missing} is not declared; the network's {kind.word} {kind.value!r} "
                    f"has {kind.size} entries, the file declares {len(kind.declared)}: is it meant for another network?"
                )

    def _operand(self, tokens: Sequence[Token], at: int) -> tuple[Value, int]:
        token = tokens[at]
        match = VARIABLE.fullmatch(token.text)
        if match is not None:
            kind, index = self.kinds[match[1]], int(match[2])
            if index not in kind.declared:
                raise self.source.error(token.at, f"{token.text} is not declared; add (declare-const {token.text} Real) above")
            return Linear({(kind.value, index): Fraction(1)}, Fraction(0)), at + 1
        constant = number(token, self.source)
        if constant is not None:
            return Linear({}, constant), at + 1
        if token.text in ("true", "false"):
            return (TRUE if token.text == "true" else FALSE), at + 1
        raise self.source.error(token.at, f"expected a formula, a number, X_i or Y_i, found {shown(token.text)}")
