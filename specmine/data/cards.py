"""The data cards: what each known data set is, where it comes from, and what its content must be."""

import difflib
import tomllib
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from specmine.errors import BadData

_PACKAGE = Path(__file__).resolve().parents[1]


class Split(BaseModel):
    """How the samples are divided: by classes and a seed, or by place (the counts of consecutive samples)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["stratified", "consecutive"]
    seed: int = 0
    mine: int
    holdout: int
    test: int


class Card(BaseModel):
    """One `card.toml`. sha256 is that of the loaded `Dataset`; files: the sha256 of each unpacked source file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    title: str
    licence: str
    source: str
    loader: Literal["scikit-learn", "idx"]
    sha256: str
    samples: int
    shape: tuple[int, ...]
    image_shape: tuple[int, ...] | None = None
    classes: tuple[str, ...]
    lower: float | tuple[float, ...]
    upper: float | tuple[float, ...]
    region: str = "domain"
    split: Split
    files: dict[str, str] = {}
    model: str | None = None


def cards_folder() -> Path:
    """The folder of the data cards: inside the installed package, else beside it in the source tree."""
    installed = _PACKAGE / "_datasets"
    return installed if installed.is_dir() else _PACKAGE.parent / "datasets"


def card_names() -> tuple[str, ...]:
    """The names of the known data sets, sorted."""
    return tuple(sorted(path.parent.name for path in cards_folder().glob("*/card.toml")))


def check_known(data: str) -> None:
    """Raises BadData where a text names neither a known data set nor a file."""
    known = card_names()
    if data not in known and not Path(data).exists():
        raise BadData(f"no data {data!r}; give a known data set ({', '.join(known)}) or an npz file of arrays x and y")


def read_card(name: str) -> Card:
    """The card of a data set; raises BadData with the nearest names where there is none.

    >>> read_card("iris").classes
    ('setosa', 'versicolor', 'virginica')
    """
    known = card_names()
    if name not in known:
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.3)
        hint = f"nearest are {', '.join(near)}; " if near else ""
        raise BadData(f"no data set {name!r}; {hint}known are {', '.join(known)}, or give an npz file of x and y")
    path = cards_folder() / name / "card.toml"
    try:
        return Card(**tomllib.loads(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, ValidationError) as error:
        raise BadData(f"data card {path} cannot be read: {error}; install the package again") from error


def model_path(name: str) -> Path | None:
    """The ONNX file of the model kept with a data set, where there is one."""
    model = read_card(name).model
    return cards_folder() / name / model if model else None
