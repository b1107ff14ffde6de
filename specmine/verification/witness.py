"""A sample that satisfies a body within a region, confirmed exactly; `proving` asks the verifier where there is none."""

from collections.abc import Iterable

from specmine.queries import body_query
from specmine.regions import NamedRegion
from specmine.rules.clause import HornClause
from specmine.spec import Witness
from specmine.tracing import Sites
from verifier.check import confirms
from verifier.ops import Array

TRIES = 5


def sample_witness(
    clause: HornClause, region: NamedRegion, sites: Sites, rows: Iterable[int], samples: Array
) -> Witness | None:
    """The first of the given rows (at most TRIES are tried) that lies in the region and satisfies the body exactly.

    rows: places in `samples` where the body holds in floating point.
    """
    query = body_query(clause, region.region, sites)
    for row, _ in zip(rows, range(TRIES), strict=False):
        if confirms(query, samples[row].reshape(-1)):
            return Witness(sample=row)
    return None
