"""specmine mine"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from specmine.cli.options import (
    AsJson,
    Budget,
    Cluster,
    ConfigFile,
    DataDir,
    DataName,
    Depth,
    Engine,
    Families,
    Head,
    Jobs,
    Localities,
    MaxBody,
    MaxClauses,
    Memory,
    ModelFile,
    OutFolder,
    Partners,
    Precision,
    Quiet,
    Recall,
    Refine,
    RefineTime,
    Regions,
    Seed,
    SitesMined,
    Thresholds,
    Timeout,
    Verbose,
    Ways,
    check_data,
    data_given,
    settings,
)
from specmine.cli.screen import answer, answer_json, make_progress, say
from specmine.config import make_config

if TYPE_CHECKING:
    from specmine.spec import Spec


def mine(
    context: typer.Context,
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="A known data set; see specmine data list.", show_default=False)
    ] = None,
    model: ModelFile = None,
    data: DataName = None,
    data_dir: DataDir = None,
    out: OutFolder = None,
    config: ConfigFile = None,
    regions: Regions = None,
    synthesis: Ways = None,
    sites: SitesMined = None,
    families: Families = None,
    locality: Localities = None,
    partners: Partners = None,
    thresholds: Thresholds = None,
    head: Head = None,
    memory_mb: Memory = None,
    cluster: Cluster = None,
    recall: Recall = None,
    precision: Precision = None,
    max_body: MaxBody = None,
    refine: Refine = None,
    refine_s: RefineTime = None,
    depth: Depth = None,
    max_clauses: MaxClauses = None,
    timeout_s: Timeout = None,
    budget_s: Budget = None,
    engine: Engine = None,
    seed: Seed = None,
    jobs: Jobs = None,
    json: AsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Mine clauses from a model and data, prove them, export them and write a report.

    A rerun on the same --out goes on where the last one stopped. Exit code 0 when the run is done, whatever the verdicts.
    """
    wanted = data_given(name, data, verb="mine")
    # The parameters named like keys of the configuration are its overrides.
    wanted_config = make_config(config, **settings(context))
    check_data(wanted)
    from specmine import pipeline

    folder = out or Path("runs") / Path(wanted).stem
    progress = make_progress(quiet, verbose)
    spec = pipeline.mine(model, wanted, config=wanted_config, out=folder, data_dir=data_dir, progress=progress)
    _print(spec, folder, json=json)


def _print(spec: "Spec", folder: Path, *, json: bool) -> None:
    """What a run came to: its figures, where it found no clause the reason, and where the rest is; or the whole document."""
    from specmine.cli.text import no_claims_text, summary_text
    from specmine.document import document
    from specmine.pipeline import open_run

    if json:
        answer_json(document(spec))
        return
    answer(summary_text(spec))
    if not spec.claims:
        say(no_claims_text(open_run(folder), folder))
    answer(f"report: {folder / 'report.html'}; clauses: specmine show {folder}")
