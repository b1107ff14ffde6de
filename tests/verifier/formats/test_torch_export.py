"""Torch modules against torch itself, in float64."""

from functools import cache

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from verifier.errors import BadNetwork, UnsupportedOp
from verifier.evaluate import evaluate
from verifier.formats.torch_export import read_module
from verifier.formats.torch_operators import OPERATORS
from verifier.ops import LeakyRelu, Linear


class Do(nn.Module):
    """A module that computes one function, with two constants at hand."""

    def __init__(self, function):
        super().__init__()
        self.function = function
        self.register_buffer("row", torch.tensor([2.0, -4.0, 0.5]))
        self.register_buffer("places", torch.tensor([1, 0, -1]))
        self.scale = nn.Parameter(torch.tensor(3.0))

    def forward(self, x):
        return self.function(self, x)


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3, stride=2, padding=1, bias=False), nn.Conv2d(4, 4, 3, padding=1)
        self.norm, self.short, self.last = nn.BatchNorm2d(4), nn.Conv2d(3, 4, 1, stride=2), nn.Linear(16, 5)

    def forward(self, x):
        hidden = self.norm(self.second(torch.relu(self.first(x))))
        return self.last(torch.relu(hidden + self.short(x)).flatten(1))


class SelfAttention(nn.Module):
    def __init__(self, *, causal=False):
        super().__init__()
        self.inner, self.causal = nn.MultiheadAttention(4, 2, batch_first=True), causal

    def forward(self, x):
        mask = nn.Transformer.generate_square_subsequent_mask(x.shape[1], dtype=x.dtype) if self.causal else None
        return self.inner(x, x, x, need_weights=False, attn_mask=mask, is_causal=self.causal)[0]


MODULES = {
    "linear": (nn.Linear(3, 4), (3,)),
    "linear without bias": (nn.Linear(3, 4, bias=False), (3,)),
    "linear over rank 4": (nn.Linear(3, 4), (2, 2, 3)),
    "linear over rank 3 without bias": (nn.Linear(3, 4, bias=False), (2, 3)),
    "mlp with dropout": (nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Dropout(), nn.Identity(), nn.Linear(8, 2)), (3,)),
    "conv1d": (nn.Conv1d(2, 4, 3, stride=2, padding=1, dilation=2, groups=2), (2, 9)),
    "conv2d": (nn.Conv2d(2, 3, (3, 2), stride=(1, 2), padding=(0, 1), dilation=(2, 1)), (2, 6, 7)),
    "conv2d same": (nn.Conv2d(2, 3, 3, padding="same"), (2, 5, 5)),
    "conv2d same, even kernel": (nn.Conv2d(2, 3, (2, 4), padding="same"), (2, 5, 5)),
    "conv1d same, even kernel": (nn.Conv1d(2, 3, 2, padding="same"), (2, 5)),
    "batch norm 1d": (nn.BatchNorm1d(3), (3,)),
    "batch norm 1d over rank 3": (nn.BatchNorm1d(3), (3, 4)),
    "batch norm 2d without parameters": (nn.BatchNorm2d(3, affine=False, eps=0.1), (3, 4, 4)),
    "matrix product of two values": (Do(lambda m, x: x.squeeze(0) @ (x - 1).squeeze(0)), (3, 3)),
    "matrix product of two stacks": (Do(lambda m, x: (x + 1) @ x.relu().transpose(-1, -2)), (2, 4, 3)),
    "matrix product with a vector": (Do(lambda m, x: x @ x.relu()[0, 0]), (4, 4)),
    "scalar product": (Do(lambda m, x: (x[0] @ x.relu()[0]).reshape(1)), (4,)),
    "matrix product over shared axes": (Do(lambda m, x: x @ x[:, :1].transpose(-1, -2)), (2, 3, 4)),
    "attention": (Do(lambda m, x: functional.scaled_dot_product_attention(x, x + 1, x.relu())), (2, 3, 4)),
    "where": (Do(lambda m, x: torch.where(m.row > 0, x, m.row)), (2, 3)),
    "multi-head attention": (SelfAttention(), (3, 4)),
    "causal multi-head attention": (SelfAttention(causal=True), (3, 4)),
    "encoder layer": (nn.TransformerEncoderLayer(4, 2, 6, batch_first=True), (3, 4)),
    "encoder layer, norm first": (nn.TransformerEncoderLayer(4, 2, 6, batch_first=True, norm_first=True), (3, 4)),
    "encoder layer, gelu": (nn.TransformerEncoderLayer(4, 2, 6, batch_first=True, activation="gelu"), (3, 4)),
    "encoder": (nn.TransformerEncoder(nn.TransformerEncoderLayer(4, 2, 6, batch_first=True), 2, nn.LayerNorm(4)), (3, 4)),
    "layer norm": (nn.LayerNorm((2, 3), eps=0.1), (2, 2, 3)),
    "layer norm without parameters": (nn.LayerNorm(3, elementwise_affine=False), (2, 3)),
    "layer norm by hand": (
        Do(lambda m, x: (x - x.mean(-1, True)) / (x.var(-1, keepdim=True, unbiased=False) + 1e-3).sqrt()),
        (2, 3),
    ),
    "variance": (Do(lambda m, x: x.var((0, 2)) + x.std(1).sum(1)), (4, 3)),
    "root mean square norm": (nn.RMSNorm(3, eps=1e-3), (2, 3)),
    "gelu": (nn.GELU(), (3,)),
    "gelu by tanh": (nn.GELU("tanh"), (3,)),
    "gelu of bert": (Do(lambda m, x: x * 0.5 * (1 + torch.erf(x / 2**0.5))), (3,)),
    "roots": (Do(lambda m, x: (x**2 + 1) ** 0.5 - (x**2 + 2) ** -0.5 + (x**2 + 3).rsqrt()), (3,)),
    "leaky relu": (nn.LeakyReLU(0.3), (3,)),
    "max pool 1d": (nn.MaxPool1d(3, 2, padding=1), (2, 7)),
    "max pool 1d ceil": (nn.MaxPool1d(2, 2, ceil_mode=True), (2, 7)),
    "max pool 2d": (nn.MaxPool2d((3, 2), dilation=(2, 1), ceil_mode=True), (2, 7, 7)),
    "max pool 2d padded": (nn.MaxPool2d(3, 2, padding=1), (2, 6, 6)),
    "average pool 1d": (nn.AvgPool1d(3, 2, padding=1, ceil_mode=True), (2, 8)),
    "average pool 2d": (nn.AvgPool2d((2, 3)), (2, 6, 6)),
    "average pool 2d ceil": (nn.AvgPool2d(3, 2, padding=1, ceil_mode=True), (2, 6, 6)),
    "average pool 2d, padding not counted": (nn.AvgPool2d(3, 2, 1, True, False), (2, 6, 6)),
    "global average": (nn.AdaptiveAvgPool2d(1), (2, 3, 4)),
    "mean over space": (Do(lambda m, x: x.mean((2, 3))), (2, 3, 4)),
    "flatten": (nn.Flatten(), (2, 3, 2)),
    "unflatten": (nn.Unflatten(1, (2, 3)), (6,)),
    "view": (Do(lambda m, x: x.view(x.size(0), -1)), (2, 3)),
    "reshape after transpose": (Do(lambda m, x: x.transpose(1, 2).reshape(1, -1)), (2, 3)),
    "permute": (Do(lambda m, x: x.permute(0, -1, 1, 2)), (2, 3, 4)),
    "squeeze and unsqueeze": (Do(lambda m, x: x.squeeze(2).unsqueeze(-1).unsqueeze(0)), (2, 1, 3)),
    "cat": (Do(lambda m, x: torch.cat([x, 2 * x, -x], dim=-1)), (2, 3)),
    "add": (Do(lambda m, x: x + x.relu() + 1.5 + m.row), (3,)),
    "subtract": (Do(lambda m, x: 1 - (m.row - (x - 0.25)) - torch.sub(x, x.relu(), alpha=2)), (3,)),
    "multiply": (Do(lambda m, x: m.scale * (x * m.row) * 0.1 * 3), (3,)),
    "divide": (Do(lambda m, x: x / m.row / 3), (3,)),
    "normalised input": (Do(lambda m, x: (x - 0.1307) / 0.3081), (1, 4, 4)),
    "constants computed": (Do(lambda m, x: x * (m.row.abs() + torch.ones(3, dtype=m.row.dtype))), (3,)),
    "matrix first": (Do(lambda m, x: (torch.eye(3, dtype=x.dtype) * m.row) @ x.squeeze(0)), (3, 2)),
    "vector": (Do(lambda m, x: x @ m.row), (3,)),
    "same value expanded": (Do(lambda m, x: x.expand(1, 3).clone()), (3,)),
    "zero padding": (Do(lambda m, x: functional.pad(x, (1, 2))), (2, 3)),
    "residual": (Residual(), (3, 4, 4)),
    "curves": (nn.Sequential(nn.Sigmoid(), nn.Tanh(), Do(lambda m, x: x.sin() + x.cos() - x.exp())), (3,)),
    "steps": (Do(lambda m, x: x.sign() + (2.5 * x).floor()), (3,)),
    "product": (Do(lambda m, x: x * x.mean((2, 3), keepdim=True) - x * x), (2, 2, 2)),
    "quotient": (Do(lambda m, x: x / (x**2 + 1) + m.row / (x.abs() + 2) + 1 / x.exp()), (3,)),
    "powers": (Do(lambda m, x: x**3 - x.square() + x.exp() ** -2), (3,)),
    "clamps": (Do(lambda m, x: x.clamp(-1, 2) + x.clamp(min=0.5) - x.clamp(max=0) + x.clamp(m.row, m.row + 1)), (3,)),
    "relu6 and hardtanh": (nn.Sequential(nn.ReLU6(), nn.Hardtanh(-0.5, 0.75)), (3,)),
    "extremes": (
        Do(lambda m, x: torch.minimum(x, 2 * x) * torch.maximum(x, m.row) - torch.minimum(m.row, x).maximum(-x)),
        (3,),
    ),
    "slices": (Do(lambda m, x: x[:, 1:, ::2] + x[:, -1:, :2] + x[:, :1, None, 1]), (3, 4)),
    "entries": (Do(lambda m, x: x[:, 1] * x[:, m.places].select(1, -1)), (3, 2)),
    "gathers": (Do(lambda m, x: x.index_select(1, m.places + 1) * torch.gather(x, 1, m.places[None] + 1)), (3,)),
    "parts": (Do(lambda m, x: x.split([1, 3], 1)[1] * x.chunk(2, 1)[0].sum(1, keepdim=True)), (4,)),
    "softmax": (Do(lambda m, x: x.softmax(1) + x.softmax(-1)), (3, 2)),
    "means and sums": (Do(lambda m, x: x.mean(1, keepdim=True) + x.sum((0, 2)) + x.mean() - x.sum()), (3, 3)),
    "broadcast": (Do(lambda m, x: x + x.mean((2, 3), keepdim=True)), (2, 2, 2)),
    "repeat": (Do(lambda m, x: x.expand(4, 3) + x.repeat(2, 1).flip(1).repeat(2, 1)), (3,)),
    "joined with a constant": (Do(lambda m, x: torch.cat([m.row[None], x, m.row[None, 1:]], 1)), (3,)),
    "padding": (Do(lambda m, x: functional.pad(x, (1, 1, 0, 2), value=2.0)), (1, 3)),
    "reflected": (nn.ReflectionPad1d(2), (2, 4)),
}


# overloads that other releases of torch export for the same modules
RARE = {"aten.alias.default", "aten.avg_pool1d.default", "aten.squeeze.dim"}


def randomised(module):
    """The module in float64, with weights and statistics that are not the defaults."""
    generator = torch.Generator().manual_seed(3)
    module = module.double()
    for part in module.modules():
        if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d):
            part.running_mean.normal_(generator=generator)
            part.running_var.uniform_(0.5, 2, generator=generator)
            for parameter in part.parameters():
                parameter.data.normal_(generator=generator)
    return module


@cache
def imported(name):
    """The module, its network, and the operators that were met on the way."""
    module, shape = MODULES[name]
    module, met = randomised(module).train(), set()
    watched = {target: (lambda call, t=target, f=rule: (met.add(t), f(call))) for target, rule in OPERATORS.items()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("verifier.formats.torch_export.OPERATORS", watched)
        return module, read_module(module, torch.zeros(1, *shape, dtype=torch.float64)), met


@pytest.mark.parametrize("name", MODULES)
def test_module_agrees_with_torch(name):
    module, network, _ = imported(name)
    assert all(part.training for part in module.modules())
    shape = network.input_shape[1:]
    samples = torch.randn(6, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    module.eval()
    with torch.no_grad():
        wanted = torch.stack([module(sample[None]) for sample in samples])
    module.train()
    found = evaluate(network, samples, keep=[network.output])[network.output]
    assert found.shape == wanted.shape
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)


def test_every_operator_is_met():
    met = set().union(*(imported(name)[2] for name in MODULES))
    assert {str(target) for target in set(OPERATORS) - met} == RARE | {"aten._to_copy.default"}


def test_cast_between_float_types_is_a_copy():
    network = read_module(Do(lambda m, x: x.float().double()), torch.zeros(1, 3, dtype=torch.float64))
    assert [node.op for node in network.nodes] and all(node.op.shape == (1, 3) for node in network.nodes)


def test_float32_weights_are_exact():
    module = nn.Linear(3, 2)
    op = read_module(module, torch.zeros(1, 3)).nodes[-1].op
    assert isinstance(op, Linear)
    assert op.weight.tolist() == module.weight.double().tolist() and op.bias.tolist() == module.bias.double().tolist()


def test_names_are_readable_and_repeatable():
    module = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    first, second = (read_module(module, torch.zeros(1, 3)) for _ in range(2))
    assert list(first.shapes.items()) == [
        (first.input, (1, 3)),
        ("addmm", (1, 4)),
        ("relu", (1, 4)),
        ("addmm_1", (1, 2)),
    ]
    assert first.sha256 == second.sha256


def test_slope_is_the_modules_own_number():
    op = read_module(nn.LeakyReLU(0.1), torch.zeros(1, 3)).nodes[0].op
    assert isinstance(op, LeakyRelu) and op.slope == 0.1


def test_frozen_parts_stay_frozen():
    module = nn.Sequential(nn.BatchNorm1d(3).eval(), nn.Dropout())
    module[1].train()
    read_module(module, torch.zeros(1, 3))
    assert not module[0].training and module[1].training


REFUSED = {
    "cube root": (Do(lambda m, x: x ** (1 / 3)), (3,), "exponent 0.333"),
    "logarithm": (Do(lambda m, x: x.log()), (3,), "aten.log.default"),
    "logarithm of shares": (nn.LogSoftmax(1), (3,), "aten._log_softmax.default"),
    "crossed bounds": (Do(lambda m, x: x.clamp(m.row, -m.row)), (3,), "a lower bound above the upper bound"),
    "two axes of indices": (Do(lambda m, x: x[:, m.places, m.places]), (3, 3), "indices along 2 axes at once"),
    "empty": (Do(lambda m, x: x[:, 2:1]), (3,), "an empty result"),
    "slope": (nn.LeakyReLU(1.5), (3,), "slope 1.5"),
    "maximum": (Do(lambda m, x: torch.max(x, dim=1).values), (3,), "aten.max"),
    "indices": (Do(lambda m, x: functional.max_pool2d(x, 2, return_indices=True)[1]), (1, 4, 4), "only its first result"),
    "divisor": (nn.AvgPool2d(2, divisor_override=3), (1, 4, 4), "divisor_override"),
    "transposed": (nn.ConvTranspose1d(1, 1, 2), (1, 4), "transposed convolution"),
    "integers": (Do(lambda m, x: x.int().float()), (3,), "to torch.int32"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_rule_is_refused_by_name(name):
    module, shape, message = REFUSED[name]
    with pytest.raises(UnsupportedOp, match=message.replace(".", r"\.")):
        read_module(module, torch.zeros(1, *shape, dtype=torch.float64))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_weights_that_are_no_numbers_are_named(bad):
    module = nn.Linear(3, 2)
    module.weight.data[0, 1] = bad
    with pytest.raises(BadNetwork, match="tensor 'weight' has NaN or infinite entries"):
        read_module(module, torch.zeros(1, 3))


@pytest.mark.parametrize("example", [torch.zeros(2, 3), torch.zeros(1, 3, dtype=torch.int64), torch.zeros(3), np.zeros((1, 3))])
def test_the_example_is_one_sample(example):
    with pytest.raises(BadNetwork, match="one floating-point sample with a leading batch axis of length 1, got"):
        read_module(nn.Linear(3, 2), example)


def test_modules_that_do_not_run_are_refused():
    with pytest.raises(BadNetwork, match=r"Linear cannot be exported for an example of shape \(1, 4\)") as caught:
        read_module(nn.Linear(3, 2), torch.zeros(1, 4))
    assert "\n" not in str(caught.value)


def test_control_flow_on_values_is_refused():
    with pytest.raises(BadNetwork, match="cannot be exported"):
        read_module(Do(lambda m, x: x if x.sum() > 0 else -x), torch.zeros(1, 3))


def test_several_results_are_refused():
    with pytest.raises(BadNetwork, match="must return one tensor"):
        read_module(Do(lambda m, x: (x.relu(), -x)), torch.zeros(1, 3))


def test_constant_results_are_refused():
    with pytest.raises(BadNetwork, match="does not depend on its input"):
        read_module(Do(lambda m, x: m.row * 2), torch.zeros(1, 3))


@pytest.mark.parametrize(
    "function",
    [
        lambda module, x: x + torch.rand(3),
        lambda module, x: x * torch.bernoulli(torch.sigmoid(module.row)),
        lambda module, x: x * functional.dropout(module.row, training=True),
    ],
)
def test_random_constants_are_refused(function):
    with pytest.raises(UnsupportedOp, match="random"):
        read_module(Do(function), torch.zeros(1, 3))
