"""Tables on disk: as those in memory, merged, resumed after a kill or a full disk, refused where they are of another model."""

import errno
import os
import pathlib
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from specmine.errors import BadData, BadRun
from specmine.folder import locked
from specmine.predicates.predicate import Predicate
from specmine.predicates.store import identity_of, merge_tables, open_table, write_table
from specmine.predicates.table import build_table, conjunction, counts, sample_bits, select, select_predicates
from specmine.tracing import Sites, trace
from specmine.tracing.digest import join_digests, samples_digest
from specmine.tracing.stream import Stream, part_of
from verifier.network import Network, Node
from verifier.ops import Linear, Relu

SIZE, SAMPLES = 5, 9000


def network(seed=0):
    draw = np.random.default_rng(seed)
    first, last = (Linear(draw.normal(size=(SIZE, SIZE)), np.zeros(SIZE)) for _ in range(2))
    return Network("in", (1, SIZE), (Node("a", first, ("in",)), Node("b", Relu(), ("a",)), Node("c", last, ("b",))), "c")


SITES = Sites(network())
SOURCE = Stream(SITES, np.random.default_rng(1).normal(size=(SAMPLES, SIZE)))
THRESHOLDS = np.random.default_rng(2).normal(size=2200).tolist()
PREDICATES = [Predicate("class", (0,)), *(Predicate("less", ("z1", i, "h1", j)) for i in range(SIZE) for j in range(SIZE))]
PREDICATES += [Predicate(form, ("z1", n % SIZE, t)) for n, t in enumerate(THRESHOLDS) for form in ("above", "below")]
PREDICATES += [Predicate(form, ("h1", n)) for n in range(SIZE) for form in ("active", "inactive")]
MEMORY = build_table(PREDICATES, SOURCE)


class Steps:
    """Progress that notes how many samples each stage went through."""

    def __init__(self):
        self.steps = 0

    def start(self, stage, total=None):
        pass

    def advance(self, steps=1, text=""):
        self.steps += steps

    def finish(self, text=""):
        pass


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    return write_table(tmp_path_factory.mktemp("tables") / "table.zarr", PREDICATES, SOURCE)


def files_of(path):
    return {str(p.relative_to(path)): p.read_bytes() for p in path.rglob("*") if p.is_file() and p.name != ".lock"}


def test_bits_and_questions_equal_those_in_memory(stored):
    mask = np.random.default_rng(3).integers(0, 2**63, size=MEMORY.bits.shape[1]).astype(np.uint64) & MEMORY.bits[0]
    rows = np.array([700, 3, 1100])
    assert stored.predicates == tuple(PREDICATES) and stored.samples == SAMPLES
    assert (stored.words(slice(None)) == MEMORY.bits).all()
    assert (stored.words(rows, slice(70, 90)) == MEMORY.bits[rows, 70:90]).all()
    assert (counts(stored) == counts(MEMORY)).all() and (counts(stored, mask) == counts(MEMORY, mask)).all()
    assert (conjunction(stored, rows) == conjunction(MEMORY, rows)).all() and (
        conjunction(stored, []) == conjunction(MEMORY, [])
    ).all()
    assert (sample_bits(stored, 8999) == sample_bits(MEMORY, 8999)).all()
    assert (select(stored, slice(10, 500)).bits == select(MEMORY, slice(10, 500)).bits).all()
    assert (select_predicates(stored, rows).bits == MEMORY.bits[rows]).all()


def test_reading_some_words_reads_only_their_chunks(stored, monkeypatch):
    read = []
    original = pathlib.Path.read_bytes
    monkeypatch.setattr(pathlib.Path, "read_bytes", lambda path: read.append(path) or original(path))
    stored.words(np.array([1030]), slice(0, 10))
    assert len([path for path in read if path.name != "zarr.json"]) == 1


def test_memory_and_workers_do_not_change_bits(tmp_path, stored):
    narrow = write_table(tmp_path / "narrow", PREDICATES, SOURCE, memory_mb=0.5)
    assert narrow.bits.chunks[1] < stored.bits.chunks[1] and (narrow.words(slice(None)) == MEMORY.bits).all()
    with ThreadPoolExecutor(3) as threads:
        shared = write_table(tmp_path / "shared", PREDICATES, SOURCE, executor=threads)
    assert files_of(shared.path) == files_of(stored.path)


@pytest.mark.parametrize("half", [4096, 5003, 64, 8999])
def test_two_half_runs_merged_equal_the_whole(tmp_path, stored, half):
    first = write_table(tmp_path / "first", PREDICATES, part_of(SOURCE, slice(0, half)))
    second = write_table(tmp_path / "second", PREDICATES, part_of(SOURCE, slice(half, None)))
    merged = merge_tables(tmp_path / "merged", first, second)
    assert merged.identity == stored.identity and (merged.words(slice(None)) == MEMORY.bits).all()
    assert files_of(merged.path) == files_of(stored.path)


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 300), st.integers(1, 300))
def test_merging_any_sizes(tmp_path_factory, one, two):
    folder = tmp_path_factory.mktemp("merge")
    parts = [part_of(SOURCE, slice(0, one)), part_of(SOURCE, slice(one, one + two))]
    tables = [write_table(folder / name, PREDICATES[20:40], p, memory_mb=0.01) for name, p in zip("ab", parts, strict=True)]
    merged = merge_tables(folder / "c", *tables)
    assert (merged.words(slice(None)) == build_table(PREDICATES[20:40], part_of(SOURCE, slice(0, one + two))).bits).all()


def test_a_finished_table_is_found(stored):
    steps = Steps()
    assert write_table(stored.path, PREDICATES, SOURCE, progress=steps).identity == stored.identity
    assert steps.steps == 0


def test_two_writers_do_not_meet(stored):
    with locked(stored.path), pytest.raises(BadRun, match="another run works in"):
        write_table(stored.path, PREDICATES, SOURCE)


def test_no_predicates(tmp_path):
    assert write_table(tmp_path / "none", [], SOURCE).words(slice(None)).shape == (0, len(MEMORY.bits[0]))


class Failing:
    """A file that takes half of what is written to it, and then the disk is full."""

    def __init__(self, file):
        self.file = file

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.file.close()

    def write(self, data):
        self.file.write(bytes(data)[: len(data) // 2])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("writes", range(0, 12, 2))
def test_a_disk_that_fills_leaves_nothing_corrupt(tmp_path, monkeypatch, stored, writes):
    path, opened, seen = tmp_path / "table", pathlib.Path.open, []

    def fill(self, mode="r", *args, **options):
        file = opened(self, mode, *args, **options)
        if "w" not in mode:
            return file
        seen.append(self)
        return file if len(seen) <= writes else Failing(file)

    with monkeypatch.context() as patched:
        patched.setattr(pathlib.Path, "open", fill)
        with pytest.raises(BadRun, match="No space left on device"):
            write_table(path, PREDICATES, SOURCE)
    assert len(seen) > writes
    if path.exists():
        with pytest.raises(BadData, match=r"is unfinished: \d of 3 parts are done"):
            open_table(path)
    assert files_of(write_table(path, PREDICATES, SOURCE).path) == files_of(stored.path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["table"]


KILLED = """
import os, signal, sys
from specmine.predicates import store
from test_store import PREDICATES, SOURCE
from pathlib import Path
calls, original = [], store.tabulate
def tabulate(*arguments):
    calls.append(0)
    if len(calls) == 4:  # in the middle of the second of three columns of two blocks each
        os.kill(os.getpid(), signal.SIGKILL)
    return original(*arguments)
store.tabulate = tabulate
store.write_table(Path(sys.argv[1]), PREDICATES, SOURCE)
"""


def test_a_killed_run_goes_on(tmp_path, stored):
    environment = {**os.environ, "PYTHONPATH": str(pathlib.Path(__file__).parent)}
    ended = subprocess.run(
        [sys.executable, "-c", KILLED, tmp_path / "table"], env=environment, capture_output=True, check=False
    )
    assert ended.returncode == -signal.SIGKILL, ended.stderr.decode()
    with pytest.raises(BadData, match="is unfinished: 1 of 3 parts are done"):
        open_table(tmp_path / "table")
    steps = Steps()
    again = write_table(tmp_path / "table", PREDICATES, SOURCE, progress=steps)
    assert steps.steps == SAMPLES - 4096 and files_of(again.path) == files_of(stored.path)


def test_another_model_other_samples_and_other_predicates_are_refused(stored):
    mine, other = SITES.network.sha256, Sites(network(1))
    assert open_table(stored.path, network=mine, data=samples_digest(SOURCE)).samples == SAMPLES
    with pytest.raises(BadData, match=f"of another network: its hash is {mine}, wanted is {other.network.sha256}"):
        open_table(stored.path, network=other.network.sha256)
    fewer = part_of(SOURCE, slice(0, 50))
    with pytest.raises(
        BadData, match=f"of another data: its hash is {stored.identity.data}, wanted is {samples_digest(fewer)}"
    ):
        open_table(stored.path, data=samples_digest(fewer))
    with pytest.raises(BadData, match=f"is another table: network was '{mine}' there and is '{other.network.sha256}' here"):
        write_table(stored.path, PREDICATES, Stream(other, SOURCE.x))
    with pytest.raises(BadData, match="is another table: predicates was"):
        write_table(stored.path, PREDICATES[1:], SOURCE)


def test_tables_of_different_models_are_not_merged(tmp_path, stored):
    other = write_table(tmp_path / "other", PREDICATES, Stream(Sites(network(1)), SOURCE.x[:10]))
    with pytest.raises(BadData, match=f"different network cannot be merged: sha256 {SITES.network.sha256} and"):
        merge_tables(tmp_path / "merged", stored, other)


@pytest.mark.parametrize("damage", ["cut", "flipped", "missing"])
def test_damage_is_noticed(tmp_path, damage):
    made = write_table(tmp_path / "table", PREDICATES, part_of(SOURCE, slice(0, 100)))
    chunk = next(p for p in (made.path / "bits" / "c").rglob("*") if p.is_file())
    content = bytearray(chunk.read_bytes())
    content[7] ^= 1
    chunk.write_bytes(content[:-5] if damage == "cut" else content)
    if damage == "missing":
        chunk.unlink()
    with pytest.raises(BadData, match="cannot read predicate table"):
        open_table(made.path).words(slice(None))


def test_folders_that_hold_something_else(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "mine.txt").write_text("mine")
    with pytest.raises(BadData, match="cannot read predicate table"):
        write_table(tmp_path / "folder", PREDICATES, SOURCE)
    assert [p.name for p in (tmp_path / "folder").iterdir()] == ["mine.txt"]
    with pytest.raises(BadData, match="cannot read predicate table"):
        open_table(tmp_path / "none")
    with pytest.raises(BadRun, match="cannot write"):
        write_table(tmp_path / "file" / "table", PREDICATES, SOURCE)


def test_the_table_of_a_trace(tmp_path):
    kept = trace(SITES, SOURCE.x[:500], keep=("z1", "h1", "y"))
    assert (write_table(tmp_path / "t", PREDICATES, kept).words(slice(None)) == build_table(PREDICATES, kept).bits).all()
    assert identity_of(PREDICATES, kept) != identity_of(PREDICATES, part_of(kept, slice(0, 499)))


def test_digests_of_parts_join():
    halves = [samples_digest(part_of(SOURCE, rows)) for rows in (slice(0, 5003), slice(5003, None))]
    assert (
        join_digests(halves[0], 5003, halves[1]) == samples_digest(SOURCE) != join_digests(halves[1], SAMPLES - 5003, halves[0])
    )
    swapped = SOURCE.x[[1, 0, *range(2, 50)]]
    assert samples_digest(Stream(SITES, swapped)) != samples_digest(part_of(SOURCE, slice(0, 50)))


PEAK = """
import resource, sys
import numpy as np
from pathlib import Path
from specmine.predicates.predicate import Predicate
from specmine.predicates.store import write_table
from specmine.tracing.stream import Stream
from test_store import SITES, SIZE

class Endless:
    def __init__(self, samples):
        self.samples = samples
    def __len__(self):
        return self.samples
    def __getitem__(self, rows):
        return np.random.default_rng(rows.start).normal(size=(rows.stop - rows.start, SIZE))

predicates = [Predicate("above", ("z1", i % SIZE, t)) for i, t in enumerate(np.linspace(-3, 3, 12000).tolist())]
write_table(Path(sys.argv[1]), predicates, Stream(SITES, Endless(int(sys.argv[2]))), memory_mb=16)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_samples(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(pathlib.Path(__file__).parent), "OMP_NUM_THREADS": "1"}
    peaks = []
    for samples in (12_288, 8 * 12_288):
        command = [sys.executable, "-c", PEAK, str(tmp_path / str(samples)), str(samples)]
        peaks.append(int(subprocess.run(command, env=environment, capture_output=True, check=True, text=True).stdout))
    table_mb = 8 * 12_288 * 12_000 / 8 / 2**20
    assert table_mb > 140 and peaks[1] - peaks[0] < 24, peaks
