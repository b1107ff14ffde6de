"""What is written to the terminal: answers on stdout, progress and messages on stderr."""

import json
import logging
import sys
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as RichProgress

from specmine.progress import SILENT, Progress


def answer(text: str) -> None:
    """One line, or several, on stdout."""
    print(text)


def answer_json(document: Any) -> None:
    """One JSON document on stdout."""
    print(json.dumps(document, indent=1, allow_nan=False))


def say(text: str) -> None:
    """One message on stderr."""
    print(text, file=sys.stderr)


def make_progress(quiet: bool, verbose: bool) -> Progress:
    """Bars on a terminal, a line a stage elsewhere, nothing where quiet; verbose: a line a step, and the library's log."""
    if verbose:
        logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s", stream=sys.stderr)
    if quiet:
        return SILENT
    if verbose or not sys.stderr.isatty():
        return Lines(steps=verbose)
    return Bars()


class Lines:
    """A line when a stage ends; with steps, a line for each step that says something."""

    def __init__(self, *, steps: bool) -> None:
        self.steps = steps
        self.stage = ""

    def start(self, stage: str, total: int | None = None) -> None:
        self.stage = stage
        if self.steps:
            say(f"{stage} ..." if total is None else f"{stage} ... {total}")

    def advance(self, steps: int = 1, text: str = "") -> None:
        if self.steps and text:
            say(f"  {text}")

    def finish(self, text: str = "") -> None:
        say(f"{self.stage}: {text or 'done'}")


class Bars:
    """One bar for the running stage; done stages leave a line."""

    def __init__(self) -> None:
        columns = (TextColumn("{task.description:<12}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        text = TextColumn("{task.fields[text]}", table_column=None)
        self.bars = RichProgress(*columns, text, console=Console(stderr=True))
        self.task: Any = None

    def start(self, stage: str, total: int | None = None) -> None:
        self.bars.start()
        self.task = self.bars.add_task(stage, total=total, text="")

    def advance(self, steps: int = 1, text: str = "") -> None:
        self.bars.update(self.task, advance=steps, text=text[:60])

    def finish(self, text: str = "") -> None:
        total = self.bars.tasks[self.task].completed or 1
        self.bars.update(self.task, total=total, completed=total, text=text[:60])
        self.bars.stop()
