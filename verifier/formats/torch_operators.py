"""The core ATen operators with a sound exact meaning, each with the function that appends its nodes to the network."""

from collections.abc import Callable, Mapping
from typing import Any

import torch

from verifier.formats.torch_call import Call
from verifier.formats.torch_elementwise import ELEMENTWISE
from verifier.formats.torch_layers import LAYERS
from verifier.formats.torch_shapes import REARRANGEMENTS

aten = torch.ops.aten

OPERATORS: Mapping[Any, Callable[[Call], None]] = {**ELEMENTWISE, **LAYERS, **REARRANGEMENTS}
"""Keyed by operator overload; graphs are decomposed to core ATen before they are read."""

CHECKS = (aten._assert_tensor_metadata.default,)
"""Nodes without a result: they check what the exporter has already made sure of."""

FIRST_OF_SEVERAL = (
    aten._native_batch_norm_legit_no_training.default,
    aten.max_pool2d_with_indices.default,
    aten.native_layer_norm.default,
)
"""Operators whose result is a tuple of which only the first entry is a network value."""

PARTS = (aten.split_with_sizes.default,)
"""Operators whose result is a tuple of network values, named `<output>/<number>`."""
