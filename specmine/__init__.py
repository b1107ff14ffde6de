"""Mine Horn-clause specifications from the behaviour of a neural network, and prove them."""

__version__ = "0.1.0"
