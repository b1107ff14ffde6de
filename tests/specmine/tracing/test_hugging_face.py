"""An encoder and a decoder of the transformers library, made from small random configurations: nothing is downloaded."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from specmine.tracing import Sites, compare_with_original, trace
from verifier.formats.torch_export import read_module

transformers = pytest.importorskip("transformers")

WIDTH, LAYERS, HEADS, POSITIONS = 16, 2, 4, 6


class Embedded(nn.Module):
    """A model as a function of its input embeddings (1, positions, WIDTH)."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return self.model(inputs_embeds=x, return_dict=True, **self.options()).last_hidden_state

    def options(self) -> dict[str, bool]:
        return {"use_cache": False} if isinstance(self.model, transformers.GPT2Model) else {}


def bert(attention: str) -> nn.Module:
    config = transformers.BertConfig(
        hidden_size=WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        intermediate_size=24,
        vocab_size=11,
        max_position_embeddings=8,
        attn_implementation=attention,
    )
    return transformers.BertModel(config)


def gpt2(attention: str) -> nn.Module:
    config = transformers.GPT2Config(
        n_embd=WIDTH,
        n_layer=LAYERS,
        n_head=HEADS,
        n_positions=8,
        vocab_size=11,
        bos_token_id=0,
        eos_token_id=0,
        attn_implementation=attention,
    )
    return transformers.GPT2Model(config)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("make", [bert, gpt2])
def test_models_are_read_and_their_heads_found(make, attention):
    torch.manual_seed(0)
    module = Embedded(make(attention).eval())
    x = np.random.default_rng(0).normal(size=(3, POSITIONS, WIDTH))
    network = read_module(module, torch.tensor(x[:1], dtype=torch.float32))
    assert compare_with_original(network, module, x) < 1e-4
    sites = Sites(network)
    assert [layer.score_index.shape for layer in sites.attention] == [(HEADS, POSITIONS, POSITIONS)] * LAYERS
    masked = np.triu(np.ones((POSITIONS, POSITIONS), dtype=bool), 1) & (make is gpt2)
    assert all(((layer.score_index < 0) == masked).all() for layer in sites.attention)
    if attention == "eager":
        check_probabilities(sites, module, x)


@torch.no_grad()
def check_probabilities(sites: Sites, module: Embedded, x: np.ndarray) -> None:
    """Against the attention weights that the library itself reports."""
    given = torch.tensor(x, dtype=torch.float32)
    wanted = module.model(inputs_embeds=given, output_attentions=True, **module.options()).attentions
    kept = trace(sites, x, keep=[layer.name for layer in sites.attention]).values
    for layer, original in zip(sites.attention, wanted, strict=True):
        index = layer.probability_index
        ours = np.where(index >= 0, kept[layer.name][:, index.clip(0)], 0.0)
        np.testing.assert_allclose(ours, original.numpy(), atol=1e-5)
