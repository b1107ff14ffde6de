"""Benchmark folders in the layout of VNN-COMP: instances.csv, and expected.csv where the answers are known."""

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from verifier.errors import BadQuery


@dataclass(frozen=True)
class Instance:
    """One line of instances.csv. onnx, vnnlib: as written there; expected: sat, unsat, or another word, empty if not known."""

    folder: Path
    onnx: str
    vnnlib: str
    timeout_s: float
    expected: str = ""

    @property
    def network_file(self) -> str:
        return str(_existing(self.folder / self.onnx))

    @property
    def query_file(self) -> str:
        return str(_existing(self.folder / self.vnnlib))


def read_instances(folder: str | Path, *, timeout_s: float | None = None, only: str | None = None) -> list[Instance]:
    """The instances of a folder, in its order. timeout_s: instead of the folder's own; only: a glob over `onnx vnnlib`.

    Raises BadQuery where there is no instances.csv, a line of it does not read, or no instance is left.
    """
    folder = Path(folder)
    source = folder / "instances.csv"
    expected = _expected(folder / "expected.csv")
    found = []
    for number, line in enumerate(_lines(source), 1):
        if not line or (number == 1 and line[0].strip().lower() == "onnx"):
            continue
        if len(line) < 2:
            raise BadQuery(f"{source}, line {number}: needs onnx,vnnlib,timeout, got {','.join(line)!r}")
        onnx, vnnlib = line[0].strip(), line[1].strip()
        limit = timeout_s if timeout_s is not None else _limit(line, source, number)
        if only is None or fnmatch(f"{onnx} {vnnlib}", only):
            found.append(Instance(folder, onnx, vnnlib, limit, expected.get(_key(onnx, vnnlib), "")))
    if not found:
        raise BadQuery(f"{source}: no instance" + (f" fits --only {only!r}; it is a glob over 'onnx vnnlib'" if only else ""))
    return found


def _limit(line: list[str], source: Path, number: int) -> float:
    try:
        limit = float(line[2])
    except (IndexError, ValueError):
        limit = 0.0
    if not 0 < limit < float("inf"):
        raise BadQuery(f"{source}, line {number}: the third field must be the seconds allowed, got {','.join(line)!r}")
    return limit


def _lines(path: Path) -> list[list[str]]:
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            return list(csv.reader(stream))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise BadQuery(f"{path}: cannot be read ({error}); it must hold lines of onnx,vnnlib,timeout") from error


def _expected(path: Path) -> Mapping[tuple[str, str], str]:
    if not path.exists():
        return {}
    head, *lines = _lines(path) or [[]]
    columns = {name.strip(): k for k, name in enumerate(head)}
    if not {"onnx", "vnnlib", "verdict"} <= set(columns):
        raise BadQuery(f"{path}: the first line must name the columns onnx, vnnlib and verdict, got {','.join(head)!r}")
    o, v, w = columns["onnx"], columns["vnnlib"], columns["verdict"]
    return {_key(line[o], line[v]): line[w].strip() for line in lines if len(line) > max(o, v, w)}


def _key(onnx: str, vnnlib: str) -> tuple[str, str]:
    return onnx.strip().removeprefix("./").removesuffix(".gz"), vnnlib.strip().removeprefix("./").removesuffix(".gz")


def _existing(path: Path) -> Path:
    """The file, or the same packed or unpacked; the path itself where there is neither."""
    other = path.with_suffix("") if path.suffix == ".gz" else path.with_name(path.name + ".gz")
    return other if not path.exists() and other.exists() else path
