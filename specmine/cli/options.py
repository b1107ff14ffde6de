"""The options that commands share."""

from pathlib import Path
from typing import Annotated

import typer

RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run, finished or not.", show_default=False)]
OptionalRun = Annotated[
    Path | None, typer.Argument(metavar="RUN", help="Folder of a run, finished or not.", show_default=False)
]
ModelFile = Annotated[Path | None, typer.Option("--model", metavar="FILE.onnx", help="The network, an ONNX file.")]
DataName = Annotated[
    str | None, typer.Option("--data", metavar="NAME|FILE.npz", help="A known data set, or an npz file of arrays x and y.")
]
DataDir = Annotated[
    Path | None, typer.Option("--data-dir", metavar="DIR", help="Folder of large data files; else SPECMINE_DATA.")
]
ConfigFile = Annotated[
    Path | None, typer.Option("--config", metavar="FILE.toml", help="Configuration keys; options win over it.")
]
Regions = Annotated[
    list[str] | None,
    typer.Option("--region", metavar="domain|ball:R", help="Where to prove; may be repeated. R in units of the input."),
]
Families = Annotated[
    list[str] | None,
    typer.Option(
        "--families", metavar="NAME,NAME", help="Predicate families: unary, binary, ternary, attention; unary by default."
    ),
]
Localities = Annotated[
    list[str] | None,
    typer.Option(
        "--locality", metavar="NAME,NAME", help="Neurons that may be compared: window, layer, neighbour; all by default."
    ),
]
Partners = Annotated[int | None, typer.Option("--partners", metavar="N", help="Neurons that a neuron is compared with.")]
Thresholds = Annotated[
    int | None, typer.Option("--thresholds", metavar="N", help="Quantile thresholds of each neuron: the abstract domain size.")
]
Head = Annotated[
    str | None,
    typer.Option(
        "--head",
        metavar="WHAT",
        help="What to speak for: class, label, right, FILE.npz:COLUMN, or a predicate to derive.",
    ),
]
Cluster = Annotated[
    str | None, typer.Option("--cluster", metavar="ADDRESS", help="A dask scheduler whose workers pass over the samples.")
]
Memory = Annotated[float | None, typer.Option("--memory", metavar="MB", help="Megabytes for values of the network at a time.")]
Timeout = Annotated[float | None, typer.Option("--timeout", metavar="SECONDS", help="Time to decide one claim.")]
Budget = Annotated[float | None, typer.Option("--budget", metavar="SECONDS", help="Time to decide all claims.")]
Engine = Annotated[str | None, typer.Option("--engine", metavar="NAME", help="Engine of the verifier; auto by default.")]
Seed = Annotated[int | None, typer.Option("--seed", metavar="N", help="Seed of everything random.")]
Jobs = Annotated[int | None, typer.Option("--jobs", metavar="N", help="Threads.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Nothing on stderr but errors.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Each step on stderr; a traceback where a bug shows.")]


def listed(values: list[str] | None) -> tuple[str, ...] | None:
    """The names of an option that may be repeated and may hold several with commas between; None where it was not given.

    >>> listed(["unary,binary", "ternary"])
    ('unary', 'binary', 'ternary')
    """
    return tuple(name.strip() for value in values for name in value.split(",") if name.strip()) if values else None
