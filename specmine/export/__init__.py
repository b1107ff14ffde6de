"""Files that other programs run. An exporter writes its files into a folder and returns their paths."""

from collections.abc import Callable, Mapping
from pathlib import Path

from specmine.exhibit import Exhibit
from specmine.export.chc import export_chc
from specmine.export.json import export_json
from specmine.export.prolog import export_prolog
from specmine.export.smtlib import export_smtlib

Exporter = Callable[[Exhibit, Path], list[Path]]

EXPORTERS: Mapping[str, Exporter] = {
    "smtlib": export_smtlib,
    "prolog": export_prolog,
    "json": export_json,
    "chc": export_chc,
}
