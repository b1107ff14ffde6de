"""specmine verify"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from specmine.cli.options import (
    AsJson,
    Budget,
    DataDir,
    DataName,
    Engine,
    Jobs,
    ModelFile,
    OptionalRun,
    Quiet,
    Regions,
    Seed,
    Timeout,
    Verbose,
)
from specmine.cli.screen import answer, answer_json, make_progress
from specmine.errors import BadConfig
from specmine.progress import Progress


def verify(
    run: OptionalRun = None,
    model: ModelFile = None,
    data: DataName = None,
    data_dir: DataDir = None,
    clause: Annotated[
        list[str] | None, typer.Option("--clause", metavar="TEXT", help="A clause to measure and decide; repeatable.")
    ] = None,
    region: Regions = None,
    check: Annotated[bool, typer.Option("--check", help="Check every stored certificate again, without any solver.")] = False,
    timeout: Timeout = None,
    budget: Budget = None,
    engine: Engine = None,
    seed: Seed = None,
    jobs: Jobs = None,
    json: AsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Decide the open claims of a run, or a clause of your own.

    With RUN alone the run goes on to its end. With --clause, the clause is measured and decided on the run's model and data,
    or on --model and --data.

    Exit code: 0 all proved, 1 one refuted, 3 none refuted but one undecided. With --check, whatever the verdicts: 0 every
    certificate accepted, 1 one refused, damaged or missing.
    """
    _refuse(
        {
            "--model": run and model,
            "--data-dir": run and data_dir,
            "--seed": run and seed is not None,
            "--region": region and not clause,
            "--check": check and (clause or run is None),
        },
        either=(run is None) != (data is None),
        clause=run is not None or bool(clause),
    )
    from specmine.cli.text import spec_text
    from specmine.document import document
    from specmine.pipeline import decide, decide_on_run, go_on

    effort: dict[str, Any] = {"timeout_s": timeout, "budget_s": budget, "engine": engine, "jobs": jobs}
    progress = make_progress(quiet, verbose)
    if run is not None and check:
        raise typer.Exit(_check(run, json=json, progress=progress))
    text = "\n".join(clause or [])
    if run is None:
        spec = decide(
            model, str(data), text, regions=region or ["domain"], data_dir=data_dir, progress=progress, seed=seed, **effort
        )
    elif clause:
        spec = decide_on_run(run, text, regions=region, progress=progress, **effort)
    else:
        spec = go_on(run, progress=progress, **effort)
    if json:
        answer_json(document(spec))
    else:
        answer(spec_text(spec))
    raise typer.Exit(spec.exit_code)


def _check(run: Path, *, json: bool, progress: Progress) -> int:
    """Prints which claims of a run keep their proof, and returns the exit code."""
    from specmine.cli.text import check_document, check_text
    from specmine.document import document
    from specmine.pipeline import check_run

    spec, checked = check_run(run, progress=progress)
    if json:
        answer_json(document(spec) | {"check": check_document(checked)})
    else:
        answer(check_text(checked))
    return checked.exit_code


def _refuse(misplaced: Mapping[str, object], *, either: bool, clause: bool) -> None:
    """Raises BadConfig for options that do not go together; misplaced: by option, whether it is given to no effect."""
    if not either:
        raise BadConfig("give a run folder, or --data with --clause (and --model where the data set has none of its own)")
    if not clause:
        raise BadConfig("give what to decide: --clause 'class(7) :- above(h2,12,0.75).'")
    if any(misplaced.values()):
        given = ", ".join(option for option, wrong in misplaced.items() if wrong)
        raise BadConfig(
            f"{given} would change nothing here: a run keeps its model, data and seed, --region goes with --clause, and "
            f"--check with RUN alone; leave it out"
        )
