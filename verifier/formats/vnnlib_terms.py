"""Formulas from VNN-LIB tokens: a machine with an explicit stack, so that no nesting is too deep to read."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import TypeAlias, assert_never

from verifier.errors import BadQuery
from verifier.formats.vnnlib_tokens import Source, Token, shown, within
from verifier.formula import And, Atom, Formula, Or, Term, negate

# Formulas are walked by recursion elsewhere; nested connectives of one kind count once.
MAX_LEVELS = 100
SWAPPED = {"and": "or", "or": "and"}


@dataclass(slots=True)
class Linear:
    """sum(c * value[index]) + constant; owned by one place at a time, which may change it."""

    terms: dict[tuple[str, int], Fraction]
    constant: Fraction


Value: TypeAlias = Linear | Formula
Operand: TypeAlias = Callable[[Sequence[Token], int], tuple[Value, int]]
"""Reads the operand (a number, a variable) at a position: its value and the position after it."""


@dataclass(frozen=True)
class Grammar:
    """What a version of the language allows inside an assertion.

    operators: what each spelling means. chained: whether a comparison takes more than two sides.
    """

    operators: Mapping[str, str]
    chained: bool


@dataclass(slots=True)
class _Frame:
    operator: Token
    meaning: str  # with negations pushed inward: and and or are swapped below an odd number of them
    negated: bool
    operands: list[Value]
    first: int  # where this frame's operands start: nested connectives of one kind share a list
    shared: bool


def read_formula(tokens: Sequence[Token], at: int, operand: Operand, grammar: Grammar, source: Source) -> tuple[Formula, int]:
    """The formula that starts at a position of balanced tokens, and the position after it.

    Raises BadQuery for an unknown operator, operands of the wrong kind or number, and anything that is not linear.
    """
    frames: list[_Frame] = []
    while True:
        token = tokens[at]
        if token.text == "(":
            frames.append(_opened(tokens[at + 1], frames, grammar, source))
            at += 2
            continue
        if token.text == ")" and frames:
            frame = frames.pop()
            at += 1
            if frame.shared:
                _check_count(frame, len(frame.operands) - frame.first, source)
                continue
            value = _apply(frame, grammar, source)
        else:
            value, at = operand(tokens, at)
            if _negates(frames) and not isinstance(value, Linear):
                value = negate(value)
        if not frames:
            break
        frames[-1].operands.append(value)
    if isinstance(value, Linear):
        raise source.error(token.at, "expected a formula that is true or false, found a number")
    _check_levels(value, token, source)
    return value, at


def _opened(operator: Token, frames: Sequence[_Frame], grammar: Grammar, source: Source) -> _Frame:
    meaning = grammar.operators.get(operator.text)
    if meaning is None:
        allowed = ", ".join(grammar.operators)
        raise source.error(operator.at, f"expected an operator, found {shown(operator.text)}; allowed are {allowed}")
    negated = _negates(frames)
    if meaning in SWAPPED:
        meaning = SWAPPED[meaning] if negated else meaning
        if frames and frames[-1].meaning == meaning:
            above = frames[-1].operands
            return _Frame(operator, meaning, negated, above, len(above), True)
    return _Frame(operator, meaning, negated, [], 0, False)


def _negates(frames: Sequence[_Frame]) -> bool:
    """Whether the next operand of the innermost frame stands below an odd number of negations."""
    if not frames:
        return False
    frame = frames[-1]
    inverts = frame.meaning == "not" or (frame.meaning == "=>" and not frame.operands)
    return frame.negated != inverts


def _apply(frame: _Frame, grammar: Grammar, source: Source) -> Value:
    _check_count(frame, len(frame.operands), source)
    match frame.meaning:
        case "and" | "or" | "not" | "=>":
            return _connective(frame, _formulas(frame, source))
        case "+" | "-" | "*" | "/":
            return _arithmetic(frame, _numbers(frame, source), source)
        case _:
            sides = _numbers(frame, source)
            if len(sides) != 2 and (not grammar.chained or frame.meaning == "!="):
                raise source.error(frame.operator.at, f"{frame.operator.text!r} compares two sides, found {len(sides)}")
            parts = [_comparison(frame, pair, source) for pair in pairwise(sides)]
            compared = parts[0] if len(parts) == 1 else And(tuple(parts))
            return negate(compared) if frame.negated else compared


def _check_count(frame: _Frame, count: int, source: Source) -> None:
    least = {"and": 1, "or": 1, "not": 1, "+": 1, "-": 1, "*": 1}.get(frame.meaning, 2)
    most = {"not": 1, "=>": 2}.get(frame.meaning, count)
    if count < least or count > most:
        needed = f"at least {least}" if count < least else f"at most {most}"
        raise source.error(frame.operator.at, f"{frame.operator.text!r} takes {needed} operands, found {count}")


def _formulas(frame: _Frame, source: Source) -> list[Formula]:
    formulas = [part for part in frame.operands if not isinstance(part, Linear)]
    if len(formulas) != len(frame.operands):
        raise source.error(frame.operator.at, f"{frame.operator.text!r} joins formulas, found a number among its operands")
    return formulas


def _numbers(frame: _Frame, source: Source) -> list[Linear]:
    numbers = [part for part in frame.operands if isinstance(part, Linear)]
    if len(numbers) != len(frame.operands):
        raise source.error(frame.operator.at, f"{frame.operator.text!r} takes numbers, found a formula among its operands")
    return numbers


def _connective(frame: _Frame, parts: Sequence[Formula]) -> Formula:
    """What joins the operands, which are negated already where they stand below a negation."""
    if len(parts) == 1:
        return parts[0]
    is_and = frame.negated if frame.meaning == "=>" else frame.meaning == "and"
    return And(tuple(parts)) if is_and else Or(tuple(parts))


def _arithmetic(frame: _Frame, parts: Sequence[Linear], source: Source) -> Linear:
    result, *rest = parts
    if frame.meaning == "-" and not rest:
        return _scaled(result, Fraction(-1), frame, source)
    for part in rest:
        match frame.meaning:
            case "+":
                result = _added(result, part, frame, source)
            case "-":
                result = _added(result, _scaled(part, Fraction(-1), frame, source), frame, source)
            case "*":
                result = _product(result, part, frame, source)
            case _:
                if part.terms or not part.constant:
                    raise source.error(frame.operator.at, "a divisor must be a number other than 0; multiply out the rest")
                result = _scaled(result, within(1 / part.constant, frame.operator, source), frame, source)
    return result


def _added(a: Linear, b: Linear, frame: _Frame, source: Source) -> Linear:
    if len(a.terms) < len(b.terms):  # the longer sum takes up the shorter: nested sums stay linear in their length
        a, b = b, a
    a.constant = within(a.constant + b.constant, frame.operator, source)
    for entry, c in b.terms.items():
        a.terms[entry] = within(a.terms[entry] + c, frame.operator, source) if entry in a.terms else c
    return a


def _product(a: Linear, b: Linear, frame: _Frame, source: Source) -> Linear:
    if a.terms and b.terms:
        raise source.error(frame.operator.at, "a product of two variables; only products with numbers are linear and allowed")
    return _scaled(a, b.constant, frame, source) if a.terms else _scaled(b, a.constant, frame, source)


def _scaled(a: Linear, by: Fraction, frame: _Frame, source: Source) -> Linear:
    a.constant = within(a.constant * by, frame.operator, source)
    a.terms = {entry: within(c * by, frame.operator, source) for entry, c in a.terms.items()}
    return a


def _comparison(frame: _Frame, sides: tuple[Linear, Linear], source: Source) -> Formula:
    left, right = sides if frame.meaning not in (">=", ">") else (sides[1], sides[0])
    below = _difference(left, right, frame, source)
    match frame.meaning:
        case "<=" | ">=":
            return _atom(below, strict=False)
        case "<" | ">":
            return _atom(below, strict=True)
        case "=":
            closed = _atom(below, strict=False)
            return And((closed, _flipped(closed)))
        case "!=":
            strict = _atom(below, strict=True)
            return Or((strict, _flipped(strict)))
        case meaning:
            raise AssertionError(f"no rule for {meaning}")


def _difference(a: Linear, b: Linear, frame: _Frame, source: Source) -> Linear:
    terms = dict(a.terms)
    for entry, c in b.terms.items():
        terms[entry] = within(terms[entry] - c, frame.operator, source) if entry in terms else -c
    if not b.constant:
        return Linear(terms, a.constant)
    return Linear(terms, within(a.constant - b.constant, frame.operator, source) if a.constant else -b.constant)


def _atom(form: Linear, *, strict: bool) -> Atom:
    terms = sorted(Term(value, index, c) for (value, index), c in form.terms.items() if c)
    return Atom(tuple(terms), form.constant, strict)


def _flipped(atom: Atom) -> Atom:
    return Atom(tuple(Term(t.value, t.index, -t.coefficient) for t in atom.terms), -atom.bias, atom.strict)


def _check_levels(formula: Formula, token: Token, source: Source) -> None:
    left: list[tuple[Formula, int]] = [(formula, 1)]
    while left:
        part, level = left.pop()
        match part:
            case Atom():
                continue
            case And(parts=parts) | Or(parts=parts):
                if level > MAX_LEVELS:
                    raise _too_deep(token, source)
                left.extend((inner, level + 1) for inner in parts)
            case _:
                assert_never(part)


def _too_deep(token: Token, source: Source) -> BadQuery:
    return source.error(token.at, f"'and' and 'or' alternate more than {MAX_LEVELS} levels deep; flatten the formula")
