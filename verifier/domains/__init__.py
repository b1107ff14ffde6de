"""Bounds on the values of a network over an input region: one file a domain.

DOMAINS lists the forward domains, whose numbers are rounded outward and so hold as they stand. `linear` goes backward
from forms that are asked for; its floats steer a search, and what they claim is believed once `verifier.check` has replayed it.
"""

from collections.abc import Callable, Sequence

from verifier.device import tensor_of
from verifier.domains.bounds import Bounds, cuts_of
from verifier.domains.interval import interval_bounds
from verifier.domains.zonotope import zonotope_bounds
from verifier.errors import BadQuery
from verifier.formula import Atom
from verifier.network import Network
from verifier.region import Region, constraints, outer_bounds

DOMAINS: dict[str, Callable[..., Bounds]] = {"interval": interval_bounds, "zonotope": zonotope_bounds}


def region_bounds(
    network: Network, region: Region, *, premise: Sequence[Atom] = (), domain: str | Callable[..., Bounds] = "interval"
) -> Bounds:
    """Bounds on every value over the inputs of one region that satisfy the premise, a conjunction; rows of length 1.

    Of the premise and the region's linear constraints only atoms with a single term are used. Real-arithmetic bounds,
    rounded outward. Raises UnsupportedOp, and BadQuery for an unknown domain.
    """
    if isinstance(domain, str) and domain not in DOMAINS:
        raise BadQuery(f"no domain {domain!r}; choose one of {', '.join(DOMAINS)} or pass the function itself")
    propagate = DOMAINS[domain] if isinstance(domain, str) else domain
    lower, upper = (tensor_of(side).unsqueeze(0) for side in outer_bounds(region))
    return propagate(network, lower, upper, cuts=cuts_of(network, [(*constraints(region), *premise)]))
