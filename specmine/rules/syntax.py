"""Clauses from text, in the very syntax that is printed: `class(7) :- above(h2,12,0.75), inactive(h1,3).`

    clauses   = { clause }
    clause    = ( literal | "false" ) ":-" ( "true" | literal { "," literal } ) "."
    literal   = form "(" argument { "," argument } ")"
    argument  = name | integer | number

Names that are not lower-case words are quoted as in Prolog, with backslash escapes; `%` starts a comment; blanks are free.
"""

import difflib
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from specmine.errors import BadClause
from specmine.predicates.families import FORMS
from specmine.predicates.families import validate as validate_predicate
from specmine.predicates.predicate import Argument, Predicate
from specmine.rules.clause import HornClause
from specmine.tracing.sites import Sites

_TOKEN = re.compile(
    r"""(?P<blank>(?:\s|%[^\n]*)+)
      | (?P<arrow>:-)
      | (?P<quoted>'(?:[^'\\\n]|\\.)*')
      | (?P<float>[-+]?(?:\d+\.\d+(?:[eE][-+]?\d+)?|\d+[eE][-+]?\d+))
      | (?P<int>[-+]?\d+)
      | (?P<name>[A-Za-z_]\w*)
      | (?P<mark>[(),.])
      | (?P<bad>.)""",
    re.VERBOSE | re.ASCII,
)

_EXPECTED = {
    "site": "a site name such as h1",
    "neuron": "a neuron index (an integer >= 0 such as 12)",
    "class": "a class (an integer >= 0 such as 7)",
    "threshold": "a threshold (a number such as 0.75)",
    "index": "an index (an integer >= 0 such as 3)",
}


@dataclass(frozen=True)
class Token:
    kind: str
    text: str
    start: int


def parse_clause(text: str, *, sites: Sites | None = None) -> HornClause:
    """The one clause that the text holds.

    With `sites`, its sites, neurons and classes are checked against the network. Integers stand for thresholds too.
    Raises BadClause with the line, the column, what was expected and the nearest valid names.

    >>> str(parse_clause("class(7) :- inactive(h1, 3), above(h2,12,1)."))
    'class(7) :- above(h2,12,1.0), inactive(h1,3).'
    """
    parser = _Parser(text, sites)
    clause = parser.clause()
    if parser.token.kind != "end":
        raise parser.error("expected the end of the text after one clause", parser.token)
    return clause


def parse_clauses(text: str, *, sites: Sites | None = None) -> tuple[HornClause, ...]:
    """The clauses of a text in order, as for `parse_clause`; a text of blanks and comments holds none."""
    parser = _Parser(text, sites)
    clauses = []
    while parser.token.kind != "end":
        clauses.append(parser.clause())
    return tuple(clauses)


class _Parser:
    """Recursive descent over the token list; `token` is the one to be read next."""

    def __init__(self, text: str, sites: Sites | None) -> None:
        self.text = text
        self.sites = sites
        found = (Token(str(match.lastgroup), match.group(), match.start()) for match in _TOKEN.finditer(text))
        self.tokens = [token for token in found if token.kind != "blank"] + [Token("end", "", len(text))]
        self.position = 0

    @property
    def token(self) -> Token:
        return self.tokens[self.position]

    def clause(self) -> HornClause:
        head = None if self.word("false") else self.literal("a head such as class(7), or false")
        self.expect("arrow", ":-", "':-' after the head")
        body: list[Predicate] = []
        if not self.word("true"):
            body.append(self.literal("a literal such as active(h1,3), or true"))
            while self.take("mark", ","):
                body.append(self.literal("a literal such as active(h1,3)"))
        self.expect("mark", ".", "',' and another literal, or '.' to end the clause" if body else "'.' after true")
        return HornClause(head, tuple(body))

    def literal(self, expected: str) -> Predicate:
        start = self.token
        if start.kind != "name":
            raise self.unexpected(expected)
        if start.text not in FORMS:
            near = _nearest(start.text, list(FORMS))
            raise self.error(f"there is no form {start.text!r}; nearest: {near}; all: {', '.join(FORMS)}", start)
        self.position += 1
        self.expect("mark", "(", f"'(' after {start.text}")
        signature = FORMS[start.text].signature
        usage = f"{start.text}({', '.join(signature)})"
        arguments: list[Argument] = []
        for place, kind in enumerate(signature):
            if place:
                self.expect("mark", ",", f"',' and then the {kind}, as in {usage}")
            arguments.append(self.argument(kind, usage))
        self.expect("mark", ")", f"')' after the {len(signature)} argument(s) of {usage}")
        return self.checked(Predicate(start.text, tuple(arguments)), start)

    def argument(self, kind: str, usage: str) -> Argument:
        token = self.token
        if kind == "site" and token.kind in ("name", "quoted"):
            value: Argument = token.text if token.kind == "name" else re.sub(r"\\(.)", r"\1", token.text[1:-1])
        elif kind == "threshold" and token.kind in ("int", "float"):
            value = float(token.text)
            if not math.isfinite(value):
                raise self.error(f"the threshold {token.text} is too large for a float64", token)
        elif kind in ("neuron", "class", "index") and token.kind == "int" and int(token.text) >= 0:
            value = int(token.text)
        else:
            raise self.unexpected(f"{_EXPECTED[kind]}, as in {usage}")
        self.position += 1
        return value

    def checked(self, predicate: Predicate, start: Token) -> Predicate:
        """The predicate, where its arguments go together and the network has its sites, neurons and classes."""
        if self.sites is None:
            problem = FORMS[predicate.form].check(predicate.arguments, None)
            if problem:
                raise self.error(problem, start)
            return predicate
        try:
            return validate_predicate(predicate, self.sites)
        except BadClause as error:
            raise self.error(str(error), start) from error

    def word(self, text: str) -> bool:
        return self.take("name", text)

    def take(self, kind: str, text: str) -> bool:
        """Whether the next token is this one; it is then read."""
        if (self.token.kind, self.token.text) != (kind, text):
            return False
        self.position += 1
        return True

    def expect(self, kind: str, text: str, expected: str) -> None:
        if not self.take(kind, text):
            raise self.unexpected(expected)

    def unexpected(self, expected: str) -> BadClause:
        token = self.token
        given = "the text ends" if token.kind == "end" else f"got {token.text!r}"
        if token.text == "'":
            given = "got a quote that is not closed on its line"
        return self.error(f"expected {expected}, {given}", token)

    def error(self, problem: str, token: Token) -> BadClause:
        before = self.text[: token.start]
        line, column = before.count("\n") + 1, token.start - before.rfind("\n")
        source = self.text.split("\n")[line - 1].replace("\t", " ")
        return BadClause(f"line {line}, column {column}: {problem}\n  {source}\n  {' ' * (column - 1)}^")


def _nearest(name: str, known: Sequence[str]) -> str:
    return ", ".join(difflib.get_close_matches(name, known, n=3, cutoff=0.3) or known[:5])
