"""The command line: `specmine --help`."""

from specmine.cli.app import main

__all__ = ["main"]
