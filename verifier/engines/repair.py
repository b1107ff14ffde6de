"""Newton's method for a conjunction that is nearly satisfied: all atoms in the way are met at once, not one after the other.

Made for premises that leave a thin set, such as hidden values within a narrow interval.
"""

import torch
from torch import Tensor

from verifier.engines.descent import Descended, Watch
from verifier.engines.targets import Batch, at_own_points

OVERSHOOT = 0.02
MAX_ATOMS = 64


def repair(batch: Batch, begin: Tensor, *, steps: int, watch: Watch) -> Descended:
    """The best points (1, points, inputs) on the way from points near a solution of the batch's only target.

    Each step is the shortest move to where, by the slopes at the point, violated atoms hold and close ones stay as they are.
    """
    width = batch.upper - batch.lower
    x = best = begin
    lowest = torch.full(begin.shape[:2], torch.inf, dtype=begin.dtype)
    for _ in range(steps):
        left, slopes = _linearised(batch, x)
        values = left.amax(1).unsqueeze(0)
        best, lowest = torch.where((values < lowest).unsqueeze(2), x, best), torch.minimum(values, lowest)
        if watch(x, values):
            break
        slopes = slopes * width * (left > -values[0].unsqueeze(1)).unsqueeze(2)
        excess = left.clamp(min=0) * (1 + OVERSHOOT)
        move = _shortest(slopes, excess)
        blocked = ((x[0] <= batch.lower[0]) & (move > 0)) | ((x[0] >= batch.upper[0]) & (move < 0))
        move = _shortest(torch.where(blocked.unsqueeze(1), 0.0, slopes), excess)
        x = torch.clamp(x - width * move, batch.lower, batch.upper)
    return Descended(best, lowest)


def _linearised(batch: Batch, x: Tensor) -> tuple[Tensor, Tensor]:
    """Left sides (points, atoms) and their slopes (points, atoms, inputs) at points (1, points, inputs)."""
    atoms, points = len(batch.bias), x.shape[1]
    copies = x[0].repeat_interleave(atoms, 0).unsqueeze(0).requires_grad_()
    own = at_own_points(batch, copies).reshape(atoms, points, atoms).diagonal(dim1=0, dim2=2)
    (slopes,) = torch.autograd.grad(own.sum(), copies)
    return own.detach(), slopes[0].reshape(points, atoms, -1)


def _shortest(slopes: Tensor, excess: Tensor) -> Tensor:
    """The shortest moves (points, inputs) that change left sides by `excess` (points, atoms), in the sense of least squares."""
    gram = slopes @ slopes.transpose(1, 2)
    solved = torch.linalg.pinv(gram, hermitian=True, rtol=1e-12) @ excess.unsqueeze(2)
    return (slopes.transpose(1, 2) @ solved).squeeze(2)
