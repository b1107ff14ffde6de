"""The application: its verbs, and how every ending becomes a message and an exit code."""

import sys
import traceback
from collections.abc import Sequence
from typing import Annotated

import typer

from specmine import __version__
from specmine.cli import data, export, mine, report, show, trace, train, verify
from specmine.cli.screen import say
from specmine.errors import SpecmineError
from verifier.errors import VerifierError

HELP = """Mine Horn-clause specifications from the behaviour of a neural network, and prove them.

Answers go to stdout, everything else to stderr.

\b
Exit codes:
  0    all asked claims proved, or the stage done
  1    something refuted, or with verify --check a certificate not accepted
  2    bad usage or input
  3    nothing refuted, something undecided
  4    a bug of ours
  130  interrupted
"""
BAD_INPUT, BUG, INTERRUPTED = 2, 4, 130

app = typer.Typer(
    help=HELP,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"terminal_width": 100, "max_content_width": 100, "help_option_names": ["--help", "-h"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"specmine {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")] = False,
) -> None:
    """The options of the application itself."""


for command in (mine.mine, show.show, verify.verify, export.export, report.report, train.train, trace.trace):
    app.command()(command)
app.add_typer(data.app, name="data")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line on the arguments (the process's own by default) and returns its exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        app(args=given, prog_name="specmine")
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else BAD_INPUT if ended.code else 0
    except (SpecmineError, VerifierError) as error:
        say(f"{type(error).__name__}: {error}")
        return BAD_INPUT
    except KeyboardInterrupt:
        say("interrupted; the same command goes on from here")
        return INTERRUPTED
    except Exception as error:
        verbose = bool({"-v", "--verbose"} & set(given))
        say(traceback.format_exc() if verbose else f"bug: {type(error).__name__}: {error}")
        say("this is a bug of specmine; please report it with the command" + ("" if verbose else " and what --verbose adds"))
        return BUG
    return 0
