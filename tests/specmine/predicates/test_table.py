"""Tables of packed bits against plain Boolean arrays."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from specmine.errors import BadData, BadRun
from specmine.predicates.families import bits
from specmine.predicates.predicate import Predicate
from specmine.predicates.table import (
    PredicateTable,
    build_table,
    conjunction,
    count,
    counts,
    full_mask,
    load_table,
    merge,
    pack,
    sample_bits,
    save_table,
    select,
    select_predicates,
    unpack,
)
from specmine.tracing import Sites, trace
from verifier.network import Network, Node
from verifier.ops import Linear, Relu

truth = hnp.arrays(bool, st.tuples(st.integers(0, 5), st.integers(1, 200)))


def table_of(values) -> PredicateTable:
    names = tuple(Predicate("active", ("h1", row)) for row in range(len(values)))
    return PredicateTable(names, pack(values), values.shape[1])


def test_words_by_hand():
    assert pack(np.array([True, False, True])).tolist() == [5]
    assert pack(np.arange(65) == 64).tolist() == [0, 1]
    assert full_mask(65).tolist() == [2**64 - 1, 1]
    assert count(full_mask(130)) == 130


@given(truth)
def test_pack_and_unpack(values):
    words = pack(values)
    assert (unpack(words, values.shape[1]) == values).all()
    assert not unpack(words, 64 * words.shape[1])[:, values.shape[1] :].any()


@pytest.mark.parametrize("samples", [63, 64, 128])
def test_pack_takes_bits_in_any_order_in_memory(samples):
    values = np.random.default_rng(0).random((samples, 5)) < 0.5
    for turned in (values.T, np.repeat(values.T, 2, axis=0)[::2], np.asfortranarray(values.T)):
        assert (unpack(pack(turned), samples) == values.T).all()


@given(truth, st.data())
def test_counts(values, data):
    mask = data.draw(hnp.arrays(bool, values.shape[1]))
    assert counts(table_of(values)).tolist() == values.sum(axis=1).tolist()
    assert counts(table_of(values), pack(mask)).tolist() == (values & mask).sum(axis=1).tolist()


@given(truth, st.data())
def test_conjunction_and_columns(values, data):
    table = table_of(values)
    rows = data.draw(st.lists(st.integers(0, len(values) - 1), max_size=6)) if len(values) else []
    assert (unpack(conjunction(table, rows), table.samples) == values[rows].all(axis=0)).all()
    sample = data.draw(st.integers(0, values.shape[1] - 1))
    assert (sample_bits(table, sample) == values[:, sample]).all()


@given(truth, st.data())
def test_select(values, data):
    mask = data.draw(hnp.arrays(bool, values.shape[1]))
    chosen = select(table_of(values), mask)
    assert chosen.samples == mask.sum() and (unpack(chosen.bits, chosen.samples) == values[:, mask]).all()
    rows = data.draw(hnp.arrays(bool, len(values)))
    assert (unpack(select_predicates(table_of(values), rows).bits, values.shape[1]) == values[rows]).all()


@given(truth, st.integers(1, 200), st.integers(0, 2**32))
def test_merge(values, more, seed):
    other = np.random.default_rng(seed).random((len(values), more)) < 0.5
    merged = merge(table_of(values), table_of(other))
    assert merged.samples == values.shape[1] + more
    assert (unpack(merged.bits, merged.samples) == np.concatenate([values, other], axis=1)).all()
    assert counts(merged).tolist() == (values.sum(axis=1) + other.sum(axis=1)).tolist()


def test_merge_of_other_predicates():
    with pytest.raises(BadData, match="tables of different predicates cannot be merged: 1 and 2"):
        merge(table_of(np.ones((1, 3), dtype=bool)), table_of(np.ones((2, 3), dtype=bool)))


def test_many_predicates_pass_the_block_size():
    values = np.random.default_rng(0).random((1000, 70)) < 0.3
    assert counts(table_of(values)).tolist() == values.sum(axis=1).tolist()
    assert (unpack(select(table_of(values), slice(3, 60)).bits, 57) == values[:, 3:60]).all()


@pytest.mark.parametrize("batch", [1, 64, 100, 4096])
def test_built_table_equals_single_predicates(batch):
    layer = Linear(np.random.default_rng(1).normal(size=(4, 4)), np.zeros(4))
    nodes = (Node("a", layer, ("in",)), Node("b", Relu(), ("a",)), Node("c", layer, ("b",)))
    made = trace(
        Sites(Network("in", (1, 4), nodes, "c")), np.random.default_rng(2).normal(size=(333, 4)), keep=("z1", "h1", "y")
    )
    predicates = [Predicate("class", (c,)) for c in range(4)]
    for neuron in range(4):
        predicates += [Predicate("above", (site, neuron, t)) for t in (0.0, 0.5) for site in ("h1", "z1")]
        predicates += [Predicate("active", ("z1", neuron)), Predicate("within", ("h1", neuron, 0.1, 0.9))]
    table = build_table(predicates, made, batch=batch)
    assert table.predicates == tuple(predicates) and table.samples == 333
    assert (unpack(table.bits, 333) == np.stack([bits(p, made) for p in predicates])).all()


def test_table_is_read_only():
    with pytest.raises(ValueError, match="read-only"):
        table_of(np.ones((1, 3), dtype=bool)).bits[0, 0] = 0


def test_sample_out_of_range():
    with pytest.raises(BadData, match="samples 0 to 2, got 3"):
        sample_bits(table_of(np.ones((1, 3), dtype=bool)), 3)


def test_save_and_load(tmp_path):
    predicates = (Predicate("above", ("onnx::h 1", 0, 0.1)), Predicate("above", ("h1", 2, 2.0)), Predicate("class", (3,)))
    table = PredicateTable(predicates, pack(np.random.default_rng(0).random((3, 100)) < 0.5), 100)
    path = tmp_path / "table.npz"
    save_table(table, path)
    loaded = load_table(path)
    assert list(map(str, loaded.predicates)) == list(map(str, predicates)) and loaded.samples == 100
    assert (loaded.bits == table.bits).all() and [p.name for p in tmp_path.iterdir()] == ["table.npz"]


def test_damaged_and_missing_files(tmp_path):
    path = tmp_path / "table.npz"
    save_table(table_of(np.ones((3, 100), dtype=bool)), path)
    path.write_bytes(path.read_bytes()[:-30])
    for bad in (path, tmp_path / "none.npz"):
        with pytest.raises(BadData, match="cannot read predicate table"):
            load_table(bad)
    np.savez(path, predicates=np.frombuffer(b"[]", dtype=np.uint8), bits=np.ones((1, 1), dtype=np.uint64), samples=3)
    with pytest.raises(BadData, match="cannot read predicate table"):
        load_table(path)


def test_write_to_a_file_in_the_way(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(BadRun, match="cannot write"):
        save_table(table_of(np.ones((1, 3), dtype=bool)), tmp_path / "file" / "table.npz")
