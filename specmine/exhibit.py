"""A Spec together with the network and the samples it speaks of: what exports and the report need."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from specmine.data import TEST, Dataset
from specmine.predicates.predicate import Predicate
from specmine.rules.clause import HornClause
from specmine.rules.theory import Derivation, Theory, derive
from specmine.spec import RESOLUTION, Spec
from specmine.stats import SPLITS, Evidence, body_bits, read_split
from specmine.tracing import Sites, Source, part_of


@dataclass(frozen=True)
class Gain:
    """The best short clauses from the predicates of some families: one for each class that has any.

    holdout, test: the means of precision, recall and F1 over the classes, 0 for a class without a clause.
    """

    families: tuple[str, ...]
    candidates: int
    clauses: tuple[str, ...]
    holdout: Mapping[str, float]
    test: Mapping[str, float]

    @classmethod
    def read(cls, content: Mapping[str, Any]) -> Self:
        """The gain of a JSON object."""
        listed = {name: tuple(content[name]) for name in ("families", "clauses")}
        return cls(candidates=content["candidates"], holdout=content["holdout"], test=content["test"], **listed)


@dataclass(frozen=True)
class Strong:
    """A predicate that says much about a head value, alone; chosen on the mining samples, q over all candidates and heads."""

    head: str
    family: str
    predicate: Predicate
    evidence: Evidence

    def document(self) -> dict[str, Any]:
        """The content as plain data, ready for JSON."""
        arguments = list(self.predicate.arguments)
        splits = {name: asdict(getattr(self.evidence, name)) for name in SPLITS}
        return {"head": self.head, "family": self.family, "predicate": [self.predicate.form, *arguments], "evidence": splits}

    @classmethod
    def read(cls, content: Mapping[str, Any]) -> Self:
        """The same back from plain data."""
        form, *arguments = content["predicate"]
        evidence = Evidence(*(read_split(content["evidence"][name]) for name in SPLITS))
        return cls(content["head"], content["family"], Predicate(form, tuple(arguments)), evidence)


@dataclass(frozen=True, eq=False)
class Exhibit:
    """A run as others show it. source: of all the samples; predictions: (samples,) the network's class for each, -1 for a tie;
    gains: what families add to short clauses, unary ones alone first; strongest: the strongest predicates of each head."""

    spec: Spec
    dataset: Dataset
    sites: Sites
    source: Source
    predictions: NDArray[np.int64]
    gains: tuple[Gain, ...] = ()
    strongest: tuple[Strong, ...] = ()

    @cached_property
    def test_rows(self) -> list[int]:
        """Rows of the test split, ascending."""
        return [int(row) for row in np.flatnonzero(self.dataset.split == TEST)]

    @cached_property
    def site_names(self) -> Mapping[str, str]:
        """Site by value name: the short name where the value has one."""
        return MappingProxyType({value: site for site, value in reversed(list(self.sites.aliases.items()))})

    def site_of(self, value: str) -> str:
        """The site name of a network value, its own name where it has no short one."""
        return self.site_names.get(value, value)

    @cached_property
    def fires(self) -> Mapping[HornClause, NDArray[np.bool_]]:
        """For every clause, the rows whose values satisfy its body."""
        clauses = self.spec.clauses
        return dict(zip(clauses, body_bits(clauses, self.source), strict=True))

    def why(self, row: int) -> Derivation | None:
        """Why the network gives a sample its class, by clauses proved over the whole domain; None where they do not say."""
        label = int(self.predictions[row])
        theory = self.longest
        literals = list(theory.predicates)
        part = part_of(self.source, np.array([row]))
        held = body_bits([HornClause(None, (literal,)) for literal in literals], part)
        observed = [literal for literal, bits in zip(literals, held, strict=True) if bits[0]]
        return derive(theory, observed, Predicate("class", (label,))) if literals else None

    @cached_property
    def longest(self) -> Theory:
        """The proved clauses without those that are composed of others, so that a derivation shows every step."""
        composed = {claim.clause for claim in self.spec.claims if claim.outcome.engine == RESOLUTION}
        kept = tuple(clause for clause in self.spec.theory.sound.clauses if clause not in composed)
        return Theory(kept, frozenset(kept))
