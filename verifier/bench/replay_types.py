"""What the replay of a counterexample is asked and answers."""

from dataclasses import dataclass

TOLERANCE = 1e-6
"""How far a float32 run may miss the query, absolute, over inputs and outputs."""


@dataclass(frozen=True)
class ReplayRequest:
    network: str
    query: str
    counterexample: tuple[float, ...]


@dataclass(frozen=True)
class Replay:
    """violation: 0 where the run satisfies the query, else by how much it misses; None where it was not run (see note)."""

    violation: float | None
    note: str = ""
