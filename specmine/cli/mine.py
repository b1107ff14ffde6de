"""specmine mine"""

from pathlib import Path
from typing import Annotated

import typer

from specmine.cli.options import (
    AsJson,
    Budget,
    Cluster,
    ConfigFile,
    DataDir,
    DataName,
    Engine,
    Families,
    Head,
    Jobs,
    Localities,
    Memory,
    ModelFile,
    Partners,
    Quiet,
    Regions,
    Seed,
    Thresholds,
    Timeout,
    Verbose,
    listed,
)
from specmine.cli.screen import answer, answer_json, make_progress, say
from specmine.config import make_config
from specmine.errors import BadConfig


def mine(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="A known data set; see specmine data list.", show_default=False)
    ] = None,
    model: ModelFile = None,
    data: DataName = None,
    data_dir: DataDir = None,
    out: Annotated[Path | None, typer.Option("--out", metavar="DIR", help="Run folder; runs/NAME by default.")] = None,
    config: ConfigFile = None,
    region: Regions = None,
    synthesis: Annotated[
        list[str] | None,
        typer.Option("--synthesis", metavar="NAME", help="threshold, smallest, peel or polytope; repeatable."),
    ] = None,
    site: Annotated[
        list[str] | None, typer.Option("--site", metavar="NAME", help="Site to mine, such as h2; repeatable.")
    ] = None,
    families: Families = None,
    locality: Localities = None,
    partners: Partners = None,
    thresholds: Thresholds = None,
    head: Head = None,
    memory: Memory = None,
    cluster: Cluster = None,
    recall: Annotated[float | None, typer.Option("--recall", metavar="SHARE", help="Recall of smallest bodies.")] = None,
    precision: Annotated[
        float | None, typer.Option("--precision", metavar="SHARE", help="Precision of smallest bodies on the samples.")
    ] = None,
    max_body: Annotated[int | None, typer.Option("--max-body", metavar="N", help="Literals that a body may have.")] = None,
    refine: Annotated[
        bool | None, typer.Option("--refine/--no-refine", help="Shape bodies by the verifier's answers; on by default.")
    ] = None,
    refine_s: Annotated[
        float | None, typer.Option("--refine-time", metavar="SECONDS", help="Time of refinement for each head.")
    ] = None,
    max_clauses: Annotated[int | None, typer.Option("--max-clauses", metavar="N", help="Clauses a class and way.")] = None,
    timeout: Timeout = None,
    budget: Budget = None,
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
    if (name is None) == (data is None):
        raise BadConfig("give the data once: a known data set (specmine mine digits) or --data FILE.npz")
    settings = make_config(
        config,
        regions=region or None,
        synthesis=listed(synthesis),
        sites=site or None,
        families=listed(families),
        locality=listed(locality),
        partners=partners,
        thresholds=thresholds,
        head=head,
        memory_mb=memory,
        cluster=cluster,
        recall=recall,
        precision=precision,
        max_body=max_body,
        refine=refine,
        refine_s=refine_s,
        max_clauses=max_clauses,
        timeout_s=timeout,
        budget_s=budget,
        engine=engine,
        seed=seed,
        jobs=jobs,
    )
    from specmine import pipeline
    from specmine.cli.text import no_claims_text, summary_text
    from specmine.document import document

    wanted = str(name or data)
    folder = out or Path("runs") / Path(wanted).stem
    progress = make_progress(quiet, verbose)
    spec = pipeline.mine(model, wanted, config=settings, out=folder, data_dir=data_dir, progress=progress)
    if json:
        answer_json(document(spec))
    else:
        answer(summary_text(spec))
        if not spec.claims:
            say(no_claims_text(pipeline.open_run(folder), folder))
        answer(f"report: {folder / 'report.html'}; clauses: specmine show {folder}")
