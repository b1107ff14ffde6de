"""The Spec as its JSON document."""

from pathlib import Path

from specmine.document import to_json
from specmine.exhibit import Exhibit
from specmine.folder import write_text


def export_json(exhibit: Exhibit, folder: Path) -> list[Path]:
    """Writes spec.json."""
    path = folder / "spec.json"
    write_text(path, to_json(exhibit.spec))
    return [path]
