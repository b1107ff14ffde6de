"""Z3 on the query's own SMT-LIB text: exact, for small networks.

The solver reads the very text that `verifier.formats.smtlib` exports, so what it decides is what others can re-check.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from threading import Timer

import numpy as np
import z3

from verifier.check import confirms
from verifier.errors import UnsupportedOp
from verifier.formats.smtlib import cone, smtlib, symbols
from verifier.formula import And, Atom, Formula, Or
from verifier.ops import ACTIVATION_OPS, CURVE_OPS, STEP_OPS, Array, Conv, Linear, MaxPool, Product
from verifier.query import Query
from verifier.region import exact_bounds, inner_bounds
from verifier.verdict import Decision, Proved, Refuted, Unknown, Verdict

MAX_CASES = 400
CASE_OPS = (*ACTIVATION_OPS, *CURVE_OPS, *STEP_OPS, MaxPool, Product)
# Writing and parsing this many takes about two seconds, and the clock is looked at between the two.
MAX_WEIGHTS = 40_000
# How far inside the assertion a second attempt looks for a point that survives rounding to float64.
MARGINS = (Fraction(1, 10**4), Fraction(1, 10**8))
SHOWN_COORDINATES = 20
# A root of a polynomial is taken to so many decimal digits.
DIGITS = 40


@dataclass(frozen=True)
class Answer:
    """What Z3 says: sat with an exact point, unsat, or unknown with its reason."""

    status: str
    point: tuple[Fraction, ...] = ()
    reason: str = ""


def decide_smt(query: Query, *, timeout_s: float, max_cases: int = MAX_CASES) -> Decision:
    """Decide the query with Z3 in exact rational arithmetic over the stored weights.

    Proved carries no certificate. A model is rounded to the nearest float64 input inside the region and replayed exactly; where
    that fails, a point a little further inside the assertion is looked for, and failing that the verdict is
    Unknown("unconfirmed") with the rational point. Unknown("unsupported") where the assertion depends on more than max_cases
    nonlinear entries, on a transcendental function or on too many weights, Unknown("timeout") past timeout_s seconds of wall
    clock.
    """
    start = time.monotonic()
    reason = _too_large(query, max_cases)
    try:
        verdict = Unknown("unsupported", reason) if reason else _decide(query, start + timeout_s)
    except UnsupportedOp as error:
        verdict = Unknown("unsupported", str(error))
    return Decision(verdict, "smt", time.monotonic() - start)


def _too_large(query: Query, max_cases: int) -> str:
    needed, network = cone(query), query.network
    cases = sum(len(needed.get(n.output, ())) for n in network.nodes if isinstance(n.op, CASE_OPS))
    if cases > max_cases:
        return f"the assertion depends on {cases} activations; Z3 is used up to {max_cases}"
    affine = [(n.op.weight[0].size, len(needed.get(n.output, ()))) for n in network.nodes if isinstance(n.op, Linear | Conv)]
    weights = sum(each * entries for each, entries in affine)
    return f"the assertion depends on up to {weights} weights; Z3 is used up to {MAX_WEIGHTS}" if weights > MAX_WEIGHTS else ""


def _decide(query: Query, deadline: float) -> Verdict:
    answer = ask(query, deadline)
    if answer.status == "unsat":
        return Proved(None)
    if answer.status == "unknown":
        late = time.monotonic() >= deadline or answer.reason in ("timeout", "canceled", "interrupted from keyboard")
        return Unknown("timeout" if late else "incomplete", f"Z3: {answer.reason}")
    for margin in (Fraction(0), *MARGINS):
        inside = answer if not margin else ask(replace(query, assertion=shrunk(query.assertion, margin)), deadline)
        x = nearest_input(query, inside.point) if inside.status == "sat" else None
        if x is not None and confirms(query, x):
            return Refuted(x)
    return Unknown("unconfirmed", f"satisfied at the rational input {_shown(answer.point)}, at no float64 input near it")


def ask(query: Query, deadline: float) -> Answer:
    """Z3's answer by the deadline (`time.monotonic`), in a context of its own."""
    text = smtlib(query)
    if time.monotonic() >= deadline:
        return Answer("unknown", reason="timeout")
    context = z3.Context()
    solver = z3.Solver(ctx=context)
    solver.from_string(text)
    left_s = deadline - time.monotonic()
    if left_s <= 0:
        return Answer("unknown", reason="timeout")
    solver.set("timeout", max(1, int(1000 * left_s)))
    # Z3's own timeout is not looked at in some preprocessing steps; an interrupt is.
    alarm = Timer(left_s + 0.2, context.interrupt)
    alarm.start()
    try:
        status = str(solver.check())
    finally:
        alarm.cancel()
    if status == "sat":
        return Answer(status, _point(query, solver.model(), context))
    return Answer(status, reason=solver.reason_unknown() if status == "unknown" else "")


def _point(query: Query, model: z3.ModelRef, context: z3.Context) -> tuple[Fraction, ...]:
    """The model's input; entries that the assertion does not depend on get their lower bound."""
    x, name = query.network.input, symbols(query.network)[query.network.input]
    point = exact_bounds(query.region)[0]
    for index in cone(query).get(x, ()):
        value = model.eval(z3.Real(f"{name}[{index}]", ctx=context), model_completion=True)
        if isinstance(value, z3.AlgebraicNumRef):
            value = value.approx(DIGITS)
        point[index] = Fraction(value.numerator_as_long(), value.denominator_as_long())
    return tuple(point)


def shrunk(formula: Formula, margin: Fraction) -> Formula:
    """The formula with every atom tightened by margin times its largest coefficient."""
    match formula:
        case Atom(terms=terms):
            return replace(formula, bias=formula.bias + margin * max((abs(t.coefficient) for t in terms), default=0))
        case And(parts=parts):
            return And(tuple(shrunk(part, margin) for part in parts))
        case Or(parts=parts):
            return Or(tuple(shrunk(part, margin) for part in parts))


def nearest_input(query: Query, point: Sequence[Fraction]) -> Array | None:
    """The float64 input nearest to the point in the region's box; None where no float lies between two bounds."""
    lower, upper = inner_bounds(query.region)
    if (lower > upper).any():
        return None
    return np.clip(np.array([float(v) for v in point]), lower, upper)


def _shown(point: Sequence[Fraction]) -> str:
    more = ", ..." if len(point) > SHOWN_COORDINATES else ""
    return "(" + ", ".join(map(str, point[:SHOWN_COORDINATES])) + more + ")"
