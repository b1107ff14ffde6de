"""Files and modules in, networks out. A new file format is one file here and one line in FORMATS."""

from collections.abc import Callable, Mapping
from pathlib import Path

from verifier.errors import BadNetwork
from verifier.formats.archive import read_archive
from verifier.formats.onnx import read_onnx
from verifier.network import Network

FORMATS: Mapping[str, Callable[[Path], Network]] = {
    ".onnx": read_onnx,
    ".onnx.gz": read_onnx,
    ".network": read_archive,
}
"""Reader by file ending."""


def read_network(path: str | Path) -> Network:
    """The network of a file, read by its ending: `.onnx`, `.onnx.gz` or `.network` (see `archive.write_network`).

    Raises BadNetwork for a missing, damaged or unknown file, and UnsupportedOp for an operator with no rule here.
    """
    path = Path(path)
    endings = ", ".join(FORMATS)
    reader = next((read for ending, read in FORMATS.items() if path.name.lower().endswith(ending)), None)
    if reader is None:
        raise BadNetwork(f"{path}: unknown file ending; allowed are {endings}. A torch module is read by read_module")
    if not path.exists():
        raise BadNetwork(f"{path}: no such file; give the path of a network file ({endings})")
    if not path.is_file():
        raise BadNetwork(f"{path}: not a file; give the path of a network file ({endings})")
    return reader(path)
