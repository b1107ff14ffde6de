"""What the parts of a search by cases cost, in multiplications: a busy machine must not change what it does next."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from verifier.domains.relaxations import values_read
from verifier.engines.bound import open_entries
from verifier.engines.descent import multiplications
from verifier.engines.problem import Batch
from verifier.engines.reduced import Reduced
from verifier.network import Network

CALL = 200_000  # of a node or a block of a pass over all rows at once, whatever their number
GRADIENT = 2.0  # a pass with its gradients, against one without
TAPED = 3.0  # the same where they are taken automatically
DOUBLE = 2.0  # float64 against float32
OF_SHARE = 30  # of a share in a pass, which are numbers to be read and written and no matrix product
DEPTH = 0.5  # a pass from the mean neuron, against one from the outputs


@dataclass(frozen=True)
class Price:
    """Of one pass: how many parts it has, and the multiplications for a row."""

    parts: int
    row: int

    def of(self, rows: int) -> float:
        """For so many rows at once."""
        return float(CALL * self.parts + self.row * rows)


@dataclass(frozen=True)
class Prices:
    """Of passes over the reduced network, None where there is none, and over the network itself."""

    kept: Price | None
    whole: Price

    def passes(self, rows: int, *, times: int = 1) -> float:
        """Of passes over rows without gradients."""
        return times * (self.kept or self.whole).of(rows)

    def climb(self, rows: int, *, steps: int) -> float:
        """Of so many steps of ascent on the choices of rows."""
        factor = TAPED if self.kept is None else GRADIENT
        return factor * self.passes(rows, times=steps + 1)

    def bounding(self, batch: Batch, wanted: Mapping[str, Tensor], *, steps: int, reduced: bool) -> float:
        """Of bounding the undecided neurons that are wanted again from both sides, over the reduced network or the whole."""
        counts = [2 * int(open_entries(batch, value, wanted).sum()) for value in values_read(batch.network)]
        if reduced:
            return DEPTH * sum(self.climb(rows, steps=steps) + DOUBLE * self.whole.of(rows) for rows in counts)
        return DEPTH * sum(TAPED * DOUBLE * (steps + 1) * self.whole.of(rows) for rows in counts)


def prices(network: Network, reduced: Reduced | None) -> Prices:
    """The prices of searches over a network."""
    kept = None
    if reduced is not None:
        of_planes = OF_SHARE * sum(fan.weight.numel() for fan in reduced.fans)
        kept = Price(len(reduced.blocks), sum(block.work for block in reduced.blocks) + of_planes)
    return Prices(kept, Price(len(network.nodes), multiplications(network)))
