"""What the verifier raises at its public boundary: what was given, what is allowed, what to do."""


class VerifierError(Exception):
    """Bad input to the verifier; the message names what was given, what is allowed and what to do."""


class UnsupportedOp(VerifierError):
    """An operator, or one of its settings, that the verifier has no sound rule for."""

    def __init__(self, op: str, node: str, detail: str = "") -> None:
        self.op, self.node = op, node
        reason = f" ({detail})" if detail else ""
        super().__init__(f"operator {op} at node {node!r} is not supported{reason}")


class BadNetwork(VerifierError):
    """A model file or module that cannot be read as a network."""


class BadRegion(VerifierError):
    """An empty, inverted, non-finite or wrongly shaped input region."""


class BadQuery(VerifierError):
    """A formula or query that does not fit its network."""


class BadCertificate(VerifierError):
    """A certificate file that is damaged, or made for another network or query."""
