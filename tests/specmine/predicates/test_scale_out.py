"""The same job here, on a process pool and through a dask cluster: the same quantiles, tables equal to the byte."""

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager

import numpy as np
import pytest

from specmine.predicates.families import candidates
from specmine.predicates.families.unary import UNARY
from specmine.predicates.form import Grid, Plan
from specmine.predicates.store import write_table
from specmine.predicates.survey import survey
from specmine.tracing import Sites
from specmine.tracing.stream import Stream, part_of, run_chunks
from verifier.network import Network, Node
from verifier.ops import Linear, Relu

SIZE, SAMPLES = 12, 20_000
DRAW = np.random.default_rng(0)
LAYERS = [Linear(DRAW.normal(size=(SIZE, SIZE)), np.zeros(SIZE)) for _ in range(2)]
NODES = (Node("a", LAYERS[0], ("in",)), Node("b", Relu(), ("a",)), Node("c", LAYERS[1], ("b",)))
SOURCE = Stream(Sites(Network("in", (1, SIZE), NODES, "c")), DRAW.normal(size=(SAMPLES, SIZE)))
GRID = Grid(("z1", "h1"))
HEADS = np.arange(SAMPLES) % 3


@contextmanager
def process_pool():
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield pool


@contextmanager
def dask_cluster():
    distributed = pytest.importorskip("distributed")
    options = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None}
    with distributed.LocalCluster(**options) as cluster, distributed.Client(cluster) as client:
        yield client.get_executor()


@pytest.mark.slow
@pytest.mark.parametrize("workers", [process_pool, dask_cluster])
def test_workers_give_the_same_bytes(tmp_path, workers):
    predicates = candidates("unary", part_of(SOURCE, slice(0, 2000)), grid=GRID)
    measures = UNARY.measures(Plan(SOURCE.sites, GRID))[:2]
    here = write_table(tmp_path / "here", predicates, SOURCE, memory_mb=2)
    spreads = survey(SOURCE, measures, GRID, HEADS, memory_mb=2)
    with workers() as executor:
        there = write_table(tmp_path / "there", predicates, SOURCE, memory_mb=2, executor=executor)
        others = survey(SOURCE, measures, GRID, HEADS, memory_mb=2, executor=executor)
    files = [
        {str(p.relative_to(table.path)): p.read_bytes() for p in table.path.rglob("*") if p.is_file()}
        for table in (here, there)
    ]
    assert files[0] == files[1] and len(files[0]) > 5
    for one, other in zip(spreads, others, strict=True):
        assert one.low.tobytes() == other.low.tobytes() and one.high.tobytes() == other.high.tobytes()


class Broken(RuntimeError):
    pass


class Late:
    """An executor that notes what it is given and works when asked for a result."""

    def __init__(self):
        self.submitted, self.cancelled = [], 0

    def submit(self, work, *arguments):
        executor = self

        class Later:
            def result(self):
                return work(*arguments)

            def cancel(self):
                executor.cancelled += 1

        self.submitted.append(arguments)
        return Later()


def test_results_come_in_order_and_few_chunks_wait():
    executor, seen = Late(), []
    for rows, (start, total) in run_chunks(
        executor, lambda part, rows, numbers: (rows.start, numbers.sum()), SOURCE, chunk=640, aligned=[np.arange(SAMPLES)]
    ):
        seen.append(rows)
        assert rows.start == start and total == np.arange(SAMPLES)[rows].sum()
        assert len(executor.submitted) - len(seen) <= 8
    assert [rows.start for rows in seen] == list(range(0, SAMPLES, 640)) and seen[-1].stop == SAMPLES


def test_a_failure_cancels_what_waits():
    def work(part, rows):
        if rows.start == 128:
            raise Broken("no")
        return part.samples

    executor = Late()
    with pytest.raises(Broken):
        list(run_chunks(executor, work, SOURCE, chunk=64))
    assert executor.cancelled == 7 and len(executor.submitted) == 10
    assert [n for _, n in run_chunks(None, lambda part, rows: part.samples, part_of(SOURCE, slice(0, 130)), chunk=64)] == [
        64,
        64,
        2,
    ]
    assert [rows.start for rows, _ in run_chunks(None, lambda *_: 0, part_of(SOURCE, slice(0, 130)), chunk=64, first=1)] == [
        64,
        128,
    ]
