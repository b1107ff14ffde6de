"""specmine export"""

from typing import Annotated

import typer

from specmine.cli.options import Quiet, RunFolder, Verbose, listed
from specmine.cli.screen import answer, make_progress
from specmine.config import EXPORTER_NAMES, unknown_name
from specmine.errors import BadConfig


def export(
    run: RunFolder,
    to: Annotated[list[str], typer.Option("--to", metavar="NAME,NAME", help="smtlib, prolog, json or chc; may be repeated.")],
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Write what a run has reached as files that other programs run, and print their paths."""
    names = listed(to) or ()
    problem = unknown_name("exporter", names, EXPORTER_NAMES)
    if problem or not names:
        raise BadConfig(problem or f"no exporter named; give some of {', '.join(EXPORTER_NAMES)}")
    from specmine.pipeline import export_run, open_run

    opened = open_run(run, progress=make_progress(quiet, verbose))
    for name in dict.fromkeys(names):
        for path in export_run(opened, name):
            answer(str(path))
