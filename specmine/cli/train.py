"""specmine train"""

from pathlib import Path
from typing import Annotated

import typer

from specmine.cli.options import DataDir, Jobs, Quiet, Verbose, check_data
from specmine.cli.screen import answer, make_progress, say
from specmine.config import make_config


def train(
    data: Annotated[
        str, typer.Argument(metavar="DATA", help="A known data set, or an npz file of arrays x and y.", show_default=False)
    ],
    out: Annotated[
        Path, typer.Option("--out", metavar="FILE.onnx", help="Where the trained network goes.", show_default=False)
    ],
    technique: Annotated[str, typer.Option("--technique", metavar="NAME", help="How to train.")] = "standard",
    hidden: Annotated[str, typer.Option("--hidden", metavar="N,N", help="Widths of the hidden layers.")] = "32,32",
    channels: Annotated[
        str | None,
        typer.Option(
            "--channels", metavar="N,N", help="For images: 3x3 convolutions of so many channels, each pooled, come first."
        ),
    ] = None,
    epochs: Annotated[int, typer.Option("--epochs", metavar="N", min=1, help="Rounds over the mining samples.")] = 60,
    seed: Annotated[int, typer.Option("--seed", metavar="N", help="Seed of everything random.")] = 0,
    data_dir: DataDir = None,
    jobs: Jobs = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Train a ReLU network on the mining split of a data set and write it as ONNX."""
    widths, planes = _widths("--hidden", hidden), _widths("--channels", channels) if channels else ()
    check_data(data)
    import torch

    from specmine.pipeline.inputs import load_data
    from specmine.training import accuracy, write_onnx
    from specmine.training import train as train_network

    if jobs:
        torch.set_num_threads(jobs)
    dataset, _ = load_data(data, config=make_config(seed=seed), data_dir=data_dir)
    progress = make_progress(quiet, verbose)
    network = train_network(
        dataset, technique=technique, hidden=widths, channels=planes, epochs=epochs, seed=seed, progress=progress
    )
    write_onnx(network, torch.zeros(1, dataset.domain.size), out)
    if not quiet:
        say(f"accuracy on the test split: {accuracy(network, *dataset.test):.4f}")
    answer(str(out))


def _widths(option: str, text: str) -> tuple[int, ...]:
    parts = text.split(",")
    if not all(part.strip().isdigit() and int(part) > 0 for part in parts):
        raise typer.BadParameter(f"{option} takes numbers such as 32,32, got {text!r}")
    return tuple(int(part) for part in parts)
