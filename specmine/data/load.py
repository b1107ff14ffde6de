"""Load a data set by the name of its card, and check that it is what the card says."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_breast_cancer, load_digits, load_iris, load_wine

from specmine.data.cards import Card, Split, read_card
from specmine.data.dataset import Dataset, from_arrays
from specmine.data.idx import data_folder, read_images_and_labels, scale_pixels
from specmine.data.split import HOLDOUT, MINE, TEST
from specmine.errors import BadData

SCIKIT_LEARN = {
    "digits": load_digits,
    "iris": load_iris,
    "wine": load_wine,
    "breast_cancer": load_breast_cancer,
}


def load_dataset(name: str, *, data_dir: Path | str | None = None) -> Dataset:
    """The data set of a card: digits, iris, wine, breast_cancer, or mnist from idx files in data_dir or SPECMINE_DATA.

    The split and the input domain are the card's. Raises BadData for an unknown name, missing files, and content that is
    not what the card says.

    >>> load_dataset("iris").x.shape
    (150, 4)
    """
    card = read_card(name)
    dataset = read_samples(card, data_dir)
    if dataset.sha256 != card.sha256:
        raise BadData(
            f"data set {name!r} has sha256 {dataset.sha256} but its card says {card.sha256}; its source has changed: use "
            f"the release that the card names"
        )
    return dataset


def read_samples(card: Card, data_dir: Path | str | None) -> Dataset:
    """The data set of a card, its sha256 not yet compared with the card's."""
    x: Any
    if card.loader == "idx":
        pixels, y = read_images_and_labels(card, data_folder(data_dir))
        x = scale_pixels(pixels)
    else:
        x, y = SCIKIT_LEARN[card.name](return_X_y=True)
    return from_arrays(
        x,
        y,
        name=card.name,
        lower=card.lower,
        upper=card.upper,
        split=consecutive_split(card.split) if card.split.kind == "consecutive" else None,
        classes=card.classes,
        image_shape=card.image_shape,
        domain_source="card",
        seed=card.split.seed,
    )


def consecutive_split(split: Split) -> NDArray[np.int8]:
    """The split by place: the first samples mine, the next hold out, the last test."""
    return np.repeat(np.array([MINE, HOLDOUT, TEST], dtype=np.int8), [split.mine, split.holdout, split.test])
