"""specmine show"""

from specmine.cli.options import AsJson, RunFolder
from specmine.cli.screen import answer, answer_json, say


def show(run: RunFolder, json: AsJson = False) -> None:
    """Print the clauses of a run with their evidence and verdicts."""
    from specmine.cli.text import spec_text
    from specmine.document import document
    from specmine.pipeline import open_run

    spec = open_run(run).spec
    if not spec.claims:
        say(f"no claims yet in {run}; go on with: specmine verify {run}")
    if json:
        answer_json(document(spec))
    else:
        answer(spec_text(spec))
