"""The predicate families, and what any predicate of theirs means.

A new family is one file in this folder and one line in FAMILIES.
"""

import difflib
import sys
from collections.abc import Sequence
from concurrent.futures import Executor
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from specmine.errors import BadClause, BadConfig, BadData
from specmine.predicates.families.attention import ATTENTION
from specmine.predicates.families.binary import BINARY
from specmine.predicates.families.output import OUTPUT
from specmine.predicates.families.ternary import TERNARY
from specmine.predicates.families.unary import UNARY
from specmine.predicates.form import Bits, Family, Form, Grid, Kind, Plan, Rows
from specmine.predicates.locality import EVERY_REASON
from specmine.predicates.predicate import Argument, Predicate
from specmine.predicates.screening import choose_pairs
from specmine.predicates.survey import survey
from specmine.progress import SILENT, Progress
from specmine.tracing.sites import Sites
from specmine.tracing.stream import MEMORY_MB, Source, classes_of
from specmine.tracing.trace import Trace, column
from verifier.formula import Formula

FAMILIES: dict[str, Family] = {
    "unary": UNARY,
    "binary": BINARY,
    "ternary": TERNARY,
    "attention": ATTENTION,
    "output": OUTPUT,
}

FORMS: dict[str, Form] = {name: form for family in FAMILIES.values() for name, form in family.forms.items()}


def form_of(predicate: Predicate) -> Form:
    """The form of a predicate; raises BadClause with the nearest names where there is none."""
    if predicate.form not in FORMS:
        near = difflib.get_close_matches(predicate.form, FORMS, n=3, cutoff=0.4) or list(FORMS)
        raise BadClause(f"no predicate form {predicate.form!r}; nearest are {', '.join(near)}; all: {', '.join(FORMS)}")
    return FORMS[predicate.form]


def validate(predicate: Predicate, sites: Sites) -> Predicate:
    """The predicate with whole thresholds as floats; raises BadClause where it means nothing on this network."""
    form = form_of(predicate)
    if len(predicate.arguments) != len(form.signature):
        wanted = f"{form.name}({', '.join(form.signature)})"
        raise BadClause(f"{predicate} has {len(predicate.arguments)} arguments; write {wanted}")
    site = "y"
    arguments: list[Argument] = []
    for kind, argument in zip(form.signature, predicate.arguments, strict=True):
        arguments.append(_checked(kind, argument, site, predicate, sites))
        site = str(argument) if kind == "site" else site
    problem = form.check(tuple(arguments), sites)
    if problem:
        raise BadClause(f"{predicate}: {problem}")
    return Predicate(predicate.form, tuple(arguments))


def denote(predicate: Predicate, sites: Sites) -> Formula:
    """The formula over network values that holds exactly where the predicate holds; a threshold is the exact rational."""
    return form_of(predicate).denote(predicate.arguments, sites)


def bits(predicate: Predicate, trace: Trace) -> Bits:
    """Truth (samples,) of the predicate on each sample of a trace."""
    form = form_of(predicate)
    columns = {site: column(trace, site).T for site in form.sites(predicate.arguments, trace.sites)}
    return form.bits(arguments_of([predicate]), columns, trace.sites)[0]


def arguments_of(predicates: list[Predicate]) -> tuple[Any, ...]:
    """The arguments of predicates of one form and site in the shape that `Form.bits` takes."""
    form = form_of(predicates[0])
    return tuple(
        predicates[0].arguments[place] if kind == "site" else _array(kind, [p.arguments[place] for p in predicates])
        for place, kind in enumerate(form.signature)
    )


def candidates(
    families: Sequence[Family | str] | Family | str,
    source: Source,
    *,
    grid: Grid | None = None,
    heads: Rows | None = None,
    executor: Executor | None = None,
    memory_mb: float = MEMORY_MB,
    progress: Progress = SILENT,
) -> tuple[Predicate, ...]:
    """The candidate predicates of families on samples, in a fixed order, without repeats.

    grid: by default the activation outputs that the source holds, eight thresholds, eight partners. heads: a head value
    for each sample, -1 for none, by default the network's own class. executor: where the passes over the samples are made;
    memory_mb: bounds what they hold. The number of candidates is linear in the neurons. Raises BadConfig for a family or a
    locality that there is not, BadData without samples or where the heads do not fit them.
    """
    listed = [family_of(f) for f in ([families] if isinstance(families, Family | str) else families)]
    grid = Grid(default_sites(source)) if grid is None else grid
    _check_grid(grid)
    if not source.samples:
        raise BadData("candidates need at least one sample to take thresholds from, got none")
    heads = classes_of(source) if heads is None else _checked_heads(heads, source.samples)
    paired = any(family.paired for family in listed)
    pairs = choose_pairs(source, grid, heads, executor=executor, memory_mb=memory_mb) if paired else ()
    plan = Plan(source.sites, grid, pairs)
    measures = [family.measures(plan) for family in listed]
    wanted = [measure for group in measures for measure in group]
    spreads = iter(survey(source, wanted, grid, heads, executor=executor, memory_mb=memory_mb, progress=progress))
    found: dict[Predicate, None] = {}
    for family, group in zip(listed, measures, strict=True):
        found |= dict.fromkeys(family.candidates(plan, tuple(islice(spreads, len(group)))))
    return tuple(found)


def family_of(family: Family | str) -> Family:
    """The family of a name; raises BadConfig where there is none."""
    if isinstance(family, Family):
        return family
    if family not in FAMILIES:
        raise BadConfig(f"no predicate family {family!r}; known are {', '.join(FAMILIES)}")
    return FAMILIES[family]


def _check_grid(grid: Grid) -> None:
    unknown = [reason for reason in grid.locality if reason not in EVERY_REASON]
    if unknown:
        raise BadConfig(f"no locality {unknown[0]!r}; known are {', '.join(EVERY_REASON)}")
    if grid.thresholds < 0 or grid.partners < 0 or not all(0 <= level < 1 for level in grid.head_levels):
        raise BadConfig(
            f"thresholds and partners must be at least 0 and head levels in [0, 1), got {grid.thresholds}, {grid.partners} "
            f"and {grid.head_levels}"
        )


def _checked_heads(heads: Any, samples: int) -> Rows:
    given = np.asarray(heads)
    if given.shape != (samples,) or given.dtype.kind not in "biu":
        raise BadData(
            f"heads must be one whole number for each of {samples} samples (-1: none), got {given.dtype} of shape {given.shape}"
        )
    return given.astype(np.int64)


def default_sites(source: Source) -> tuple[str, ...]:
    """The activation outputs that a source can give."""
    hidden = source.sites.hidden
    return tuple(site for site in hidden if site in source.values) if isinstance(source, Trace) else hidden


def _checked(kind: Kind, argument: Argument, site: str, predicate: Predicate, sites: Sites) -> Argument:
    if kind == "site":
        if not isinstance(argument, str):
            raise BadClause(f"{predicate}: {argument!r} is not a site name such as {', '.join(sites.aliases)}")
        sites.value(argument)
        return argument
    if kind == "threshold":
        if isinstance(argument, bool | str) or not abs(argument) <= sys.float_info.max:
            raise BadClause(f"{predicate}: {argument!r} is not a threshold; write a finite decimal number such as 0.75")
        return float(argument) + 0.0
    if not isinstance(argument, int) or isinstance(argument, bool):
        raise BadClause(f"{predicate}: {argument!r} is not a {kind}; write a whole number from 0")
    if kind == "class" and not 0 <= argument < sites.size("y"):
        raise BadClause(f"{predicate}: the network has classes 0 to {sites.size('y') - 1}, got {argument}")
    if kind == "neuron":
        sites.check_index(site, argument)
    elif argument < 0:
        raise BadClause(f"{predicate}: {argument} is not an {kind}; write a whole number from 0")
    return argument


def _array(kind: Kind, values: list[Argument]) -> NDArray[Any]:
    return np.array(values, dtype=np.float64 if kind == "threshold" else np.int64)
