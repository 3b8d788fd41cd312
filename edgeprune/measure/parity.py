"""Parity: the golden inputs of a bundle replayed through the runtime and compared with the golden outputs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from edgeprune.bundle import Bundle
from edgeprune.manifest import Manifest, ParityRow
from edgeprune.runtime.session import Model
from edgeprune.tolerances import TOLERANCES

Arrays = dict[str, "np.ndarray[Any, Any]"]


def replay(bundle: Bundle, model: Model) -> Iterator[ParityRow]:
    """Compares stage by stage, every method of the golden tensors in turn.

    Args:
        bundle: an opened bundle with golden tensors.
        model: the same bundle in the runtime.

    Yields:
        One row per stage and measure, in the order in which the data runs.

    Raises:
        BundleError: the bundle has no golden tensors.
    """
    inputs, outputs = bundle.golden()
    precision = "_fp16" if bundle.manifest.recipe.get("dtype") == "fp16" else ""
    yield _equal("preprocess", "pixels", model.preprocess(inputs["image_rgb"]), outputs["pixels_rgb"])
    ids = prompt_ids(bundle.manifest, model, str(inputs["prompt"]))
    yield _equal("tokenizer", "prompt_ids", np.array(ids), outputs["prompt_ids"])
    if "question_ids" in outputs:
        alone = model.tokenize(str(inputs["prompt"]))
        yield _equal("tokenizer", "question_ids", np.array(alone), outputs["question_ids"])
    for method in sorted(name.partition("/")[2] for name in outputs if name.startswith("keep_idx/")):
        fixed = bundle.manifest.methods.each[method].static_keep is not None
        keep = None if fixed else float(inputs["keep"])
        yield from _replay_method(model, method, keep, inputs, outputs, precision, _unsteady(bundle.manifest, method))


def _unsteady(manifest: Manifest, method: str) -> float:
    """How many kept tokens of a method may differ: what its export recorded as decided by rounding, else none."""
    stage, measure = f"vision/{method}", "different kept tokens"
    return max((row.tolerance for row in manifest.parity if (row.stage, row.measure) == (stage, measure)), default=0.0)


def prompt_ids(manifest: Manifest, model: Model, question: str) -> list[int]:
    """Token ids of the whole prompt with one image marker, not expanded; the question must hold no special tokens."""
    parts = []
    for segment in manifest.prompt.segments:
        if segment.images is not None:
            parts.append(segment.images.before + manifest.tokens.image_marker + segment.images.after)
        else:
            parts.append(question if segment.text is None else segment.text)
    encoded = model.tokenize("".join(parts), allow_special=True)
    return [*manifest.tokens.prefix, *encoded, *manifest.tokens.suffix]


def _replay_method(
    model: Model, method: str, keep: float | None, inputs: Arrays, outputs: Arrays, precision: str, unsteady: float
) -> Iterator[ParityRow]:
    def golden(name: str) -> np.ndarray[Any, Any]:
        return outputs[f"{name}/{method}"]

    with model.new_session() as session:
        image = session.add_image(inputs["image_rgb"], keep=keep, method=method)
        # a method that reads the question keeps nothing before there is one
        answer = session.generate(str(inputs["prompt"]), max_new_tokens=int(inputs["max_new_tokens"]), ignore_eos=True)
        kept = session.kept_tokens(image)
        index = np.array(kept.keep_idx)
        changed = len(np.setdiff1d(index, golden("keep_idx")))
        if 0 < changed <= unsteady and index.shape == golden("keep_idx").shape:
            # picks that rounding decides: recorded, and what follows from them has no golden tensor
            measure = f"keep_idx/{method}, kept tokens that differ by rounding; later stages not compared"
            yield ParityRow("vision", measure, float(changed), unsteady, True)
            return
        yield _equal("vision", f"keep_idx/{method}", index, golden("keep_idx"))
        if f"scores/{method}" in outputs:
            found = np.empty(0) if kept.scores is None else kept.scores
            yield _close("vision", "scores", method, found, golden("scores"), "")
        embeds = session.image_embeds(image)
        yield _close("vision", "visual_embeds", method, embeds, golden("visual_embeds"), precision)
        yield _close("decoder", "logits", method, session.prefill_logits(), golden("logits"), precision)
        yield _equal("decoder", f"greedy_ids/{method}", np.array(answer.token_ids), golden("greedy_ids"))


def _equal(stage: str, measure: str, found: np.ndarray[Any, Any], golden: np.ndarray[Any, Any]) -> ParityRow:
    """How many values differ, none allowed; another shape counts as every value."""
    differing = int(np.count_nonzero(found != golden)) if found.shape == golden.shape else max(1, golden.size)
    return ParityRow(stage, f"{measure}, values that differ", float(differing), 0.0, differing == 0)


def _close(
    stage: str, name: str, method: str, found: np.ndarray[Any, Any], golden: np.ndarray[Any, Any], precision: str
) -> ParityRow:
    """Largest difference relative to the largest absolute golden value; another shape counts as infinite."""
    value = float("inf")
    if found.shape == golden.shape:
        scale = float(np.abs(golden).max(initial=0.0)) or 1.0
        value = float(np.abs(found.astype(np.float64) - golden).max(initial=0.0)) / scale
    tolerance = TOLERANCES[name + precision]
    # Written so that NaN fails.
    return ParityRow(stage, f"{name}/{method}, relative", value, tolerance, value <= tolerance)
