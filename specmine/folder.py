"""The run folder: files that appear whole or not at all, a manifest of what the run is about, a lock against a second run."""

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from specmine.errors import BadRun

MANIFEST = "manifest.json"
SCHEMA = "specmine.run/1"
TEMPORARY = ".part"


@contextmanager
def writing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`; it takes its place when the block ends well, and is removed when it does not.

    Raises BadRun where the folder cannot be written or is full.
    """
    temporary = path.with_name(f".{path.stem}{TEMPORARY}{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise cannot_write(path, error) from error
    finally:
        with suppress(OSError):
            temporary.unlink()


def cannot_write(path: Path, error: OSError) -> BadRun:
    """What to raise for a path that the operating system refuses."""
    return BadRun(f"cannot write {path}: {error.strerror or error}; name a folder with room that can be written (--out)")


def write_text(path: Path, text: str) -> None:
    """Writes the text whole or not at all."""
    with writing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, content: Any) -> None:
    """Writes the content as JSON, whole or not at all; NaN and infinities are no JSON and raise ValueError."""
    write_text(path, json.dumps(content, indent=1, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """The content of a JSON file of the run; raises BadRun where it is missing or damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise BadRun(f"{path.parent} has no {path.name}; it is not a run folder, or the run did not come that far") from error
    except (OSError, ValueError) as error:
        raise BadRun(f"cannot read {path}: {error}; delete it and run again to write it anew") from error


def existing(folder: Path | str) -> Path:
    """The folder, if it is there; raises BadRun where it is not."""
    if not Path(folder).is_dir():
        raise BadRun(f"no run folder {folder}; give the folder that 'specmine mine --out' wrote")
    return Path(folder)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keeps a second process from working in the folder; a killed process leaves no lock behind."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = open(folder / ".lock", "w")  # noqa: SIM115 (closed below; closing gives the lock back)
    except OSError as error:
        raise cannot_write(folder, error) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise BadRun(f"another run works in {folder}; wait for it, or name another folder (--out)") from error
        yield


def claim_folder(folder: Path, identity: Mapping[str, Any], details: Mapping[str, Any]) -> None:
    """Writes the manifest of a new run, or checks that the folder belongs to a run of the same identity.

    details: what may differ from one start of the run to the next; those of the first start are kept. Raises BadRun
    naming every entry of the identity that differs.
    """
    path = folder / MANIFEST
    if not path.exists():
        foreign = sorted(p.name for p in folder.iterdir() if not p.name.startswith("."))
        if foreign:
            raise BadRun(f"{folder} holds other files ({', '.join(foreign[:3])}); name a new or an empty folder (--out)")
        write_json(path, {"schema": SCHEMA, "identity": identity, "details": details})
        return
    differing = list(differences(read_manifest(folder)["identity"], json.loads(json.dumps(identity))))
    if differing:
        raise BadRun(f"{folder} belongs to another run: {'; '.join(differing)}; name another folder (--out)")


def read_manifest(folder: Path) -> Any:
    """The manifest of a run folder; raises BadRun where there is none or it is of another version."""
    content = read_json(folder / MANIFEST)
    if not isinstance(content, dict) or content.get("schema") != SCHEMA:
        raise BadRun(f"{folder / MANIFEST} is not of schema {SCHEMA!r}; name a folder written by this version")
    return content


def differences(found: Any, wanted: Any, name: str = "") -> Iterator[str]:
    """Every entry of two JSON documents that differs, in words."""
    if isinstance(found, dict) and isinstance(wanted, dict):
        for key in sorted(found.keys() | wanted.keys()):
            yield from differences(found.get(key), wanted.get(key), f"{name}.{key}" if name else key)
    elif found != wanted:
        yield f"{name} was {found!r} there and is {wanted!r} here"
