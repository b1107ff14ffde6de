"""Train networks, and write them as ONNX.

A new technique is one file in this folder and one line in TECHNIQUES.
"""

import difflib
from collections.abc import Callable
from typing import Any

from torch import nn

from specmine.errors import BadConfig
from specmine.training.architectures import Affine, conv_net, mlp, standardise
from specmine.training.onnx_file import write_onnx
from specmine.training.standard import TrainingData, accuracy, train_standard

TECHNIQUES: dict[str, Callable[..., nn.Sequential]] = {
    "standard": train_standard,
}


def train(dataset: TrainingData, *, technique: str = "standard", **options: Any) -> nn.Sequential:
    """A network trained on the mining split of a data set; options are those of the technique's function.

    Raises BadConfig with the nearest names for an unknown technique.
    """
    if technique not in TECHNIQUES:
        near = difflib.get_close_matches(technique, TECHNIQUES, n=3, cutoff=0.3) or list(TECHNIQUES)
        raise BadConfig(f"no training technique {technique!r}; nearest are {', '.join(near)}")
    return TECHNIQUES[technique](dataset, **options)


__all__ = [
    "TECHNIQUES",
    "Affine",
    "TrainingData",
    "accuracy",
    "conv_net",
    "mlp",
    "standardise",
    "train",
    "write_onnx",
]
