"""Where in a proof tree a replay stands, and how much of it is done."""

from dataclasses import dataclass

from verifier.certificate import ProofNode


@dataclass(frozen=True, eq=False)
class Place:
    """A node on its way from the root. left: the disjuncts open on arrival; side: `low` or `high`, for a root
    empty or which lemma's it is."""

    node: ProofNode
    left: frozenset[int]
    parent: "Place | None"
    side: str

    @property
    def is_low(self) -> bool:
        return self.side == "low"

    @property
    def way(self) -> tuple["Place", ...]:
        """The places from the root to this one."""
        way = [self]
        while way[-1].parent is not None:
            way.append(way[-1].parent)
        return tuple(reversed(way))


@dataclass(eq=False)
class Progress:
    """group: which of the certificate's, None before the first; part: which of its prelude,
    None outside of it; exact: passes that exact arithmetic had to decide."""

    group: int | None = None
    part: int | None = None
    at: Place | None = None
    steps: int = 0
    splits: int = 0
    closes: int = 0
    exact: int = 0

    @property
    def place(self) -> str:
        """Such as `group 0, low high` or `prelude part 2, lemma 5 low`."""
        if self.group is not None:
            where = f"group {self.group}"
        elif self.part is None:
            return "certificate"
        else:
            where = f"prelude part {self.part}"
        sides = " ".join(place.side for place in self.at.way if place.side) if self.at is not None else ""
        return where + (f", {sides}" if sides else "")
