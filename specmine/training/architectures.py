"""Architectures: plain sequences of layers, with the scaling of the input as a constant first layer."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn

from verifier.ops import Array


class Affine(nn.Module):
    """factor * x + offset, entry by entry, with constants that are not trained."""

    factor: Tensor
    offset: Tensor

    def __init__(self, factor: Array, offset: Array) -> None:
        super().__init__()
        self.register_buffer("factor", torch.tensor(factor, dtype=torch.float32))
        self.register_buffer("offset", torch.tensor(offset, dtype=torch.float32))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor + self.offset


def standardise(lower: Array, upper: Array) -> Affine:
    """The layer that maps the box from lower to upper (inputs,) to [0, 1]; an input of one value maps to itself less it.

    >>> standardise(np.zeros(1), np.full(1, 16.0)).factor.tolist()
    [0.0625]
    """
    width = np.asarray(upper, dtype=np.float64) - lower
    factor = np.divide(1.0, width, out=np.ones_like(width), where=width > 0)
    return Affine(factor, -np.asarray(lower) * factor + 0.0)


def mlp(inputs: int, hidden: Sequence[int], outputs: int, *, scaling: Affine | None = None) -> nn.Sequential:
    """A fully connected ReLU network on flat samples (batch, inputs), giving (batch, outputs)."""
    widths = [inputs, *hidden]
    layers: list[nn.Module] = [] if scaling is None else [scaling]
    for width, following in pairwise(widths):
        layers += [nn.Linear(width, following), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(widths[-1], outputs))


def conv_net(
    image_shape: tuple[int, ...],
    channels: Sequence[int],
    hidden: Sequence[int],
    outputs: int,
    *,
    scaling: Affine | None = None,
) -> nn.Sequential:
    """A small convolutional ReLU network on flat samples (batch, pixels) of images (height, width) or (planes, height, width).

    One 3x3 convolution with padding 1, ReLU and 2x2 maximum pooling for each entry of channels, then fully connected layers.
    """
    planes, height, width = image_shape if len(image_shape) == 3 else (1, *image_shape)
    layers: list[nn.Module] = [] if scaling is None else [scaling]
    layers.append(nn.Unflatten(1, (planes, height, width)))
    for count in channels:
        layers += [nn.Conv2d(planes, count, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
        planes, height, width = count, height // 2, width // 2
    return nn.Sequential(*layers, nn.Flatten(), *mlp(planes * height * width, hidden, outputs))
