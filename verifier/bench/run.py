"""The runner: forks a process for each instance from one that has torch loaded already, and waits for what comes back."""

import importlib
import os
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass

from verifier.bench.instances import Instance
from verifier.bench.replay_types import Replay, ReplayRequest
from verifier.bench.rows import Row, judge
from verifier.jobs import Ended, Job, Send, wait
from verifier.task import Answer, Request, decide

EARLIER_S = 0.3  # how long before the limit the solver is asked to end, so that it can tell its best bound
LATER_S = 0.7  # how long after the limit a process is killed
REPLAY_S = 120.0
PRELOADED = ("verifier.solve", "verifier.formats.vnnlib")  # loaded once; every process is a copy of this one


@dataclass(frozen=True)
class Settings:
    """jobs: how many instances at a time. threads: of each solver; the processors shared out among the jobs by default.

    memory_bytes: the most that each may use. device: as for `verifier.verify`. verbose: let the processes write to stderr.
    """

    engine: str = "auto"
    seed: int = 0
    jobs: int = 1
    threads: int | None = None
    memory_bytes: int | None = None
    device: str = "cpu"
    verbose: bool = False


@dataclass
class _Slot:
    """An instance on its way: its process, then the process that replays its counterexample."""

    instance: Instance
    job: Job
    asked: str
    ended: Ended | None = None


def run_bench(instances: Sequence[Instance], settings: Settings) -> Generator[Row | None]:
    """Yield a row as each instance ends, and None now and then between, for whoever shows progress.

    The caller must have started no threads: processes are forked from here. Closing the iterator stops what runs.
    """
    for name in PRELOADED:
        importlib.import_module(name)
    waiting, slots = list(reversed(instances)), list[_Slot]()
    try:
        while waiting or slots:
            while waiting and len(slots) < settings.jobs:
                slots.append(_start(waiting.pop(), settings))
            wait([slot.job for slot in slots])
            for slot in list(slots):
                row = _advance(slot)
                if row is not None:
                    slots.remove(slot)
                    yield row
            yield None
    finally:
        for slot in slots:
            slot.job.stop()


def _start(instance: Instance, settings: Settings) -> _Slot:
    limit = instance.timeout_s
    until = time.monotonic() + limit - min(EARLIER_S, 0.1 * limit)
    threads = settings.threads or max(1, (os.cpu_count() or 1) // settings.jobs)
    request = Request(
        instance.network_file,
        instance.query_file,
        until,
        engine=settings.engine,
        seed=settings.seed,
        threads=threads,
        device=settings.device,
    )
    job = Job(decide, request, seconds=limit + LATER_S, memory_bytes=settings.memory_bytes, mute=not settings.verbose)
    return _Slot(instance, job, settings.engine)


def _advance(slot: _Slot) -> Row | None:
    ended = slot.job.poll()
    if ended is None:
        return None
    if slot.ended is not None:
        return judge(slot.instance, slot.ended, _replay_of(ended), asked=slot.asked)
    answer = next((message for _, message in ended.messages if isinstance(message, Answer)), None)
    if answer is None or answer.word != "sat":
        return judge(slot.instance, ended, None, asked=slot.asked)
    request = ReplayRequest(slot.instance.network_file, slot.instance.query_file, answer.counterexample)
    slot.ended, slot.job = ended, Job(_replay, request, seconds=REPLAY_S, mute=True)
    return None


def _replay(request: ReplayRequest, send: Send) -> None:
    try:
        from verifier.bench.replay import replay
    except ImportError as error:
        send(Replay(None, f"not replayed: {error}; pip install onnxruntime"))
        return
    send(replay(request))


def _replay_of(ended: Ended) -> Replay:
    lines = ended.reason.strip().splitlines() or [ended.end]
    found = (message for _, message in ended.messages if isinstance(message, Replay))
    return next(found, Replay(None, f"not replayed: {lines[-1]}"))
