"""`verifier verify`: a light process that waits for a heavy one, so that the time limit holds whatever engine is busy."""

import argparse
import json
import os
import sys
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass

from verifier import __version__
from verifier.cli.assignment import check_folder, write_assignment
from verifier.cli.codes import BAD_INPUT, BUG, DECIDED, UNDECIDED
from verifier.errors import BadNetwork, BadQuery
from verifier.jobs import Ended, Job, run_job
from verifier.task import ENGINE_NAMES, Answer, Loaded, Reached, Request, Written, decide, last_reached

COMMAND = "verify"
HELP = "decide a VNN-LIB query"
DESCRIPTION = """Decide a VNN-LIB query: does an input of its region satisfy its assertions?

The first line of stdout is sat, unsat, unknown or timed-out. After sat comes the assignment: for each declared variable its
name, type and shape, then one value a line, in row-major order. Answers hold in real arithmetic over the stored weights;
sat has been replayed exactly, and unsat by bounds has passed the exact check that `verifier check` repeats.
"""

EARLIER_S = 0.3  # how long before the limit the solver is asked to end, and
STATUS_WIDTH = 79
LATER_S = 0.6  # how long after it the process is killed; an answer that comes in between still counts


@dataclass(frozen=True)
class Outcome:
    """What is printed: the word, why, and what the process sent on its way; reached: where there is no answer."""

    word: str
    reason: str
    answer: Answer | None
    loaded: Loaded | None
    written: Written | None
    reached: Reached | None
    seconds: float


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("query", help="the query: .vnnlib or .vnnlib.gz, VNN-LIB 1.0 or 2.0")
    parser.add_argument(
        "--network", required=True, action="append", metavar="NAME=FILE",
        help="the network that the query declares as NAME: .onnx, .onnx.gz or .network; FILE alone for VNN-LIB 1.0",
    )  # fmt: skip
    parser.add_argument("--timeout", type=seconds, default=60.0, metavar="SECONDS", help="wall-clock limit, start-up and reading included; 60 by default")  # noqa: E501  # fmt: skip
    parser.add_argument("--serialise-assignments", metavar="FOLDER", help="write the assignment as ONNX TensorProto files, not to stdout")  # noqa: E501  # fmt: skip
    parser.add_argument("--certificate", metavar="FILE", help="write the certificate of a proof, for `verifier check`")
    add_solver_options(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON document instead")


def add_solver_options(parser: argparse.ArgumentParser) -> None:
    """The options that verify and bench share."""
    names = f"{', '.join(ENGINE_NAMES[:-1])} or {ENGINE_NAMES[-1]}"
    parser.add_argument("--engine", default="auto", choices=ENGINE_NAMES, metavar="NAME", help=f"{names}: all in turn (auto, the default) or one alone")  # noqa: E501  # fmt: skip
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="seed of everything random; 0 by default")
    parser.add_argument("--device", default="cpu", metavar="NAME", help="where bounds, searches and attacks are computed, as torch names it, such as cuda; cpu by default. Proofs and counterexamples are replayed on the processor")  # noqa: E501  # fmt: skip
    parser.add_argument("--threads", type=whole, metavar="N", help="threads of the solver")
    parser.add_argument("--memory", type=gigabytes, metavar="GB", help="the most memory (10^9 bytes) it may use; beyond, the answer is unknown")  # noqa: E501  # fmt: skip


def seconds(text: str) -> float:
    """A finite number of seconds above 0, for argparse."""
    return _positive(text, "a number of seconds")


def gigabytes(text: str) -> float:
    """A finite number of gigabytes above 0, for argparse."""
    return _positive(text, "a number of gigabytes")


def _positive(text: str, what: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be {what} above 0, got {text}")
    return value


def whole(text: str) -> int:
    """A whole number above 0, for argparse."""
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number above 0, got {text}")
    return value


def run(options: argparse.Namespace) -> int:
    name, network = _named(options.network)
    _check_inputs(network, options.query)
    if options.certificate is not None:
        _check_certificate(options.certificate, network, options.query)
    if options.serialise_assignments is not None:
        check_folder(options.serialise_assignments)
    limit = options.began + options.timeout
    request = Request(
        network, options.query, limit - min(EARLIER_S, 0.1 * options.timeout), name, options.engine, options.seed,
        options.threads, options.certificate, options.device,
    )  # fmt: skip
    memory = None if options.memory is None else int(options.memory * 1e9)
    left = max(0.0, limit + LATER_S - time.monotonic())
    job = Job(decide, request, seconds=left, memory_bytes=memory, mute=options.quiet)
    ended = run_job(job, watch=_watch(job, options))
    if ended.end == "refused":
        print(ended.reason, file=sys.stderr)
        return BAD_INPUT
    outcome = _outcome(ended)
    _report(outcome, options)
    if outcome.answer is None and ended.end in ("bug", "crashed"):
        print("this is a bug of the verifier; please report it with what --verbose prints", file=sys.stderr)
        return BUG
    return DECIDED if outcome.word in ("sat", "unsat") else UNDECIDED


def _named(given: list[str]) -> tuple[str | None, str]:
    if len(given) > 1:
        raise BadQuery(f"got {len(given)} networks; queries over one network are supported, give --network once")
    (text,) = given
    name, equals, path = text.partition("=")
    if not equals or os.path.exists(text):
        return None, text
    if not name or not path:
        raise BadQuery(f"--network {text!r} must be NAME=FILE, such as f=model.onnx")
    return name, path


def _check_inputs(network: str, query: str) -> None:
    """What can be seen without reading, before anything heavy starts."""
    for path, error, what in ((network, BadNetwork, "network"), (query, BadQuery, "VNN-LIB")):
        if os.path.isdir(path):
            raise error(f"{path}: is a folder; give the path of a {what} file")
        if not os.path.isfile(path):
            raise error(f"{path}: no such file; give the path of a {what} file")


def _check_certificate(path: str, network: str, query: str) -> None:
    folder = os.path.dirname(os.path.abspath(path))
    if os.path.isdir(path) or not os.path.basename(path):
        raise BadQuery(f"--certificate {path!r}: is a folder; give the path of a file")
    if not os.access(folder, os.W_OK):
        raise BadQuery(f"--certificate {path!r}: the folder {folder!r} cannot be written to; make it first")
    if os.path.exists(path) and not os.access(path, os.W_OK):
        raise BadQuery(f"--certificate {path!r}: the file cannot be written to; name another")
    if os.path.isfile(path) and os.path.getsize(path):
        read = [given for given in (network, query) if os.path.samefile(path, given)]
        if read or not zipfile.is_zipfile(path):
            raise BadQuery(f"--certificate {path!r}: is there already, and no certificate; name another file")


def _outcome(ended: Ended) -> Outcome:
    sent = [message for _, message in ended.messages]
    answer = next((m for m in sent if isinstance(m, Answer)), None)
    loaded = next((m for m in sent if isinstance(m, Loaded)), None)
    written = next((m for m in sent if isinstance(m, Written)), None)
    if answer is not None:
        # sound: the answer was complete before the process ended, whatever ended it
        word, reason = answer.word, answer.reason
    else:
        word, reason = "timed-out" if ended.end == "timed-out" else "unknown", ended.reason
    reached = last_reached(ended.messages) if answer is None else None
    return Outcome(word, reason, answer, loaded, written, reached, ended.seconds)


def _report(outcome: Outcome, options: argparse.Namespace) -> None:
    answer = outcome.answer
    if options.json:
        print(json.dumps(_document(outcome, options), indent=1))
    else:
        print(outcome.word)
        if answer is not None and answer.assignment and options.serialise_assignments is None:
            print(answer.assignment.rstrip("\n"))
    sys.stdout.flush()
    if answer is not None and answer.assignment and options.serialise_assignments is not None:
        write_assignment(answer.assignment, options.serialise_assignments)
    if outcome.loaded is not None and outcome.loaded.note and not options.quiet:
        print(outcome.loaded.note, file=sys.stderr)
    if outcome.reason:
        print(outcome.reason if options.verbose else outcome.reason.rstrip().splitlines()[-1], file=sys.stderr)
    if options.certificate:
        _say_of_certificate(outcome, options)
    if options.verbose:
        _say_more(outcome)


def _say_of_certificate(outcome: Outcome, options: argparse.Namespace) -> None:
    problem = _problem(outcome)
    if problem and (outcome.word == "unsat" or not options.quiet):
        older = f"; {options.certificate} is an older one" if os.path.isfile(options.certificate) else ""
        print(f"no certificate: {problem}{older}", file=sys.stderr)
    elif not problem and outcome.loaded is not None and not (options.quiet or options.json or options.verbose):
        print(f"certificate of query sha256 {outcome.loaded.query_sha256}", file=sys.stderr)


def _problem(outcome: Outcome) -> str:
    """Why there is no certificate; empty where there is one."""
    match outcome.word:
        case "sat":
            return "the answer is sat, whose evidence is the assignment"
        case "unsat":
            return "the time limit came first" if outcome.written is None else outcome.written.problem
        case _:
            return "nothing was proved"


def _say_more(outcome: Outcome) -> None:
    if outcome.loaded is not None:
        print(f"network sha256 {outcome.loaded.network_sha256}", file=sys.stderr)
        print(f"query sha256   {outcome.loaded.query_sha256}", file=sys.stderr)
        print(f"start and read {outcome.loaded.seconds:.2f} s", file=sys.stderr)
    found = outcome.answer or outcome.reached
    if found is not None:
        spent = f"{found.seconds:.2f} s" if isinstance(found, Answer) else "stopped at the limit"
        print(f"solver         {spent}, {_reached(found)}", file=sys.stderr)
    print(f"in all         {outcome.seconds:.2f} s", file=sys.stderr)


def _document(outcome: Outcome, options: argparse.Namespace) -> dict[str, object]:
    answer, loaded, written = outcome.answer, outcome.loaded, outcome.written
    found = answer or outcome.reached
    return {
        "answer": outcome.word,
        "reason": outcome.reason,
        "note": loaded.note if loaded else "",
        "semantics": "real arithmetic over the stored weights",
        "engine": answer.engine if answer else options.engine,
        "bound": found.bound if found else None,
        "splits": found.splits if found else None,
        "seconds": {
            "start_and_read": loaded.seconds if loaded else None,
            "solver": answer.seconds if answer else None,
            "total": outcome.seconds,
        },
        "counterexample": list(answer.counterexample) if answer and answer.word == "sat" else None,
        "assignment": answer.assignment if answer and answer.word == "sat" else None,
        "certificate": options.certificate if written and not written.problem else None,
        "network_sha256": loaded.network_sha256 if loaded else None,
        "query_sha256": loaded.query_sha256 if loaded else None,
        "version": __version__,
    }


def _watch(job: Job, options: argparse.Namespace) -> Callable[[float], None] | None:
    """What the solver says of itself: with --verbose a line for each engine; else, on a terminal, one that is rewritten."""
    if options.quiet or not (options.verbose or sys.stderr.isatty()):
        return None
    shown: object = None

    def watch(seconds: float) -> None:
        nonlocal shown
        reached = last_reached(job.messages)
        if options.verbose:
            if reached is not None and reached.engine != shown:
                shown = reached.engine
                print(f"{seconds:6.1f} s       {_reached(reached)}", file=sys.stderr, flush=True)
        elif int(seconds) != shown:
            shown = int(seconds)
            text = f"{shown} s of {options.timeout:g} s" + ("" if reached is None else f", {_reached(reached)}")
            sys.stderr.write(f"\r{text:<{STATUS_WIDTH}.{STATUS_WIDTH}}\r")
            sys.stderr.flush()

    return watch


def _reached(found: Answer | Reached) -> str:
    bound = "none" if found.bound is None else f"{found.bound:.6g}"
    return f"engine {found.engine}, best bound {bound}, {found.splits} splits"
