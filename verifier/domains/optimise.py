"""Climbing on the free choices of a backward pass: Adam on slopes and multipliers, each row's best kept."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from verifier.domains.choices import Atoms, Choices, Rows, choices_of, tensors_of
from verifier.domains.linear import Fixed, lower_bounds
from verifier.domains.relaxations import Interval, slope_limits
from verifier.network import Network

PATIENCE = 10
FEW = 0.5  # of the batch entries: when no more are open, the others are dropped


@dataclass(frozen=True)
class Optimised:
    """The best bounds found, (batch, spec), with the choices that give them."""

    bounds: Tensor
    choices: Choices


@torch.enable_grad()
def optimise(
    network: Network,
    bounds: Mapping[str, Interval],
    rows: Rows,
    start: Choices,
    *,
    atoms: Atoms | None = None,
    steps: int = 100,
    rate: float = 0.1,
    scales: Mapping[str, Tensor] | None = None,
    target: float = torch.inf,
    out_of_time: Callable[[], bool] = lambda: False,
) -> Optimised:
    """Climb from `start` by Adam on slopes and multipliers, keeping each row's best.

    scales[v]: (batch, spec, 1) typical size of the coefficients that reach v, the unit of its multipliers' steps; values
    absent from it step in units of 1. Batch entries whose rows all pass `target` are dropped on the way; the climb ends when
    none is left, or when no row is on course to pass.
    """
    start = pinned(network, bounds, start)
    problem = _Problem(network, bounds, rows, atoms, {})
    leaves = _Leaves(network, bounds, start, scales or {})
    best = torch.full_like(rows.constant, -torch.inf)
    kept = _Kept(start, best.shape[1])
    alive = torch.arange(len(best), device=best.device)
    earlier = best
    for step in range(steps + 1):
        value = problem.lower_bounds(leaves.choices())
        found = value.detach()
        better = found > best[alive]
        best[alive] = torch.where(better, found, best[alive])
        kept.keep(leaves, better, alive)
        open_ = ~(best[alive] > target).all(1)
        if step == steps or not value.requires_grad or not bool(open_.any()) or out_of_time():
            break
        if step % PATIENCE == 0:
            if step and _hopeless(best[alive], earlier[alive], target, steps - step):
                break
            earlier = best.clone()
        gradients = torch.autograd.grad(value.sum(), leaves.parameters, allow_unused=True)
        leaves.climb(gradients, step, rate * 0.98**step)
        if int(open_.sum()) <= FEW * len(alive):
            still = open_.nonzero()[:, 0]
            alive, problem, leaves = alive[still], problem.select(still), leaves.select(still)
    return Optimised(best, kept.choices())


def pinned(network: Network, bounds: Mapping[str, Interval], choices: Choices) -> Choices:
    """The choices with slopes within their limits: those made under wider bounds, where an activation now is linear, too."""

    def within(slopes: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: slope.clamp(*slope_limits(network.producers[name], bounds)) for name, slope in slopes.items()}

    return replace(choices, slopes=within(choices.slopes), upper_slopes=within(choices.upper_slopes))


def _hopeless(best: Tensor, earlier: Tensor, target: float, steps_left: int) -> bool:
    """Whether no open row would reach the target if it went on gaining at the pace of the last PATIENCE steps.

    Gains shrink as the climb nears its top, so the forecast is generous.
    """
    if target == torch.inf:
        return False
    forecast = best + (best - earlier) * (steps_left / PATIENCE)
    return bool(((best > target) | (forecast < target)).all())


@dataclass(frozen=True)
class _Problem:
    """What a climb does not change."""

    network: Network
    bounds: Mapping[str, Interval]
    rows: Rows
    atoms: Atoms | None
    fixed: dict[str, Fixed]

    def lower_bounds(self, choices: Choices) -> Tensor:
        return lower_bounds(self.network, self.bounds, self.rows, choices, atoms=self.atoms, fixed=self.fixed)

    def select(self, entries: Tensor) -> "_Problem":
        """The same for some batch entries."""
        bounds = {v: (low[entries], high[entries]) for v, (low, high) in self.bounds.items()}
        atoms = None if self.atoms is None else self.atoms.select(entries)
        fixed = {name: lines.select(entries) for name, lines in self.fixed.items()}
        return _Problem(self.network, bounds, self.rows.select(entries), atoms, fixed)


class _Kept:
    """Each row's best choices so far, in place."""

    def __init__(self, start: Choices, spec: int) -> None:
        self.tensors = {}
        for key, tensor in tensors_of(start).items():
            self.tensors[key] = tensor.detach().expand(-1, spec, -1).clone()

    def keep(self, leaves: "_Leaves", better: Tensor, alive: Tensor) -> None:
        """Take over the rows that are better; better: (alive, spec)."""
        if not bool(better.any()):
            return
        for key, tensor in leaves.tensors().items():
            kept = self.tensors[key]
            if bool(better.all()) and len(alive) == len(kept):
                kept.copy_(tensor.detach())
            else:
                kept[alive] = torch.where(better[..., None], tensor.detach(), kept[alive])

    def choices(self) -> Choices:
        return choices_of(self.tensors)


class _Leaves:
    """The parameters being optimised: views of one flat tensor, with their units, ranges and Adam's two moments."""

    def __init__(self, network: Network, bounds: Mapping[str, Interval], start: Choices, scales: Mapping[str, Tensor]) -> None:
        self.keys: list[tuple[str, str]] = []
        self.shapes: list[torch.Size] = []
        columns: list[list[Tensor]] = []
        for (kind, name), tensor in tensors_of(start).items():
            if not tensor.numel():
                continue
            least: Tensor | float = 0.0
            greatest: Tensor | float = torch.inf
            unit = scales.get(name, 1.0)
            if kind in ("slopes", "upper_slopes"):
                least, greatest = slope_limits(network.producers[name], bounds)
                unit = greatest - least
            self.keys.append((kind, name))
            self.shapes.append(tensor.shape)
            columns.append([_filled(part, tensor) for part in (tensor.detach(), least, greatest, unit)])
        device, dtype = (columns[0][0].device, columns[0][0].dtype) if columns else ("cpu", torch.float64)
        sides = zip(*columns, strict=True) if columns else [[]] * 4
        self.flat, self.least, self.greatest, self.unit = (
            torch.cat(list(side)) if columns else torch.zeros(0, device=device, dtype=dtype) for side in sides
        )
        self.first, self.second = torch.zeros_like(self.flat), torch.zeros_like(self.flat)
        self._view()

    def _view(self) -> None:
        pieces = self.flat.split([shape.numel() for shape in self.shapes])
        self.parameters = [p.view(shape).detach().requires_grad_() for p, shape in zip(pieces, self.shapes, strict=True)]

    def tensors(self) -> dict[tuple[str, str], Tensor]:
        return dict(zip(self.keys, self.parameters, strict=True))

    def choices(self) -> Choices:
        return choices_of(self.tensors())

    def select(self, entries: Tensor) -> "_Leaves":
        """The parameters of some batch entries, on their way as they are."""
        part = object.__new__(_Leaves)
        part.keys = self.keys
        part.shapes = [torch.Size((len(entries), *shape[1:])) for shape in self.shapes]
        sizes = [shape.numel() for shape in self.shapes]
        for name in ("flat", "least", "greatest", "unit", "first", "second"):
            pieces = getattr(self, name).split(sizes)
            kept = [piece.view(shape)[entries].flatten() for piece, shape in zip(pieces, self.shapes, strict=True)]
            setattr(part, name, torch.cat(kept))
        part._view()
        return part

    @torch.no_grad()
    def climb(self, gradients: tuple[Tensor | None, ...], step: int, rate: float) -> None:
        """One Adam step upward (Kingma and Ba 2015), clipped to each parameter's range."""
        pairs = zip(gradients, self.parameters, strict=True)
        gradient = torch.cat([(torch.zeros_like(p) if g is None else g).flatten() for g, p in pairs])
        self.first.mul_(0.9).add_(gradient, alpha=0.1)
        self.second.mul_(0.999).addcmul_(gradient, gradient, value=0.001)
        size = (self.second / (1 - 0.999 ** (step + 1))).sqrt_().add_(1e-12)
        move = (self.first / size).mul_(self.unit)
        self.flat.add_(move, alpha=rate / (1 - 0.9 ** (step + 1)))
        torch.clamp(self.flat, self.least, self.greatest, out=self.flat)


def _filled(part: Tensor | float, like: Tensor) -> Tensor:
    """A number, or a tensor that broadcasts, as the flat entries of a tensor of that shape."""
    return torch.as_tensor(part, dtype=like.dtype, device=like.device).expand(like.shape).flatten()
