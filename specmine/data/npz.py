"""A person's own data: one npz file of arrays, never unpickled."""

import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.format import MAGIC_PREFIX, read_array_header_1_0, read_array_header_2_0, read_magic

from specmine.data.dataset import Dataset, from_arrays
from specmine.errors import BadData

REQUIRED = ("x", "y")
OPTIONAL = ("lower", "upper", "split", "classes")


def read_npz(path: Path | str, *, name: str | None = None, seed: int = 0) -> Dataset:
    """The data set of an npz file with arrays x and y, and maybe lower, upper, split and classes.

    Their meaning is that of `from_arrays`. Raises BadData where the file cannot be read, holds pickled objects, or has
    other arrays.
    """
    path = Path(path)
    arrays = _read(path)
    missing = [key for key in REQUIRED if key not in arrays]
    foreign = [key for key in arrays if key not in REQUIRED + OPTIONAL]
    if missing or foreign:
        raise BadData(
            f"data file {path} holds the arrays {', '.join(arrays) or 'none'}; it needs {', '.join(REQUIRED)} and may hold "
            f"{', '.join(OPTIONAL)}"
        )
    options = {key: arrays[key] for key in OPTIONAL if key in arrays}
    if "classes" in options:
        options["classes"] = _names(options["classes"], path)
    return from_arrays(arrays["x"], arrays["y"], name=name or path.stem, seed=seed, **options)


def _read(path: Path) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            if file.read(len(MAGIC_PREFIX)) == MAGIC_PREFIX:
                raise BadData(f"{path} is a single array; give an npz file, np.savez(path, x=samples, y=labels)")
        _refuse_objects(path)
        with np.load(path, allow_pickle=False) as arrays:
            return {key: arrays[key] for key in arrays.files}
    except (OSError, ValueError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise BadData(f"cannot read data file {path}: {error}; write it with np.savez(path, x=samples, y=labels)") from error


def _refuse_objects(path: Path) -> None:
    """Raises BadData where the header of an array says that Python objects follow."""
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if name.endswith(".npy") and _holds_objects(archive, name)]
    if names:
        listed = ", ".join(name.removesuffix(".npy") for name in names)
        raise BadData(
            f"data file {path} holds Python objects in {listed}, and objects are never unpickled; give arrays of numbers, such "
            f"as np.asarray(x, dtype=float) and np.asarray(y, dtype=int), and names of classes as np.asarray(names, dtype=str)"
        )


def _holds_objects(archive: zipfile.ZipFile, name: str) -> bool:
    with archive.open(name) as member:
        read = read_array_header_1_0 if read_magic(member) == (1, 0) else read_array_header_2_0
        return bool(read(member)[2].hasobject)


def _names(classes: Any, path: Path) -> tuple[str, ...]:
    if classes.ndim != 1 or classes.dtype.kind not in "USiu":
        raise BadData(f"classes in {path} must be a list of names, got shape {classes.shape} of type {classes.dtype}")
    return tuple(c.decode() if isinstance(c, bytes) else str(c) for c in classes.tolist())
