"""specmine verify"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

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
    check_data,
)
from specmine.cli.screen import answer, answer_json, make_progress, say
from specmine.config import make_config
from specmine.errors import BadConfig
from specmine.progress import Progress

if TYPE_CHECKING:
    from specmine.spec import Spec

Texts: TypeAlias = list[str] | None


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
    progress = make_progress(quiet, verbose)
    effort: dict[str, Any] = {"timeout_s": timeout, "budget_s": budget, "engine": engine, "jobs": jobs}
    make_config(regions=tuple(region) if region else None, **effort)  # refuses what is wrong before anything heavy is loaded
    if run is None:
        code = _decide(model, str(data), clause, region, json, data_dir=data_dir, seed=seed, progress=progress, **effort)
    elif check:
        code = _check(run, json, progress=progress)
    else:
        code = _go_on(run, clause, region, json, progress=progress, **effort)
    raise typer.Exit(code)


def _decide(model: Path | None, data: str, clauses: Texts, regions: Texts, json: bool, **options: Any) -> int:
    """Decides clauses on a model and data, prints what is found, and returns the exit code."""
    check_data(data)
    from specmine.pipeline import decide

    return _print(decide(model, data, "\n".join(clauses or ()), regions=regions or ["domain"], **options), json)


def _go_on(run: Path, clauses: Texts, regions: Texts, json: bool, **options: Any) -> int:
    """Decides clauses on a run's model and data, or goes on with the run where there are none; the rest as `_decide`."""
    from specmine.pipeline import decide_on_run, go_on

    if clauses:
        return _print(decide_on_run(run, "\n".join(clauses), regions=regions, **options), json)
    return _print(go_on(run, **options), json)


def _print(spec: "Spec", json: bool) -> int:
    """Prints all claims of a Spec, and returns the exit code that they stand for."""
    from specmine.cli.text import spec_text
    from specmine.document import document

    if json:
        answer_json(document(spec))
    else:
        answer(spec_text(spec))
    return spec.exit_code


def _check(run: Path, json: bool, *, progress: Progress) -> int:
    """Prints which claims of a run keep their proof, and returns the exit code."""
    from specmine.cli.text import check_document, check_text
    from specmine.document import document
    from specmine.pipeline import check_run

    spec, checked = check_run(run, progress=progress)
    if not spec.claims:
        say(f"no claims yet in {run}, so there was nothing to check; go on with: specmine verify {run}")
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
