"""SMT-LIB 2.6: one file a claim, asking for an input of the region that satisfies the body but not the head.

`unsat` is a proof of the claim; it is announced by :status where the claim was proved here.
"""

from pathlib import Path

from specmine.exhibit import Exhibit
from specmine.export.header import claim_lines, run_lines
from specmine.folder import write_text
from specmine.queries import claim_query, starting_later
from specmine.spec import RESOLUTION, Claim
from verifier.engines.smt import decide_smt
from verifier.formats.smtlib import smtlib
from verifier.formula import atoms_of
from verifier.query import Query
from verifier.solve import verify
from verifier.verdict import Proved

STATUS = {"proved": "unsat", "vacuous": "unsat", "refuted": "sat", "unknown": "unknown", "unchecked": "unknown"}


EASY_S = 2.0
EASY_SUMS = 20
"""Seconds for one attempt at a smaller question, and how many atoms on several neurons a body may have for Z3 to make it: with
more it takes many times as long, and bounds tell whether the smaller question is enough."""

EXACT = "question: the whole network; sat is a counterexample, unsat a proof"
LATER = (
    "question: the network from value {start!r} on, which may be anything in its interval bounds over the region "
    "(computed here, rounded outward); unsat is a proof of the claim, sat would say nothing"
)


def export_smtlib(exhibit: Exhibit, folder: Path) -> list[Path]:
    """Writes one .smt2 file for each claim, named by the claim's id.

    Of a proved claim, the file asks a stronger and smaller question where one is enough for a proof: without the layers
    that the proof does not need, which a solver would take hours to see. Its header says which question it asks.
    """
    paths = []
    for claim in exhibit.spec.claims:
        query, question = question_of(claim, exhibit)
        header = [*run_lines(exhibit.spec), *claim_lines(claim), question]
        path = folder / f"{claim.id}.smt2"
        write_text(path, smtlib(query, header=header, status=STATUS[claim.outcome.verdict]))
        paths.append(path)
    return paths


def question_of(claim: Claim, exhibit: Exhibit) -> tuple[Query, str]:
    """The query to write, and what its answer means."""
    query = claim_query(claim, exhibit.sites)
    sums = sum(len(a.terms) > 1 for part in claim.body_parts for a in atoms_of(part))
    alone = claim.outcome.engine != RESOLUTION  # what was composed was never one proof, so a small question says too little
    if STATUS[claim.outcome.verdict] == "unsat" and alone:
        for later in starting_later(query):
            few = sums <= EASY_SUMS
            decision = decide_smt(later, timeout_s=EASY_S) if few else verify(later, engine="bound", timeout_s=EASY_S)
            if isinstance(decision.verdict, Proved):
                return later, LATER.format(start=later.network.input)
    return query, EXACT
