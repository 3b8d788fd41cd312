"""The ratios that the goals are stated in, from medians; and the work of the vision stage, counted from the maths."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

#: the trials that the goals are about; every other figure of a run stands apart
TRIALS: Final = (
    "edgeprune_ttft", "edgeprune_ttft_second", "edgeprune_vision", "edgeprune_vision_background",
    "edgeprune_decode_100", "edgeprune_decode_2000", "openvino_ttft", "openvino_decode", "hf_ttft_unpruned",
    "hf_ttft_pruned", "hf_decode",
)  # fmt: skip

#: name -> (goal, True where the ratio must not be above it); None: no goal was set
GOALS: Final[dict[str, tuple[float | None, bool]]] = {
    "ttft_vs_openvino": (0.25, True),
    "ttft_vs_hf_unpruned": (0.33, True),
    "ttft_vs_hf_pruned": (0.75, True),
    "vision_background_vs_without": (0.60, True),
    "ttft_background_vs_openvino": (0.25, True),
    "vision_vs_int8_peak": (0.5, False),
    "decode_vs_openvino": (1.6, False),
    "decode_2000_vs_100": (1.15, True),
    "runtime_overhead": (0.01, True),
    "peak_rss_vs_weights_kv": (1.25, True),
    "ttft_second_vs_first": (0.35, True),
    "ttft_vs_llamacpp": (None, True),
    "decode_vs_llamacpp": (None, False),
    "prefill_vs_llamacpp": (None, True),
}

#: CLIP ViT-L/14-336 up to the feature block, and the 1.4 B shape's projector
BLOCKS, TOKENS, WIDTH, MLP, PATCH_INPUTS, LANGUAGE = 23, 577, 1024, 4096, 3 * 14 * 14, 2048
KEPT = 58


def vision_flops() -> float:
    """Multiply-adds as two: patches, whole blocks, the last block for the kept tokens only, the projector for them."""
    projections = 4 * TOKENS * WIDTH**2
    attention = 2 * TOKENS**2 * WIDTH
    mlp = 2 * TOKENS * WIDTH * MLP
    last = 2 * TOKENS * WIDTH**2 + KEPT * (2 * WIDTH**2 + 2 * TOKENS * WIDTH + 2 * WIDTH * MLP)
    patches = (TOKENS - 1) * PATCH_INPUTS * WIDTH
    projector = KEPT * (WIDTH * LANGUAGE + LANGUAGE**2)
    return 2.0 * (patches + (BLOCKS - 1) * (projections + attention + mlp) + last + projector)


def ratios(medians: Mapping[str, float], memory: Mapping[str, float]) -> dict[str, dict[str, float | bool | None]]:
    """Name -> {"value", "goal", "met"}; value None where the run had no such case, met None without goal or value."""

    def over(upper: str, lower: str) -> float | None:
        return medians[upper] / medians[lower] if upper in medians and lower in medians else None

    achieved = vision_flops() / (medians["edgeprune_vision"] * 1e-3)
    values = {
        "ttft_vs_openvino": over("edgeprune_ttft", "openvino_ttft"),
        "ttft_vs_hf_unpruned": over("edgeprune_ttft", "hf_ttft_unpruned"),
        "ttft_vs_hf_pruned": over("edgeprune_ttft", "hf_ttft_pruned"),
        "vision_background_vs_without": over("edgeprune_vision_background", "edgeprune_vision"),
        "ttft_background_vs_openvino": over("edgeprune_ttft_background", "openvino_ttft"),
        "vision_vs_int8_peak": achieved / (medians["int8_peak_gops"] * 1e9),
        "decode_vs_openvino": over("openvino_decode", "edgeprune_decode_100"),
        "decode_2000_vs_100": over("edgeprune_decode_2000", "edgeprune_decode_100"),
        "runtime_overhead": over("edgeprune_outside_graphs", "edgeprune_ttft"),
        "peak_rss_vs_weights_kv": memory["peak_rss_bytes"] / (memory["weights_bytes"] + memory["kv_bytes"]),
        "ttft_second_vs_first": over("edgeprune_ttft_second", "edgeprune_ttft"),
        "ttft_vs_llamacpp": over("edgeprune_ttft", "llamacpp_ttft"),
        "decode_vs_llamacpp": over("llamacpp_decode", "edgeprune_decode_100"),
        "prefill_vs_llamacpp": over("edgeprune_prefill", "llamacpp_prefill"),
    }
    return {name: _judged(value, *GOALS[name]) for name, value in values.items()}


def tokens_per_s(medians: Mapping[str, float]) -> dict[str, float]:
    """Decoding of every peer that ran, and llama.cpp's prefill of as many tokens as edgeprune's decoder gets."""
    found = {}
    for name in ("edgeprune_decode_100", "openvino_decode", "hf_decode", "llamacpp_decode"):
        if name in medians:
            found[name] = 1e3 / medians[name]
    if "llamacpp_prefill" in medians:
        found["llamacpp_prefill"] = 1e3 * medians["llamacpp_prefill_tokens"] / medians["llamacpp_prefill"]
    return found


def _judged(value: float | None, goal: float | None, at_most: bool) -> dict[str, float | bool | None]:
    met = None if value is None or goal is None else (value <= goal if at_most else value >= goal)
    return {"value": value, "goal": goal, "met": met}
