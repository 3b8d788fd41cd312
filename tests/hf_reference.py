"""The independent reference: Hugging Face transformers in fp32 with eager attention, FasterVLM's rule applied by hand.

Written from the maths (mean over heads of the [CLS] row of the scoring block, [CLS] column dropped, no renormalising,
K largest, raster order), never from the project's own modules.
"""

from __future__ import annotations

import dataclasses
import math
import pathlib

import numpy as np


@dataclasses.dataclass(frozen=True)
class Reference:
    """Greedy ids and, per step, the gap between the two largest logits."""

    ids: list[int]
    gaps: list[float]
    keep_idx: list[np.ndarray]
    scores: list[np.ndarray]
    prompt_ids: list[int]


class HfReference:
    """A checkpoint folder opened with transformers."""

    def __init__(self, folder: pathlib.Path) -> None:
        import torch
        from transformers import AutoImageProcessor, AutoTokenizer, LlavaForConditionalGeneration

        self.torch = torch
        self.model = LlavaForConditionalGeneration.from_pretrained(
            folder, dtype=torch.float32, attn_implementation="eager"
        ).eval()
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.processor = AutoImageProcessor.from_pretrained(folder, backend="pil")
        self.model.generation_config.eos_token_id = None  # EOS is an ordinary token here, as with ignore_eos
        self.config = self.model.config
        self.marker = (
            self.config.image_token_index if hasattr(self.config, "image_token_index") else self.config.image_token_id
        )

    def prompt_ids(self, question: str, images: int) -> list[int]:
        content = [{"type": "image"}] * images + [{"type": "text", "text": question}]
        text = self.tokenizer.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
        )
        return self.tokenizer(text, add_special_tokens=False).input_ids

    def pixels(self, image):
        return self.processor(images=image, return_tensors="pt").pixel_values

    def vision(self, image, keep: float, score_block: int | None = None):
        """Kept projected features (K, D), indices (K,), scores (N,) by FasterVLM's rule, all attention maps at hand."""
        torch = self.torch
        tower = self.model.model.vision_tower
        out = tower(self.pixels(image), output_hidden_states=True, output_attentions=True)
        layer = self.config.vision_feature_layer
        features = out.hidden_states[layer][:, 1:]
        block = (layer if layer >= 0 else len(out.hidden_states) + layer) - 1 if score_block is None else score_block
        scores = out.attentions[block][:, :, 0, 1:].mean(1)[0]
        n = scores.shape[0]
        k = max(1, math.floor(n * keep + 0.5))
        idx = torch.sort(torch.topk(scores, k).indices).values
        projected = self.model.model.multi_modal_projector(features)
        return projected[0][idx], idx.numpy(), scores.numpy()

    def ask(self, images, question: str, keep: float, new_tokens: int, score_block: int | None = None) -> Reference:
        """Greedy answer, EOS ignored. images: list of PIL pictures."""
        torch = self.torch
        with torch.inference_mode():
            ids = self.prompt_ids(question, len(images))
            kept = [self.vision(i, keep, score_block) for i in images]
            table = self.model.get_input_embeddings()
            parts, pictures = [], iter(kept)
            for token in ids:
                parts.append(next(pictures)[0] if token == self.marker else table(torch.tensor([token])))
            made, gaps = self._greedy(torch.cat(parts)[None], new_tokens)
        return Reference(made, gaps, [k[1] for k in kept], [k[2] for k in kept], ids)

    def _greedy(self, embeds, steps: int) -> tuple[list[int], list[float]]:
        cache, made, gaps = None, [], []
        for _ in range(steps):
            out = self.model.model.language_model(inputs_embeds=embeds, past_key_values=cache, use_cache=True)
            cache = out.past_key_values
            logits = self.model.lm_head(out.last_hidden_state[:, -1])[0]
            top = self.torch.topk(logits, 2)
            made.append(int(top.indices[0]))
            gaps.append(float(top.values[0] - top.values[1]))
            embeds = self.model.get_input_embeddings()(self.torch.tensor([[made[-1]]]))
        return made, gaps

    def generate(self, image, question: str, new_tokens: int) -> list[int]:
        """transformers' own generate() on the unpruned model, EOS ignored."""
        torch = self.torch
        ids = self.prompt_ids(question, 1)
        n = self.config.image_seq_length
        full = [t for i in ids for t in ([i] * n if i == self.marker else [i])]
        with torch.inference_mode():
            out = self.model.generate(
                input_ids=torch.tensor([full]),
                attention_mask=torch.ones(1, len(full), dtype=torch.long),
                pixel_values=self.pixels(image),
                max_new_tokens=new_tokens,
                do_sample=False,
            )
        return out[0, len(full) :].tolist()
