"""Counterexamples to queries in one call; `Attack` is the same search in portions."""

from collections.abc import Sequence

from verifier.engines.attack import Attack, Starts
from verifier.ops import Array
from verifier.query import Query
from verifier.verdict import Refuted, Unknown

PATIENCE = 8


def falsify(
    query: Query, *, seed: int = 0, timeout_s: float = 1.0, starts: Array | None = None, samples: int = 256
) -> Refuted | Unknown:
    """A counterexample to the query, confirmed in exact arithmetic, or Unknown.

    starts: flat inputs of shape (count, inputs) to begin with, such as data samples; those outside the region are projected.
    samples: random points of the region, besides. The same for the same arguments unless timeout_s cuts the search short.
    Unknown("unconfirmed") where only points on the boundary, within float rounding, were found; Unknown("timeout");
    Unknown("incomplete") where the search came no nearer for several rounds.
    """
    return falsify_many([query], seed=seed, timeout_s=timeout_s, starts=[starts], samples=samples)[0]


def falsify_many(
    queries: Sequence[Query], *, seed: int = 0, timeout_s: float = 1.0, starts: Starts = None, samples: int = 256
) -> list[Refuted | Unknown]:
    """`falsify` for each query, those over one network searched in common batches; timeout_s is for all together.

    starts: one array for all queries, or an array or None for each.
    """
    return Attack(queries, seed=seed, starts=starts, samples=samples).run(timeout_s, patience=PATIENCE)
