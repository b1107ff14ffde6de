"""specmine report"""

from specmine.cli.options import Quiet, RunFolder, Verbose
from specmine.cli.screen import answer, make_progress


def report(run: RunFolder, quiet: Quiet = False, verbose: Verbose = False) -> None:
    """Write the report of what a run has reached, one HTML file, and print its path."""
    from specmine.pipeline import open_run, write_report

    answer(str(write_report(open_run(run, progress=make_progress(quiet, verbose)))))
