"""The commands and their options, and how every ending becomes a message and an exit code."""

import argparse
import errno
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from types import FrameType

from verifier import __version__
from verifier.cli import bench as bench_command
from verifier.cli import check as check_command
from verifier.cli import supports as supports_command
from verifier.cli import verify as verify_command
from verifier.cli.codes import BAD_INPUT, BUG, EXIT_CODES, INTERRUPTED, TERMINATED, UNHEARD
from verifier.errors import VerifierError
from verifier.jobs import process_start

NAME = "specmine verifier"
DESCRIPTION = """Decide queries over neural networks, and replay the evidence.

The answer goes to stdout, everything else to stderr. Command line and answers are those of VNN-LIB 2.0.
"""


class _Terminated(BaseException):
    """SIGTERM, as an exception, so that whatever runs is stopped on the way out."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line on the arguments (the process's own by default) and return its exit code."""
    try:
        code = _run(arguments)
        sys.stdout.flush()  # here, where a closed pipe can be told from a bug, not at the interpreter's end
        return code
    except BrokenPipeError:
        _discard_output()
        return UNHEARD


def _run(arguments: Sequence[str] | None) -> int:
    try:
        options = _parser().parse_args(arguments)
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else BAD_INPUT
    options.began = process_start() if arguments is None else time.monotonic()
    command: Callable[[argparse.Namespace], int] = options.run
    before = signal.signal(signal.SIGTERM, _terminate)
    try:
        return command(options)
    except VerifierError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return BAD_INPUT
    except BrokenPipeError:
        raise
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            return _bug(error, options)
        print(f"the output cannot be written: {error.strerror}", file=sys.stderr)
        _discard_output()
        return BAD_INPUT
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    except _Terminated:
        return TERMINATED
    except Exception as error:
        return _bug(error, options)
    finally:
        signal.signal(signal.SIGTERM, before)


def _bug(error: Exception, options: argparse.Namespace) -> int:
    print(traceback.format_exc() if options.verbose else f"bug: {type(error).__name__}: {error}", file=sys.stderr)
    print("this is a bug of the verifier; please report it with what --verbose prints", file=sys.stderr)
    return BUG


def _discard_output() -> None:
    """Let what is still buffered go nowhere, or the interpreter would complain of the closed pipe on its way out."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # a stream without a file behind it
            os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def _terminate(_number: int, _frame: FrameType | None) -> None:
    raise _Terminated


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="verifier", description=DESCRIPTION, epilog=EXIT_CODES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--name", action="version", version=NAME, help="print the name of the solver and exit")
    parser.add_argument("--version", action="version", version=__version__, help="print its version and exit")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for module in (verify_command, supports_command, bench_command, check_command):
        command = commands.add_parser(
            module.COMMAND, help=module.HELP, description=module.DESCRIPTION, epilog=EXIT_CODES, allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )  # fmt: skip
        module.add_options(command)
        loudness = command.add_mutually_exclusive_group()
        loudness.add_argument("-q", "--quiet", action="store_true", help="nothing on stderr but errors")
        loudness.add_argument("-v", "--verbose", action="store_true", help="each step on stderr; a traceback where a bug shows")
        command.set_defaults(run=module.run)
    return parser
