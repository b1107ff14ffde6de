"""A person's own data: one npz file of arrays, never unpickled."""

import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

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
        file = np.load(path, allow_pickle=False)
        if not isinstance(file, np.lib.npyio.NpzFile):
            raise BadData(f"{path} is a single array; give an npz file, np.savez(path, x=samples, y=labels)")
        with file:
            return {key: file[key] for key in file.files}
    except (OSError, ValueError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise BadData(f"cannot read data file {path}: {error}; write it with np.savez(path, x=samples, y=labels)") from error


def _names(classes: Any, path: Path) -> tuple[str, ...]:
    if classes.ndim != 1 or classes.dtype.kind not in "USiu":
        raise BadData(f"classes in {path} must be a list of names, got shape {classes.shape} of type {classes.dtype}")
    return tuple(c.decode() if isinstance(c, bytes) else str(c) for c in classes.tolist())
