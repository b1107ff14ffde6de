"""Cactus plots: how many instances are solved when each is given so many seconds."""

import csv
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from verifier.bench.rows import Row
from verifier.errors import BadQuery

ENDINGS = (".svg", ".png", ".pdf")
SHORTEST_S = 1e-3  # shorter times are drawn as this


def solved_seconds(rows: Sequence[Row]) -> list[float]:
    """Solver seconds of the rows that are solved and not wrong."""
    return [row.solver_s for row in rows if row.solved and not row.wrong and row.solver_s is not None]


def read_seconds(path: str | Path) -> list[float]:
    """The same from a CSV file with a column verdict (or result) and one of solver_s, seconds, time.

    Raises BadQuery for a file without them.
    """
    try:
        with Path(path).open(newline="", encoding="utf-8") as stream:
            lines = list(csv.DictReader(stream))
        names = set(lines[0]) if lines else set()
        word = next(name for name in ("verdict", "result") if name in names)
        time = next(name for name in ("solver_s", "seconds", "time") if name in names)
        return [float(line[time]) for line in lines if line[word] in ("sat", "unsat") and line.get("agrees") != "no"]
    except (OSError, UnicodeDecodeError, csv.Error, ValueError, StopIteration) as error:
        raise BadQuery(f"{path}: cannot be compared; needs the columns verdict and solver_s ({error})") from error


def check_plot(path: str | Path) -> None:
    """Raise BadQuery where no plot can be written to the path: another ending, no folder, or no right to write."""
    path = Path(path)
    if path.suffix.lower() not in ENDINGS:
        raise BadQuery(f"--plot {str(path)!r} must end in {', '.join(ENDINGS[:-1])} or {ENDINGS[-1]}")
    if path.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
        raise BadQuery(f"--plot {str(path)!r} cannot be written; name a file in a folder that there is")


def cactus(curves: Mapping[str, Sequence[float]], path: str | Path) -> None:
    """Write the plot, one step curve a name, as the file's ending says (.svg, .png, .pdf). Raises BadQuery for others."""
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    for name, seconds in curves.items():
        ordered = sorted(max(s, SHORTEST_S) for s in seconds)
        axes.step(range(1, len(ordered) + 1), ordered, where="mid", label=f"{name}: {len(ordered)} solved", linewidth=1.6)
    axes.set(xlabel="instances solved", ylabel="solver seconds for each", yscale="log")
    axes.grid(which="major", color="0.88", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="upper left")
    try:
        figure.savefig(path, metadata={"Date": None} if str(path).endswith(".svg") else None)
    except (OSError, ValueError) as error:
        raise BadQuery(f"--plot {str(path)!r}: {error}") from error
