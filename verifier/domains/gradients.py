"""Steps of a backward pass with their gradients in closed form, each one node of the graph that autograd records."""

from typing import Any

import torch
from torch import Tensor


class LeastOverBox(torch.autograd.Function):
    """a . center - |a| . radius, (batch, spec); a: (batch, spec, size), center, radius: (batch, 1, size)."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, center: Tensor, radius: Tensor) -> Tensor:
        ctx.save_for_backward(a, center, radius)
        return torch.matmul(a, center.mT)[..., 0] - torch.matmul(a.abs(), radius.mT)[..., 0]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        a, center, radius = ctx.saved_tensors
        return torch.addcmul(center, a.sign(), radius, value=-1).mul_(gradient[..., None]), None, None


class Affine(torch.autograd.Function):
    """Coefficients onto x of forms a on W x + b, and their constants; a: (batch, spec, positions * outputs of W)."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(weight, bias)
        forms = a.reshape(-1, weight.shape[0])
        return (forms @ weight).view(*a.shape[:2], -1), (forms @ bias).view(*a.shape[:2], -1).sum(-1)

    @staticmethod
    def backward(ctx: Any, of_part: Tensor, of_gain: Tensor) -> tuple[Tensor, None, None]:
        weight, bias = ctx.saved_tensors
        of_forms = (of_part.reshape(-1, weight.shape[1]) @ weight.t()).view(*of_gain.shape, -1, weight.shape[0])
        return of_forms.addcmul_(of_gain[..., None, None], bias).flatten(2), None, None


class Bend(torch.autograd.Function):
    """Coefficients a times below where positive and above where negative, and the sum of the negative ones times shift.

    Differentiable in a and below; a: (batch, spec, size), below: (batch, spec or 1, size), above, shift: (batch, 1, size).
    """

    @staticmethod
    def forward(ctx: Any, a: Tensor, below: Tensor, above: Tensor, shift: Tensor) -> tuple[Tensor, Tensor]:
        positive, negative = a.clamp(min=0), a.clamp(max=0)
        ctx.save_for_backward(a, positive, torch.where(a >= 0, below, above), shift)
        ctx.shared = below.shape
        return torch.addcmul(positive * below, negative, above), torch.matmul(negative, shift.mT)[..., 0]

    @staticmethod
    def backward(ctx: Any, of_part: Tensor, of_gain: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        a, positive, slope, shift = ctx.saved_tensors
        of_a = of_below = None
        if ctx.needs_input_grad[0]:
            of_a = torch.addcmul((of_gain[..., None] * shift).masked_fill_(a >= 0, 0.0), of_part, slope)
        if ctx.needs_input_grad[1]:
            of_below = (of_part * positive).sum_to_size(ctx.shared)
        return of_a, of_below, None, None
