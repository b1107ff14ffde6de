"""The figures of a benchmark run."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean, median

from verifier.bench.rows import Row

RUN_BY = "their rows say why (onnxruntime, which runs them, is not installed with the package)"


@dataclass(frozen=True)
class Summary:
    """Counts over the instances that have rows; seconds of the solver over the solved ones, None where there is none.

    not_run: instances that were asked for and have no row.
    expected: instances with a known answer, agree: those answered so. wrong: sat against unsat, unsat against sat, unless the
    counterexample replays. unreplayed: sat answers that onnxruntime's run misses by more than 1e-6; unasked: those that it did
    not run, for which the rows give the reasons. par2_s: the mean over all instances of the total seconds, where twice the
    limit stands for one that was not solved, or wrongly.
    """

    instances: int
    not_run: int
    solved: int
    sat: int
    unsat: int
    unknown: int
    timed_out: int
    errors: int
    expected: int
    agree: int
    wrong: int
    unreplayed: int
    unasked: int
    median_s: float | None
    mean_s: float | None
    max_s: float | None
    par2_s: float


def summarise(rows: Sequence[Row], *, asked: int | None = None) -> Summary:
    """The figures over rows, at least one. asked: how many there should be; by default those there are."""
    verdicts = [row.verdict for row in rows]
    solved = [row for row in rows if row.solved]
    seconds = [row.solver_s for row in solved if row.solver_s is not None]
    return Summary(
        instances=len(rows),
        not_run=0 if asked is None else asked - len(rows),
        solved=len(solved),
        sat=verdicts.count("sat"),
        unsat=verdicts.count("unsat"),
        unknown=verdicts.count("unknown"),
        timed_out=verdicts.count("timed-out"),
        errors=verdicts.count("error"),
        expected=sum(row.expected in ("sat", "unsat") for row in rows),
        agree=sum(row.agrees == "yes" for row in rows),
        wrong=sum(row.wrong for row in rows),
        unreplayed=sum(row.replayed == "no" for row in rows),
        unasked=sum(row.verdict == "sat" and not row.replayed for row in rows),
        median_s=median(seconds) if seconds else None,
        mean_s=mean(seconds) if seconds else None,
        max_s=max(seconds, default=None),
        par2_s=mean(row.total_s if row.solved and not row.wrong else 2 * row.timeout_s for row in rows),
    )


def summary_text(s: Summary) -> str:
    """The figures in a few lines."""
    figures = ", ".join(f"{name} {_seconds(v)}" for name, v in (("median", s.median_s), ("mean", s.mean_s), ("max", s.max_s)))
    unasked = f", {s.unasked} sat never run: {RUN_BY}" if s.unasked else ""
    not_run = f"; {s.not_run} NOT RUN" if s.not_run else ""
    return "\n".join((
        f"solved    {s.solved} of {s.instances}: {s.sat} sat, {s.unsat} unsat{not_run}",
        f"not       {s.unknown} unknown, {s.timed_out} timed-out, {s.errors} errors",
        f"expected  {s.agree} of {s.expected} known answers found, {s.wrong} WRONG, {s.unreplayed} sat not replayed{unasked}",
        f"seconds   of the solver over the solved: {figures}; PAR-2 over all {_seconds(s.par2_s)}",
    ))  # fmt: skip


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g} s"
