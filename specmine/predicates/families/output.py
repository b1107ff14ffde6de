"""Predicates of the output: class(c), the output c is strictly the largest."""

from collections.abc import Iterator
from typing import Any

from specmine.predicates.form import Bits, Columns, Family, Form, Plan, Spread
from specmine.predicates.predicate import Argument, Predicate
from specmine.tracing.sites import Sites
from verifier.formula import And, Formula, atom


def _denote(arguments: tuple[Argument, ...], sites: Sites) -> Formula:
    (label,) = arguments
    value = sites.value("y")
    rivals = (rival for rival in range(sites.size("y")) if rival != label)
    return And(tuple(atom({(value, rival): 1, (value, int(label)): -1}, 0, strict=True) for rival in rivals))


def _bits(arguments: tuple[Any, ...], columns: Columns, sites: Sites) -> Bits:
    (labels,) = arguments
    outputs = columns["y"]
    largest = outputs.max(axis=0)
    alone = (outputs == largest).sum(axis=0) == 1
    return (outputs[labels] == largest) & alone


def _candidates(plan: Plan, spreads: tuple[Spread, ...]) -> Iterator[Predicate]:
    return (Predicate("class", (label,)) for label in range(plan.sites.size("y")))


CLASS = Form("class", ("class",), _denote, _bits, lambda arguments, sites: ("y",))

OUTPUT = Family("output", {"class": CLASS}, _candidates)
