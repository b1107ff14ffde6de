"""How fast predicates are tabulated, counted and surveyed, as ratios to plain numpy on the same machine. Run by `make bench`.

Targets (METHODS 1 and 2): tabulating, bits written, at no less than half the speed of the bare inference and one numpy
comparison a bit; pair counts within twice the blocked popcount; memory bounded by a budget, whatever the samples.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from specmine.predicates.counting import pair_counts
from specmine.predicates.families.unary import UNARY
from specmine.predicates.form import Grid, Plan
from specmine.predicates.predicate import Predicate
from specmine.predicates.store import write_table
from specmine.predicates.survey import survey
from specmine.predicates.table import PredicateTable
from specmine.predicates.words import full_mask
from specmine.stats import rank
from specmine.tracing import Sites
from specmine.tracing.stream import Stream, chunks
from verifier.network import Network, Node
from verifier.ops import Linear, Relu

pytestmark = pytest.mark.bench

SAMPLES, PREDICATES = 60_000, 100_000
WIDTHS = (784, 256, 256, 256, 256, 10)
DRAW = np.random.default_rng(0)


def network() -> Network:
    nodes, value = [], "in"
    for depth, (wide, narrow) in enumerate(pairwise(WIDTHS)):
        weights = DRAW.normal(size=(narrow, wide)) * np.sqrt(2 / wide)
        nodes.append(Node(f"linear{depth}", Linear(weights, np.zeros(narrow)), (value,)))
        value = f"linear{depth}"
        if narrow != WIDTHS[-1]:
            nodes.append(Node(f"relu{depth}", Relu(), (value,)))
            value = f"relu{depth}"
    return Network("in", (1, WIDTHS[0]), tuple(nodes), value)


SOURCE = Stream(Sites(network()), DRAW.random((SAMPLES, WIDTHS[0])))
HIDDEN = SOURCE.sites.hidden
NEURONS = [(site, neuron) for site in HIDDEN for neuron in range(SOURCE.sites.size(site))]


def thresholds() -> list[Predicate]:
    each = -(-PREDICATES // len(NEURONS))
    made = [Predicate(("above", "below")[n % 2], (*at, float(DRAW.exponential()))) for at in NEURONS for n in range(each)]
    return made[:PREDICATES]


def orders() -> list[Predicate]:
    each = -(-PREDICATES // len(NEURONS))
    pairs = ((site, i, site, int(j)) for site, i in NEURONS for j in DRAW.integers(0, SOURCE.sites.size(site), each))
    return [Predicate("less", pair) for pair in pairs][:PREDICATES]


def bare(predicates: list[Predicate]) -> tuple[float, float]:
    """CPU seconds of inference alone, and of one comparison for each predicate and chunk of samples."""
    inference = comparing = 0.0
    started = time.process_time()
    for _, part in chunks(SOURCE, HIDDEN):
        traced = time.process_time()
        columns = {site: np.ascontiguousarray(part.values[site].T) for site in HIDDEN}
        for predicate in predicates:
            if predicate.form == "less":
                first, i, second, j = predicate.arguments
                np.less(columns[first][i], columns[second][j])
            else:
                site, neuron, threshold = predicate.arguments
                np.greater_equal(columns[site][neuron], threshold)
        ended = time.process_time()
        inference, comparing, started = inference + traced - started, comparing + ended - traced, ended
    return inference, comparing


@pytest.mark.parametrize("candidates", [thresholds, orders])
def test_tabulating(tmp_path: Path, candidates: Callable[[], list[Predicate]]) -> None:
    predicates = candidates()
    inference, comparing = bare(predicates)
    started, wall = time.process_time(), time.perf_counter()
    table = write_table(tmp_path / "one", predicates, SOURCE)
    taken, wall = time.process_time() - started, time.perf_counter() - wall
    with ThreadPoolExecutor(2) as threads:
        two = time.perf_counter()
        write_table(tmp_path / "two", predicates, SOURCE, executor=threads)
        two = time.perf_counter() - two
    print(
        f"\n{candidates.__name__}: {SAMPLES} samples x {len(predicates)} predicates: {taken:.1f} s CPU, {wall:.1f} s on the "
        f"clock, {two:.1f} s with two threads; bare inference {inference:.1f} s + comparisons {comparing:.1f} s CPU; "
        f"speed {(inference + comparing) / taken:.2f} of bare (target 0.5)"
    )
    assert table.bits.shape == (PREDICATES, -(-SAMPLES // 64))


def test_pair_counts() -> None:
    words = DRAW.integers(0, 2**63, size=(5000, -(-SAMPLES // 64))).astype(np.uint64) & full_mask(SAMPLES)
    table = PredicateTable(tuple(Predicate("active", ("h1", row)) for row in range(5000)), words, SAMPLES)

    def blocked() -> list[np.ndarray]:
        starts = range(0, 5000, 256)
        return [np.bitwise_count(words[s : s + 256] & words[0]).sum(axis=1, dtype=np.int64) for s in starts]

    reference = fastest(blocked)
    one = fastest(lambda: pair_counts(table, np.arange(1), np.arange(5000)))
    many = fastest(lambda: pair_counts(table, np.arange(64), np.arange(5000))) / 64
    print(
        f"\npair counts of 1 x 5000 predicates on {SAMPLES} samples, ms CPU: blocked popcount {1e3 * reference:.1f}, here "
        f"{1e3 * one:.1f} ({one / reference:.2f} of it, target 2), for one of 64 at a time {1e3 * many:.1f}"
    )
    assert (np.concatenate(blocked()) == pair_counts(table, np.arange(1), np.arange(5000))[0]).all()


def fastest(work: Callable[[], object], times: int = 7) -> float:
    """The least CPU seconds of several runs."""
    taken = []
    for _ in range(times):
        started = time.process_time()
        work()
        taken.append(time.process_time() - started)
    return min(taken)


def test_survey_and_ranking(tmp_path: Path) -> None:
    heads = np.arange(SAMPLES) % 10
    started = time.process_time()
    survey(SOURCE, UNARY.measures(Plan(SOURCE.sites, Grid(HIDDEN))), Grid(HIDDEN), heads)
    surveyed = time.process_time() - started
    table = write_table(tmp_path / "table", thresholds()[::5], SOURCE)
    started = time.process_time()
    ranking = rank(table, np.zeros((10, table.bits.shape[1]), dtype=np.uint64) | full_mask(SAMPLES), np.arange(SAMPLES) % 3)
    ranked = time.process_time() - started
    print(
        f"\nquantiles of {len(NEURONS)} neurons and 10 head values on {SAMPLES} samples: {surveyed:.1f} s CPU; evidence of "
        f"{len(table.predicates)} candidates x 10 heads x 3 splits from disk: {ranked:.1f} s CPU"
    )
    assert ranking.log_q.shape == (3, 10, len(table.predicates))


PEAK = """
import resource, sys
from pathlib import Path
import numpy as np
from test_tables import SOURCE, thresholds
from specmine.predicates.store import write_table
from specmine.tracing.stream import Stream

class Endless:
    def __init__(self, samples):
        self.samples = samples
    def __len__(self):
        return self.samples
    def __getitem__(self, rows):
        return np.random.default_rng(rows.start).random((rows.stop - rows.start, 784))

x = Endless(int(sys.argv[2]))
predicates = thresholds()[::10]
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
write_table(Path(sys.argv[1]), predicates, Stream(SOURCE.sites, x), memory_mb=64)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


def test_memory(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent), "OMP_NUM_THREADS": "1"}
    peaks = []
    for samples in (20_000, 160_000):
        command = [sys.executable, "-c", PEAK, str(tmp_path / str(samples)), str(samples)]
        peaks.append(int(subprocess.run(command, env=environment, capture_output=True, check=True, text=True).stdout))
    print(f"\npeak memory with a budget of 64 MB: {peaks[0]} MB for 20,000 samples, {peaks[1]} MB for 160,000")
    assert peaks[1] - peaks[0] < 64
