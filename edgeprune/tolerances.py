"""Every parity tolerance of the project, in one table.

Parity is agreement with the torch reference on the same weights, in fp32 unless a name says otherwise. Relative values
are relative to the largest absolute value of the reference tensor.
"""

from __future__ import annotations

from typing import Final

#: stage or check -> largest difference that still counts as equal.
TOLERANCES: Final[dict[str, float]] = {
    # greedy picks: what rounding does to the tokens, relative, when asking whether torch's own kept set stands firm
    "pick_noise": 1e-5,
    # graph against torch, fp32, relative to max |reference|
    "visual_embeds": 1e-4,
    "scores": 1e-4,
    "text_embeds": 1e-4,
    "logits": 1e-4,
    "logits_in_place": 1e-4,  # cpu variants: cache written in place, before quantisation
    "logits_cache_fp16": 1e-2,  # the same with keys and values in float16; beyond it the cache stays float32
    "inputs_embeds": 0.0,
    # an exact saving (cut, kept rows only, projector on kept tokens) against the naive graph, torch fp32
    "exact_saving": 1e-5,
    # features that a merging method makes, against its oracle, relative to max(1, max |reference|)
    "merged": 1e-5,
    # probabilities of the next token against transformers' float32 processors, absolute
    "token_probability": 1e-6,
    # ln p of a given token, fp32 graph against torch or numpy, absolute and per token
    "log_probability": 1e-4,
    # preprocessed bytes before normalisation: equal
    "pixels": 0.0,
    # how far beyond half a unit a byte of a converted NV12 or YUYV frame may lie from the standard's real number
    "yuv_rounding": 3e-4,
    # a greedy token may differ only where the reference's top-2 logits are closer than this
    "greedy_gap": 1e-3,
    # fp16 export against the fp32 reference, relative
    "visual_embeds_fp16": 2e-2,
    "logits_fp16": 5e-2,
    # bf16 engine's graph, emulated, against the canonical graph, relative. Its 8 bits round eight times as coarsely as
    # fp16's 11: .044 was seen where fp16 makes .003; the bound is what a defect would exceed, not what accuracy bears
    "visual_embeds_bf16": 8e-2,
    "logits_bf16": 1e-1,
    # int8 variant against the canonical graph, 1 - cosine
    "visual_embeds_int8": 1e-3,
    "logits_int8": 5e-3,
    # fp8 engine's graph against the canonical graph, 1 - cosine: 4 bits of significand on both sides of a product round
    # more coarsely than int8 without outliers, and less than int4
    "visual_embeds_fp8": 5e-3,
    "logits_fp8": 3e-2,
    # int4 weights against the canonical graph, 1 - cosine; what it means for answers is measured in docs/targets.md
    "visual_embeds_int4": 2e-2,
    "logits_int4": 1e-1,
    # share of the kept tokens that a variant may choose otherwise, one token always; bounds of what a defect would
    # exceed, not of what accuracy bears: near ties flip, and a greedy pick moves those after it
    "kept_set_fp16": 0.1,
    "kept_set_int8": 0.25,
    "kept_set_int4": 0.5,
    # one layer's output against the canonical graph's: relative in fp32, else 1 - cosine
    "layer_fp32": 1e-4,
    "layer_fp16": 5e-3,
    "layer_int8": 2e-2,
    "layer_int4": 2e-1,
}
