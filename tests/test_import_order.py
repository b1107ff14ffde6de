"""The order of imports that DESIGN.md draws, checked by import-linter against the contracts in pyproject.toml."""

import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def test_no_import_goes_upwards():
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command; lint_imports_command()", "--no-cache"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout[-4000:] + result.stderr[-2000:]


def test_every_family_and_exporter_is_in_a_contract():
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    independent = {name for contract in contracts if contract["type"] == "independence" for name in contract["modules"]}
    for folder, shared in (("specmine/predicates/families", set()), ("specmine/export", {"header"})):
        for path in (ROOT / folder).glob("*.py"):
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            assert path.stem in {"__init__", *shared} or name in independent, f"{name} belongs in an independence contract"


def test_help_does_not_load_torch():
    code = "import sys; from specmine.cli import main; main(['--help']); sys.exit('torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0 and "Exit codes" in result.stdout
