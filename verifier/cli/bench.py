"""`verifier bench`: run a folder of instances and say what was solved."""

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from verifier.cli.codes import BAD_INPUT, DECIDED, INTERRUPTED, REFUTED
from verifier.cli.verify import add_solver_options, seconds, whole
from verifier.errors import BadQuery
from verifier.jobs import Job, available_bytes, run_job
from verifier.task import find_device

if TYPE_CHECKING:
    from verifier.bench import Row

COMMAND = "bench"
HELP = "run a folder of benchmark instances"
DESCRIPTION = """Run a folder of benchmark instances in VNN-COMP layout (instances.csv: onnx, vnnlib, seconds allowed).

Each instance runs in a process of its own: a crash, a lack of memory or a hang is a row, not the end. Where expected.csv
knows the answer it is compared, and every sat is run through onnxruntime, if that is installed. Seconds start when network
and query are about to be read; torch is loaded once, before.
"""
DEVICE_S = 60.0
SHARE_OF_MEMORY = 0.9  # of what is free at the start, shared out among the jobs

Show: TypeAlias = Callable[["Row | None"], None]


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", help="the folder with instances.csv")
    parser.add_argument(
        "--timeout", type=seconds, metavar="SECONDS", help="limit for each instance, instead of the folder's own"
    )
    parser.add_argument("--jobs", type=whole, default=1, metavar="N", help="instances at a time; 1 by default")
    parser.add_argument("--only", metavar="GLOB", help="only instances whose 'onnx vnnlib' fits, such as '*prop_3*'")
    parser.add_argument("--csv", metavar="FILE", help="write each row to this file as it comes")
    parser.add_argument("--resume", action="store_true", help="keep the rows that are in --csv already, but those that timed out under a shorter limit, and run the others")  # noqa: E501  # fmt: skip
    parser.add_argument("--plot", metavar="FILE", help="draw a cactus plot: .svg, .png or .pdf")
    parser.add_argument("--compare", action="append", default=[], metavar="FILE", help="another run's CSV, drawn into the plot; may be repeated")  # noqa: E501  # fmt: skip
    add_solver_options(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON document of rows and summary instead")


def run(options: argparse.Namespace) -> int:
    from verifier.bench import Settings, read_instances, run_bench
    from verifier.bench.resume import resume
    from verifier.bench.rows import RowFile, read_rows

    _check_options(options)
    instances = read_instances(options.folder, timeout_s=options.timeout, only=options.only)
    earlier = read_rows(options.csv) if options.resume and Path(options.csv).exists() else []
    resumed = resume(instances, earlier, engine=options.engine)
    rows = list(resumed.kept)
    if not options.quiet:
        for note in resumed.notes:
            print(f"--resume: {note}", file=sys.stderr)
    settings = Settings(
        options.engine, options.seed, options.jobs, options.threads, _memory(options), options.device, verbose=options.verbose
    )
    file = RowFile(options.csv, [*resumed.others, *rows]) if options.csv else None
    interrupted = False
    results = run_bench(resumed.todo, settings)
    try:
        with _shown(options, len(instances), rows) as show:
            for row in results:
                if row is not None:
                    rows.append(row)
                    if file is not None:
                        file.add(row)
                show(row)
    except KeyboardInterrupt:
        interrupted = True
    finally:
        results.close()
        if file is not None:
            file.close()
    return _finish(rows, options, asked=len(instances), interrupted=interrupted)


def _check_options(options: argparse.Namespace) -> None:
    """What can be refused before hours are spent."""
    from verifier.bench.resume import refuse_rows

    if options.resume and not options.csv:
        raise BadQuery("--resume needs --csv FILE, which holds the rows that are done")
    if options.compare and not options.plot:
        raise BadQuery("--compare needs --plot FILE, into which it is drawn")
    if options.csv and not options.resume:
        refuse_rows(options.csv)
    if options.plot:
        _check_plot(options)
    if options.device != "cpu":
        ended = run_job(Job(find_device, options.device, seconds=DEVICE_S, mute=True))
        if ended.end == "refused":
            raise BadQuery(ended.reason.removeprefix("BadQuery: "))


def _check_plot(options: argparse.Namespace) -> None:
    from verifier.bench.plot import check_plot, read_seconds

    check_plot(options.plot)
    for path in options.compare:
        if options.csv is None or Path(path).resolve() != Path(options.csv).resolve():  # that one is yet to be written
            read_seconds(path)


def _memory(options: argparse.Namespace) -> int | None:
    if options.memory is not None:
        return int(options.memory * 1e9)
    free = available_bytes()
    return None if free is None else int(SHARE_OF_MEMORY * free / options.jobs)


@contextmanager
def _shown(options: argparse.Namespace, total: int, done: Sequence["Row"]) -> Iterator[Show]:
    """What is shown of each row: a line on stdout, unless --json, and a bar on a terminal's stderr, unless --quiet."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    # no thread may run where processes are forked, so the bar is drawn when rows come, and now and then between
    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
    hidden = options.quiet or not console.is_terminal
    bar = Progress(*columns, console=console, auto_refresh=False, transient=True, disable=hidden)
    counts = {"solved": sum(row.solved for row in done), "WRONG": sum(row.wrong for row in done)}
    with bar:
        task = bar.add_task("", total=total, completed=len(done))

        def show(row: "Row | None") -> None:
            if row is not None:
                counts["solved"] += row.solved
                counts["WRONG"] += row.wrong
                if not options.json:
                    print(_line(row), flush=True)
                bar.advance(task)
            bar.update(task, description=", ".join(f"{n} {word}" for word, n in counts.items() if n))
            bar.refresh()

        yield show


def _line(row: "Row") -> str:
    solver = "-" if row.solver_s is None else f"{row.solver_s:.2f}"
    bound = "" if row.bound is None or row.solved else f" bound {row.bound:.4g}"
    splits = f" {row.splits} splits" if row.splits else ""
    said = {"yes": "agrees", "no": "WRONG", "replays": "expected unsat, but replays", "": ""}[row.agrees]
    replayed = {"yes": "replayed", "no": f"NOT replayed, off by {row.violation}", "": ""}[row.replayed]
    notes = ", ".join(filter(None, (said, replayed, "" if row.solved else row.reason)))
    what = f"{row.verdict:9} {solver:>8} s {row.total_s:8.2f} s in all  {row.engine:8}{splits}{bound}"
    return f"{what}  {row.onnx} {row.vnnlib}  {notes}".rstrip()


def _finish(rows: list["Row"], options: argparse.Namespace, *, asked: int, interrupted: bool) -> int:
    from verifier.bench.summary import summarise, summary_text

    if not rows:
        print("interrupted before the first instance ended", file=sys.stderr)
        return INTERRUPTED
    summary = summarise(rows, asked=asked)
    if options.json:
        print(json.dumps({"summary": asdict(summary), "rows": [asdict(row) for row in rows]}, indent=1))
    else:
        print(f"\n{summary_text(summary)}")
    if options.plot:
        _plot(rows, options)
    if interrupted:
        print("interrupted; with --csv FILE --resume the same command goes on from there", file=sys.stderr)
        return INTERRUPTED
    if summary.errors == summary.instances:
        print("every instance ended in an error", file=sys.stderr)
        return BAD_INPUT
    return REFUTED if summary.wrong else DECIDED


def _plot(rows: list["Row"], options: argparse.Namespace) -> None:
    from verifier.bench.plot import cactus, read_seconds, solved_seconds

    curves = {Path(options.folder).resolve().name: solved_seconds(rows)}
    for path in options.compare:
        curves[Path(path).stem] = read_seconds(path)
    cactus(curves, options.plot)
