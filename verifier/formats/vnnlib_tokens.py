"""VNN-LIB text as tokens and commands, with the place of each for messages."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from sys import float_info
from typing import NamedTuple

from verifier.errors import BadQuery

# A comment, a string, a bracket or comma, a word; a lone quote is a string without an end.
TOKEN = re.compile(r';[^\n]*|"(?:[^"\\]++|\\.)*+"|[()\[\],"]|[^\s()\[\],;"]+', re.DOTALL)
NUMBER = re.compile(r"([+-]?)(\d+)(?:\.(\d*))?(?:[eE]([+-]?\d{1,4}))?|([+-]?)\.(\d+)(?:[eE]([+-]?\d{1,4}))?", re.ASCII)
# The exact decimal of the smallest float64 has 1074 places.
MAX_DIGITS = 4_000
MAX_BITS = 100_000
LARGEST = Fraction(float_info.max)
SURELY_BELOW = float_info.max_exp - 1  # a fraction whose parts differ by fewer bits is smaller than LARGEST
SHOWN = 40
# Each comparison takes five or more and about a kilobyte of memory.
MAX_TOKENS = 8_000_000


class Token(NamedTuple):
    """A token and its offset in the text."""

    text: str
    at: int


@dataclass(frozen=True)
class Source:
    """A text and the name that messages call it by."""

    name: str
    text: str

    def error(self, at: int, message: str) -> BadQuery:
        """The error that names file, line and column."""
        line = self.text.count("\n", 0, at) + 1
        column = at - self.text.rfind("\n", 0, at)
        return BadQuery(f"{self.name}:{line}:{column}: {message}")


def shown(text: str) -> str:
    """The text as a message quotes it, shortened."""
    return repr(text if len(text) <= SHOWN else text[:SHOWN] + "...")


def commands(source: Source) -> Iterator[list[Token]]:
    """Each top-level `(...)` as its tokens, the outer parentheses included and all balanced; comments are gone.

    Raises BadQuery for text outside parentheses, a parenthesis without its partner and a string without an end.
    """
    command: list[Token] = []
    depth = 0
    for count, match in enumerate(TOKEN.finditer(source.text)):
        text, at = match.group(), match.start()
        if count == MAX_TOKENS:
            raise source.error(at, f"over {MAX_TOKENS} words and parentheses; split the query into several")
        if text[0] == ";":
            continue
        if text == "(":
            depth += 1
        elif text == '"':
            raise source.error(at, "a string without an end; close it with a double quote")
        elif not depth:
            raise source.error(at, f"expected '(' at the start of a command, found {shown(text)}")
        elif text == ")":
            depth -= 1
        command.append(Token(text, at))
        if not depth:
            yield command
            command = []
    if depth:
        raise source.error(command[0].at, f"a command is not closed: {depth} ')' missing at the end of the text")


def number(token: Token, source: Source) -> Fraction | None:
    """The exact value of a decimal such as -0.5 or 1e-4; None where the token is no number."""
    match = NUMBER.fullmatch(token.text)
    if match is None:
        return None
    sign, whole, part, power, sign_2, part_2, power_2 = match.groups()
    digits, places = (whole + (part or ""), len(part or "")) if whole else (part_2, len(part_2))
    if len(digits) > MAX_DIGITS:
        raise source.error(token.at, f"a number of {len(digits)} digits; at most {MAX_DIGITS} are read")
    exponent = int(power or power_2 or 0) - places
    value = int(digits) * (-1 if "-" in (sign, sign_2) else 1)
    return within(Fraction(value * 10**exponent) if exponent >= 0 else Fraction(value, 10**-exponent), token, source)


def within(value: Fraction, token: Token, source: Source) -> Fraction:
    """The value, if it lies in the range of a float64 and its fraction is of bounded length."""
    bits = value.numerator.bit_length() - value.denominator.bit_length()
    if bits >= SURELY_BELOW and abs(value) > LARGEST:
        raise source.error(token.at, f"a number beyond {float_info.max!r} at {shown(token.text)}; scale the query down")
    if value.denominator.bit_length() > MAX_BITS:
        raise source.error(token.at, f"a fraction of over {MAX_BITS} bits at {shown(token.text)}; round the coefficients")
    return value
