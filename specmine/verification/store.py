"""Verdicts on disk: JSON lines, each flushed before the next claim is asked, so that a killed run loses at most one."""

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO, Literal

from specmine.errors import BadRun
from specmine.folder import cannot_write

FILE = "verdicts.jsonl"


@dataclass(frozen=True)
class Record:
    """The verdict on one query. key: the query's sha256; certificate: a path inside the run folder."""

    key: str
    verdict: Literal["proved", "refuted", "unknown"]
    engine_asked: str
    timeout_s: float
    reason: str = ""
    bound: float | None = None
    engine: str = ""
    seconds: float = 0.0
    certificate: str | None = None
    counterexample: tuple[float, ...] | None = None

    def answers(self, engine: str, timeout_s: float) -> bool:
        """Whether asking again with these settings could give no more."""
        if self.verdict in ("proved", "refuted"):
            return self.engine_asked == engine or engine == "auto"
        return self.engine_asked == engine and self.timeout_s >= timeout_s


class Store:
    """The records of a run folder, by query; the last one written of a query counts."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / FILE
        self.records = {record.key: record for record in _read(self.path)}

    def answers(self, key: str, engine: str, timeout_s: float) -> bool:
        """Whether there is a record that answers the question, its certificate in place."""
        record = self.records.get(key)
        if record is None or not record.answers(engine, timeout_s):
            return False
        return record.certificate is None or (self.folder / record.certificate).exists()

    def add(self, record: Record) -> None:
        """Appends the record and waits until it is on the disk; raises BadRun where it cannot be written."""
        line = json.dumps(asdict(record), allow_nan=False)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with open(self.path, "ab+") as file:
                broken = file.tell() > 0 and not _ends_a_line(file)
                file.write((b"\n" if broken else b"") + line.encode() + b"\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise cannot_write(self.path, error) from error
        self.records[record.key] = record


def _ends_a_line(file: BinaryIO) -> bool:
    file.seek(-1, os.SEEK_END)
    return file.read(1) == b"\n"


def _read(path: Path) -> Iterator[Record]:
    if not path.exists():
        return
    for number, line in enumerate(path.read_bytes().split(b"\n"), 1):
        if not line:
            continue
        try:
            content = json.loads(line)
            point = content.pop("counterexample")
            yield Record(**content, counterexample=None if point is None else tuple(point))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            if not _truncated(line):
                raise BadRun(f"{path} line {number} is damaged: {error}; delete that line and run again") from error


def _truncated(line: bytes) -> bool:
    """A killed process can only leave the beginning of a record."""
    return line.startswith(b"{") and not line.endswith(b"}")
