"""specmine export"""

from typing import Annotated

import typer

from specmine.cli.options import Quiet, RunFolder, Verbose, listed
from specmine.cli.screen import answer, make_progress


def export(
    run: RunFolder,
    to: Annotated[list[str], typer.Option("--to", metavar="NAME,NAME", help="smtlib, prolog, json or chc; may be repeated.")],
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Write what a run has reached as files that other programs run, and print their paths."""
    from specmine.pipeline import export_run, exporters, open_run

    opened = open_run(run, progress=make_progress(quiet, verbose))
    for name in exporters(listed(to) or ()):
        for path in export_run(opened, name):
            answer(str(path))
