"""Certificates as files: one zip archive with `certificate.json` and the arrays it refers to as .npy members; no pickle.

A file holds the whole query but for the network, which it names by hash. Fractions are written as strings such as `-3/8`; proof
trees are flat arrays (see `verifier.check.flat_tree`).

A file may come from anywhere: what it can make the reader hold in memory is bounded by the limits below.
"""

import hashlib
import io
import json
import math
import os
import re
import tempfile
import zipfile
import zlib
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any, assert_never

import numpy as np
from numpy.typing import NDArray

from verifier.certificate import Certificate
from verifier.check.flat_tree import flatten, flatten_prelude, unflatten, unflatten_prelude
from verifier.errors import BadCertificate, VerifierError
from verifier.formula import And, Atom, Formula, Or, Term
from verifier.network import Network
from verifier.query import Query
from verifier.region import Ball, Box, ExactBox, Polytope, Region

SCHEMA = "verifier-certificate/2"
DOCUMENT = "certificate.json"
MOST_BYTES = 2**31
"""Of all members together, unpacked."""
MOST_DOCUMENT_BYTES = 2**28
MOST_ENTRIES = 2**25
"""Along the first axes of all arrays that a certificate names, each as often as it is named: nodes, closes, rows ..."""
FRACTION = re.compile(r"-?[0-9]{1,4000}(/[0-9]{1,4000})?", re.ASCII)
EPOCH = (1980, 1, 1, 0, 0, 0)
DAMAGE = (
    ArithmeticError, AttributeError, EOFError, IndexError, KeyError, MemoryError, NotImplementedError, OSError, RuntimeError,
    TypeError, ValueError, VerifierError, zipfile.BadZipFile, zlib.error,
)  # fmt: skip


def write_certificate(query: Query, certificate: Certificate, path: str | os.PathLike[str]) -> None:
    """Write query and certificate to one file, which appears whole or not at all. The same content gives the same bytes."""
    target = Path(path)
    arrays = _ArrayWriter()
    document = {
        "schema": SCHEMA,
        "semantics": "real arithmetic over the stored weights",
        "network_sha256": certificate.network_sha256,
        "query_sha256": certificate.query_sha256,
        "region": _region_out(query.region, arrays),
        "assertion": _formula_out(query.assertion),
        "prelude": flatten_prelude(certificate.prelude, arrays.name),
        "groups": [flatten(group, arrays.name) for group in certificate.groups],
    }
    handle, temporary = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    try:
        with os.fdopen(handle, "wb") as stream, zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            archive.writestr(_member(DOCUMENT), json.dumps(document, indent=1))
            for name, array in arrays.members.items():
                archive.writestr(_member(name), _npy(array))
        os.chmod(temporary, 0o644)
        os.replace(temporary, target)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def read_certificate(path: str | os.PathLike[str], network: Network) -> tuple[Query, Certificate]:
    """The query and the certificate of a file; reading proves nothing, `check` does.

    Raises BadCertificate for a damaged file, another schema, another network, or a query that is not the one it names.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = _members(archive)
        document = json.loads(members[DOCUMENT])
        schema = document["schema"]
    except OSError as error:
        raise BadCertificate(f"certificate {os.fspath(path)!r} cannot be read: {error.strerror or error}") from error
    except DAMAGE as error:
        raise _damaged(path, error) from error
    if schema != SCHEMA:
        raise BadCertificate(f"certificate {os.fspath(path)!r} has schema {schema!r}; this version reads {SCHEMA!r}")
    if document.get("network_sha256") != network.sha256:
        raise BadCertificate(
            f"certificate {os.fspath(path)!r} is for the network with sha256 {document.get('network_sha256')}, "
            f"got one with {network.sha256}; give the network it was made for"
        )
    try:
        arrays = _ArrayReader(members)
        query = Query(network, _region_in(document["region"], arrays), _formula_in(document["assertion"]))
        groups = tuple(unflatten(group, arrays.array) for group in document["groups"])
        prelude = unflatten_prelude(document.get("prelude", ()), arrays.array)  # files of before there were preludes have none
        certificate = Certificate(document["network_sha256"], document["query_sha256"], groups, prelude)
        same = query.sha256 == certificate.query_sha256
    except DAMAGE as error:
        raise _damaged(path, error) from error
    if not same:
        raise BadCertificate(f"certificate {os.fspath(path)!r} holds another query than the one it names; make it anew")
    return query, certificate


def _members(archive: zipfile.ZipFile) -> Mapping[str, bytes]:
    """All members by name; an archive gives no more of a member than the size it states."""
    if sum(member.file_size for member in archive.infolist()) > MOST_BYTES:
        raise ValueError(f"more than {MOST_BYTES} bytes unpacked")
    if archive.getinfo(DOCUMENT).file_size > MOST_DOCUMENT_BYTES:
        raise ValueError(f"{DOCUMENT} has more than {MOST_DOCUMENT_BYTES} bytes")
    return {name: archive.read(name) for name in archive.namelist()}


def _damaged(path: str | os.PathLike[str], error: BaseException) -> BadCertificate:
    return BadCertificate(f"certificate {os.fspath(path)!r} is damaged: {type(error).__name__}: {error}; make it anew")


def _member(name: str) -> zipfile.ZipInfo:
    member = zipfile.ZipInfo(name, date_time=EPOCH)
    member.compress_type = zipfile.ZIP_DEFLATED
    return member


def _npy(array: NDArray) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.ascontiguousarray(array), allow_pickle=False)
    return buffer.getvalue()


class _ArrayWriter:
    """Gives each array a member name; equal arrays are written once."""

    def __init__(self) -> None:
        self.members: dict[str, NDArray] = {}
        self._names: dict[bytes, str] = {}

    def name(self, array: NDArray) -> str:
        content = hashlib.sha256(f"{array.shape}{array.dtype.str}".encode() + array.tobytes()).digest()
        if content not in self._names:
            name = f"arrays/{len(self.members)}.npy"
            self._names[content] = name
            self.members[name] = array
        return self._names[content]


class _ArrayReader:
    """Arrays by member name, read once each, not to be written to. Raises ValueError for what is damaged or too much."""

    def __init__(self, members: Mapping[str, bytes]) -> None:
        self._members = members
        self._arrays: dict[str, NDArray] = {}
        self._left = MOST_ENTRIES

    def array(self, name: str) -> NDArray:
        if name not in self._arrays:
            self._arrays[name] = _array(self._members[name])
        self._left -= len(self._arrays[name])
        if self._left < 0:
            raise ValueError(f"more than {MOST_ENTRIES} entries")
        return self._arrays[name]


def _array(content: bytes) -> NDArray:
    """The plain numbers of a .npy member."""
    stream = io.BytesIO(content)
    if np.lib.format.read_magic(stream) != (1, 0):
        raise ValueError("an array is not in version 1.0 of the .npy format")
    shape, is_fortran, dtype = np.lib.format.read_array_header_1_0(stream)
    if dtype.kind not in "biuf" or is_fortran or not shape or min(shape) < 0:
        raise ValueError("an array is not made of numbers in C order")
    if math.prod(shape) * dtype.itemsize != len(content) - stream.tell():
        raise ValueError("an array has another length than it states")
    array = np.frombuffer(content, dtype, offset=stream.tell()).reshape(shape)
    array.setflags(write=False)
    return array


def _region_out(region: Region, arrays: _ArrayWriter) -> dict[str, Any]:
    match region:
        case Box(lower=lower, upper=upper):
            return {"kind": "box", "lower": arrays.name(lower), "upper": arrays.name(upper)}
        case Ball(center=center, radius=radius, domain=domain):
            exact = str(Fraction(radius))
            return {"kind": "ball", "center": arrays.name(center), "radius": exact, "domain": _region_out(domain, arrays)}
        case ExactBox(lower=low, upper=high):
            return {"kind": "exact-box", "lower": list(map(str, low)), "upper": list(map(str, high))}
        case Polytope(box=box, constraints=constraints):
            return {
                "kind": "polytope",
                "box": _region_out(box, arrays),
                "constraints": [_formula_out(constraint) for constraint in constraints],
            }
        case _:
            assert_never(region)


def _region_in(data: Mapping[str, Any], arrays: _ArrayReader) -> Region:
    match data["kind"]:
        case "box":
            return _box_in(data, arrays)
        case "ball":
            return Ball(arrays.array(data["center"]), float(_fraction(data["radius"])), _box_in(data["domain"], arrays))
        case "exact-box":
            return ExactBox(tuple(map(_fraction, data["lower"])), tuple(map(_fraction, data["upper"])))
        case "polytope":
            constraints = tuple(_formula_in(constraint) for constraint in data["constraints"])
            if not all(isinstance(constraint, Atom) for constraint in constraints):
                raise ValueError("a polytope's constraints must be atoms")
            return Polytope(_box_in(data["box"], arrays), tuple(c for c in constraints if isinstance(c, Atom)))
        case kind:
            raise ValueError(f"unknown kind of region {kind!r}")


def _box_in(data: Mapping[str, Any], arrays: _ArrayReader) -> Box:
    return Box(arrays.array(data["lower"]), arrays.array(data["upper"]))


def _formula_out(formula: Formula) -> dict[str, Any]:
    match formula:
        case Atom(terms=terms, bias=bias, strict=strict):
            written = [[t.value, t.index, str(t.coefficient)] for t in terms]
            return {"terms": written, "bias": str(bias), "relation": "<" if strict else "<="}
        case And(parts=parts):
            return {"and": [_formula_out(part) for part in parts]}
        case Or(parts=parts):
            return {"or": [_formula_out(part) for part in parts]}
        case _:
            assert_never(formula)


def _formula_in(data: Mapping[str, Any]) -> Formula:
    if "and" in data:
        return And(tuple(_formula_in(part) for part in data["and"]))
    if "or" in data:
        return Or(tuple(_formula_in(part) for part in data["or"]))
    terms = tuple(Term(str(value), int(index), _fraction(coefficient)) for value, index, coefficient in data["terms"])
    if data["relation"] not in ("<", "<="):
        raise ValueError(f"unknown relation {data['relation']!r}")
    return Atom(terms, _fraction(data["bias"]), data["relation"] == "<")


def _fraction(text: str) -> Fraction:
    """A number written as a fraction of whole numbers, which are short; no powers of ten, which could be huge."""
    if FRACTION.fullmatch(text) is None:
        raise ValueError("a number is not written as a fraction of whole numbers")
    return Fraction(text)
