"""What becomes of the rows of an earlier run: which are kept, which are run again, and how they differ from this run's."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from verifier.bench.instances import Instance
from verifier.bench.rows import Row, read_rows
from verifier.errors import BadQuery


@dataclass(frozen=True)
class Resumed:
    """kept: rows that stand. todo: instances to run. notes: how kept rows differ from what this run would write.

    others: rows of instances that this run was not asked for; they stay in their file and count for nothing here.
    """

    kept: tuple[Row, ...]
    todo: tuple[Instance, ...]
    notes: tuple[str, ...]
    others: tuple[Row, ...] = ()


def resume(instances: Sequence[Instance], rows: Sequence[Row], *, engine: str) -> Resumed:
    """Keep the rows of an earlier run but those that timed out under a shorter limit than their instance has now.

    engine: the one that is asked for now.
    """
    limits = {(instance.onnx, instance.vnnlib): instance.timeout_s for instance in instances}
    again = {_key(row) for row in rows if row.verdict == "timed-out" and row.timeout_s < limits.get(_key(row), 0.0)}
    others = tuple(row for row in rows if _key(row) not in limits)
    kept = tuple(row for row in rows if _key(row) not in again and _key(row) in limits)
    done = {_key(row) for row in kept}
    todo = tuple(instance for instance in instances if (instance.onnx, instance.vnnlib) not in done)
    notes = (
        *_again(len(again)),
        *_not_asked_for(len(others)),
        *_other_limits(kept, limits),
        *_other_engines(kept, engine),
    )
    return Resumed(kept, todo, notes, others)


def refuse_rows(path: str | Path) -> None:
    """Raise BadQuery where a file holds rows, or anything else, that a new run would overwrite."""
    path = Path(path)
    if not path.is_file() or not path.stat().st_size:
        return
    rows = len(read_rows(path))
    if rows:
        raise BadQuery(f"{path} holds {rows} rows; --resume to go on, or name another file")


def _key(row: Row) -> tuple[str, str]:
    return row.onnx, row.vnnlib


def _again(count: int) -> list[str]:
    return [f"{count} timed-out rows are run again, for their limit is longer now"] if count else []


def _not_asked_for(count: int) -> list[str]:
    return [f"{count} rows are of instances that this run was not asked for; they stay in the file alone"] if count else []


def _other_limits(kept: Sequence[Row], limits: Mapping[tuple[str, str], float]) -> list[str]:
    pairs = [(row.timeout_s, limits[_key(row)]) for row in kept if limits.get(_key(row), row.timeout_s) != row.timeout_s]
    return [
        f"{pairs.count((was, now))} kept rows had a limit of {was:g} s, which is {now:g} s now"
        for was, now in dict.fromkeys(pairs)
    ]


def _other_engines(kept: Sequence[Row], engine: str) -> list[str]:
    others = [row.asked for row in kept if row.asked and row.asked != engine]
    return [f"{others.count(name)} kept rows are of --engine {name}, which is {engine} now" for name in dict.fromkeys(others)]
