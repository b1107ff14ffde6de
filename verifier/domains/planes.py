"""Planes above Relus over the box of what their affine map reads, in backward passes (see `Plane` in `choices`)."""

from collections.abc import Mapping

import torch
from torch import Tensor

from verifier.domains.choices import Plane
from verifier.domains.relaxations import Interval
from verifier.network import Network, Node
from verifier.ops import Relu


def over_plane(
    network: Network, bounds: Mapping[str, Interval], node: Node, a: Tensor, plane: Plane
) -> tuple[Tensor, Tensor, Tensor]:
    """What a plane leaves of a Relu's coefficients a (batch, spec, size), the coefficients that it gives its source, and the
    constants (batch, spec).

    bounds: (batch, size), of what the Relu reads and of the source, or of what the Relu that gives the source reads.
    Anderson et al. 2020 and Tjandraatmadja et al. 2020 describe the best planes; here any shares are given, and their offset
    is found.
    """
    low, high = (side[:, None, plane.entries] for side in bounds[node.inputs[0]])
    before = network.producers.get(plane.source)
    if plane.source in bounds or before is None:
        box = bounds[plane.source]
    else:
        # sound: the source is a Relu's output
        assert isinstance(before.op, Relu), f"no bounds of {plane.source!r}"
        box = (bounds[before.inputs[0]][0].clamp(min=0), bounds[before.inputs[0]][1].clamp(min=0))
    given = a[..., plane.entries]
    # sound: the part of a coefficient that goes to the plane is negative, and the plane lies above
    part = torch.where((low < 0) & (high > 0) & (given < 0), given * plane.weights, 0.0)
    left = a.clone()
    left[..., plane.entries] = given - part
    middle, reach = (0.5 * box[0] + 0.5 * box[1])[:, None], (0.5 * box[1] - 0.5 * box[0])[:, None]
    slopes = plane.shares * plane.weight[:, plane.columns]
    steep = -slopes + plane.weight[:, plane.columns]
    other = plane.weight.clone()
    other[:, plane.columns] = 0.0
    center, radius = middle[:, :, plane.columns, None], reach[:, :, plane.columns, None]
    # sound: max(0, z) is one of 0 and z, and over the box -p v is at most -p c + |p| r
    of_zero = (slopes.abs() @ radius - slopes @ center)[..., 0]
    of_map = (steep.abs() @ radius + steep @ center)[..., 0] + middle @ other.T + reach @ other.abs().T + plane.bias
    moved = a.new_zeros(*a.shape[:2], box[0].shape[1])
    moved[..., plane.columns] = (part[:, :, None] @ slopes)[:, :, 0]
    return left, moved, (part * torch.maximum(of_zero, of_map)).sum(-1)
