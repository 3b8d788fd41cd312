"""Stage times of an answer, and their summary over several trials."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields

import numpy as np


@dataclass(frozen=True)
class StageTimings:
    """Milliseconds of one answer, with the images added since the answer before it.

    Args:
        decode_image_ms: reading and decoding image files.
        preprocess_ms: resize, crop, normalise.
        vision_ms: vision encoder, pruning and projector.
        embed_ms: tokenizer and embedding graph of the prompt.
        prefill_ms: decoder on the prompt.
        decode_ms: all decode steps.
        ttft_ms: images in memory to the first token; loading excluded, images of earlier answers cost nothing.
        tpot_ms: decode_ms / decode_steps, 0 without a step.
        total_ms: everything, image files included.
        decode_steps: decoder runs after the prefill.
        new_tokens: generated ids.
        kv_bytes: memory of the KV cache at the end.
        graph_ms: of ttft_ms, inside the engine's graph runs.
        resize_ms: of preprocess_ms, resize with crop and conversion to RGB.
        decode_graph_ms: of decode_ms, inside graph runs.
        select_ms: select graphs of methods that are written as two, with the question's embeddings.
    """

    decode_image_ms: float
    preprocess_ms: float
    vision_ms: float
    embed_ms: float
    prefill_ms: float
    decode_ms: float
    ttft_ms: float
    tpot_ms: float
    total_ms: float
    decode_steps: int
    new_tokens: int
    kv_bytes: int
    graph_ms: float
    resize_ms: float
    decode_graph_ms: float
    select_ms: float = 0.0

    @property
    def own_ms(self) -> float:
        """Of ttft_ms: neither inside a graph run nor resize; what the runtime itself costs."""
        return self.ttft_ms - self.graph_ms - self.resize_ms

    def to_dict(self) -> dict[str, float]:
        """Field name -> value, JSON-ready."""
        return asdict(self)


@dataclass(frozen=True)
class Summary:
    """Order statistics of one quantity over `trials` trials, in the unit of the quantity.

    `stdev` is the sample's standard deviation, 0 of a single trial. Below 100 trials p99 lies close to `most`.
    """

    trials: int
    median: float
    p10: float
    p90: float
    p99: float
    stdev: float
    least: float
    most: float


def summarize(values: Sequence[float]) -> Summary:
    """Summary of at least one value; percentiles by linear interpolation."""
    if not values:
        raise ValueError("there is nothing to summarise")
    p10, median, p90, p99 = (float(np.percentile(values, q)) for q in (10, 50, 90, 99))
    stdev = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
    return Summary(len(values), median, p10, p90, p99, stdev, float(min(values)), float(max(values)))


def summarize_stages(trials: Sequence[StageTimings]) -> dict[str, Summary]:
    """Field of StageTimings -> its summary over the trials."""
    return {field.name: summarize([getattr(trial, field.name) for trial in trials]) for field in fields(StageTimings)}
