"""The options that commands share."""

from pathlib import Path
from typing import Annotated, Any

import typer

from specmine.config import Config
from specmine.errors import BadConfig, BadModel
from specmine.folder import existing, read_manifest


def _run(folder: Path | None) -> Path | None:
    """The folder of a run; raises BadRun where it is none, before anything heavy is loaded."""
    if folder is not None:
        read_manifest(existing(folder))
    return folder


def _model(path: Path | None) -> Path | None:
    """The file of a model; raises BadModel where there is none."""
    if path is not None and not path.is_file():
        raise BadModel(f"{path}: no such file; give the path of a network file (.onnx, .onnx.gz, .network)")
    return path


RUN = typer.Argument(metavar="RUN", help="Folder of a run, finished or not.", show_default=False, callback=_run)
RunFolder = Annotated[Path, RUN]
OptionalRun = Annotated[Path | None, RUN]
ModelFile = Annotated[
    Path | None, typer.Option("--model", metavar="FILE.onnx", help="The network, an ONNX file.", callback=_model)
]
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
    typer.Option("--region", metavar="NAME", help="domain, data or ball:R, R in units of the input; may be repeated."),
]
OutFolder = Annotated[Path | None, typer.Option("--out", metavar="DIR", help="Run folder; runs/NAME by default.")]
Ways = Annotated[
    list[str] | None,
    typer.Option(
        "--synthesis", metavar="NAME,NAME", help="threshold, smallest, peel, polytope, cover or layered; may be repeated."
    ),
]
SitesMined = Annotated[list[str] | None, typer.Option("--site", metavar="NAME", help="Site to mine, such as h2; repeatable.")]
Recall = Annotated[
    float | None, typer.Option("--recall", metavar="SHARE", help="Recall of smallest bodies; refined ones may get less.")
]
Precision = Annotated[
    float | None, typer.Option("--precision", metavar="SHARE", help="Precision of smallest bodies on the samples.")
]
MaxBody = Annotated[int | None, typer.Option("--max-body", metavar="N", help="Literals that a body may have.")]
Refine = Annotated[
    bool | None, typer.Option("--refine/--no-refine", help="Shape bodies by the verifier's answers; on by default.")
]
RefineTime = Annotated[float | None, typer.Option("--refine-time", metavar="SECONDS", help="Time of refinement for each head.")]
Depth = Annotated[
    int | None,
    typer.Option("--depth", metavar="N", help="Layers that a layered theory goes back from the last hidden one."),
]
MaxClauses = Annotated[int | None, typer.Option("--max-clauses", metavar="N", help="Clauses a class and way.")]
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


def data_given(name: str | None, data: str | None, *, verb: str) -> str:
    """The data that a command is about, named as its argument or by --data; raises BadConfig unless it is named once."""
    if name is not None and data is None:
        return name
    if data is not None and name is None:
        return data
    raise BadConfig(f"give the data once: a known data set (specmine {verb} digits) or --data FILE.npz")


def check_data(wanted: str) -> None:
    """Raises BadData for what names neither a known data set nor a file, before anything heavier is loaded."""
    from specmine.data import check_known

    check_known(wanted)


def listed(values: list[str] | None) -> tuple[str, ...] | None:
    """The names of an option that may be repeated and may hold several with commas between; None where it was not given.

    >>> listed(["unary,binary", "ternary"])
    ('unary', 'binary', 'ternary')
    """
    return tuple(name.strip() for value in values for name in value.split(",") if name.strip()) if values else None


LISTED = ("synthesis", "families", "locality")
"""Settings whose options take several names with commas between."""


def settings(context: typer.Context) -> dict[str, Any]:
    """The options of a command that are keys of the configuration, by key; None, so the default, where one was not given."""
    given = {key: value for key, value in context.params.items() if key in Config.model_fields}
    lists = {key: tuple(value) or None for key, value in given.items() if isinstance(value, list | tuple)}
    return given | lists | {key: listed(list(given[key] or ())) for key in LISTED if key in given}
