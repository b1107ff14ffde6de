"""A data set: samples, labels, a fixed split and the input domain that claims over it speak about."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from specmine.data.split import HOLDOUT, MINE, TEST, stratified_split
from specmine.errors import BadData
from verifier.ops import Array, frozen_array
from verifier.region import Box

PARTS = (MINE, HOLDOUT, TEST)
MAX_LABEL = 2**31


@dataclass(frozen=True, eq=False)
class Dataset:
    """Samples with labels; every array is read-only.

    x: (samples, *shape) float64; y: (samples,) int64, the place of each label in `classes`; split: (samples,) int8, each
    MINE, HOLDOUT or TEST; domain: a closed box over the flat input that holds every sample, and domain_source says where
    it comes from; sha256: of shape, x, y and split; image_shape: how to draw one sample, where it is an image.
    """

    name: str
    x: Array
    y: NDArray[np.int64]
    split: NDArray[np.int8]
    domain: Box
    classes: tuple[str, ...]
    sha256: str
    image_shape: tuple[int, ...] | None = None
    domain_source: str = "range of the data"

    @property
    def mine(self) -> tuple[Array, NDArray[np.int64]]:
        """Samples and labels of the mining split, the only rows that may be learnt from."""
        rows = self.split == MINE
        return self.x[rows], self.y[rows]

    @property
    def test(self) -> tuple[Array, NDArray[np.int64]]:
        """Samples and labels of the test split, for reporting only."""
        rows = self.split == TEST
        return self.x[rows], self.y[rows]


def from_arrays(
    x: Any,
    y: Any,
    *,
    name: str = "data",
    lower: Any = None,
    upper: Any = None,
    split: Any = None,
    classes: Sequence[str] | None = None,
    image_shape: tuple[int, ...] | None = None,
    domain_source: str | None = None,
    seed: int = 0,
) -> Dataset:
    """The data set of arrays x (samples, *shape) and y (samples,), checked.

    lower, upper: the input domain, a number or an array of one sample's size; without them, the range of the data. split:
    0 mine, 1 hold-out, 2 test for each sample; without it, 60/20/20 in every class, a function of the seed. Raises
    BadData for NaN or infinite entries, labels that are not classes, empty classes, mismatched lengths.

    >>> from_arrays([[0.0, 1.0], [2.0, 3.0]], [0, 1]).domain.upper.tolist()
    [2.0, 3.0]
    """
    samples = _check_samples(x, name)
    labels = _check_labels(y, len(samples), name)
    names = _check_classes(labels, classes, name)
    parts = stratified_split(labels, seed=seed) if split is None else _check_split(split, len(samples), name)
    domain, source = _domain(samples, lower, upper, name)
    if image_shape is None and samples.ndim in (3, 4):
        image_shape = samples.shape[1:]
    return Dataset(
        name, samples, labels, parts, domain, names, _digest(samples, labels, parts), image_shape, domain_source or source
    )


def check_against_model(dataset: Dataset, inputs: int, outputs: int) -> None:
    """Raises BadData where the data cannot be given to a model of so many inputs and outputs."""
    size = dataset.domain.size
    if size != inputs:
        raise BadData(
            f"data {dataset.name!r} has samples of shape {dataset.x.shape[1:]}, {size} numbers each, but the model takes "
            f"{inputs}; give the data this model was trained on"
        )
    if len(dataset.classes) > outputs:
        raise BadData(
            f"data {dataset.name!r} has {len(dataset.classes)} classes but the model has {outputs} outputs; "
            f"labels must be 0 to {outputs - 1}"
        )


def _numbers(values: Any, what: str) -> NDArray[Any]:
    try:
        array = np.asarray(values)
    except ValueError as error:
        raise BadData(f"{what} is not an array of numbers: {error}") from error
    if array.dtype.kind not in "biuf":
        raise BadData(f"{what} must hold real numbers, got an array of type {array.dtype}")
    return array


def _check_samples(x: Any, name: str) -> Array:
    samples = frozen_array(_numbers(x, f"x of data {name!r}"))
    if samples.ndim < 2 or samples.size == 0:
        raise BadData(f"x of data {name!r} must have shape (samples, ...) with at least one sample, got {samples.shape}")
    if not np.isfinite(samples).all():
        place = tuple(int(i) for i in np.argwhere(~np.isfinite(samples))[0])
        raise BadData(f"x of data {name!r} must be finite, got {samples[place]} at {place}; drop or fill such samples")
    return samples


def _check_labels(y: Any, samples: int, name: str) -> NDArray[np.int64]:
    given = _numbers(y, f"y of data {name!r}")
    if given.shape != (samples,):
        raise BadData(f"y of data {name!r} must have shape ({samples},), one label for each sample of x, got {given.shape}")
    good = (given >= 0) & (given < MAX_LABEL) & (given == np.floor(given))
    if not good.all():
        raise BadData(f"labels of data {name!r} must be integers from 0, got {given[~good][0]}; number the classes 0, 1, ...")
    return _frozen(given.astype(np.int64))


def _check_classes(labels: NDArray[np.int64], classes: Sequence[str] | None, name: str) -> tuple[str, ...]:
    highest = int(labels.max())
    if classes is None and highest >= len(labels):
        raise BadData(f"data {name!r} has a label {highest} but only {len(labels)} samples; number the classes 0, 1, ...")
    names = tuple(map(str, range(highest + 1) if classes is None else classes))
    if highest >= len(names):
        raise BadData(f"data {name!r} has a label {highest} but {len(names)} classes; labels must be 0 to {len(names) - 1}")
    counts = np.bincount(labels, minlength=len(names))
    if not counts.all():
        empty = int(np.argmin(counts))
        raise BadData(
            f"class {empty} ({names[empty]}) of data {name!r} has no samples, though labels go up to {highest}; "
            f"give it some, or number the classes without gaps"
        )
    return names


def _check_split(split: Any, samples: int, name: str) -> NDArray[np.int8]:
    given = _numbers(split, f"split of data {name!r}")
    if given.shape != (samples,) or not np.isin(given, PARTS).all():
        raise BadData(
            f"split of data {name!r} must be {samples} numbers, each 0 (mine), 1 (hold-out) or 2 (test), "
            f"got shape {given.shape} with values {np.unique(given)[:5].tolist()}"
        )
    if not (given == MINE).any():
        raise BadData(f"split of data {name!r} has no sample to mine from; mark some with 0")
    return _frozen(given.astype(np.int8))


def _domain(samples: Array, lower: Any, upper: Any, name: str) -> tuple[Box, str]:
    flat = samples.reshape(len(samples), -1)
    if (lower is None) != (upper is None):
        raise BadData(f"data {name!r} gives only one of lower and upper; give both or neither")
    if lower is None:
        return Box(flat.min(axis=0), flat.max(axis=0)), "range of the data"
    box = Box(*(_bound(side, flat.shape[1], f"{what} of data {name!r}") for side, what in ((lower, "lower"), (upper, "upper"))))
    outside = (flat < box.lower) | (flat > box.upper)
    if outside.any():
        row, entry = (int(i) for i in np.argwhere(outside)[0])
        raise BadData(
            f"sample {row} of data {name!r} has {flat[row, entry]} at input {entry}, outside "
            f"[{box.lower[entry]}, {box.upper[entry]}]; widen lower and upper"
        )
    return box, "given"


def _bound(side: Any, size: int, what: str) -> Array:
    array = _numbers(side, what).astype(np.float64)
    if array.ndim and array.size != size:
        raise BadData(f"{what} must be one number or {size}, got shape {array.shape}")
    if not np.isfinite(array).all():
        raise BadData(f"{what} must be finite; give every input a lower and an upper bound")
    return np.broadcast_to(array.reshape(-1), (size,))


def _frozen(array: NDArray[Any]) -> NDArray[Any]:
    array.setflags(write=False)
    return array


def _digest(x: Array, y: NDArray[np.int64], split: NDArray[np.int8]) -> str:
    digest = hashlib.sha256(repr(x.shape).encode())
    for array, kind in ((x, "<f8"), (y, "<i8"), (split, "i1")):
        digest.update(np.ascontiguousarray(array, dtype=kind).data)
    return digest.hexdigest()
