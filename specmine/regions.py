"""From data to input regions: the whole input domain, the box of the mining samples, balls around samples in the domain."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from specmine.config import REGION
from specmine.data import MINE, Dataset
from specmine.errors import BadConfig
from verifier.ops import Array
from verifier.region import Ball, Box

DOMAIN = "domain"
DATA = "data"


@dataclass(frozen=True, eq=False)
class NamedRegion:
    """A region under the name that claims and files use for it; sample: the row a ball is around."""

    name: str
    region: Box | Ball
    sample: int | None = None


def domain_of(dataset: Dataset) -> NamedRegion:
    """The whole input domain, as the data set's card states it."""
    return NamedRegion(DOMAIN, dataset.domain)


def data_box_of(dataset: Dataset) -> NamedRegion:
    """The range of each input over the mining samples: what is proved over it is not proved over the domain."""
    rows = np.asarray(dataset.x[dataset.split == MINE], dtype=np.float64).reshape(-1, dataset.domain.size)
    return NamedRegion(DATA, Box(rows.min(axis=0), rows.max(axis=0)))


def box_of(dataset: Dataset, wanted: str) -> NamedRegion:
    """The box that a wanted region's text other than a ball's names."""
    return data_box_of(dataset) if wanted == DATA else domain_of(dataset)


def radius_of(wanted: str) -> float | None:
    """The radius of a wanted region's text, None for the whole domain and the box of the data.

    >>> radius_of("ball:0.05"), radius_of("domain"), radius_of("data")
    (0.05, None, None)
    """
    match = REGION.fullmatch(wanted)
    if not match:
        raise BadConfig(f"{wanted!r} is not a region; write domain, data, or ball:RADIUS such as ball:0.05")
    return None if match["radius"] is None else float(match["radius"])


def region_named(dataset: Dataset, name: str) -> NamedRegion:
    """The region of a data set that has a name; raises BadConfig where none has it."""
    if name in (DOMAIN, DATA):
        return box_of(dataset, name)
    wanted, _, sample = name.rpartition(":")
    radius = radius_of(wanted)
    if radius is None or not sample.isdecimal() or int(sample) >= len(dataset.x):
        raise BadConfig(f"{name!r} is no region of this data, which has {len(dataset.x)} samples; write ball:RADIUS:SAMPLE")
    return ball_around(dataset, int(sample), radius)


def ball_around(dataset: Dataset, sample: int, radius: float) -> NamedRegion:
    """The L-infinity ball of a radius, in the units of the input, around one row, clipped to the domain."""
    return NamedRegion(f"ball:{radius}:{sample}", Ball(_row(dataset, sample), radius, dataset.domain), sample)


def ball_centers(
    dataset: Dataset, predictions: NDArray[np.integer], rows: ArrayLike, *, per_class: int, seed: int
) -> list[int]:
    """Up to per_class of the given rows for each class, correctly classified, chosen by the seed, in ascending order."""
    order = np.random.default_rng(seed).permutation(np.asarray(rows, dtype=np.int64))
    good = order[predictions[order] == dataset.y[order]]
    chosen = [row for label in range(len(dataset.classes)) for row in good[dataset.y[good] == label][:per_class]]
    return sorted(int(row) for row in chosen)


def _row(dataset: Dataset, sample: int) -> Array:
    return np.asarray(dataset.x[sample], dtype=np.float64).reshape(-1)
