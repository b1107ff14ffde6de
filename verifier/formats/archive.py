"""Networks in the project's own file: a zip of one JSON document and plain numpy arrays, with a checksum. No pickle."""

import io
import json
import os
import secrets
import zipfile
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from verifier.errors import BadNetwork
from verifier.formats.build import NetworkBuilder, check_entries
from verifier.network import Network, Node
from verifier.ops import Array, Op, frozen_array

FORMAT = "verifier-network"
VERSION = 1
DOCUMENT = "network.json"
DAMAGE = (zipfile.BadZipFile, EOFError, LookupError, ValueError, TypeError, AttributeError, RuntimeError)
KINDS: Mapping[str, type] = {kind.__name__: kind for kind in get_args(Op)}


def write_network(network: Network, path: str | Path) -> None:
    """Write the network so that `read_archive` returns one of the same sha256. The file appears whole or not at all.

    Raises OSError where the folder cannot be written to.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        with temporary.open("xb") as stream:
            _write(network, stream)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def read_archive(path: str | Path) -> Network:
    """The network that `write_network` stored. Raises BadNetwork for a damaged, foreign or changed file."""
    path = Path(path)
    try:
        with zipfile.ZipFile(path) as archive:
            return _read(archive)
    except BadNetwork as error:
        raise BadNetwork(f"{path}: {error}") from error
    except OSError as error:
        raise BadNetwork(f"{path}: cannot be read ({error.strerror or error})") from error
    except DAMAGE as error:
        raise BadNetwork(f"{path}: not a network archive, or a damaged one ({error}); write it again") from error


def _write(network: Network, stream: Any) -> None:
    arrays: list[Array | NDArray[np.int64]] = []
    nodes = [_encode(node, arrays) for node in network.nodes]
    document = {
        "format": FORMAT,
        "version": VERSION,
        "sha256": network.sha256,
        "input": network.input,
        "input_shape": list(network.input_shape),
        "output": network.output,
        "nodes": nodes,
    }
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
        # a fixed date: equal networks make equal files
        archive.writestr(zipfile.ZipInfo(DOCUMENT), json.dumps(document, indent=1, allow_nan=False))
        for k, array in enumerate(arrays):
            content = io.BytesIO()
            np.save(content, np.ascontiguousarray(array), allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(_member(k)), content.getvalue())


def _encode(node: Node, arrays: list[Array | NDArray[np.int64]]) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    for field in fields(node.op):
        value = getattr(node.op, field.name)
        if isinstance(value, np.ndarray):
            settings[field.name] = {"array": len(arrays)}
            arrays.append(value)
        else:
            settings[field.name] = value
    return {"output": node.output, "op": type(node.op).__name__, "inputs": list(node.inputs), "settings": settings}


def _member(k: int) -> str:
    return f"array_{k}.npy"


def _read(archive: zipfile.ZipFile) -> Network:
    document = json.loads(_content(archive, DOCUMENT))
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise BadNetwork("not a network archive; give a file made by write_network")
    if document["version"] != VERSION:
        raise BadNetwork(f"archive version {document['version']}, this program reads {VERSION}; write it again")
    builder = NetworkBuilder(_text(document["input"]), _shape(document["input_shape"]))
    used: set[int] = set()
    for entry in document["nodes"]:
        op = KINDS[entry["op"]](**{name: _decode(archive, value, used) for name, value in entry["settings"].items()})
        builder.add(_text(entry["output"]), op, *map(_text, entry["inputs"]))
    network = builder.build(_text(document["output"]))
    if network.sha256 != document["sha256"]:
        raise BadNetwork("the stored checksum does not fit the content; the file was damaged or changed, write it again")
    return network


def _decode(archive: zipfile.ZipFile, value: Any, used: set[int]) -> Any:
    """A setting: an array of the archive (each may be used once), or numbers in nested tuples."""
    match value:
        case {"array": int(k)}:
            if k in used:
                raise BadNetwork(f"array {k} is used twice; the file was changed")
            used.add(k)
            return _array(_content(archive, _member(k)))
        case list():
            return tuple(_decode(archive, part, used) for part in value)
        case bool():
            raise BadNetwork(f"setting {value} is not a number; the file was changed")
        case int() | float():
            return value
        case _:
            raise BadNetwork(f"setting {value!r} is not a number; the file was changed")


def _content(archive: zipfile.ZipFile, member: str) -> bytes:
    info = archive.getinfo(member)
    if info.compress_type != zipfile.ZIP_STORED:
        # sound in memory: a stored member is no longer than the file it lies in
        raise BadNetwork(f"member {member} is compressed; give a file made by write_network")
    return archive.read(info)


def _array(content: bytes) -> Array | NDArray[np.int64]:
    stream = io.BytesIO(content)
    version = np.lib.format.read_magic(stream)
    if version != (1, 0):
        raise BadNetwork(f"array of numpy format {version}; the file was changed")
    shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream)
    check_entries(shape, "an array")
    if dtype not in (np.dtype("<f8"), np.dtype("<i8")) or fortran:
        raise BadNetwork(f"array of type {dtype}; the file was changed")
    array = np.frombuffer(content, dtype=dtype, offset=stream.tell()).reshape(shape)
    if dtype.kind == "f":
        return frozen_array(array)
    # a buffer of bytes is read-only already
    return array


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise BadNetwork(f"name {value!r} is not text; the file was changed")
    return value


def _shape(value: Any) -> tuple[int, ...]:
    if not isinstance(value, list) or not all(type(n) is int for n in value):
        raise BadNetwork(f"shape {value!r} is not a list of integers; the file was changed")
    return tuple(value)
