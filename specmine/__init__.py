"""Mine Horn-clause specifications from the behaviour of a neural network, and prove them.

>>> import specmine
>>> callable(specmine.mine)
True
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"
_PUBLIC = {"mine": "specmine.pipeline", "decide": "specmine.pipeline", "Config": "specmine.config"}
__all__ = ["Config", "decide", "mine"]


def __getattr__(name: str) -> Any:
    """The public functions, loaded when first asked for, so that `specmine --help` need not load torch."""
    if name in _PUBLIC:
        return getattr(import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'specmine' has no attribute {name!r}")
