"""A small attention-only transformer that learns induction: to go on with a sequence as it went on before.

Its task is Olsson et al., "In-context learning and induction heads" (2022), in small: blocks of random tokens, repeated.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from specmine.errors import BadConfig
from specmine.progress import SILENT, Progress
from verifier.ops import Array

GUESSED = 0.05
"""The weight of tokens that nothing tells, beside those that can be known: enough for honest odds on them."""


class Attention(nn.Module):
    """Causal attention over (batch, positions, width), by plain matrix products and softmax.

    Positions are told to queries and keys alone (Press et al., "Shortformer", 2020), so that values move content.
    """

    hidden: Tensor

    def __init__(self, length: int, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.position = nn.Parameter(torch.randn(length, width))
        self.query, self.key, self.value = (nn.Linear(width, width, bias=False) for _ in range(3))
        self.out = nn.Linear(width, width, bias=False)
        self.register_buffer("hidden", torch.ones(length, length, dtype=torch.bool).triu(1))

    def forward(self, x: Tensor) -> Tensor:
        placed = x + self.position
        query, key, value = (self._split(part) for part in (self.query(placed), self.key(placed), self.value(x)))
        scores = query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])
        mixed = scores.masked_fill(self.hidden, -torch.inf).softmax(-1) @ value
        return self.out(mixed.transpose(1, 2).reshape(x.shape))

    def _split(self, x: Tensor) -> Tensor:
        """(batch, positions, width) as (batch, heads, positions, head_dim)."""
        return x.reshape(*x.shape[:2], self.heads, -1).transpose(1, 2)


class AttentionOnly(nn.Module):
    """Tokens as one-hot rows (batch, length, vocabulary) in, logits of the next token (batch, length, vocabulary) out."""

    def __init__(self, *, length: int, vocabulary: int, width: int, heads: int, layers: int) -> None:
        super().__init__()
        self.embed = nn.Linear(vocabulary, width, bias=False)
        self.attention = nn.ModuleList(Attention(length, width, heads) for _ in range(layers))
        self.unembed = nn.Linear(width, vocabulary, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        stream = self.embed(x)
        for layer in self.attention:
            stream = stream + layer(stream)
        return self.unembed(stream)


@dataclass(frozen=True, eq=False)
class Repeated:
    """Sequences that end in a repeated block: tokens (samples, length), where the block begins and its length, (samples,)."""

    tokens: NDArray[np.int64]
    start: NDArray[np.int64]
    period: NDArray[np.int64]

    @property
    def known(self) -> NDArray[np.bool_]:
        """Which tokens follow from what came before, (samples, length): from the second of the repeated block on."""
        return np.arange(self.tokens.shape[1]) > (self.start + self.period)[:, None]


def repeated_tokens(samples: int, *, length: int, vocabulary: int, seed: int) -> Repeated:
    """Random distinct tokens, the last few of which, a block of at least two, are repeated over and over to the full length.

    >>> made = repeated_tokens(1, length=8, vocabulary=8, seed=1)
    >>> int(made.start[0]), int(made.period[0]), made.tokens[0].tolist()
    (1, 3, [1, 3, 6, 4, 3, 6, 4, 3])
    """
    rng = np.random.default_rng(seed)
    period = rng.integers(2, length // 2, size=samples, endpoint=True)
    start = rng.integers(0, length - 2 * period, endpoint=True)
    order = rng.random((samples, vocabulary)).argsort(axis=1)
    place = np.arange(length)
    first, length_of = start[:, None], period[:, None]
    source = np.where(place < first, place, first + (place - first) % length_of)
    return Repeated(np.take_along_axis(order, source, axis=1), start, period)


def one_hot(tokens: NDArray[np.int64], vocabulary: int) -> Array:
    """Tokens (samples, length) as a network's real input, (samples, length, vocabulary)."""
    return np.eye(vocabulary)[tokens]


@dataclass(frozen=True, eq=False)
class Induction:
    """A trained model, its settings, and the mean loss in nats of predicting the next token, on sequences not trained on.

    first_loss: of tokens that nothing tells, up to the first of the repeated block; repeated_loss: of those after it.
    """

    module: AttentionOnly
    length: int
    vocabulary: int
    first_loss: float
    repeated_loss: float


def train_induction(
    *,
    length: int = 24,
    vocabulary: int = 24,
    width: int = 64,
    heads: int = 4,
    layers: int = 2,
    steps: int = 1500,
    batch: int = 64,
    learning_rate: float = 3e-3,
    seed: int = 0,
    progress: Progress = SILENT,
) -> Induction:
    """An attention-only transformer trained on fresh repeated tokens at every step.

    The same arguments and number of threads give the same model. Raises BadConfig for settings that do not fit.
    """
    if length < 8 or vocabulary < length or width % heads or min(width, heads, layers, batch) < 1 or steps < 0:
        raise BadConfig(
            f"induction needs length >= 8, vocabulary >= length and a width that heads divide, got length {length}, "
            f"vocabulary {vocabulary}, width {width}, heads {heads}, layers {layers}, steps {steps}, batch {batch}"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = AttentionOnly(length=length, vocabulary=vocabulary, width=width, heads=heads, layers=layers)
        optimiser = torch.optim.Adam(module.parameters(), lr=learning_rate, betas=(0.9, 0.98))
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, learning_rate, total_steps=max(steps, 1), pct_start=0.1)
        progress.start("train", steps)
        for step in range(steps):
            made = repeated_tokens(batch, length=length, vocabulary=vocabulary, seed=_seed(seed, step))
            optimiser.zero_grad()
            losses, repeated = _losses(module, made, vocabulary)
            (losses[repeated].mean() + GUESSED * losses[~repeated].mean()).backward()
            optimiser.step()
            schedule.step()
            progress.advance(text=f"loss {losses.detach()[repeated].mean():.4f}")
        progress.finish()
    first, rest = induction_losses(module, repeated_tokens(512, length=length, vocabulary=vocabulary, seed=_seed(seed, steps)))
    return Induction(module.eval(), length, vocabulary, first, rest)


@torch.no_grad()
def induction_losses(module: AttentionOnly, made: Repeated) -> tuple[float, float]:
    """The mean loss in nats of tokens that nothing tells, and of those that the repetition tells."""
    losses, repeated = _losses(module, made, module.embed.in_features)
    return float(losses[~repeated].mean()), float(losses[repeated].mean())


def _losses(module: AttentionOnly, made: Repeated, vocabulary: int) -> tuple[Tensor, Tensor]:
    """The loss of each next token, (samples, length - 1), and whether the repetition tells it."""
    tokens = torch.from_numpy(made.tokens)
    logits = module(nn.functional.one_hot(tokens, vocabulary).to(torch.float32))[:, :-1]
    losses = nn.functional.cross_entropy(logits.transpose(1, 2), tokens[:, 1:], reduction="none")
    return losses, torch.from_numpy(made.known[:, 1:])


def _seed(seed: int, step: int) -> int:
    """Another stream of sequences for every step, and for the test behind them."""
    return int(np.random.SeedSequence((seed, step)).generate_state(1)[0])
