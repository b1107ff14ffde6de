"""SMT-LIB 2.6: one file a claim, asking for an input of the region that satisfies the body but not the head.

`unsat` is a proof of the claim; it is announced by :status where the claim was proved here.
"""

from pathlib import Path

from specmine.exhibit import Exhibit
from specmine.export.header import claim_lines, run_lines
from specmine.folder import write_text
from specmine.queries import clause_query
from verifier.formats.smtlib import smtlib

STATUS = {"proved": "unsat", "vacuous": "unsat", "refuted": "sat", "unknown": "unknown", "unchecked": "unknown"}


def export_smtlib(exhibit: Exhibit, folder: Path) -> list[Path]:
    """Writes one .smt2 file for each claim, named by the claim's id."""
    paths = []
    for claim in exhibit.spec.claims:
        query = clause_query(claim.clause, claim.region.region, exhibit.sites)
        header = [*run_lines(exhibit.spec), *claim_lines(claim)]
        path = folder / f"{claim.id}.smt2"
        write_text(path, smtlib(query, header=header, status=STATUS[claim.outcome.verdict]))
        paths.append(path)
    return paths
