"""Networks written and read back."""

import json
import os
import stat
import zipfile
from typing import get_args

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from verifier.errors import BadNetwork
from verifier.formats import read_network
from verifier.formats.archive import read_archive, write_network
from verifier.network import Network, Node
from verifier.ops import (
    AveragePool,
    Concat,
    Conv,
    Cos,
    Erf,
    Exp,
    Floor,
    LeakyRelu,
    Linear,
    MaxPool,
    Op,
    Power,
    Product,
    Reciprocal,
    Relu,
    Reshape,
    Scale,
    Select,
    Sigmoid,
    Sign,
    Sin,
    Sqrt,
    Sum,
    Tanh,
    Transpose,
    frozen_array,
)

EACH = (Sigmoid(), Tanh(), Sin(), Cos(), Exp(), Reciprocal(), Sqrt(), Erf(), Sign(), Floor())


def every_operator():
    """A network with each operator at least once, and numbers that no decimal text holds exactly."""
    weight = frozen_array(np.arange(1, 7).reshape(2, 1, 3) / 3)
    ones = frozen_array(np.ones((1, 2, 1)))
    nodes = (
        Node("c", Conv(weight, frozen_array([0.1, -0.0]), (1,), ((1, 1),), (1,), 1), ("x",)),
        Node("s", Scale(ones, frozen_array(np.full((1, 2, 1), 1e-310))), ("c",)),
        Node("r", Relu(), ("s",)),
        Node("l", LeakyRelu(1 / 3), ("s",)),
        Node("t", Sum((1.0, -1 / 7)), ("r", "l")),
        Node("j", Concat(1), ("t", "c")),
        Node("m", MaxPool((2,), (2,), ((0, 0),), (1,)), ("j",)),
        Node("a", AveragePool((2,), (1,), ((0, 0),), frozen_array([2.0, 2.0])), ("m",)),
        Node("p", Transpose((0, 2, 1)), ("a",)),
        Node("f", Reshape((1, 8)), ("p",)),
        Node("dead", Relu(), ("f",)),
        Node("z", Select(np.array([7, -1, 0]), (1, 3)), ("f",)),
        Node("q", Power(3), ("z",)),
        Node("d", Product(), ("q", "z")),
        *(Node(f"e{k}", op, ("d",)) for k, op in enumerate(EACH)),
        Node("y", Linear(frozen_array(np.ones((8, 3)).T), frozen_array([1, 2, 3])), ("f",)),
    )
    return Network("x", (1, 1, 6), nodes, "y")


def test_every_operator_is_stored():
    assert {type(node.op) for node in every_operator().nodes} == set(get_args(Op))


def test_numbers_of_the_wrong_type_are_refused(stored, tmp_path):
    """The same bytes read as whole numbers would be other weights under the same checksum."""
    weight = every_operator().nodes[0].op.weight
    path = tmp_path / "other.network"
    with zipfile.ZipFile(stored) as archive, zipfile.ZipFile(path, "w") as changed:
        for name in archive.namelist():
            content = archive.read(name)
            changed.writestr(name, content.replace(b"<f8", b"<i8") if weight.tobytes() in content else content)
    with pytest.raises(BadNetwork, match="weight must be an array of float64, got int64"):
        read_archive(path)


@pytest.fixture
def stored(tmp_path):
    path = tmp_path / "net.network"
    write_network(every_operator(), path)
    return path


def test_round_trip_keeps_everything(stored):
    network = read_network(stored)
    assert network.sha256 == every_operator().sha256
    assert network.shapes == every_operator().shapes


def test_equal_networks_make_equal_files(stored, tmp_path):
    write_network(every_operator(), tmp_path / "other.network")
    assert (tmp_path / "other.network").read_bytes() == stored.read_bytes()


def test_writing_replaces_whole_files_and_leaves_nothing_else(stored, monkeypatch):
    before = stored.read_bytes()

    def fail(_):
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        write_network(Network("x", (1, 2), (), "x"), stored)
    assert stored.read_bytes() == before and list(stored.parent.iterdir()) == [stored]


def test_files_have_ordinary_permissions(stored, tmp_path):
    (tmp_path / "plain").touch()
    assert stat.S_IMODE(stored.stat().st_mode) == stat.S_IMODE((tmp_path / "plain").stat().st_mode)


def test_truncated_files_are_refused_at_every_cut(stored, tmp_path):
    content = stored.read_bytes()
    for cut in range(0, len(content), 7):
        (tmp_path / "cut.network").write_bytes(content[:cut])
        with pytest.raises(BadNetwork, match="damaged"):
            read_archive(tmp_path / "cut.network")


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_bytes_never_give_another_network(data, stored, tmp_path):
    content = bytearray(stored.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    (tmp_path / "bad.network").write_bytes(content)
    try:
        network = read_archive(tmp_path / "bad.network")
    except BadNetwork:
        return
    assert network.sha256 == every_operator().sha256


def rewrite(path, change, compression=zipfile.ZIP_STORED):
    """The archive with its document changed."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    document = json.loads(members["network.json"])
    change(document)
    members["network.json"] = json.dumps(document).encode()
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)


CHANGES = {
    "checksum": (lambda d: d["nodes"][3]["settings"].update(slope=0.5), "checksum does not fit"),
    "version": (lambda d: d.update(version=2), "archive version 2"),
    "format": (lambda d: d.update(format="other"), "not a network archive"),
    "slope": (lambda d: d["nodes"][3]["settings"].update(slope=7), "slope must lie in"),
    "text": (lambda d: d["nodes"][3]["settings"].update(slope="7"), "is not a number"),
    "stride": (lambda d: d["nodes"][0]["settings"].update(stride=[0]), "stride must be positive"),
    "shape": (lambda d: d["nodes"][9]["settings"].update(shape=[-1, -8]), "shape must be positive"),
    "operator": (lambda d: d["nodes"][0].update(op="System"), "damaged"),
    "input": (lambda d: d.update(input_shape=[1, 1, 10**12]), "at most"),
    "reuse": (lambda d: d["nodes"][0]["settings"].update(bias={"array": 0}), "used twice"),
    "nodes": (lambda d: d.update(nodes=3), "damaged"),
    "settings": (lambda d: d["nodes"][0].update(settings=[1]), "damaged"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_changed_documents_are_refused(name, stored):
    change, message = CHANGES[name]
    rewrite(stored, change)
    with pytest.raises(BadNetwork, match=message):
        read_archive(stored)


def test_compressed_members_are_refused(stored):
    rewrite(stored, lambda d: None, zipfile.ZIP_DEFLATED)
    with pytest.raises(BadNetwork, match="is compressed"):
        read_archive(stored)


def test_pickled_arrays_are_never_loaded(stored):
    with zipfile.ZipFile(stored) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(stored, "w") as archive:
        for name, content in members.items():
            if name == "array_0.npy":
                with archive.open(name, "w") as stream:
                    np.save(stream, np.array([{}], dtype=object), allow_pickle=True)
            else:
                archive.writestr(name, content)
    with pytest.raises(BadNetwork, match="array of type object"):
        read_archive(stored)


def test_missing_files_are_named(tmp_path):
    with pytest.raises(BadNetwork, match=r"gone\.network: cannot be read"):
        read_archive(tmp_path / "gone.network")
