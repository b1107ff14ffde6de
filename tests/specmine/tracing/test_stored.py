"""Stored traces are the traces, and nothing is left where they cannot be written."""

import errno

import numpy as np
import pytest
import toy
import zarr

from specmine.errors import BadRun
from specmine.tracing import Sites, Stream, trace
from specmine.tracing.stored import read_values, write_trace

SITES = Sites(toy.network())
X, Y = toy.arrays(300)


@pytest.mark.parametrize("memory_mb", [1024.0, 1e-3])
def test_a_stored_trace_is_the_trace(tmp_path, memory_mb):
    write_trace(tmp_path / "trace.zarr", Stream(SITES, X), ["h1", "x"], beside={"labels": Y}, memory_mb=memory_mb)
    expected = trace(SITES, X, keep=["h1", "x"])
    group = zarr.open_group(tmp_path / "trace.zarr", mode="r")
    for site in ("h1", "x"):
        assert np.array_equal(read_values(tmp_path / "trace.zarr", site), expected.values[site])
    assert np.array_equal(read_values(tmp_path / "trace.zarr", "h1", slice(7, 99)), expected.values["h1"][7:99])
    assert np.array_equal(group["predictions"][:], expected.predictions) and np.array_equal(group["labels"][:], Y)
    assert group.attrs["network"] == SITES.network.sha256


def test_a_full_disk_leaves_nothing(tmp_path, monkeypatch):
    def full(self, rows, values):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(zarr.Array, "__setitem__", full)
    with pytest.raises(BadRun, match="No space left on device"):
        write_trace(tmp_path / "trace.zarr", Stream(SITES, X), ["h1"])
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_written_over(tmp_path):
    (tmp_path / "trace.zarr").mkdir()
    with pytest.raises(BadRun, match="it is there already"):
        write_trace(tmp_path / "trace.zarr", Stream(SITES, X), ["h1"])
