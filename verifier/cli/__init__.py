"""The command line: `verifier --help`."""

from verifier.cli.app import main

__all__ = ["main"]
