"""Run the network over samples and keep the values that clauses speak about."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from specmine.errors import BadClause, BadData, BadModel
from specmine.folder import writing
from specmine.progress import SILENT, Progress
from specmine.tracing.sites import Sites
from verifier.evaluate import evaluate
from verifier.network import Network
from verifier.ops import Array

NO_CLASS = -1


@dataclass(frozen=True, eq=False)
class Trace:
    """Values of the kept sites on samples, in float64, read-only.

    values: (samples, size) by site name, neurons in C order; predictions: (samples,) the class whose output is strictly
    the largest, or -1 where outputs tie.
    """

    sites: Sites
    values: Mapping[str, Array]
    predictions: NDArray[np.int64]

    @property
    def samples(self) -> int:
        return len(self.predictions)


def trace(
    sites: Sites, samples: Any, *, keep: Collection[str] | None = None, batch: int = 4096, progress: Progress = SILENT
) -> Trace:
    """The trace of samples (samples, *any shape of the input's size) through the network itself, in float64.

    keep: site names, by default the activation outputs and y; only these are held, 8 bytes for each sample and neuron.
    Raises BadData where the samples do not fit, BadModel where the network gives NaN or infinity, BadClause for a site
    that does not exist.
    """
    x = check_samples(sites.network, samples)
    kept = tuple(dict.fromkeys((*sites.hidden, "y") if keep is None else keep))
    names = {site: sites.value(site) for site in kept}
    arrays = {site: np.empty((len(x), sites.size(site))) for site in kept}
    predictions = np.empty(len(x), dtype=np.int64)
    progress.start("trace", len(x))
    for start in range(0, len(x), batch):
        rows = slice(start, start + batch)
        values = evaluate(sites.network, torch.from_numpy(np.array(x[rows])), keep={*names.values(), sites.network.output})
        flat = {name: _finite(value.flatten(1).numpy(), name, start) for name, value in values.items()}
        for site, name in names.items():
            arrays[site][rows] = flat[name]
        predictions[rows] = predict(flat[sites.network.output])
        progress.advance(len(x[rows]))
    progress.finish()
    return make_trace(sites, arrays, predictions)


def write_npz(
    path: Path,
    sites: Sites,
    samples: Any,
    keep: Collection[str],
    *,
    beside: Mapping[str, NDArray[Any]],
    progress: Progress = SILENT,
) -> None:
    """Writes the trace of samples as one packed npz file, whole or not at all, with `predictions` and further arrays."""
    traced = trace(sites, samples, keep=keep, progress=progress)
    with writing(Path(path)) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, allow_pickle=False, **{**traced.values, "predictions": traced.predictions, **beside})


def make_trace(sites: Sites, values: Mapping[str, Array], predictions: NDArray[np.int64]) -> Trace:
    """A trace of the given arrays, which become read-only."""
    for array in (*values.values(), predictions):
        array.setflags(write=False)
    return Trace(sites, dict(values), predictions)


def select_samples(trace: Trace, rows: Any) -> Trace:
    """The trace of some of its samples; rows: places or a Boolean mask."""
    return make_trace(trace.sites, {site: v[rows] for site, v in trace.values.items()}, trace.predictions[rows])


def column(trace: Trace, site: str) -> Array:
    """The values (samples, size) of a site; raises BadClause where the trace did not keep it."""
    if site not in trace.values:
        trace.sites.value(site)
        raise BadClause(f"site {site!r} is not in this trace, which has {', '.join(trace.values)}; trace it with keep=")
    return trace.values[site]


def predict(outputs: Array) -> NDArray[np.int64]:
    """The class of each row of outputs (samples, classes) that is strictly the largest, -1 where there is none.

    >>> predict(np.array([[0.0, 1.0], [1.0, 1.0]])).tolist()
    [1, -1]
    """
    largest = outputs.max(axis=1, keepdims=True)
    return np.where((outputs == largest).sum(axis=1) == 1, outputs.argmax(axis=1), NO_CLASS)


def check_samples(network: Network, samples: Any) -> Array:
    """Samples as float64 (samples, inputs); raises BadData where they do not fit the network or are not finite."""
    x = np.asarray(samples, dtype=np.float64)
    size = network.size(network.input)
    if x.ndim < 2 or not len(x) or x[0].size != size:
        raise BadData(
            f"samples must have shape (samples, ...) with {size} numbers each for input {network.input!r} of shape "
            f"{network.input_shape}, got {x.shape}"
        )
    if not np.isfinite(x).all():
        raise BadData("samples must be finite, got NaN or infinity; drop or fill such samples")
    return x.reshape(len(x), size)


def _finite(values: Array, name: str, start: int) -> Array:
    if not np.isfinite(values).all():
        row = start + int(np.argmin(np.isfinite(values).all(axis=1)))
        raise BadModel(
            f"the network's value {name!r} on sample {row} is not finite; check its weights and the scale of the data"
        )
    return values
