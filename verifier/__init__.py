"""Given a network and a query, decide it and show the evidence.

The package knows nothing of mining: a `Query` asks whether some input of a region satisfies an assertion over
named network values, and a `Verdict` answers with a certificate or a counterexample.
"""

__version__ = "0.1.0"
