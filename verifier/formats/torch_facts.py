"""Core ATen operators on a value whose result does not depend on the numbers of the value: they give constants."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from verifier.formats.torch_call import Call

aten = torch.ops.aten


def _equal(call: Call) -> Tensor:
    """Real numbers are nowhere minus infinity; a value masked by it is."""
    if call.argument(1, "other") != -torch.inf:
        raise call.refuse("a comparison that depends on the network's input, other than with -inf")
    return torch.from_numpy(call.builder.is_minus_infinity(call.value(call.argument(0, "self"))))


def _is_nan(call: Call) -> Tensor:
    """The shares of a softmax, and all else that is computed of real numbers, are numbers."""
    return torch.zeros(call.shape(call.argument(0, "self")), dtype=torch.bool)


def _full_like(call: Call) -> Tensor:
    return torch.full(call.shape(call.argument(0, "self")), call.argument(1, "fill_value"), dtype=call.node.meta["val"].dtype)


def _zeros_like(call: Call) -> Tensor:
    return torch.zeros(call.shape(call.argument(0, "self")), dtype=call.node.meta["val"].dtype)


def _ones_like(call: Call) -> Tensor:
    return torch.ones(call.shape(call.argument(0, "self")), dtype=call.node.meta["val"].dtype)


FACTS: Mapping[Any, Callable[[Call], Tensor]] = {
    aten.eq.Scalar: _equal,
    aten.full_like.default: _full_like,
    aten.isnan.default: _is_nan,
    aten.ones_like.default: _ones_like,
    aten.zeros_like.default: _zeros_like,
}
