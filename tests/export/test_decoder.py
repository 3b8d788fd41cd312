"""The decoder against transformers' Llama: head layouts, RoPE types, biases, empty and filled past."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from edgeprune.errors import CheckpointError
from edgeprune.export.models.llama import inverse_frequencies
from edgeprune.tolerances import TOLERANCES
from tests.export.models import family_of, filled, hf_model, llava_config, relative

LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
SHAPES: dict[str, dict[str, Any]] = {
    "gqa": {},
    "mha": {"num_key_value_heads": 4},
    "odd heads": {"hidden_size": 48, "num_attention_heads": 3, "num_key_value_heads": 1},
    "odd heads, mha": {"hidden_size": 40, "num_attention_heads": 5, "num_key_value_heads": 5},
    "head_dim of its own": {"head_dim": 24},
    "biases": {"attention_bias": True, "mlp_bias": True},
    "linear rope": {"rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 10000.0}},
    "llama3 rope": {"rope_parameters": LLAMA3},
    "other theta, eps and activation": {
        "rope_parameters": {"rope_type": "default", "rope_theta": 123.0},
        "rms_norm_eps": 1e-2,
        "hidden_act": "gelu_pytorch_tanh",
    },
}


def empty_past(config: Any, batch: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    shape = (batch, config.num_key_value_heads, 0, config.head_dim)
    return [(torch.zeros(shape), torch.zeros(shape)) for _ in range(config.num_hidden_layers)]


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_decoder_equals_transformers(shape: str, tied: bool) -> None:
    config = llava_config(side=4, tie_word_embeddings=tied, **SHAPES[shape])
    model = hf_model(config)
    family, source = family_of(model)
    assert family.tied is tied
    graph = filled(family.decoder(torch.float32, whole=True), family, source)
    text, batch = config.text_config, 2
    past, cache, length = empty_past(text, batch), None, 0
    generator = torch.Generator().manual_seed(0)
    for new in (70, 1, 5):
        embeds = torch.randn(batch, new, text.hidden_size, generator=generator)
        positions = torch.arange(length, length + new).expand(batch, -1)
        mask = torch.ones(batch, length + new, dtype=torch.int64)
        with torch.inference_mode():
            out = model.model.language_model(inputs_embeds=embeds, past_key_values=cache, use_cache=True)
            expected = model.lm_head(out.last_hidden_state[:, -1:])
            found, past = graph(embeds, positions, mask, past)
        cache, length = out.past_key_values, length + new
        assert found.shape == (batch, 1, text.vocab_size)
        assert relative(found, expected) <= TOLERANCES["logits"]
        assert all(keys.shape[2] == length for keys, _ in past)


def test_left_padding_is_ignored() -> None:
    model = hf_model(llava_config(side=4))
    family, source = family_of(model)
    graph = filled(family.decoder(torch.float32, whole=True), family, source)
    text = family.config.text_config
    embeds = torch.randn(1, 6, text.hidden_size)
    padded = torch.cat([torch.randn(1, 3, text.hidden_size), embeds], dim=1)
    positions, mask = torch.arange(6)[None], torch.ones(1, 6, dtype=torch.int64)
    long_positions = torch.cat([torch.zeros(1, 3, dtype=torch.int64), positions], dim=1)
    long_mask = torch.cat([torch.zeros(1, 3, dtype=torch.int64), mask], dim=1)
    with torch.inference_mode():
        plain, _ = graph(embeds, positions, mask, empty_past(text, 1))
        shifted, _ = graph(padded, long_positions, long_mask, empty_past(text, 1))
    assert relative(shifted, plain) <= 1e-5


def test_other_rope_types_are_refused_by_name() -> None:
    config = llava_config().text_config
    config.rope_parameters = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 2.0}
    with pytest.raises(CheckpointError, match="'yarn'"):
        inverse_frequencies(config)
    config.rope_parameters = {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5}
    with pytest.raises(CheckpointError, match="partial_rotary_factor"):
        inverse_frequencies(config)
