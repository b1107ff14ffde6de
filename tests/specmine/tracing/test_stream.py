"""Chunks of a stream against the trace of everything."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np

from specmine.tracing import Sites, trace
from specmine.tracing.stream import Stream, chunk_for, chunks, classes_of, part_of, ranges
from verifier.network import Network, Node
from verifier.ops import Linear, Relu

LAYER = Linear(np.random.default_rng(1).normal(size=(3, 3)), np.zeros(3))
SITES = Sites(Network("in", (1, 3), (Node("a", LAYER, ("in",)), Node("b", Relu(), ("a",)), Node("c", LAYER, ("b",))), "c"))
X = np.random.default_rng(0).normal(size=(9001, 3))
WHOLE = trace(SITES, X, keep=("h1", "y"))


def test_chunks_are_the_trace_in_pieces():
    for source in (Stream(SITES, X), WHOLE):
        pieces = list(chunks(source, ["h1"], chunk=2000))
        assert [rows for rows, _ in pieces] == ranges(9001, 2000) and pieces[-1][0] == slice(8000, 9001)
        assert (np.concatenate([part.values["h1"] for _, part in pieces]) == WHOLE.values["h1"]).all()


def test_classes_on_any_executor():
    assert (classes_of(Stream(SITES, X)) == WHOLE.predictions).all() and (classes_of(WHOLE) == WHOLE.predictions).all()
    with ThreadPoolExecutor(2) as threads:
        assert (classes_of(Stream(SITES, X), executor=threads, memory_mb=0.1) == WHOLE.predictions).all()


def test_parts_by_slice_and_by_place():
    for rows in (slice(3, 9), np.array([5, 2])):
        for source in (Stream(SITES, X), WHOLE):
            assert (classes_of(part_of(source, rows)) == WHOLE.predictions[rows]).all()


def test_chunks_are_whole_words_within_the_budget():
    source = Stream(SITES, X)
    assert chunk_for(source, ["h1"], 1000) == 4096 and chunk_for(source, ["h1"], 1e-6) == 64
    sizes = [chunk_for(source, ["h1"], mb) for mb in (0.1, 0.2, 0.4)]
    assert all(size % 64 == 0 for size in sizes) and sizes[0] < sizes[1] < sizes[2]
