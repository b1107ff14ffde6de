"""One pass over the samples for the quantiles of measures."""

from collections.abc import Sequence

import numpy as np

from specmine.predicates.form import Grid, Measure, Rows, Spread
from specmine.tracing.stream import Source, chunks
from verifier.ops import Array


def survey(source: Source, measures: Sequence[Measure], grid: Grid, heads: Rows) -> tuple[Spread, ...]:
    """The spread of each measure over the samples.

    heads: (samples,) a head value for each sample, -1 for none.
    """
    if not measures:
        return ()
    keep = sorted({site for measure in measures for site in measure.sites})
    columns: dict[str, list[Array]] = {site: [] for site in keep}
    for _, part in chunks(source, keep):
        for site in keep:
            columns[site].append(part.values[site].T)
    whole = {site: np.concatenate(parts, axis=1) for site, parts in columns.items()}
    return tuple(_spread(measure.values(whole, slice(None)), grid, heads) for measure in measures)


def _spread(values: Array, grid: Grid, heads: Rows) -> Spread:
    pooled = tuple(k / (grid.thresholds + 1) for k in range(1, grid.thresholds + 1))
    groups = [(values, (0.0, *pooled))]
    labels = np.unique(heads[heads >= 0])
    groups += [(values[:, heads == label], grid.head_levels) for label in labels if grid.head_levels]
    ends = [_order_statistics(rows, levels) for rows, levels in groups]
    return Spread(np.concatenate([low for low, _ in ends]), np.concatenate([high for _, high in ends]))


def _order_statistics(values: Array, levels: tuple[float, ...]) -> tuple[Array, Array]:
    """Sample values (levels, rows) with at most a share `level` of the samples below, and above, them."""
    last = values.shape[1] - 1
    low = [int(np.floor(level * last)) for level in levels]
    high = [last - place for place in low]
    ranked = np.partition(values, sorted({*low, *high}), axis=1)
    return ranked[:, low].T, ranked[:, high].T
