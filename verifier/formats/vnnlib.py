"""VNN-LIB files as queries."""

import gzip
import zlib
from pathlib import Path

from verifier.errors import BadQuery
from verifier.formats.vnnlib1 import parse_vnnlib1
from verifier.formats.vnnlib_tokens import Source
from verifier.network import Network
from verifier.query import Query

MAX_BYTES = 256 * 2**20


def read_vnnlib(path: str | Path, network: Network) -> Query:
    """The query of a VNN-LIB file (`.vnnlib`, or `.vnnlib.gz`) about a network; see `parse_vnnlib`.

    Raises BadQuery for a missing, damaged or over-long file, and for what it says where that cannot be a query.
    """
    path = Path(path)
    try:
        with gzip.open(path) if path.name.lower().endswith(".gz") else path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise BadQuery(f"{path}: cannot be read ({error}); give the path of a VNN-LIB file") from error
    if len(data) > MAX_BYTES:
        raise BadQuery(f"{path}: over {MAX_BYTES} bytes of text; split the query")
    try:
        return parse_vnnlib(data.decode(), network, name=str(path))
    except UnicodeDecodeError as error:
        raise BadQuery(f"{path}: not UTF-8 text ({error}); give a VNN-LIB file") from error


def parse_vnnlib(text: str, network: Network, *, name: str = "VNN-LIB text") -> Query:
    """The query that VNN-LIB text asks about a network, in real arithmetic and with every decimal taken exactly.

    name: what messages call the text. Raises BadQuery with line, column, what was found and what is allowed.
    """
    return parse_vnnlib1(Source(name, text), network)
