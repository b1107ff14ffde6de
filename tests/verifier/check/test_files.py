import io
import json
import zipfile
from dataclasses import fields, is_dataclass, replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from verifier.certificate import Certificate, Close, Group, ProofNode, Relaxation, Split, Step
from verifier.check import check, files, read_certificate, write_certificate
from verifier.check.flat_tree import flatten, unflatten
from verifier.errors import BadCertificate
from verifier.formula import FALSE, And, Or, atom, conjoin
from verifier.network import Network
from verifier.query import Query
from verifier.region import Ball, Box, Polytope, Region

UNIT = Box([-1.0, -1.0], [1.0, 1.0])
CUT = atom({("x", 0): Fraction(1, 3), ("x", 1): -2}, Fraction(-7, 11))


@pytest.fixture(scope="module")
def network(networks) -> Network:
    return networks.mlp(np.random.default_rng(0), 2, 3, 2)


def proof(network: Network, region: Region = UNIT) -> tuple[Query, Certificate]:
    far = atom({("z1", 0): -1, ("x", 1): Fraction(1, 3)}, 100)
    near = atom({("z1", 1): 1, ("x", 0): -0.1}, Fraction(1000, 7), strict=True)
    query = Query(network, region, Or((And((far, near)), near, conjoin(near, far, Or((far,))))))
    shared = {"a0": np.full((1, 3), 0.1)}
    relaxation = Relaxation(shared, {"z0": np.zeros((1, 3))}, {}, np.zeros((1, 0)))
    step = Step("z0", np.array([1]), np.array([-1]), relaxation)
    closes = tuple(
        Close(d, Relaxation(shared, atoms=np.eye(1, len(query.disjuncts[d]), list(query.disjuncts[d]).index(near))))
        for d in range(len(query.disjuncts))
    )
    half = ProofNode((), closes)
    tree = ProofNode((step,), (), Split("x", 1, 0.1, half, ProofNode((), closes[:1], Split("z0", 2, -0.2, half, half))))
    groups = (Group(tuple(range(len(query.disjuncts))), tree),)
    return query, Certificate(network.sha256, query.sha256, groups)


def same(left: object, right: object) -> bool:
    if isinstance(left, np.ndarray):
        return isinstance(right, np.ndarray) and left.dtype == right.dtype and np.array_equal(left, right)
    if is_dataclass(left):
        return type(left) is type(right) and all(same(getattr(left, f.name), getattr(right, f.name)) for f in fields(left))
    if isinstance(left, tuple):
        return isinstance(right, tuple) and len(left) == len(right) and all(map(same, left, right))
    if hasattr(left, "items"):
        return set(left) == set(right) and all(same(left[k], right[k]) for k in left)
    return left == right


@pytest.mark.parametrize(
    "region", [UNIT, Ball([0.1, -0.3], 0.1, UNIT), Polytope(UNIT, (CUT,)), Polytope(UNIT, ())], ids=lambda r: type(r).__name__
)
def test_what_is_written_is_read(network: Network, region: Region, tmp_path: Path) -> None:
    query, certificate = proof(network, region)
    before = check(query, certificate)
    write_certificate(query, certificate, tmp_path / "proof.zip")
    read_query, read = read_certificate(tmp_path / "proof.zip", network)
    assert same(certificate, read) and same(query.region, read_query.region) and query.assertion == read_query.assertion
    after = check(read_query, read)
    assert before.accepted and after.accepted and before.splits == after.splits > 0


def test_the_same_proof_gives_the_same_bytes_and_nothing_else_is_left(network: Network, tmp_path: Path) -> None:
    for name in ("one.zip", "two.zip", "one.zip"):
        write_certificate(*proof(network), tmp_path / name)
    assert (tmp_path / "one.zip").read_bytes() == (tmp_path / "two.zip").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["one.zip", "two.zip"]


def test_a_failed_write_leaves_the_old_file(network: Network, tmp_path: Path) -> None:
    path = tmp_path / "proof.zip"
    path.write_text("old")
    query, certificate = proof(network)
    broken = Certificate(certificate.network_sha256, certificate.query_sha256, (Group((0,), "no node"),))  # type: ignore[arg-type]
    with pytest.raises(AttributeError):
        write_certificate(query, broken, path)
    assert path.read_text() == "old" and [p.name for p in tmp_path.iterdir()] == ["proof.zip"]


def test_a_deep_tree_is_written_and_read(network: Network, tmp_path: Path) -> None:
    node = ProofNode()
    for _ in range(3000):
        node = ProofNode(split=Split("x", 0, 0.0, ProofNode(), node))
    query = Query(network, UNIT, FALSE)
    write_certificate(query, Certificate(network.sha256, query.sha256, (Group((0,), node),)), tmp_path / "deep.zip")
    _, read = read_certificate(tmp_path / "deep.zip", network)
    depth, at = 0, read.groups[0].root
    while at.split is not None:
        depth, at = depth + 1, at.split.high
    assert depth == 3000


def test_another_network_is_refused(networks, network: Network, tmp_path: Path) -> None:
    write_certificate(*proof(network), tmp_path / "proof.zip")
    with pytest.raises(BadCertificate, match="give the network it was made for"):
        read_certificate(tmp_path / "proof.zip", networks.mlp(np.random.default_rng(1), 2, 3, 2))


def test_files_that_are_no_certificates(network: Network, tmp_path: Path) -> None:
    with pytest.raises(BadCertificate, match=r"absent.zip' cannot be read: No such file"):
        read_certificate(tmp_path / "absent.zip", network)
    (tmp_path / "text.zip").write_text("hello")
    with pytest.raises(BadCertificate, match="damaged: BadZipFile"):
        read_certificate(tmp_path / "text.zip", network)
    with zipfile.ZipFile(tmp_path / "empty.zip", "w") as archive:
        archive.writestr("other", "")
    with pytest.raises(BadCertificate, match="damaged: KeyError"):
        read_certificate(tmp_path / "empty.zip", network)


def test_every_truncation_and_flipped_byte_is_found_or_harmless(network: Network, tmp_path: Path) -> None:
    path, query = tmp_path / "proof.zip", proof(network)[0]
    write_certificate(*proof(network), path)
    good = path.read_bytes()
    rng = np.random.default_rng(0)
    for position in rng.integers(len(good), size=60):
        damaged = bytearray(good)
        damaged[position] ^= int(rng.integers(1, 256))
        for content in (good[:position], bytes(damaged)):
            path.write_bytes(content)
            try:
                read_query, _ = read_certificate(path, network)
            except BadCertificate:
                continue
            assert read_query.sha256 == query.sha256


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.update(schema="other/9"), "has schema 'other/9'; this version reads 'verifier-certificate/2'"),
        (lambda d: d.update(query_sha256="0"), "holds another query than the one it names"),
        (lambda d: d["region"].update(kind="cone"), "unknown kind of region 'cone'"),
        (lambda d: d.update(assertion={"terms": [["nothing", 0, "1"]], "bias": "0", "relation": "<="}), "no value 'nothing'"),
        (lambda d: d.update(assertion={"terms": [], "bias": "0", "relation": "="}), "unknown relation '='"),
        (lambda d: d.update(assertion={"terms": [], "bias": "1/0", "relation": "<"}), "ZeroDivisionError"),
        (lambda d: d.update(assertion={"terms": [], "bias": "1e999999999", "relation": "<"}), "not written as a fraction"),
        (lambda d: d.update(assertion={"terms": [], "bias": "9" * 5000, "relation": "<"}), "not written as a fraction"),
        (lambda d: d.update(assertion={"terms": [], "bias": 1e300, "relation": "<"}), "damaged: TypeError"),
        (lambda d: d.update(schema="verifier-certificate/1"), "has schema 'verifier-certificate/1'; this version reads"),
        (lambda d: d["groups"][0].update(split_at=d["groups"][0]["close_disjunct"]), "damaged: ValueError"),
        (lambda d: d["groups"][0].update(steps=[]), "damaged: ValueError"),
        (lambda d: d["groups"][0].update(close_counts=d["groups"][0]["step_counts"]), "counts of a tree do not fit"),
        (lambda d: d["groups"][0].update(split_values=[]), "damaged: IndexError"),
        (lambda d: d["groups"][0]["close_relaxations"].update(kinds=[]), "counts of relaxations do not fit"),
        (lambda d: d["groups"][0]["steps"][0].update(indices="arrays/99.npy"), "arrays/99.npy"),
    ],
)
def test_documents_that_are_wrong(network: Network, tmp_path: Path, change, message: str) -> None:
    path = tmp_path / "proof.zip"
    write_certificate(*proof(network), path)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    document = json.loads(members["certificate.json"])
    change(document)
    members["certificate.json"] = json.dumps(document).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    with pytest.raises(BadCertificate, match=message):
        read_certificate(path, network)


def test_pickled_arrays_are_never_loaded(network: Network, tmp_path: Path) -> None:
    path = tmp_path / "proof.zip"
    write_certificate(*proof(network), path)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    np.save(tmp_path / "bad.npy", np.array([object()], dtype=object), allow_pickle=True)
    members["arrays/2.npy"] = (tmp_path / "bad.npy").read_bytes()
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    with pytest.raises(BadCertificate, match="not made of numbers"):
        read_certificate(path, network)


def rewritten(path: Path, name: str, content: bytes) -> None:
    """The archive with other content of one member."""
    with zipfile.ZipFile(path) as archive:
        members = {member: archive.read(member) for member in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for member, kept in (members | {name: content}).items():
            archive.writestr(member, kept)


def header(shape: tuple[int, ...], kind: str = "<f8") -> bytes:
    text = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (header((10**15,)), "another length than it states"),
        (header((10**15, 0)), "more than 33554432 entries"),
        (header((2**61,)), "another length than it states"),
        (header((-1,)) + bytes(8), "not made of numbers"),
        (header(()) + bytes(8), "not made of numbers"),
        (header((10**15,), "|V0"), "not made of numbers"),
        (header((10**15,), "<U0"), "not made of numbers"),
        (header((1,)).replace(b"Y\x01", b"Y\x02") + bytes(8), "version 1.0"),
    ],
)
def test_arrays_that_lie_about_themselves(network: Network, tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "proof.zip"
    write_certificate(*proof(network), path)
    with zipfile.ZipFile(path) as archive:
        document = json.loads(archive.read("certificate.json"))
    rewritten(path, document["groups"][0]["close_disjunct"], content)
    with pytest.raises(BadCertificate, match=message):
        read_certificate(path, network)


def test_indices_that_are_masks_are_refused(network: Network, tmp_path: Path) -> None:
    """As an index of numpy's, True is not 1."""
    path, (query, certificate) = tmp_path / "proof.zip", proof(network)
    write_certificate(query, certificate, path)
    with zipfile.ZipFile(path) as archive:
        document = json.loads(archive.read("certificate.json"))
        member = document["groups"][0]["split_index"]
        stored = np.load(io.BytesIO(archive.read(member)))
    content = io.BytesIO()
    np.lib.format.write_array(content, stored.astype(bool), version=(1, 0))
    rewritten(path, member, content.getvalue())
    result = check(query, read_certificate(path, network)[1])
    assert not result.accepted and "split index True is out of range" in (result.reason or "")


def test_archives_that_unpack_to_too_much_are_not_unpacked(network: Network, tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / "proof.zip"
    write_certificate(*proof(network), path)
    rewritten(path, "arrays/more.npy", bytes(10**7))
    read_certificate(path, network)
    monkeypatch.setattr(files, "MOST_BYTES", 10**7)
    with pytest.raises(BadCertificate, match="more than 10000000 bytes unpacked"):
        read_certificate(path, network)


def test_an_array_named_often_counts_often(network: Network, tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / "proof.zip"
    query, certificate = proof(network)
    monkeypatch.setattr(files, "MOST_ENTRIES", 200)
    for count, fits in ((1, True), (40, False)):
        write_certificate(query, replace(certificate, groups=certificate.groups * count), path)
        if fits:
            read_certificate(path, network)
            continue
        with pytest.raises(BadCertificate, match="more than 200 entries"):
            read_certificate(path, network)


def test_formulas_nested_beyond_reason(network: Network, tmp_path: Path) -> None:
    path = tmp_path / "proof.zip"
    write_certificate(*proof(network), path)
    with zipfile.ZipFile(path) as archive:
        document = json.loads(archive.read("certificate.json"))
    deep = '{"and": [' * 10**5 + '{"and": []}' + "]}" * 10**5
    text = json.dumps(document | {"assertion": "HERE"}).replace('"HERE"', deep)
    rewritten(path, "certificate.json", text.encode())
    with pytest.raises(BadCertificate, match="damaged: RecursionError"):
        read_certificate(path, network)


def test_a_tree_that_names_a_parent_as_its_own_child_is_refused(network: Network, tmp_path: Path) -> None:
    """A second node that splits has children before itself where the first does not split."""
    node = ProofNode(split=Split("x", 0, 0.0, ProofNode(), ProofNode()))
    document = flatten(Group((0,), node), stored := Store())
    stored.arrays[document["is_split"]] = np.array([False, True, False])
    with pytest.raises(ValueError, match="before its parent"):
        unflatten(document, stored.arrays.__getitem__)


class Store:
    def __init__(self) -> None:
        self.arrays: dict[str, np.ndarray] = {}

    def __call__(self, array: np.ndarray) -> str:
        name = str(len(self.arrays))
        self.arrays[name] = array
        return name


def test_a_tree_of_a_hundred_thousand_nodes_is_small_and_keeps_what_is_shared(network: Network, tmp_path: Path) -> None:
    query = Query(network, UNIT, atom({("z1", 0): -1}, 100))
    slopes = {"a0": np.full((1, 3), 0.25)}
    shut = ProofNode(closed=(Close(0, Relaxation(slopes, atoms=np.ones((1, 1)), upper_slopes=slopes)),), rebound=True)
    level = [shut] * 2**15
    while len(level) > 1:
        level = [ProofNode(split=Split("x", k % 2, k / 7, *level[k : k + 2])) for k in range(0, len(level), 2)]
    certificate = Certificate(network.sha256, query.sha256, (Group((0,), level[0]),))
    write_certificate(query, certificate, tmp_path / "wide.zip")
    assert (tmp_path / "wide.zip").stat().st_size < 2**20
    _, read = read_certificate(tmp_path / "wide.zip", network)
    ends, todo = [], [read.groups[0].root]
    while todo:
        node = todo.pop()
        if node.split is None:
            ends.append(node)
        else:
            todo += [node.split.high, node.split.low]
    assert len(ends) == 2**15 and all(node.rebound is True for node in ends)
    assert len({id(node.closed[0].relaxation.slopes["a0"]) for node in ends}) == 1
    assert same(ends[0], shut)
