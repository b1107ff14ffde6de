"""Attention heads found in the graph, against heads computed by torch and onnxruntime."""

import os
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from specmine.tracing import Sites, find_attention, trace
from verifier.evaluate import evaluate
from verifier.formats import read_network
from verifier.formats.torch_export import read_module
from verifier.network import Network, Node
from verifier.ops import Exp, Linear, Product, Reciprocal, Reshape, Select, Sum

BENCHMARKS = Path(os.environ.get("SPECMINE_BENCHMARKS", Path(__file__).parents[4] / "shared" / "benchmarks"))
SEQUENCE, WIDTH, HEADS = 5, 6, 2


class Plain(nn.Module):
    """Two heads of attention over (1, SEQUENCE, WIDTH); `layout` lays the axes of scores out in one of several ways."""

    def __init__(self, layout: str, mask: Tensor | None = None) -> None:
        super().__init__()
        self.layout, self.mask = layout, mask
        self.query, self.key, self.value = (nn.Linear(WIDTH, WIDTH) for _ in range(3))
        self.out = nn.Linear(WIDTH, WIDTH)

    def split(self, x: Tensor) -> list[Tensor]:
        return [part(x).view(1, -1, HEADS, WIDTH // HEADS).transpose(1, 2) for part in (self.query, self.key, self.value)]

    def heads(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Scores and probabilities (heads, queries, keys) and outputs (heads, queries, head_dim), by the textbook."""
        query, key, value = (part[0] for part in self.split(x))
        scores = torch.einsum("hqd,hkd->hqk", query, key) / (WIDTH // HEADS) ** 0.5
        kept = torch.ones_like(scores, dtype=torch.bool) if self.mask is None else ~self.mask.expand_as(scores)
        powers = torch.where(kept, scores.exp(), 0.0)
        probabilities = powers / powers.sum(-1, keepdim=True)
        return scores.masked_fill(~kept, torch.nan), probabilities, torch.einsum("hqk,hkd->hqd", probabilities, value)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = self.split(x)
        scale = (WIDTH // HEADS) ** 0.5
        match self.layout:
            case "heads first":
                scores = query @ key.transpose(-1, -2) / scale
                mixed = self.masked(scores).softmax(-1) @ value
            case "keys before queries":
                scores = key @ query.transpose(-1, -2) / scale
                mixed = (value.transpose(-1, -2) @ scores.softmax(-2)).transpose(-1, -2)
            case "heads last":
                scores = torch.einsum("bhqd,bhkd->bqkh", query, key) / scale
                mixed = torch.einsum("bqkh,bhkd->bhqd", scores.softmax(2), value)
            case _:
                mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=self.layout == "causal")
        return x + self.out(mixed.transpose(1, 2).reshape(1, -1, WIDTH)).relu()

    def masked(self, scores: Tensor) -> Tensor:
        return scores if self.mask is None else scores.masked_fill(self.mask, float("-inf"))


def future() -> Tensor:
    return torch.ones(SEQUENCE, SEQUENCE, dtype=torch.bool).triu(1)


def ragged() -> Tensor:
    """A mask that leaves a single key to one query of one head, all to others."""
    mask = torch.zeros(HEADS, SEQUENCE, SEQUENCE, dtype=torch.bool)
    mask[0, 2, [0, 1, 3, 4]] = True
    mask[1, :, 1] = True
    return mask


def plain(layout: str, mask: Tensor | None = None) -> Plain:
    torch.manual_seed(0)
    return Plain(layout, mask).double().eval()


PLAIN = {
    "heads first": ("heads first", None),
    "keys before queries": ("keys before queries", None),
    "heads last": ("heads last", None),
    "fused": ("fused", None),
    "causal": ("heads first", future()),
    "ragged": ("heads first", ragged()),
}


def read_at(flat: np.ndarray, index: np.ndarray) -> np.ndarray:
    """The entries at these places, NaN at -1."""
    return np.where(index >= 0, flat[index], np.nan)


@torch.no_grad()
def check(network: Network, module: Plain, layer, x: Tensor) -> None:
    values = {name: value[0].numpy().ravel() for name, value in evaluate(network, x.numpy()).items()}
    scores, probabilities, outputs = (part.numpy() for part in module.heads(x))
    np.testing.assert_allclose(read_at(values[layer.scores], layer.score_index), scores, rtol=1e-9)
    seen = read_at(values[layer.probabilities], layer.probability_index)
    np.testing.assert_allclose(seen, np.where(np.isnan(scores), np.nan, probabilities), rtol=1e-9)
    np.testing.assert_allclose(values[layer.outputs][layer.output_index], outputs, rtol=1e-9)


@pytest.mark.parametrize("name", PLAIN)
def test_heads_are_those_of_the_textbook(name):
    module, x = plain(*PLAIN[name]), torch.randn(1, SEQUENCE, WIDTH, dtype=torch.float64)
    network = read_module(module, x)
    (layer,) = find_attention(network)
    assert layer.score_index.shape == layer.probability_index.shape == (HEADS, SEQUENCE, SEQUENCE)
    assert layer.output_index.shape == (HEADS, SEQUENCE, WIDTH // HEADS)
    assert layer.score_index.dtype == np.int64 and not layer.score_index.flags.writeable
    check(network, module, layer, x)


def test_causal_flag_of_the_fused_function():
    module, reference = plain("causal"), plain("heads first", future())
    x = torch.randn(1, SEQUENCE, WIDTH, dtype=torch.float64)
    network = read_module(module, x)
    (layer,) = find_attention(network)
    assert ((layer.score_index < 0) == future().numpy()).all()
    check(network, reference, layer, x)


def test_multihead_attention_reports_the_same_weights():
    torch.manual_seed(1)
    inner = nn.MultiheadAttention(8, 4, batch_first=True).double()

    class Wrapped(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = inner

        def forward(self, x):
            return self.inner(x, x, x, need_weights=False)[0]

    x = torch.randn(1, 3, 8, dtype=torch.float64)
    network = read_module(Wrapped(), x)
    (layer,) = find_attention(network)
    values = evaluate(network, x.numpy(), keep=[layer.probabilities])[layer.probabilities].numpy().ravel()
    with torch.no_grad():
        weights = inner(x, x, x, average_attn_weights=False)[1][0].numpy()
    np.testing.assert_allclose(values[layer.probability_index], weights, rtol=1e-9)


def test_layers_are_counted_in_network_order():
    modules = nn.Sequential(plain("heads first", future()), plain("fused"), plain("keys before queries"))
    x = torch.randn(1, SEQUENCE, WIDTH, dtype=torch.float64)
    network = read_module(modules, x)
    layers = find_attention(network)
    assert [layer.name for layer in layers] == ["a1", "a2", "a3"]
    for module, layer in zip(modules, layers, strict=True):
        check_from = evaluate(network, x.numpy(), keep=[layer.scores])
        assert check_from[layer.scores].numel() == HEADS * SEQUENCE**2
        if module is modules[0]:
            check(network, module, layer, x)
    assert [bool((layer.score_index < 0).any()) for layer in layers] == [True, False, False]


def test_sites_of_attention():
    module, x = plain("heads first", future()), torch.randn(3, SEQUENCE, WIDTH, dtype=torch.float64)
    network = read_module(module, x[:1])
    sites = Sites(network)
    (layer,) = sites.attention
    assert sites.attention is sites.attention
    assert [sites.value(site) for site in ("s1", "a1", "o1")] == [layer.scores, layer.probabilities, layer.outputs]
    assert sites.size("s1") == sites.size("a1") == HEADS * SEQUENCE**2 and sites.size("o1") == SEQUENCE * WIDTH
    assert sites.hidden == ("h1",), "what a softmax is made of is no activation"
    kept = trace(sites, x.numpy(), keep=("a1",)).values["a1"]
    with torch.no_grad():
        wanted = np.stack([module.heads(row[None])[1].numpy() for row in x])
    seen = np.where(layer.probability_index >= 0, kept[:, layer.probability_index.clip(0)], 0.0)
    np.testing.assert_allclose(seen, wanted, rtol=1e-9)


class Apart(nn.Module):
    """Softmax without attention: `kind` says what is done with the shares."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def forward(self, x: Tensor) -> Tensor:
        shares = (x @ x.transpose(-1, -2)).softmax(-1)
        match self.kind:
            case "classifier":
                return shares
            case "gate":
                return shares * x
            case "other axis":
                return shares.transpose(-1, -2) @ x
            case _:
                return shares @ torch.ones(4, 4, dtype=x.dtype)


@pytest.mark.parametrize("kind", ["classifier", "gate", "other axis", "constant values"])
def test_softmax_alone_is_no_attention(kind):
    assert find_attention(read_module(Apart(kind), torch.randn(1, 4, 4, dtype=torch.float64))) == ()


def softmax_network(*, terms: list[int], own: list[int], bias: float = 1.0) -> Network:
    """Shares 1 / (bias + sum of exp(x[term] - x[own])) of three scores, two terms each, times x, summed."""
    nodes = (
        Node("left", Select(np.array(terms), (1, 3, 2)), ("x",)),
        Node("right", Select(np.array(own), (1, 3, 2)), ("x",)),
        Node("d", Sum((1.0, -1.0)), ("left", "right")),
        Node("e", Exp(), ("d",)),
        Node("s", Linear(np.ones((1, 2)), np.array([bias])), ("e",)),
        Node("f", Reshape((1, 3)), ("s",)),
        Node("p", Reciprocal(), ("f",)),
        Node("rows", Select(np.arange(3), (1, 1, 1, 3)), ("p",)),
        Node("columns", Select(np.arange(3), (1, 1, 1, 3)), ("x",)),
        Node("m", Product(), ("rows", "columns")),
        Node("t", Linear(np.ones((1, 3)), np.zeros(1)), ("m",)),
        Node("y", Reshape((1, 1)), ("t",)),
    )
    return Network("x", (1, 3), nodes, "y")


OTHERS, OWN = [1, 2, 0, 2, 0, 1], [0, 0, 1, 1, 2, 2]


def test_a_softmax_by_hand():
    (layer,) = find_attention(softmax_network(terms=OTHERS, own=OWN))
    assert (layer.scores, layer.probabilities, layer.outputs) == ("x", "p", "y")
    assert layer.score_index.tolist() == [[[0, 1, 2]]] and layer.output_index.tolist() == [[[0]]]


@pytest.mark.parametrize(
    "change",
    [
        {"terms": [1, 1, 0, 2, 0, 1]},
        {"terms": [1, 2, 0, 2, 0, 2]},
        {"terms": [1, -1, 0, -1, 0, -1]},
        {"terms": [-1, 2, 0, 2, 0, 1]},
        {"own": [0, 0, 1, 1, 2, 1]},
        {"own": [0, 0, 1, 1, -1, -1]},
        {"own": [1, 1, 0, 0, 2, 2]},
        {"bias": 2.0},
    ],
    ids=str,
)
def test_what_only_looks_like_a_softmax(change):
    """A term twice, a row that is not closed, a constant among the terms, mixed owners, shares in another order."""
    assert find_attention(softmax_network(**{"terms": OTHERS, "own": OWN} | change)) == ()


@pytest.mark.benchmarks
@pytest.mark.parametrize("name, layers, tokens", [("pgd_2_3_16", 2, 5), ("ibp_3_3_8", 3, 17)])
def test_vision_transformers(name, layers, tokens):
    """Scores, probabilities and outputs of the file, laid out (1, heads, queries, keys) there."""
    path = BENCHMARKS / "vit" / "onnx" / f"{name}.onnx"
    if not path.exists():
        pytest.skip(f"no benchmark network at {path}")
    network, model = read_network(path), onnx.load(path)
    found = find_attention(network)
    softmaxes = [node for node in model.graph.node if node.op_type == "Softmax"]
    assert [(layer.scores, layer.probabilities) for layer in found] == [(n.input[0], n.output[0]) for n in softmaxes]
    assert len(found) == layers and all(layer.score_index.shape == (3, tokens, tokens) for layer in found)
    wanted = [name for layer in found for name in (layer.scores, layer.probabilities, layer.outputs)]
    del model.graph.output[:]
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in wanted)
    x = np.random.default_rng(0).normal(size=network.input_shape).astype(np.float32)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    original = dict(zip(wanted, session.run(None, {network.input: x}), strict=True))
    ours = evaluate(network, x.astype(np.float64)[None], keep=wanted)
    for layer in found:
        for value, index in (
            (layer.scores, layer.score_index),
            (layer.probabilities, layer.probability_index),
            (layer.outputs, layer.output_index),
        ):
            np.testing.assert_allclose(ours[value].numpy().ravel()[index], original[value][0], rtol=1e-4, atol=1e-5)
