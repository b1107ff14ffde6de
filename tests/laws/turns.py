"""Single engines at work on a random query, for tests that run them in a process of its own."""

from unittest.mock import patch

import numpy as np
import torch
from elsewhere import second_device
from laws.queries import random_query

from verifier.device import array_of, computing_on, device_named, tensor_of
from verifier.engines import split
from verifier.strategy import Strategy, Turn

TURNS = {
    "attack": (Turn("falsify", rounds=4),),
    "bound": (Turn("bound"), Turn("climb")),
    "boxes": (Turn("boxes", splits=20),),
    "split": (Turn("split", splits=5),),
    "planes": (Turn("split", splits=5),),
    "lemmas": (Turn("lemmas", splits=30),),
    "programs": (Turn("climb"), Turn("lp", splits=5)),  # which go on from bounds that were found on the device
}

FEW = {"ROOT_STEPS": 8, "PLANE_STEPS": 8, "STEPS": 4, "CANDIDATES": 4, "PLANE_CANDIDATES": 4}  # on a device that is slow


def begin() -> None:
    """Make the second device known before the first gradient, which is when torch counts its devices."""
    torch.set_num_threads(1)
    with second_device():
        pass


def decided(kind: str, seed: int, turns: str, name: str) -> tuple[str, float | None, int]:
    """Verdict, bound and splits of a random query after some turns on the device of that name."""
    query = random_query(kind, seed=seed)
    strategy = Strategy([query], TURNS[turns], name="turns", timeout_s=120, starts=None, seed=0, device=device_named(name))
    gain = -1.0 if turns == "planes" else split.PLANE_GAIN  # planes even where they gain nothing
    with patch.multiple(split, PLANE_GAIN=gain, **FEW):
        ((_, decision),) = strategy.run()
    return type(decision.verdict).__name__, decision.bound, decision.splits


def decided_elsewhere(kind: str, seed: int, turns: str) -> tuple[str, float | None, int]:
    """`decided` on the second device."""
    with second_device() as name:
        return decided(kind, seed, turns, name)


def mixed() -> list[str]:
    """What the second device says of mistakes that CUDA would not let pass, and that engines therefore must not make."""
    said = []
    with second_device() as name, computing_on(device_named(name)):
        there, here = tensor_of(np.ones(3)), torch.ones(3, device="cpu")
        places = torch.tensor([0, 2])
        for mistake in (lambda: there + here, lambda: here[places], there.numpy):
            try:
                mistake()
                said.append("nothing")
            except (RuntimeError, TypeError) as error:
                said.append(str(error))
        assert (there * 2 + torch.tensor(1.0, device="cpu")).tolist() == [3, 3, 3]
        assert array_of(there[places]).tolist() == [1, 1]
    return said
