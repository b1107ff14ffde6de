"""VNN-LIB files, versions 1.0 and 2.0, as queries."""

import gzip
import zlib
from pathlib import Path

from verifier.errors import BadQuery
from verifier.formats.vnnlib1 import parse_vnnlib1
from verifier.formats.vnnlib2 import parse_vnnlib2
from verifier.formats.vnnlib_declarations import Declaration, read_declarations, version
from verifier.formats.vnnlib_tokens import Source
from verifier.network import Network
from verifier.query import Query

MAX_BYTES = 128 * 2**20


def read_vnnlib(path: str | Path, network: Network) -> Query:
    """The query of a VNN-LIB file (`.vnnlib`, or `.vnnlib.gz`) about a network; see `parse_vnnlib`.

    Raises BadQuery for a missing, damaged or over-long file, and for what it says where that cannot be a query.
    """
    return parse_vnnlib(read_text(path), network, name=str(path))


def parse_vnnlib(text: str, network: Network, *, name: str = "VNN-LIB text") -> Query:
    """The query that VNN-LIB text asks about a network, in real arithmetic and with every decimal taken exactly.

    A text that begins with `(vnnlib-version <2.0>)` is read as version 2.0, any other as 1.0. The region is the smallest box
    around the inputs that the bounds allow (of rationals, where some decimal is no float64); the assertion says the rest.

    name: what messages call the text. Raises BadQuery with line, column, what was found and what is allowed.
    """
    if not text.strip():
        raise BadQuery(f"{name}: the file is empty; a query declares its variables and asserts something of them")
    source = Source(name, text)
    parse = parse_vnnlib2 if version(source)[0] == 2 else parse_vnnlib1
    return parse(source, network)


def declared_networks(text: str, *, name: str = "VNN-LIB text") -> tuple[Declaration, ...]:
    """The networks that VNN-LIB 2.0 text declares; none where the text is of version 1.0. Raises BadQuery."""
    return read_declarations(Source(name, text))


def read_text(path: str | Path) -> str:
    """The text of a VNN-LIB file, unpacked where its name ends in `.gz`. Raises BadQuery where it cannot be read."""
    path = Path(path)
    try:
        with gzip.open(path) if path.name.lower().endswith(".gz") else path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise BadQuery(f"{path}: cannot be read ({error}); give the path of a VNN-LIB file") from error
    if len(data) > MAX_BYTES:
        raise BadQuery(f"{path}: over {MAX_BYTES} bytes of text; split the query")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise BadQuery(f"{path}: not UTF-8 text ({error}); give a VNN-LIB file") from error
