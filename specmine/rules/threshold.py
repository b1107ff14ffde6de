"""Threshold composition: the conjunction of all that nearly every sample of a head satisfies (METHODS 3).

Over the phases active and inactive this is the neural activation pattern of Geng et al. 2023, Algorithm 1.
"""

import numpy as np
from numpy.typing import NDArray

from specmine.errors import BadConfig, BadData
from specmine.predicates.predicate import Predicate
from specmine.predicates.table import PredicateTable, count, counts, pack
from specmine.rules.clause import HornClause
from specmine.rules.reduce import Limits, implies, limits_of


def compose(table: PredicateTable, positives: NDArray[np.bool_], *, head: Predicate | None, delta: float) -> HornClause | None:
    """The clause whose body is every predicate that holds on a share >= 1 - delta of the positives (samples,).

    A predicate that a kept one of the same neuron implies is left out: of several above(t) the largest t stays. delta
    bounds the misses of each literal, not of the body. None where no predicate reaches the share.

    Raises BadConfig for delta outside [0, 1), BadData where the positives do not fit the table or there are none.
    """
    if not 0 <= delta < 1:
        raise BadConfig(f"delta must be at least 0 and below 1, got {delta}; 0.05 lets a literal miss one positive in twenty")
    mask = sample_mask(table, positives, name="positives")
    total = count(mask)
    if not total:
        raise BadData("threshold composition needs at least one positive sample")
    misses = total - counts(table, mask)
    # A share of 1 - delta is a count of misses up to delta; the small term forgives the rounding of the product.
    kept = np.flatnonzero(misses <= delta * total * (1 + 1e-12))
    body = strongest([table.predicates[row] for row in kept])
    return HornClause(head, tuple(body)) if body else None


def sample_mask(table: PredicateTable, samples: NDArray[np.bool_], *, name: str) -> NDArray[np.uint64]:
    """The packed words of a Boolean mask over the table's samples; raises BadData where it does not fit."""
    chosen = np.asarray(samples)
    if chosen.dtype != np.bool_ or chosen.shape != (table.samples,):
        raise BadData(f"{name} must be a Boolean mask of shape ({table.samples},), got {chosen.dtype} of shape {chosen.shape}")
    return pack(chosen)


def strongest(literals: list[Predicate]) -> list[Predicate]:
    """The literals that no other one of the same neuron implies; of two that say the same, the first."""
    kept: dict[tuple[object, ...], list[tuple[Predicate, Limits]]] = {}
    others = []
    for literal in literals:
        limits = limits_of(literal)
        if limits is None:
            others.append(literal)
            continue
        rivals = kept.setdefault(literal.arguments[:2], [])
        if not any(implies(other, limits) for _, other in rivals):
            rivals[:] = [(own, other) for own, other in rivals if not implies(limits, other)] + [(literal, limits)]
    return others + [literal for rivals in kept.values() for literal, _ in rivals]
