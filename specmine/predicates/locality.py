"""Which neurons may stand in one predicate, so that the number of candidates stays linear in the neurons (METHODS 1)."""

import numpy as np

from specmine.predicates.form import Grid, Pairs, Rows
from specmine.tracing.stream import Source, chunks
from verifier.ops import Array


def choose_pairs(source: Source, grid: Grid, heads: Rows) -> tuple[Pairs, ...]:
    """The allowed pairs of the grid's sites: for each neuron its most telling partners.

    heads: (samples,) a head value for each sample, -1 for none.
    """
    made = []
    for site in grid.sites:
        values = np.concatenate([part.values[site] for _, part in chunks(source, [site])])
        first, second = _partners(values, heads, grid.partners)
        made.append(Pairs("layer", site, first, site, second))
    return tuple(made)


def _partners(values: Array, heads: Rows, partners: int) -> tuple[Rows, Rows]:
    """For each neuron the partners whose difference from it separates some class best from the rest."""
    neurons = values.shape[1]
    labels = np.unique(heads[heads >= 0])
    found: dict[tuple[int, int], None] = {}
    if neurons >= 2 and len(labels):
        means = np.stack([values[heads == label].mean(axis=0) for label in labels])
        variances = np.stack([values[heads == label].var(axis=0) for label in labels]).mean(axis=0)
        generator = np.random.default_rng(neurons)
        for i in range(neurons):
            pool = generator.choice(neurons - 1, size=min(4 * partners, neurons - 1), replace=False)
            pool = np.sort(pool + (pool >= i))
            difference = means[:, pool] - means[:, i : i + 1]
            spread = np.sqrt(variances[pool] + variances[i]) + 1e-12
            score = np.abs(difference - difference.mean(axis=0)).max(axis=0) / spread
            chosen = pool[np.argsort(-score, kind="stable")[:partners]].tolist()
            found |= {(i, j): None for j in chosen if (j, i) not in found}
    chosen = np.array(list(found), dtype=np.int64).reshape(-1, 2)
    return chosen[:, 0], chosen[:, 1]
