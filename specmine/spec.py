"""What a run gives: claims with their evidence and their verdicts, and where all of it came from."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from specmine.regions import DOMAIN, NamedRegion
from specmine.rules.clause import HornClause
from specmine.rules.theory import Theory
from specmine.stats import Evidence
from verifier.formula import Formula

VerdictText = Literal["proved", "refuted", "unknown", "vacuous", "unchecked"]
VERDICTS: tuple[VerdictText, ...] = get_args(VerdictText)

BETWEEN = "between the layers alone"
"""Ends the engine of a proof that is about the layers between body and head: its certificate is for that smaller question."""

RESOLUTION = "resolution"
"""The engine of a clause that follows from other proved ones by chaining, so that it needs no certificate."""


@dataclass(frozen=True)
class Witness:
    """An input of the region that satisfies the body, confirmed exactly: a row of the data, or a point found by search."""

    sample: int | None = None
    input: tuple[float, ...] | None = None


@dataclass(frozen=True)
class Outcome:
    """What the verifier says of a claim; `unchecked` where it was never asked.

    bound: the smallest proven lower bound over the ways the claim can fail, in the scale of their atoms (positive is a
    proof). certificate: a path inside the run folder. reason: why the verdict is unknown.
    """

    verdict: VerdictText = "unchecked"
    reason: str = ""
    bound: float | None = None
    engine: str = ""
    seconds: float = 0.0
    certificate: str | None = None
    witness: Witness | None = None
    counterexample: tuple[float, ...] | None = None


@dataclass(frozen=True)
class Shortfall:
    """The recall that was asked of a body, and the smaller one that it keeps, both of the mining samples to be covered.

    >>> print(Shortfall(0.95, 0.91))
    below the asked recall of 0.95: 0.9100
    """

    asked: float
    kept: float

    def __str__(self) -> str:
        return f"below the asked recall of {self.asked:g}: {self.kept:.4f}"


@dataclass(frozen=True, eq=False)
class Claim:
    """A clause over a region, with what the data says (evidence) and what is proved (outcome).

    body_parts: the formulas that the body denotes, over network values, all of which must hold; mostly atoms. shortfall: where
    refinement found no proved body with the recall that was asked of it.
    """

    clause: HornClause
    body_parts: tuple[Formula, ...]
    evidence: Evidence
    region: NamedRegion
    outcome: Outcome = Outcome()
    shortfall: Shortfall | None = None

    @property
    def id(self) -> str:
        """Names the claim in files: the clause's id and the region's name."""
        return f"{self.clause.id}-{self.region.name.replace(':', '_')}"

    @property
    def title(self) -> str:
        """The claim in a few words, for progress and logs."""
        head = "false" if self.clause.head is None else str(self.clause.head)
        return f"{head} by {len(self.clause.body)} literals over {self.region.name}"


@dataclass(frozen=True)
class Coverage:
    """What clauses cover on the test split.

    correct: how many of its inputs are classified correctly. covered: by clause id, the places in the split of those among
    them whose class is the clause's head and that satisfy its body.
    """

    test_inputs: int
    correct: int
    covered: Mapping[str, tuple[int, ...]]

    def share(self, clause_ids: Iterable[str]) -> float:
        """The share of all test inputs that one of the clauses covers."""
        places = {place for clause_id in clause_ids for place in self.covered[clause_id]}
        return len(places) / self.test_inputs if self.test_inputs else 0.0


@dataclass(frozen=True, eq=False)
class Spec:
    """Claims, where they come from, and what they cover; seconds: wall clock by stage."""

    claims: tuple[Claim, ...]
    provenance: Mapping[str, Any]
    coverage: Coverage
    seconds: Mapping[str, float] = field(default_factory=dict)

    @property
    def clauses(self) -> tuple[HornClause, ...]:
        """The distinct clauses, in the order of the claims."""
        return tuple(dict.fromkeys(claim.clause for claim in self.claims))

    @property
    def short(self) -> tuple[HornClause, ...]:
        """The clauses that keep less recall than was asked of them."""
        return tuple(dict.fromkeys(claim.clause for claim in self.claims if claim.shortfall is not None))

    @property
    def verified(self) -> tuple[HornClause, ...]:
        """The clauses proved over the whole input domain, not vacuous."""
        proved = (c.clause for c in self.claims if c.outcome.verdict == "proved" and c.region.name == DOMAIN)
        return tuple(dict.fromkeys(proved))

    @property
    def theory(self) -> Theory:
        """The clauses over the whole input domain that are not refuted; proved are the verified ones and the vacuous."""
        over_all = [claim for claim in self.claims if claim.region.name == DOMAIN and claim.outcome.verdict != "refuted"]
        proved = frozenset(claim.clause for claim in over_all if claim.outcome.verdict in ("proved", "vacuous"))
        return Theory(tuple(dict.fromkeys(claim.clause for claim in over_all)), proved)

    @property
    def recall(self) -> float:
        """The share of all test inputs that are classified correctly and satisfy the body of a clause for their class."""
        return self.coverage.share(clause.id for clause in self.clauses)

    @property
    def verified_recall(self) -> float:
        """The same share over the clauses proved on the whole input domain and not vacuous."""
        return self.coverage.share(clause.id for clause in self.verified)

    @property
    def verdicts(self) -> Mapping[VerdictText, int]:
        """The number of claims by verdict."""
        counts = Counter(claim.outcome.verdict for claim in self.claims)
        return {verdict: counts[verdict] for verdict in VERDICTS}

    @property
    def exit_code(self) -> int:
        """0: every claim proved (vacuous ones included); 1: one refuted; 3: none refuted, one undecided."""
        seen = {claim.outcome.verdict for claim in self.claims}
        return 1 if "refuted" in seen else 3 if seen & {"unknown", "unchecked"} else 0
