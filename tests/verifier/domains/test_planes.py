"""Passes with planes above Relus: never above what samples attain, and what the kernel's own pass says of the same planes."""

import numpy as np
import pytest
import torch
from laws.networks import random_network, sample_box

from verifier.check.boxes import first_boxes
from verifier.check.float_backward import Choices as KernelChoices
from verifier.check.float_backward import Planes, Seen
from verifier.check.float_backward import lower_bounds as kernel_bounds
from verifier.check.float_model import prepare_floats
from verifier.domains.choices import Choices, Plane, Rows
from verifier.domains.linear import lower_bounds
from verifier.engines.planes import affine_under
from verifier.evaluate import output
from verifier.network import Network
from verifier.ops import Relu


def random_planes(network: Network, rng: np.random.Generator) -> dict[str, Plane]:
    planes = {}
    for node in network.nodes:
        under = affine_under(network, node.inputs[0]) if isinstance(node.op, Relu) else None
        if under is None:
            continue
        source, weight, bias = under
        entries, columns = (np.flatnonzero(rng.random(size) < 0.7) for size in weight.shape)
        shares = rng.integers(0, 256, size=(1, 1, len(entries), len(columns))) / 255
        planes[node.output] = Plane(
            source,
            torch.tensor(entries),
            torch.tensor(columns),
            torch.tensor(weight[entries]),
            torch.tensor(bias[entries]),
            torch.tensor(shares),
            torch.tensor(rng.random((1, 1, len(entries)))),
        )
    return planes


@pytest.mark.parametrize("kind", ["mlp", "deep", "residual", "selected"])
def test_bounds_hold_and_are_those_of_the_kernel(kind: str) -> None:
    compared = changed = 0
    for seed in range(12):
        rng = np.random.default_rng(seed)
        network = random_network(kind, seed=seed)
        low = rng.normal(size=network.size(network.input))
        high = low + rng.choice([0.3, 2.0]) * rng.random(low.size)
        model = prepare_floats(network)
        boxes = first_boxes(model, low, high, ())
        bounds = {v: (torch.tensor(sides[0]), torch.tensor(sides[1])) for v, sides in boxes.sides.items()}
        form = rng.normal(size=(1, 3, network.size(network.output)))
        rows = Rows({network.output: torch.tensor(form)}, torch.zeros(1, 3, dtype=torch.float64))
        planes = random_planes(network, rng)
        found = lower_bounds(network, bounds, rows, Choices({}, planes=planes)).numpy()
        points = sample_box(low, high, count=400, seed=seed)
        attained = output(network, torch.tensor(points).reshape(-1, *network.input_shape[1:])).flatten(1).numpy() @ form[0].T
        assert (found[0] <= attained.min(axis=0) + 1e-9).all(), seed
        given = {
            name: Planes(p.entries.numpy(), p.columns.numpy(), p.shares.numpy(), p.weights.numpy())
            for name, p in planes.items()
        }
        kernel = kernel_bounds(model, Seen(boxes, None), {network.output: form}, (1, 3), KernelChoices(planes=given))
        np.testing.assert_allclose(kernel, found, rtol=1e-9, atol=1e-9)
        compared += bool(planes)
        changed += bool(np.abs(found - lower_bounds(network, bounds, rows, Choices({})).numpy()).max() > 1e-6)
    assert compared == 12 and changed > 2
