"""Check MNIST's idx files in one folder and copy them to another: python fetch.py FROM TO."""

import argparse
import shutil
import sys
from pathlib import Path

from specmine.data.cards import read_card
from specmine.data.idx import find_files, read_content
from specmine.errors import BadData


def fetch(source: Path, target: Path) -> list[Path]:
    """Copies the checked files of the source folder to the target; raises BadData where one is missing or another's."""
    card = read_card("mnist")
    paths = find_files(card, source)
    for file, path in paths.items():
        read_content(path, card.files[file])
    target.mkdir(parents=True, exist_ok=True)
    return [Path(shutil.copyfile(path, target / path.name)) for path in paths.values()]


def main() -> int:
    """Run the command line and return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path, metavar="FROM", help="folder that holds the four files, plain or with .gz")
    parser.add_argument("target", type=Path, metavar="TO", help="folder to copy them to; name it by SPECMINE_DATA")
    options = parser.parse_args()
    try:
        copied = fetch(options.source, options.target)
    except (BadData, OSError) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 2
    print("\n".join(map(str, copied)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
