"""specmine trace"""

from pathlib import Path
from typing import Annotated, Any

import typer

from specmine.cli.options import DataDir, DataName, Memory, ModelFile, Quiet, Verbose, check_data, data_given
from specmine.cli.screen import answer, make_progress
from specmine.config import make_config


def trace(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="A known data set; see specmine data list.", show_default=False)
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="FILE.npz, or FILE.zarr written chunk by chunk; trace.npz.")
    ] = None,
    model: ModelFile = None,
    data: DataName = None,
    data_dir: DataDir = None,
    site: Annotated[list[str] | None, typer.Option("--site", metavar="NAME", help="Site to keep; repeatable.")] = None,
    memory: Memory = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Run the samples through the network and write the values of its sites as one file.

    It has one float64 array (samples, neurons) a site, the predicted classes, the labels and the split. A zarr folder may
    be larger than memory.
    """
    wanted = data_given(name, data, verb="trace")
    config = make_config(memory_mb=memory)
    check_data(wanted)
    from specmine.pipeline import load_inputs
    from specmine.tracing import Sites, Stream
    from specmine.tracing.stored import write_trace
    from specmine.tracing.trace import write_npz

    inputs = load_inputs(model, wanted, config=config, data_dir=data_dir)
    progress, path = make_progress(quiet, verbose), out or Path("trace.npz")
    stream = Stream(Sites(inputs.network), inputs.dataset.x)
    keep = tuple(site or (*stream.sites.hidden, *stream.sites.attention_sites, "y"))
    beside: dict[str, Any] = {"labels": inputs.dataset.y, "split": inputs.dataset.split}
    if path.suffix == ".zarr":
        write_trace(path, stream, keep, beside=beside, memory_mb=config.memory_mb, progress=progress)
    else:
        write_npz(path, stream.sites, stream.x, keep, beside=beside, progress=progress)
    answer(str(path))
