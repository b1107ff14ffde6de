"""What a benchmark run says of one instance, and how the rows are kept in a CSV file."""

import csv
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import IO, Any, Literal, TypeAlias

from verifier.bench.instances import Instance
from verifier.bench.replay_types import TOLERANCE, Replay
from verifier.errors import BadQuery
from verifier.jobs import Ended
from verifier.task import Answer, last_reached

Verdict: TypeAlias = Literal["sat", "unsat", "unknown", "timed-out", "error"]
Agrees: TypeAlias = Literal["yes", "no", "replays", ""]


@dataclass(frozen=True)
class Row:
    """verdict: error where the files were refused or the process broke. solver_s: of the solver; total_s: with reading.

    bound: the best proven bound where undecided, also where the process was stopped. replayed: onnxruntime's word on a sat, yes
    where its float32 run misses the query by at most 1e-6 (`violation`, absolute, over inputs and outputs); empty where it was
    not asked. agrees: with the expected answer; `replays` is a sat that was expected unsat and whose counterexample holds;
    empty where nothing is known.
    engine: the one that answered; asked: the one that was asked for, empty in files of before it was kept.
    """

    onnx: str
    vnnlib: str
    timeout_s: float
    verdict: Verdict
    solver_s: float | None
    total_s: float
    engine: str
    bound: float | None
    splits: int | None
    expected: str
    agrees: Agrees
    replayed: str
    violation: float | None
    peak_gb: float
    reason: str
    asked: str = ""

    @property
    def solved(self) -> bool:
        return self.verdict in ("sat", "unsat")

    @property
    def wrong(self) -> bool:
        return self.agrees == "no"


COLUMNS = tuple(field.name for field in fields(Row))
COLUMNS_BEFORE = COLUMNS[:-1]  # those of a file written before `asked` was kept


def judge(instance: Instance, ended: Ended, replay: Replay | None, *, asked: str = "") -> Row:
    """The row of an instance from how its process ended, and from the replay of its counterexample, if there was one.

    asked: the engine that was asked for.
    """
    answer = next((message for _, message in ended.messages if isinstance(message, Answer)), None)
    total_s = next((at for at, message in ended.messages if isinstance(message, Answer)), ended.seconds)
    verdict, reason = _verdict(ended, answer)
    if verdict in ("sat", "unsat") and total_s > instance.timeout_s:
        verdict, reason = "timed-out", f"{verdict}, but {total_s - instance.timeout_s:.2f} s late"
    sat, found = verdict == "sat", answer or last_reached(ended.messages)
    violation = replay.violation if replay and sat else None
    replayed = "" if violation is None else "yes" if violation <= TOLERANCE else "no"
    note = replay.note if replay and sat else ""
    return Row(
        instance.onnx, instance.vnnlib, instance.timeout_s, verdict, answer.seconds if answer else None, total_s,
        answer.engine if answer else "", found.bound if found else None, found.splits if found else None,
        instance.expected, _agrees(verdict, instance.expected, replayed), replayed, violation, ended.peak_bytes / 1e9,
        "; ".join(filter(None, (reason, note))), asked,
    )  # fmt: skip


def _verdict(ended: Ended, answer: Answer | None) -> tuple[Verdict, str]:
    if answer is not None:
        return answer.word, answer.reason
    lines = ended.reason.strip().splitlines() or [""]
    match ended.end:
        case "timed-out":
            return "timed-out", ended.reason
        case "memory":
            return "unknown", f"memory: {ended.reason}"
        case _:
            return "error", f"{ended.end}: {lines[-1]}"


def _agrees(verdict: Verdict, expected: str, replayed: str) -> Agrees:
    if verdict not in ("sat", "unsat") or expected not in ("sat", "unsat"):
        return ""
    if verdict == expected:
        return "yes"
    # sound: an input that another program finds in the query's solutions outweighs any number of unsat votes
    return "replays" if verdict == "sat" and replayed == "yes" else "no"


class RowFile:
    """A CSV file that each row reaches as soon as it is known."""

    def __init__(self, path: str | Path, rows: Sequence[Row] = ()) -> None:
        self.path = Path(path)
        try:
            self.stream: IO[str] = self.path.open("w", newline="", encoding="utf-8")
        except OSError as error:
            raise BadQuery(f"--csv {str(path)!r} cannot be written: {error.strerror or error}") from error
        self.writer = csv.DictWriter(self.stream, COLUMNS)
        self.writer.writeheader()
        for row in rows:
            self.add(row)

    def add(self, row: Row) -> None:
        self.writer.writerow({name: "" if value is None else value for name, value in asdict(row).items()})
        self.stream.flush()

    def close(self) -> None:
        self.stream.close()


def read_rows(path: str | Path) -> list[Row]:
    """The rows of a file that `RowFile` wrote; a last line that was cut off is dropped. Raises BadQuery for another file."""
    try:
        with Path(path).open(newline="", encoding="utf-8") as stream:
            reader = csv.DictReader(stream)
            if tuple(reader.fieldnames or ()) not in (COLUMNS, COLUMNS_BEFORE):
                raise BadQuery(f"{path}: not a file of this command; its columns must be {','.join(COLUMNS)}")
            return [_row(line) for line in reader if None not in line.values()]
    except (OSError, UnicodeDecodeError, csv.Error, ValueError) as error:
        raise BadQuery(f"{path}: cannot be read as rows ({error}); name another file") from error


def _row(line: dict[str, Any]) -> Row:
    numbers: dict[str, Any] = {}
    for name in ("timeout_s", "solver_s", "total_s", "bound", "violation", "peak_gb"):
        numbers[name] = float(line[name]) if line[name] else None
    numbers["splits"] = int(line["splits"]) if line["splits"] else None
    return Row(**{**line, **numbers})
