"""From predicates to Horn clauses: syntax, synthesis, peeling and reduction.

Threshold composition and the smallest bodies read the packed table; peeling reads a trace and the network's last layer. They
are plain functions, since one call shape for all three would hide what each needs.
"""

from specmine.rules.clause import HornClause
from specmine.rules.peel import Readout, peel, readout_of
from specmine.rules.reduce import reduce_body
from specmine.rules.smallest import Synthesis, smallest_bodies, smallest_body
from specmine.rules.syntax import parse_clause, parse_clauses
from specmine.rules.threshold import compose

__all__ = [
    "HornClause",
    "Readout",
    "Synthesis",
    "compose",
    "parse_clause",
    "parse_clauses",
    "peel",
    "readout_of",
    "reduce_body",
    "smallest_bodies",
    "smallest_body",
]
