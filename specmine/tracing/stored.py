"""Traces on disk (zarr version 3), written chunk by chunk, for samples whose values do not fit in memory."""

import os
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import Crc32cCodec

from specmine.folder import TEMPORARY, cannot_write
from specmine.progress import SILENT, Progress
from specmine.tracing.stream import MEMORY_MB, Stream, chunk_for, chunks
from verifier.ops import Array

SCHEMA = "specmine.trace/1"


def write_trace(
    path: Path,
    stream: Stream,
    keep: Collection[str],
    *,
    beside: Mapping[str, NDArray[Any]] | None = None,
    memory_mb: float = MEMORY_MB,
    progress: Progress = SILENT,
) -> None:
    """Writes the values of sites as a zarr group, whole or not at all: a float64 array (samples, neurons) for each site, and
    `predictions`.

    beside: further arrays (samples, ...), such as labels. memory_mb bounds the values held at a time. Raises BadRun where the
    path exists or cannot be written, BadModel and BadData as tracing does.
    """
    path = Path(path)
    if path.exists():
        raise cannot_write(path, FileExistsError("it is there already"))
    temporary = path.with_name(f".{path.name}.{os.getpid()}{TEMPORARY}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _write(temporary, stream, sorted(keep), beside or {}, memory_mb, progress)
        os.replace(temporary, path)
    except OSError as error:
        raise cannot_write(path, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _write(
    path: Path,
    stream: Stream,
    keep: list[str],
    beside: Mapping[str, NDArray[Any]],
    memory_mb: float,
    progress: Progress,
) -> None:
    sites, samples = stream.sites, stream.samples
    chunk = chunk_for(stream, keep, memory_mb)
    group = zarr.open_group(path, mode="w", zarr_format=3)
    group.update_attributes({"schema": SCHEMA, "network": sites.network.sha256, "samples": samples})
    for name, array in beside.items():
        group.create_array(name, data=np.ascontiguousarray(array), compressors=[Crc32cCodec()])
    arrays = {site: _array(group, site, (samples, sites.size(site)), chunk) for site in keep}
    predictions = np.empty(samples, dtype=np.int64)
    progress.start("trace", samples)
    for rows, part in chunks(stream, keep, chunk=chunk):
        for site, stored in arrays.items():
            stored[rows] = part.values[site]
        predictions[rows] = part.predictions
        progress.advance(rows.stop - rows.start)
    group.create_array("predictions", data=predictions, compressors=[Crc32cCodec()])
    progress.finish()


def _array(group: zarr.Group, site: str, shape: tuple[int, int], chunk: int) -> zarr.Array:
    chunked = (min(chunk, shape[0]), shape[1])
    return group.create_array(site, shape=shape, chunks=chunked, dtype="<f8", compressors=[Crc32cCodec()])


def read_values(path: Path, site: str, samples: slice = slice(None)) -> Array:
    """The values (samples, neurons) of a site in a stored trace, only the wanted samples."""
    return np.asarray(zarr.open_array(path, path=site, mode="r")[samples])
