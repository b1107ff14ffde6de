"""specmine show"""

from typing import Annotated

import typer

from specmine.cli.options import AsJson, RunFolder
from specmine.cli.screen import answer, answer_json, say


def show(
    run: RunFolder,
    predicates: Annotated[
        bool, typer.Option("--predicates", help="The strongest predicates of each head and family, instead of the clauses.")
    ] = False,
    count: Annotated[int, typer.Option("--count", metavar="N", min=1, help="With --predicates: how many of each.")] = 5,
    why: Annotated[
        int | None,
        typer.Option("--why", metavar="SAMPLE", min=0, help="Why this row of the data is given its class, by proved clauses."),
    ] = None,
    json: AsJson = False,
) -> None:
    """Print a run's clauses with evidence and verdicts, or why a sample has its class."""
    from specmine.cli.text import no_claims_text, predicates_text, spec_text, why_document, why_text
    from specmine.document import document
    from specmine.pipeline import open_run

    opened = open_run(run)
    if why is not None:
        if json:
            answer_json(why_document(opened.exhibit, why))
        else:
            answer(why_text(opened.exhibit, why))
        return
    if predicates:
        strongest = opened.strongest
        if not strongest:
            say(f"no predicates yet in {run}; go on with: specmine verify {run}")
        if json:
            answer_json({"strongest": [strong.document() for strong in strongest]})
        else:
            answer(predicates_text(strongest, count))
        return
    spec = opened.spec
    if not spec.claims:
        say(no_claims_text(opened, run))
    if json:
        answer_json(document(spec))
    else:
        answer(spec_text(spec))
