"""One query from its files to an answer: what a process of its own does for the command line and for the benchmark runner.

Heavy packages are imported inside functions: the process that waits for the answer imports this module too.
"""

import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing import connection
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, assert_never

from verifier.errors import BadQuery, VerifierError
from verifier.jobs import FORK, Send, die_with_parent

if TYPE_CHECKING:
    from verifier.formats.vnnlib_declarations import Declaration
    from verifier.query import Query
    from verifier.strategy import Progress
    from verifier.verdict import Decision

ENGINE_NAMES = ("auto", "falsify", "bound", "boxes", "split", "lemmas", "lp", "milp", "smt")
"""The keys of `verifier.solve.ENGINES`, for who must not wait for its imports."""

AnswerWord: TypeAlias = Literal["sat", "unsat", "unknown", "timed-out"]


@dataclass(frozen=True)
class Request:
    """until: the time.monotonic() by which the solver should be done. network_name: as the query declares it, if given."""

    network: str
    query: str
    until: float
    network_name: str | None = None
    engine: str = "auto"
    seed: int = 0
    threads: int | None = None
    certificate: str | None = None
    device: str = "cpu"


@dataclass(frozen=True)
class Loaded:
    """Sent when network and query are read and the solver is at hand. note: what the query's author should know."""

    network_sha256: str
    query_sha256: str
    seconds: float
    note: str = ""


@dataclass(frozen=True)
class Answer:
    """Sent when the query is decided, or given up. seconds: of the solver alone. assignment: as VNN-LIB writes it."""

    word: AnswerWord
    reason: str
    engine: str
    seconds: float
    bound: float | None
    splits: int
    counterexample: tuple[float, ...] = ()
    assignment: str = ""


@dataclass(frozen=True)
class Reached:
    """Sent now and then before the answer: the engine at work, the best bound, None where there is none yet, and the splits."""

    engine: str
    bound: float | None
    splits: int


@dataclass(frozen=True)
class Written:
    """Sent when the certificate is written; problem: why there is none, empty where there is one."""

    bytes: int
    problem: str = ""


@dataclass(frozen=True, eq=False)
class Problem:
    """A query, with what its text declares where that is of version 2.0."""

    query: "Query"
    declaration: "Declaration | None"


def decide(request: Request, send: Send) -> None:
    """Read, decide, and send `Loaded`, `Reached` as often as it has news, `Answer` and, if one was asked for, `Written`.

    Raises VerifierError for bad input.
    """
    began = time.monotonic()
    problem = load(request.network, request.query, request.network_name) if "torch" in sys.modules else _load_apart(request)
    query = problem.query
    import torch

    from verifier.solve import verify

    if request.threads is not None:
        torch.set_num_threads(request.threads)
    send(Loaded(query.network.sha256, query.sha256, time.monotonic() - began, _note(problem)))
    left = request.until - time.monotonic()
    if left <= 0:
        send(Answer("timed-out", "no time left after reading the files", request.engine, 0.0, None, 0))
        return
    began = time.monotonic()

    def tell(_: int, progress: "Progress") -> None:
        send(Reached(progress.engine, progress.bound, progress.splits))

    decision = verify(query, timeout_s=left, engine=request.engine, seed=request.seed, device=request.device, on_progress=tell)
    send(_answer(problem, decision, time.monotonic() - began))
    if request.certificate is not None:
        send(_write(query, decision, request.certificate))


def find_device(name: str, _send: Send) -> None:
    """Raise BadQuery for a device that torch cannot use. For a process of its own: once one has begun to use an accelerator,
    its copies cannot."""
    from verifier.device import device_named

    device_named(name)


def load(network_path: str, query_path: str, network_name: str | None = None) -> Problem:
    """The query of a VNN-LIB file over the network of a model file.

    network_name: what the query must declare the network as. Raises VerifierError where either cannot be read.
    """
    from verifier.formats import read_network
    from verifier.formats.vnnlib import declared_networks, parse_vnnlib, read_text

    text = read_text(query_path)
    query = parse_vnnlib(text, read_network(network_path), name=query_path)
    declaration = next(iter(declared_networks(text, name=query_path)), None)
    if network_name is not None and declaration is not None and declaration.name != network_name:
        raise BadQuery(f"{query_path}: declares network {declaration.name}, got --network {network_name}=...; name it so")
    return Problem(query, declaration)


def last_reached(messages: Sequence[tuple[float, Any]]) -> Reached | None:
    """The last `Reached` among the messages of a job."""
    return next((message for _, message in reversed(messages) if isinstance(message, Reached)), None)


def _note(problem: Problem) -> str:
    from verifier.query import emptied_input

    entry = emptied_input(problem.query)
    if entry is not None:
        return f"vacuous: the bounds of input entry {entry} contradict each other, so no input is asked about"
    tensors = () if problem.declaration is None else problem.declaration.tensors
    rounded = ", ".join(f"{t.name} {t.element_type}" for t in tensors if t.element_type != "real")
    return f"declared {rounded}: answered in real arithmetic, as if declared real" if rounded else ""


def _load_apart(request: Request) -> Problem:
    """`load` in a second process while this one imports torch: each takes about a second."""
    receiver, sender = FORK.Pipe(duplex=False)
    process = FORK.Process(target=_read_and_send, args=(request, sender, os.getpid()))
    process.start()
    sender.close()
    import verifier.solve  # noqa: F401

    try:
        result = receiver.recv()
    except EOFError:
        process.join()
        raise MemoryError from None  # killed while reading; nothing else ends it without a word
    process.join()
    if isinstance(result, tuple):
        kind, text = result
        error = kind.__new__(kind)
        error.args = (text,)
        raise error
    return result


def _read_and_send(request: Request, sender: connection.Connection, parent: int) -> None:
    die_with_parent(parent)
    try:
        sender.send(load(request.network, request.query, request.network_name))
    except VerifierError as error:
        sender.send((type(error), str(error)))


def _answer(problem: Problem, decision: "Decision", seconds: float) -> Answer:
    from verifier.formats.vnnlib_assignment import format_counterexample
    from verifier.verdict import Proved, Refuted, Unknown

    def answer(word: AnswerWord, reason: str = "", point: Any = None) -> Answer:
        found: dict[str, Any] = {}
        if point is not None:
            text = format_counterexample(problem.query, point, declaration=problem.declaration)
            found = {"counterexample": tuple(point.tolist()), "assignment": text}
        return Answer(word, reason, decision.engine, seconds, decision.bound, decision.splits, **found)

    match decision.verdict:
        case Proved():
            return answer("unsat")
        case Refuted(counterexample=point):
            return answer("sat", point=point)
        case Unknown(reason=reason, detail=detail):
            text = f"{reason}: {detail}" if detail else reason
            return answer("timed-out" if reason == "timeout" else "unknown", text)
        case _:
            assert_never(decision.verdict)


def _write(query: "Query", decision: "Decision", path: str) -> Written:
    from verifier.check import write_certificate
    from verifier.verdict import Proved

    if not isinstance(decision.verdict, Proved):
        return Written(0, "there is none, for nothing was proved")
    if decision.verdict.certificate is None:
        return Written(0, f"there is none: {decision.engine} decided exactly, without bounds to replay")
    try:
        write_certificate(query, decision.verdict.certificate, path)
        return Written(Path(path).stat().st_size)
    except OSError as error:
        return Written(0, f"cannot be written: {error.strerror or error}")
