"""Hugging Face transformers: `python hf_worker.py CHECKPOINT`. TTFT begins with the picture in memory.

The pruned TTFT is the ideal one: the tokens are simply not there and choosing them costs nothing.
"""

from __future__ import annotations

import sys
from typing import Any

import protocol
import torch
import transformers
from transformers import AutoImageProcessor, LlavaForConditionalGeneration

TEXT_TOKENS = 20


class Model:
    """The checkpoint in bfloat16."""

    def __init__(self, folder: str) -> None:
        torch.set_num_threads(protocol.THREADS)
        self.model: Any = LlavaForConditionalGeneration.from_pretrained(folder, dtype=torch.bfloat16).eval()
        self.processor: Any = AutoImageProcessor.from_pretrained(folder)
        self.picture = protocol.picture()
        self.ids = torch.arange(5, 5 + TEXT_TOKENS)[None]
        self.cache: Any = None

    def first_token(self, kept: int | None) -> torch.Tensor:
        """Picture -> logits of the first token; `kept` visual tokens, or all."""
        inner = self.model.model
        pixels = self.processor(self.picture, return_tensors="pt")["pixel_values"].to(torch.bfloat16)
        states = inner.vision_tower(pixels, output_hidden_states=True).hidden_states
        visual = inner.multi_modal_projector(states[self.model.config.vision_feature_layer][:, 1:][:, :kept])
        text = inner.language_model.embed_tokens(self.ids)
        out = inner.language_model(inputs_embeds=torch.cat([text[:, :5], visual, text[:, 5:]], 1), use_cache=True)
        self.cache = out.past_key_values
        logits: torch.Tensor = self.model.lm_head(out.last_hidden_state[:, -1])
        return logits

    def step(self) -> torch.Tensor:
        """One decode step behind the last prompt."""
        inner = self.model.model.language_model
        one = inner.embed_tokens(self.ids[:, :1])
        state = inner(inputs_embeds=one, past_key_values=self.cache, use_cache=True).last_hidden_state
        logits: torch.Tensor = self.model.lm_head(state[:, -1])
        return logits

    def pruned(self) -> dict[str, float]:
        """TTFT with the kept tokens only, and the mean step behind it."""
        kept = int(576 * protocol.KEEP + 0.5)
        ttft = protocol.timed(lambda: self.first_token(kept))
        steps = [protocol.timed(self.step) for _ in range(protocol.NEW_TOKENS - 1)]
        return {"hf_ttft_pruned": ttft, "hf_decode": sum(steps) / len(steps)}


@torch.inference_mode()
def main() -> None:
    model = Model(sys.argv[1])
    facts = {"transformers": transformers.__version__, "torch": torch.__version__, "dtype": "bfloat16"}
    cases: protocol.Cases = {
        "unpruned": lambda: {"hf_ttft_unpruned": protocol.timed(lambda: model.first_token(None))},
        "pruned": model.pruned,
    }
    protocol.serve(facts, cases)


if __name__ == "__main__":
    main()
