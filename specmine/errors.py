"""What specmine raises at its public boundary: what was given, what is allowed, what to do."""


class SpecmineError(Exception):
    """Bad input to specmine; the message names what was given, what is allowed and what to do."""


class BadData(SpecmineError):
    """Data that cannot be read, does not fit the model, or holds NaN, infinities, empty classes or foreign labels."""


class BadModel(SpecmineError):
    """A model that cannot be read or that does not compute what its original computes."""


class BadClause(SpecmineError):
    """Clause text that cannot be read, or that names sites, neurons or classes the network does not have."""


class BadConfig(SpecmineError):
    """An unknown or ill-typed configuration key or option."""


class BadRun(SpecmineError):
    """A run folder that is missing, foreign, damaged or cannot be written."""


class BadTheory(SpecmineError):
    """Clauses that do not make a theory, such as some whose literals depend on themselves."""
