"""Given a network and a query, decide it and show the evidence.

The package knows nothing of mining: a `Query` asks whether some input of a region satisfies an assertion over
named network values, and a `Verdict` answers with a certificate or a counterexample.

    >>> import numpy as np, verifier
    >>> net = verifier.Network("x", (1, 2), (verifier.Node("y", verifier.Relu(), ("x",)),), "y")
    >>> query = verifier.Query(net, verifier.Box(np.zeros(2), np.ones(2)), verifier.at_least("y", 0, 2))
    >>> type(verifier.verify(query, timeout_s=5).verdict).__name__
    'Proved'
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

# Names are loaded on first use: `import verifier` stays quick, since only solving needs torch.
_HOMES = {
    "verifier.solve": ("verify", "verify_many"),
    "verifier.check": ("confirms", "enclose", "read_certificate", "replay", "write_certificate"),
    "verifier.formats": ("read_network",),
    "verifier.formats.vnnlib": ("parse_vnnlib", "read_vnnlib"),
    "verifier.formats.vnnlib_write": ("write_vnnlib",),
    "verifier.formula": ("And", "Or", "at_least", "at_most", "atom", "conjoin", "negate"),
    "verifier.network": ("Network", "Node"),
    "verifier.query": ("Query",),
    "verifier.region": ("Ball", "Box", "ExactBox", "Polytope"),
    "verifier.verdict": ("Decision", "Proved", "Refuted", "Unknown"),
    "verifier.ops": ("Relu", "Linear"),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}

__all__ = sorted(_HOME)  # noqa: PLE0605


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'verifier' has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
