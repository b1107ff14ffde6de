"""Processes that are stopped: whatever happens inside one, whoever holds it gets an answer and nothing is left behind."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from verifier.errors import BadQuery
from verifier.jobs import Job, available_bytes, resident_bytes, run_job

LONG_S = 60.0


def sends_twice(request, send):
    send(request)
    send(request * 2)


def refuses(request, send):
    raise BadQuery("no such thing")


def breaks(request, send):
    send("first")
    raise ZeroDivisionError("by zero")


def runs_out(request, send):
    raise MemoryError


def is_refused_memory(request, send):
    raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 10^15 bytes")


def is_killed(number, send):
    os.kill(os.getpid(), number)


def holds_the_interpreter(request, send):
    send("began")
    re.match(r"(a+)+$", "a" * 60 + "b")  # backtracks for ages in one C call


def grows(request, send):
    kept = []
    while True:
        kept.append(bytearray(b"1" * 20_000_000))
        time.sleep(0.01)


def has_a_child(request, send):
    pid = os.fork()
    if pid == 0:
        time.sleep(LONG_S)
        os._exit(0)
    send(pid)
    time.sleep(LONG_S)


def prints(request, send):
    print("from python")
    os.write(1, b"from a native library\n")


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def gone_soon(pid):
    for _ in range(200):
        if not alive(pid):
            return True
        time.sleep(0.05)
    return False


def test_messages_come_in_order_with_their_times():
    ended = run_job(Job(sends_twice, 21, seconds=LONG_S))
    assert ended.end == "done" and ended.reason == ""
    assert [message for _, message in ended.messages] == [21, 42]
    assert 0 <= ended.messages[0][0] <= ended.messages[1][0] <= ended.seconds
    assert ended.peak_bytes > 1_000_000


@pytest.mark.parametrize(
    ("work", "request_", "end", "words"),
    [
        (refuses, None, "refused", "BadQuery: no such thing"),
        (breaks, None, "bug", "ZeroDivisionError: by zero"),
        (runs_out, None, "memory", "no more memory"),
        (is_refused_memory, None, "memory", "can't allocate"),
        (is_killed, signal.SIGSEGV, "crashed", "SIGSEGV"),
        (is_killed, signal.SIGKILL, "memory", "out of memory"),
    ],
)
def test_every_end_has_its_name(work, request_, end, words):
    ended = run_job(Job(work, request_, seconds=LONG_S, mute=True))
    assert ended.end == end and words in ended.reason


def test_what_was_sent_before_the_end_is_kept():
    assert [m for _, m in run_job(Job(breaks, None, seconds=LONG_S)).messages] == ["first"]


def test_a_process_that_holds_the_interpreter_is_killed_at_the_deadline():
    ended = run_job(Job(holds_the_interpreter, None, seconds=1.0))
    assert ended.end == "timed-out"
    assert [m for _, m in ended.messages] == ["began"]
    assert 1.0 <= ended.seconds < LONG_S


def test_a_process_beyond_its_memory_is_killed():
    limit = resident_bytes(os.getpid()) + 300_000_000
    ended = run_job(Job(grows, None, seconds=LONG_S, memory_bytes=limit))
    assert ended.end == "memory" and "memory limit" in ended.reason
    assert limit < ended.peak_bytes


def test_memory_is_measured():
    held = bytearray(b"1" * 50_000_000)
    assert resident_bytes(os.getpid()) > len(held)
    assert resident_bytes(2**30) == 0
    free = available_bytes()
    assert free is None or free > 0


def test_a_process_knows_when_it_began():
    code = "import time; time.sleep(0.5); from verifier.jobs import process_start; print(time.monotonic() - process_start())"
    age_s = float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout)
    assert (0.5 if sys.platform == "linux" else 0.0) <= age_s + 0.02 and age_s < LONG_S


def test_children_of_a_process_end_with_it():
    ended = run_job(Job(has_a_child, None, seconds=0.5))
    ((_, pid),) = ended.messages
    assert ended.end == "timed-out" and gone_soon(pid)


def test_an_interrupt_leaves_nothing_behind():
    job = Job(has_a_child, None, seconds=LONG_S)

    def interrupt(_seconds):
        job.poll()
        if job.messages:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_job(job, watch=interrupt)
    ((_, child),) = job.messages
    assert gone_soon(child) and not job.process.is_alive()


def test_output_goes_to_stderr_or_nowhere(capfd):
    run_job(Job(prints, None, seconds=LONG_S))
    out, err = capfd.readouterr()
    assert out == "" and "from python" in err and "from a native library" in err
    run_job(Job(prints, None, seconds=LONG_S, mute=True))
    assert capfd.readouterr() == ("", "")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a process with its parent")
def test_a_process_ends_with_its_parent():
    code = (
        "import time\nfrom verifier.jobs import Job, run_job\n"
        "def work(request, send):\n    import os\n    send(os.getpid())\n    time.sleep(60)\n"
        "job = Job(work, None, seconds=60)\n"
        "def show(_):\n    job.poll()\n    print(job.messages[0][1] if job.messages else '', flush=True)\n"
        "run_job(job, watch=show)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = next(int(line) for line in parent.stdout if line.strip())
        assert alive(pid)
        parent.kill()
        parent.wait()
        assert gone_soon(pid)
