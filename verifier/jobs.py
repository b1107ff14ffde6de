"""Work in a process of its own that can be stopped: at a deadline, at a memory limit, or when this process ends.

A solver in native code may hold the interpreter for minutes, so nothing that runs in its own process can keep a time limit
for it. A `Job` is a forked process; whoever holds it only waits, and stays free of heavy imports and of threads.
"""

import ctypes
import gc
import multiprocessing
import os
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import connection
from pathlib import Path
from typing import Any, Literal, TypeAlias

from verifier.errors import VerifierError

Send: TypeAlias = Callable[[Any], None]
Work: TypeAlias = Callable[[Any, Send], None]
End: TypeAlias = Literal["done", "refused", "bug", "memory", "crashed", "timed-out"]

FORK = multiprocessing.get_context("fork")
STOPS = (signal.SIGINT, signal.SIGTERM)
LOOK_EVERY_S = 0.05  # how often memory and deadline are looked at
DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG of Linux
OUT_OF_MEMORY = ("not enough memory", "can't allocate memory", "cannot allocate memory", "bad_alloc", "out of memory")


@dataclass(frozen=True)
class Ended:
    """How a job came to its end.

    end: done; refused (a VerifierError, bad input); bug (another exception); memory (over its limit, or refused by the system);
    crashed (killed by a signal, or gone without a word); timed-out (killed at its deadline). messages: what it sent, in order,
    each with the seconds since its start. peak_bytes: the most memory seen, 0 where nobody looked.
    """

    end: End
    reason: str
    messages: tuple[tuple[float, Any], ...]
    seconds: float
    peak_bytes: int


@dataclass(frozen=True)
class _Last:
    """The last message of a process."""

    end: End
    reason: str
    peak_bytes: int


class Job:
    """A process that runs work(request, send) at once; seconds: from now to the moment it is killed.

    memory_bytes: the resident memory, its children's included, beyond which it is killed. mute: its output goes nowhere; else
    what it prints, native libraries included, goes to stderr. Messages must be picklable. Use `wait` and `poll`, and `stop`
    whatever happens.
    """

    def __init__(
        self, work: Work, request: Any, *, seconds: float, memory_bytes: int | None = None, mute: bool = False
    ) -> None:
        self.began = time.monotonic()
        self.deadline = self.began + seconds
        self.memory_bytes, self.peak_bytes = memory_bytes, 0
        self.messages: list[tuple[float, Any]] = []
        self.receiver, sender = FORK.Pipe(duplex=False)
        self.process = FORK.Process(target=_run, args=(work, request, sender, self.receiver, mute, os.getpid()))
        gc.freeze()  # what is here already is not looked at again in the copy, so its memory stays shared
        # an interrupt in here would be lost in a hook that runs at a fork, or leave a process that nobody holds, so it waits
        before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
        try:
            self.process.start()
            sender.close()
            with suppress(OSError):  # the process does so too; whoever comes first
                os.setpgid(self._pid, self._pid)
        except BaseException:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            raise
        try:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        except BaseException:
            self.stop()
            raise

    @property
    def _pid(self) -> int:
        assert self.process.pid is not None
        return self.process.pid

    def poll(self) -> Ended | None:
        """What is new; None while the job goes on."""
        now, alive = time.monotonic(), self.process.is_alive()
        last = self._receive()  # looked at after `alive`, so that the words of a process that just ended are heard
        if last is not None:
            return self._ended(last.end, last.reason, max(last.peak_bytes, self.peak_bytes))
        if not alive:
            return self._gone()
        if now > self.deadline:
            return self._ended("timed-out", "killed at the time limit", self.peak_bytes)
        if self.memory_bytes is not None:
            self.peak_bytes = max(self.peak_bytes, resident_bytes(self._pid))
            if self.peak_bytes > self.memory_bytes:
                return self._ended("memory", f"killed at the memory limit of {_gigabytes(self.memory_bytes)}", self.peak_bytes)
        return None

    def stop(self) -> None:
        """Kill the process and its children, if they still live, and wait until they are gone."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._pid, signal.SIGKILL)
        self.process.join()
        self.receiver.close()

    def _receive(self) -> _Last | None:
        with suppress(EOFError, OSError):
            while self.receiver.poll():
                message = self.receiver.recv()
                if isinstance(message, _Last):
                    return message
                self.messages.append((time.monotonic() - self.began, message))
        return None

    def _gone(self) -> Ended:
        self.process.join()
        code = self.process.exitcode
        if code == -signal.SIGKILL:
            return self._ended("memory", "killed by the system, most likely out of memory", self.peak_bytes)
        how = f"by {signal.Signals(-code).name}" if code is not None and code < 0 else f"with exit code {code}"
        return self._ended("crashed", f"the process ended {how}", self.peak_bytes)

    def _ended(self, end: End, reason: str, peak_bytes: int) -> Ended:
        seconds = time.monotonic() - self.began
        self.stop()
        return Ended(end, reason, tuple(self.messages), seconds, peak_bytes)


def wait(jobs: Sequence[Job], *, seconds: float = LOOK_EVERY_S) -> None:
    """Return when one of the jobs has something to say, or after that many seconds."""
    connection.wait([end for job in jobs for end in (job.receiver, job.process.sentinel)], timeout=seconds)


def run_job(job: Job, *, watch: Callable[[float], None] | None = None) -> Ended:
    """Wait for the job's end; it is killed when this is interrupted. watch(seconds so far) is called now and then."""
    try:
        while True:
            ended = job.poll()
            if ended is not None:
                return ended
            if watch is not None:
                watch(time.monotonic() - job.began)
            wait([job])
    finally:
        job.stop()


def resident_bytes(pid: int) -> int:
    """Resident memory of a process and its descendants; 0 where the system does not tell (no /proc)."""
    total = 0
    with suppress(OSError, ValueError, IndexError):
        total += int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize()
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            total += resident_bytes(int(child))
    return total


def available_bytes() -> int | None:
    """Memory that new processes may take without swapping; None where the system does not tell."""
    with suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return None


def process_start() -> float:
    """The time.monotonic() at which this process began, before the interpreter was up; now, where the system does not tell."""
    now, age_s = time.monotonic(), 0.0
    with suppress(OSError, ValueError, IndexError, AttributeError):
        ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])  # since the system was started
        age_s = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    return now - max(0.0, age_s)


def die_with_parent(parent: int) -> None:
    """Have the system kill this process when its parent ends (Linux; elsewhere the parent's own care must do)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(DIE_WITH_PARENT, signal.SIGKILL)
        if os.getppid() != parent:  # it ended before we asked
            os._exit(1)


def _run(
    work: Work, request: Any, sender: connection.Connection, receiver: connection.Connection, mute: bool, parent: int
) -> None:
    """The life of the process; it leaves without the clean-up of the interpreter, which a hanging thread could block."""
    with suppress(OSError):
        os.setpgid(0, 0)
    die_with_parent(parent)
    receiver.close()
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")  # short of memory, the system kills this one first
    _redirect_output(mute)
    last = _work(work, request, sender.send)
    sender.send(last)
    sender.close()
    sys.stderr.flush()
    os._exit(0)


def _redirect_output(mute: bool) -> None:
    """stdout is the answer's, so what libraries print there goes to stderr."""
    sys.stdout.flush()
    target = os.open(os.devnull, os.O_WRONLY) if mute else 2
    os.dup2(target, 1)
    if mute:
        os.dup2(target, 2)
        sys.stderr = open(target, "w")  # noqa: SIM115
    sys.stdout = sys.stderr


def _work(work: Work, request: Any, send: Send) -> _Last:
    end: End = "done"
    reason = ""
    try:
        work(request, send)
    except VerifierError as error:
        end, reason = "refused", f"{type(error).__name__}: {error}"
    except MemoryError:
        end, reason = "memory", "the system has no more memory"
    except Exception as error:
        scarce = any(words in str(error).lower() for words in OUT_OF_MEMORY)
        end = "memory" if scarce else "bug"
        reason = str(error).splitlines()[0] if scarce else traceback.format_exc()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return _Last(end, reason, peak)


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:.3g} GB"
