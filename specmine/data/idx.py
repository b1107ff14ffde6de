"""MNIST from its idx files, packed or not, checked against the card."""

import gzip
import hashlib
import os
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from specmine.data.cards import Card
from specmine.errors import BadData

DATA_FOLDER_VARIABLE = "SPECMINE_DATA"
_HEADER = {1: 8, 3: 16}


def data_folder(data_dir: Path | str | None) -> Path | None:
    """The folder of large data files: the one given, else that of the environment variable SPECMINE_DATA, else None."""
    named = data_dir or os.environ.get(DATA_FOLDER_VARIABLE)
    return Path(named) if named else None


def find_files(card: Card, folder: Path | None) -> Mapping[str, Path]:
    """The path of each source file of the card, plain or with .gz, in the folder or in its sub-folder of the card's name.

    Raises BadData naming the missing files and where to put them.
    """
    places = [] if folder is None else [folder, folder / card.name]
    found = {
        file: place / spelling
        for file in card.files
        for place in reversed(places)
        for spelling in (f"{file}.gz", file)
        if (place / spelling).is_file()
    }
    missing = [file for file in card.files if file not in found]
    if missing:
        where = "no folder was given" if folder is None else f"they are not in {folder}"
        raise BadData(
            f"data set {card.name!r} needs the files {', '.join(missing)} (or the same with .gz), and {where}; get them from "
            f"{card.source} and name their folder by data_dir (--data-dir) or {DATA_FOLDER_VARIABLE}"
        )
    return found


def read_content(path: Path, sha256: str) -> bytes:
    """The unpacked content of a source file; raises BadData where it is not the file that the card names."""
    try:
        content = path.read_bytes()
        if path.suffix == ".gz":
            content = gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise BadData(f"cannot read {path}: {error}; get the file again") from error
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise BadData(f"{path} has sha256 {found} but the card says {sha256}; get the original file")
    return content


def read_images_and_labels(card: Card, folder: Path | None) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """All images (samples, pixels) and labels (samples,), training files first."""
    paths = find_files(card, folder)
    arrays = [parse_idx(read_content(paths[file], sha256), file) for file, sha256 in card.files.items()]
    images = np.concatenate([a.reshape(len(a), -1) for a in arrays if a.ndim == 3])
    return images, np.concatenate([a for a in arrays if a.ndim == 1]).astype(np.int64)


def parse_idx(content: bytes, name: str) -> NDArray[np.uint8]:
    """The array of an idx file of bytes with one or three axes."""
    axes = content[3] if len(content) > 3 and content[:3] == b"\x00\x00\x08" else 0
    header = _HEADER.get(axes, 0)
    shape = tuple(int(n) for n in np.frombuffer(content[4:header], dtype=">u4")) if header and len(content) >= header else ()
    if not shape or len(content) - header != int(np.prod(shape)):
        raise BadData(f"{name} is not an idx file of bytes with 1 or 3 axes, or it is cut short; get the file again")
    return np.frombuffer(content, dtype=np.uint8, offset=header).reshape(shape)


def scale_pixels(pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
    """pixel / 255 rounded to float32, held as float64: what models trained in float32 see, exactly."""
    levels = (np.arange(256, dtype=np.float32) / np.float32(255)).astype(np.float64)
    return levels[pixels]
