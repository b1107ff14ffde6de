"""A query: does some input of the region satisfy the assertion? Unsatisfiable means proved."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property

from verifier.errors import BadQuery, BadRegion
from verifier.formula import And, Atom, Formula, atoms_of, conjoin, disjuncts
from verifier.network import Network
from verifier.region import Region, constraints, exact_bounds


@dataclass(frozen=True, eq=False)
class Query:
    """The question whether some x in `region` satisfies `assertion`, a formula over named values of `network`."""

    network: Network
    region: Region
    assertion: Formula

    def __post_init__(self) -> None:
        expected = self.network.size(self.network.input)
        if self.region.size != expected:
            raise BadRegion(
                f"the region has {self.region.size} inputs but input {self.network.input!r} has shape "
                f"{self.network.input_shape}, {expected} entries"
            )
        foreign = {t.value for a in constraints(self.region) for t in a.terms} - {self.network.input}
        if foreign:
            raise BadRegion(f"a region may constrain only the input {self.network.input!r}, got {sorted(foreign)}")
        for part in atoms_of(conjoin(self.assertion, And(constraints(self.region)))):
            _check_terms(part, self.network)

    @cached_property
    def disjuncts(self) -> tuple[tuple[Atom, ...], ...]:
        """The ways to satisfy the query, as tuples of atoms; the region's linear constraints are part of each."""
        return disjuncts(conjoin(And(constraints(self.region)), self.assertion))

    @cached_property
    def sha256(self) -> str:
        """Identifies network, region and assertion; a certificate names the query it proves by this."""
        lower, upper = exact_bounds(self.region)
        content = (
            self.network.sha256,
            list(map(str, lower)),
            list(map(str, upper)),
            repr(constraints(self.region)),
            repr(self.assertion),
        )
        return hashlib.sha256(repr(content).encode()).hexdigest()


def emptied_input(query: Query) -> int | None:
    """The first input entry for which the bounds of a disjunct leave no value, where that is so of every disjunct, else None.

    Such a query is unsatisfiable whatever the network computes, as a rule for a slip in its bounds.
    """
    value, (lower, upper) = query.network.input, exact_bounds(query.region)
    found = [_emptied(part, value, lower, upper) for part in query.disjuncts]
    return None if None in found else next(iter(found), None)


def _emptied(atoms: Sequence[Atom], value: str, lower: Sequence[Fraction], upper: Sequence[Fraction]) -> int | None:
    sides: dict[int, tuple[tuple[Fraction, bool], tuple[Fraction, bool]]] = {}
    for atom in atoms:
        if len(atom.terms) != 1 or atom.terms[0].value != value:
            continue
        (term,) = atom.terms
        limit = -atom.bias / term.coefficient
        # of two bounds at the same number the strict one says more: (number, open) compares so from above, negated from below
        below, above = sides.get(term.index, ((-lower[term.index], False), (upper[term.index], False)))
        if term.coefficient > 0:
            above = min(above, (limit, atom.strict), key=lambda side: (side[0], not side[1]))
        else:
            below = min(below, (-limit, atom.strict), key=lambda side: (side[0], not side[1]))
        sides[term.index] = below, above
        room = above[0] + below[0]
        if room < 0 or (room == 0 and (below[1] or above[1])):
            return term.index
    return None


def _check_terms(part: Atom, network: Network) -> None:
    if len({(term.value, term.index) for term in part.terms}) < len(part.terms):
        raise BadQuery("an atom has two terms for one entry; add them up")
    sizes: Mapping[str, int] = {name: network.size(name) for name in {t.value for t in part.terms} & set(network.shapes)}
    for term in part.terms:
        if term.value not in sizes:
            raise BadQuery(f"no value {term.value!r} in the network; it has {', '.join(list(network.shapes)[:20])}")
        if not 0 <= term.index < sizes[term.value]:
            raise BadQuery(f"index {term.index} is out of range for value {term.value!r} of shape {network.shapes[term.value]}")
