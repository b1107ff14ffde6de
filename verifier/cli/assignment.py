"""Assignments as ONNX TensorProto files, one a variable: the serialised format of VNN-LIB 2.0."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

from verifier.errors import BadQuery


def write_assignment(text: str, folder: str | os.PathLike[str]) -> None:
    """Write `<variable>.pb` for each variable of an assignment in the command-line format, `name type [shape]` then values.

    `real` has no tensor type of its own and is written as float64. Raises BadQuery where the folder cannot be written to.
    """
    import numpy as np
    from onnx import numpy_helper

    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        for name, kind, shape, values in _variables(text):
            dtype = np.dtype("float64" if kind.lower() == "real" else kind)
            tensor = numpy_helper.from_array(np.array([float(v) for v in values]).astype(dtype).reshape(shape), name)
            Path(folder, f"{name}.pb").write_bytes(tensor.SerializeToString())
    except OSError as error:
        raise BadQuery(f"--serialise-assignments {os.fspath(folder)!r}: {error.strerror or error}; give a folder") from error


def check_folder(folder: str) -> None:
    """Raise BadQuery where the folder cannot be made or written to; makes nothing."""
    there = os.path.abspath(folder)
    while not os.path.lexists(there):
        there = os.path.dirname(there)
    if not os.path.isdir(there):
        raise BadQuery(f"--serialise-assignments {folder!r}: {there!r} is no folder; give a folder")
    if not os.access(there, os.W_OK):
        raise BadQuery(f"--serialise-assignments {folder!r}: {there!r} cannot be written to; give another folder")


def _variables(text: str) -> Iterator[tuple[str, str, tuple[int, ...], list[str]]]:
    """Name, element type, shape and entries of each variable; those of version 1.0, X and Y, are real vectors."""
    if text.startswith("(("):
        entries = re.findall(r"\((\w)_\d+ (\S+?)\)", text)
        for letter in dict.fromkeys(letter for letter, _ in entries):
            values = [value for name, value in entries if name == letter]
            yield letter, "real", (len(values),), values
        return
    lines = iter(text.split("\n"))
    for line in lines:
        if not line.strip():
            continue
        name, kind, dimensions = line.split(maxsplit=2)
        shape = tuple(int(n) for n in dimensions.strip("[] ").split(",") if n.strip())
        size = 1
        for length in shape:
            size *= length
        yield name, kind, shape, [next(lines) for _ in range(size)]
