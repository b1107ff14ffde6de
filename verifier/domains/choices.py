"""Linear forms to be bounded, and the free choices of a pass over them: slopes, multipliers, and the atoms these act on."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass(frozen=True)
class Units:
    """Rows sign * value[index]; indices and signs: (batch, spec)."""

    value: str
    indices: Tensor
    signs: Tensor

    def select(self, entries: Tensor) -> "Units":
        """The rows of some batch entries."""
        return Units(self.value, self.indices[entries], self.signs[entries])


@dataclass(frozen=True)
class Rows:
    """Linear forms sum_v coefficients[v] . v + constant, plus those of `units` where given.

    coefficients[v]: (batch, spec, size of v), constant: (batch, spec).
    """

    coefficients: Mapping[str, Tensor]
    constant: Tensor
    units: Units | None = None

    def select(self, entries: Tensor) -> "Rows":
        """The forms of some batch entries."""
        units = None if self.units is None else self.units.select(entries)
        return Rows({v: c[entries] for v, c in self.coefficients.items()}, self.constant[entries], units)


@dataclass(frozen=True, eq=False)
class Plane:
    """What stands above some entries of a Relu, beside the chord: s W v + q over the box of v, where the Relu reads W v + b.

    source: the name of v; entries (k,), columns (m,); weight: (k, size of v), bias: (k,); shares: (batch, spec or 1, k, m) in
    [0, 1], 0 for the columns left out; weights: (batch, spec or 1, k) in [0, 1], the part of a negative coefficient that is
    replaced by the plane.
    """

    source: str
    entries: Tensor
    columns: Tensor
    weight: Tensor
    bias: Tensor
    shares: Tensor
    weights: Tensor


@dataclass(frozen=True)
class Choices:
    """The free parameters of a pass, each true for every value in its range.

    slopes[a]: (batch, spec or 1, size) for the output a of an activation, a curve or a Product, of what stands below it;
    upper_slopes[a]: of what stands above a curve or a Product; where left out, those of `adaptive_slopes`. lower[v], upper[v]:
    multipliers >= 0 on the bounds of v, (batch, spec, size). atoms: (batch, spec, count) multipliers >= 0 on `Atoms`.
    planes[a]: for the output a of a Relu; only passes that are given them as they stand take them, `merged` leaves them out.
    """

    slopes: Mapping[str, Tensor]
    lower: Mapping[str, Tensor] = field(default_factory=dict)
    upper: Mapping[str, Tensor] = field(default_factory=dict)
    atoms: Tensor | None = None
    upper_slopes: Mapping[str, Tensor] = field(default_factory=dict)
    planes: Mapping[str, Plane] = field(default_factory=dict)


@dataclass(frozen=True)
class Atoms:
    """Atoms sum_v coefficients[v] . v + bias <= 0 that hold in the subproblem; coefficients[v]: (batch, count, size of v)."""

    coefficients: Mapping[str, Tensor]
    bias: Tensor

    def select(self, rows: Tensor) -> "Atoms":
        """The atoms of some batch entries."""
        return Atoms({v: c[rows] for v, c in self.coefficients.items()}, self.bias[rows])


def choose(better: Tensor, new: Choices, old: Choices) -> Choices:
    """Row by row (batch, spec), the new choices where `better`."""
    mask = better[..., None]

    def pick(fresh: Mapping[str, Tensor], stale: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: torch.where(mask, fresh[name].detach(), stale[name]) for name in stale}

    atoms = None if old.atoms is None or new.atoms is None else torch.where(mask, new.atoms.detach(), old.atoms)
    return Choices(
        pick(new.slopes, old.slopes),
        pick(new.lower, old.lower),
        pick(new.upper, old.upper),
        atoms,
        pick(new.upper_slopes, old.upper_slopes),
    )


def select(choices: Choices, rows: Tensor) -> Choices:
    """The choices of some batch entries."""
    return merged([choices], lambda parts: parts[0][rows])


def join(parts: Sequence[Choices]) -> Choices:
    """The choices of several batches, one after the other."""
    return merged(parts, lambda tensors: torch.cat(list(tensors)))


def merged(parts: Sequence[Choices], merge: Callable[[Sequence[Tensor]], Tensor]) -> Choices:
    """What `merge` makes of the corresponding tensors of some choices."""
    slopes, lower, upper, upper_slopes = (
        {name: merge([getattr(p, kind)[name] for p in parts]) for name in getattr(parts[0], kind)}
        for kind in ("slopes", "lower", "upper", "upper_slopes")
    )
    atoms = None if parts[0].atoms is None else merge([p.atoms for p in parts if p.atoms is not None])
    return Choices(slopes, lower, upper, atoms, upper_slopes)


def unit_rows(value: str, indices: Tensor, signs: Tensor) -> Rows:
    """Rows sign * value[index]; indices and signs: (batch, spec)."""
    return Rows({}, torch.zeros_like(signs), Units(value, indices, signs))


KINDS = ("slopes", "upper_slopes", "lower", "upper")


def tensors_of(choices: Choices) -> dict[tuple[str, str], Tensor]:
    """Every tensor of some choices, by kind and name; the multipliers on atoms are ("atoms", "")."""
    tensors = {(kind, name): tensor for kind in KINDS for name, tensor in getattr(choices, kind).items()}
    return tensors if choices.atoms is None else {**tensors, ("atoms", ""): choices.atoms}


def choices_of(tensors: Mapping[tuple[str, str], Tensor]) -> Choices:
    """The choices made of such tensors."""
    slopes, upper_slopes, lower, upper = (
        {name: tensor for (own, name), tensor in tensors.items() if own == kind} for kind in KINDS
    )
    return Choices(slopes, lower, upper, tensors.get(("atoms", "")), upper_slopes)
