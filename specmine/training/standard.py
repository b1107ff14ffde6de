"""Plain training: cross-entropy and Adam, a function of the data and the seed."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from specmine.errors import BadConfig
from specmine.progress import SILENT, Progress
from specmine.training.architectures import Affine, conv_net, mlp, standardise
from verifier.ops import Array
from verifier.region import Box

MIN_EPOCHS, MIN_STEPS = 10, 2000

Loss: TypeAlias = Callable[[nn.Module, Tensor, Tensor], Tensor]


class TrainingData(Protocol):
    """What training needs of a data set: its mining split, its input domain and its classes."""

    @property
    def mine(self) -> tuple[Array, NDArray[np.int64]]: ...

    @property
    def domain(self) -> Box: ...

    @property
    def classes(self) -> tuple[str, ...]: ...

    @property
    def image_shape(self) -> tuple[int, ...] | None: ...


def cross_entropy(module: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """The mean cross-entropy of the outputs on a batch."""
    return nn.functional.cross_entropy(module(x), y)


def train_standard(
    dataset: TrainingData,
    *,
    hidden: Sequence[int] = (32, 32),
    channels: Sequence[int] = (),
    epochs: int | None = None,
    seed: int = 0,
    batch: int = 32,
    learning_rate: float = 1e-3,
    weight_decay: float = 0.0,
    architecture: Callable[[], nn.Sequential] | None = None,
    progress: Progress = SILENT,
) -> nn.Sequential:
    """A ReLU network trained on the mining split of a data set; it takes flat raw samples (batch, inputs) in float32.

    Its first layer maps the input domain to [0, 1]. channels: of the convolutions that come before the hidden layers, each with
    2x2 pooling; only where the data are images. epochs: by default enough for 2,000 steps, at least 10. architecture: makes the
    network to train, in place of `hidden` and `channels`. The same arguments and number of threads give the same network.
    """
    if (epochs is not None and epochs < 0) or batch < 1 or not all(width >= 1 for width in (*hidden, *channels)):
        raise BadConfig(
            f"training needs epochs >= 0, batch >= 1 and widths >= 1, got epochs {epochs}, batch {batch}, "
            f"hidden {tuple(hidden)}, channels {tuple(channels)}"
        )
    x, y = _tensors(dataset)
    if epochs is None:
        epochs = max(MIN_EPOCHS, -(-MIN_STEPS // -(-len(x) // batch)))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        scaling = standardise(dataset.domain.lower, dataset.domain.upper)
        made = architecture() if architecture else _architecture(dataset, hidden, channels, scaling)
        optimiser = torch.optim.Adam(made.parameters(), lr=learning_rate, weight_decay=weight_decay)
        fit(made, optimiser, x, y, loss=cross_entropy, epochs=epochs, batch=batch, progress=progress)
    return made.eval()


def _architecture(data: TrainingData, hidden: Sequence[int], channels: Sequence[int], scaling: Affine) -> nn.Sequential:
    if not channels:
        return mlp(data.domain.size, hidden, len(data.classes), scaling=scaling)
    if data.image_shape is None:
        raise BadConfig("channels are for images, and these data have no image shape; train without convolutions")
    if min(data.image_shape[-2:]) >> len(channels) == 0:
        raise BadConfig(f"images of {data.image_shape} are too small for {len(channels)} poolings; give fewer channels")
    return conv_net(data.image_shape, channels, hidden, len(data.classes), scaling=scaling)


def fit(
    module: nn.Module,
    optimiser: torch.optim.Optimizer,
    x: Tensor,
    y: Tensor,
    *,
    loss: Loss,
    epochs: int,
    batch: int,
    progress: Progress = SILENT,
) -> None:
    """Trains the module in place, going through shuffled samples (samples, inputs) once an epoch."""
    progress.start("train", epochs)
    for _ in range(epochs):
        total = 0.0
        for rows in torch.randperm(len(x)).split(batch):
            optimiser.zero_grad()
            value = loss(module, x[rows], y[rows])
            value.backward()
            optimiser.step()
            total += value.item() * len(rows)
        progress.advance(text=f"loss {total / len(x):.4f}")
    progress.finish()


def accuracy(module: nn.Module, x: Any, y: Any) -> float:
    """The share of samples (samples, *shape) whose label is the module's largest output."""
    flat = torch.from_numpy(np.asarray(x, dtype=np.float32).reshape(len(x), -1).copy())
    with torch.no_grad():
        predicted = module(flat).argmax(dim=1).numpy()
    return float((predicted == np.asarray(y)).mean())


def _tensors(dataset: TrainingData) -> tuple[Tensor, Tensor]:
    x, y = dataset.mine
    return torch.from_numpy(x.reshape(len(x), -1).astype(np.float32)), torch.from_numpy(y.astype(np.int64))
