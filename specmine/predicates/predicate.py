"""A predicate: a form applied to arguments, such as above(h2,12,0.75). Plain data, its text a function of its content."""

import re
from dataclasses import dataclass
from typing import TypeAlias

Argument: TypeAlias = str | int | float

_BARE_NAME = re.compile(r"[a-z][A-Za-z0-9_]*\Z")


@dataclass(frozen=True, order=True)
class Predicate:
    """`form` names a row of `specmine.predicates.families.FORMS`, which says what the arguments are.

    Site names are str, neuron indices and classes are int, thresholds are float. A threshold denotes the float64 nearest
    to its decimal text, so the text reads back as the same predicate.

    >>> str(Predicate("above", ("h2", 12, 0.75)))
    'above(h2,12,0.75)'
    """

    form: str
    arguments: tuple[Argument, ...]

    def __str__(self) -> str:
        return f"{self.form}({','.join(argument_text(argument) for argument in self.arguments)})"


def argument_text(argument: Argument) -> str:
    """The argument as clause syntax: names that are not plain lower-case words are quoted as in Prolog.

    >>> argument_text("h2"), argument_text("onnx::Relu_3"), argument_text(2.0), argument_text(7)
    ('h2', "'onnx::Relu_3'", '2.0', '7')
    """
    if isinstance(argument, str):
        return quoted(argument)
    if isinstance(argument, float):
        return repr(argument)
    return str(argument)


def quoted(name: str) -> str:
    """A name as a Prolog atom, in quotes unless it is a plain lower-case word."""
    if _BARE_NAME.match(name):
        return name
    return "'" + name.replace("\\", "\\\\").replace("'", "\\'") + "'"
