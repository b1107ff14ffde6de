"""specmine trace"""

from pathlib import Path
from typing import Annotated, Any

import typer

from specmine.cli.options import DataDir, DataName, ModelFile, Quiet, Verbose
from specmine.cli.screen import answer, make_progress
from specmine.errors import BadConfig


def trace(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="A known data set; see specmine data list.", show_default=False)
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", metavar="FILE.npz", help="Where the trace goes; trace.npz.")] = None,
    model: ModelFile = None,
    data: DataName = None,
    data_dir: DataDir = None,
    site: Annotated[list[str] | None, typer.Option("--site", metavar="NAME", help="Site to keep; repeatable.")] = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Run the samples through the network and write the values of its sites as one npz file.

    The file has one float64 array (samples, neurons) a site, the predicted classes, the labels and the split.
    """
    if (name is None) == (data is None):
        raise BadConfig("give the data once: a known data set (specmine trace digits) or --data FILE.npz")
    import numpy as np

    from specmine.config import make_config
    from specmine.folder import writing
    from specmine.pipeline import load_inputs
    from specmine.tracing import Sites
    from specmine.tracing import trace as trace_network

    inputs = load_inputs(model, str(name or data), config=make_config(), data_dir=data_dir)
    progress = make_progress(quiet, verbose)
    traced = trace_network(Sites(inputs.network), inputs.dataset.x, keep=site or None, progress=progress)
    path = out or Path("trace.npz")
    with writing(path) as temporary, open(temporary, "wb") as file:
        rest: dict[str, Any] = {"predictions": traced.predictions, "labels": inputs.dataset.y, "split": inputs.dataset.split}
        np.savez_compressed(file, allow_pickle=False, **traced.values, **rest)
    answer(str(path))
