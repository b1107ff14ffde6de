"""A Spec together with the network and the samples it speaks of: what exports and the report need."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from specmine.data import TEST, Dataset
from specmine.rules.clause import HornClause
from specmine.spec import Spec
from specmine.stats import body_bits
from specmine.tracing import Sites, Trace


@dataclass(frozen=True, eq=False)
class Exhibit:
    """A run as others show it; trace: of all the samples."""

    spec: Spec
    dataset: Dataset
    sites: Sites
    trace: Trace

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
        return dict(zip(clauses, body_bits(clauses, self.trace), strict=True))
