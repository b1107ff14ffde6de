"""What clauses are to derive: a head value for each sample, from the network, the data, the user, or a later predicate."""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from specmine.errors import BadData
from specmine.predicates.families import validate
from specmine.predicates.form import Bits, Rows
from specmine.predicates.predicate import Predicate
from specmine.predicates.table import build_table
from specmine.predicates.words import Words, pack, unpack
from specmine.tracing.stream import Source, classes_of

CLASS, LABEL, RIGHT = "class", "label", "right"
WORDS = (CLASS, LABEL, RIGHT)

Wanted: TypeAlias = str | Predicate | NDArray[Any]
"""A word of WORDS, the name of a user's column, `FILE.npz:COLUMN`, a predicate, or whole numbers (samples,)."""


@dataclass(frozen=True, eq=False)
class Heads:
    """values: (samples,) the head value of each sample, -1 for none; names: of the values 0, 1, ..."""

    values: Rows
    names: tuple[str, ...]

    @property
    def words(self) -> Words:
        """Words (heads, words) of the samples that have each value."""
        return pack(np.arange(len(self.names))[:, None] == self.values)


def heads_of(
    wanted: Wanted,
    source: Source,
    *,
    labels: NDArray[Any] | None = None,
    classes: Sequence[str] = (),
    columns: Mapping[str, NDArray[Any]] | None = None,
) -> Heads:
    """The head values of samples.

    `class` is the class that the network gives, `label` the one the data gives, `right` whether they agree (values right
    and wrong); a column is one of `columns` or of an npz file, whole numbers from 0, -1 for none; a predicate is its own
    head value where it holds, and none where it does not. labels: (samples,) classes by the data; classes: their names.
    Raises BadData for a name that there is not, with the nearest, and for a column that does not fit the samples.
    """
    if isinstance(wanted, Predicate):
        return _of_predicate(wanted, source)
    if not isinstance(wanted, str):
        return _of_column(wanted, source, "the head column")
    if wanted == CLASS:
        return Heads(classes_of(source), _named(classes, source.sites.size("y")))
    if wanted in (LABEL, RIGHT):
        if labels is None:
            raise BadData(f"head {wanted!r} needs the labels of the data, and there are none; use {CLASS!r}, or give labels")
        given = _of_column(labels, source, "labels")
        if wanted == LABEL:
            return Heads(given.values, _named(classes, len(given.names)))
        return Heads(np.where(given.values == classes_of(source), 0, 1), ("right", "wrong"))
    path, _, name = wanted.rpartition(":")
    if path.endswith(".npz"):
        return _of_column(_read_column(Path(path), name), source, wanted)
    if columns is not None and wanted in columns:
        return _of_column(columns[wanted], source, f"column {wanted!r}")
    raise BadData(f"no head {wanted!r}; {_nearest(wanted, (*WORDS, *(columns or ())))}; or FILE.npz:COLUMN, or a predicate")


def _of_predicate(predicate: Predicate, source: Source) -> Heads:
    table = build_table([validate(predicate, source.sites)], source)
    holds: Bits = unpack(table.bits, table.samples)[0]
    return Heads(np.where(holds, 0, -1), (str(predicate),))


def _of_column(column: NDArray[Any], source: Source, name: str) -> Heads:
    values = np.asarray(column)
    if values.shape != (source.samples,):
        raise BadData(f"{name} must have one number for each of {source.samples} samples, got shape {values.shape}")
    if values.dtype.kind not in "biu" and not (values.dtype.kind == "f" and (values == np.floor(values)).all()):
        raise BadData(f"{name} must hold whole numbers, got {values.dtype}; number the values from 0, -1 for none")
    whole = values.astype(np.int64)
    if whole.min(initial=0) < -1 or whole.max(initial=0) > len(whole):
        raise BadData(
            f"{name} must hold -1 for none or values from 0 up to the number of samples, got {whole.min()} to {whole.max()}"
        )
    return Heads(whole, tuple(map(str, range(whole.max(initial=-1) + 1))))


def _named(classes: Sequence[str], count: int) -> tuple[str, ...]:
    return tuple(classes) if len(classes) >= count else tuple(map(str, range(count)))


def _read_column(path: Path, name: str) -> NDArray[Any]:
    try:
        with np.load(path, allow_pickle=False) as file:
            if name not in file.files:
                raise BadData(f"{path} has no column {name!r}; {_nearest(name, file.files)}")
            return np.asarray(file[name])
    except (OSError, ValueError, EOFError) as error:
        raise BadData(f"cannot read head column {path}: {error}; write it with numpy.savez") from error


def _nearest(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.4) or list(known)[:5]
    return f"nearest are {', '.join(near)}"
