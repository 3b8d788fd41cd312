"""What a session gives back."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeprune.keep import AutoKeep
from edgeprune.runtime import _abi
from edgeprune.timings import StageTimings


@dataclass(frozen=True, eq=False)
class KeptTokens:
    """What pruning kept of one picture.

    Args:
        image: the picture's id in its session.
        kept: K, read from the shape of the executed output tensor.
        visual_tokens: N.
        keep_idx: (K,) int64 indices into the original grid; -1 stands for no single patch.
        scores: (N,) float32, or None when the method has none.
        grid_rows, grid_cols: of the original grid; their product is N.
        width_px, height_px: of the picture as it was given.
        applied: K < N.
        reason: why not, when `applied` is false; why K is below the ratio asked for; "" otherwise.
        method: the pruning method.
        keep: the keep ratio that was asked for; K/N where K was chosen from the scores.
        pad_mask: (N,) bool, True where the patch is letter-box padding; None when the bundle does not letter-box.
        auto_keep: how K was chosen from the scores, None where a ratio was asked for.
    """

    image: int
    kept: int
    visual_tokens: int
    keep_idx: np.ndarray[Any, np.dtype[np.int64]]
    scores: np.ndarray[Any, np.dtype[np.float32]] | None
    grid_rows: int
    grid_cols: int
    width_px: int
    height_px: int
    applied: bool
    reason: str
    method: str
    keep: float
    pad_mask: np.ndarray[Any, np.dtype[np.bool_]] | None = None
    auto_keep: AutoKeep | None = None


@dataclass(frozen=True, eq=False)
class Answer:
    """An answer and how it was made.

    Args:
        text: what was generated, without the stop string that ended it.
        token_ids: generated ids, end-of-sequence included when it was made.
        finish_reason: "eos", "stop", "length", "callback", "aborted" or "deadline".
        prompt_tokens: text tokens and kept visual tokens of the prompt.
        visual_tokens_kept: those of them that are visual.
        reused_tokens: of the prompt, found in the KV cache of an earlier question.
        kv_tokens: length of the KV cache, read from the executed tensors.
        images: what was kept of each picture of the prompt, in its order.
        timings: milliseconds per stage.
    """

    text: str
    token_ids: tuple[int, ...]
    finish_reason: str
    prompt_tokens: int
    visual_tokens_kept: int
    reused_tokens: int
    kv_tokens: int
    images: tuple[KeptTokens, ...]
    timings: StageTimings


def copy_kept(image: int, raw: _abi.KeptTokens) -> KeptTokens:
    """A copy that outlives the session."""
    scores = np.ctypeslib.as_array(raw.scores, (raw.visual_tokens,)).copy() if raw.scores else None
    return KeptTokens(
        image=image,
        kept=raw.kept,
        visual_tokens=raw.visual_tokens,
        keep_idx=np.ctypeslib.as_array(raw.keep_idx, (raw.kept,)).copy(),
        scores=scores,
        grid_rows=raw.grid_rows,
        grid_cols=raw.grid_cols,
        width_px=raw.width_px,
        height_px=raw.height_px,
        applied=bool(raw.applied),
        reason=raw.reason.decode(),
        method=raw.method.decode(),
        keep=raw.keep,
        pad_mask=np.ctypeslib.as_array(raw.pad_mask, (raw.visual_tokens,)) > 0 if raw.pad_mask else None,
        auto_keep=AutoKeep(raw.auto_mass, raw.auto_min, raw.auto_max) if raw.auto_mass else None,
    )


def copy_answer(raw: _abi.Answer, stats: _abi.Stats, images: tuple[KeptTokens, ...]) -> Answer:
    """A copy that outlives the session."""
    return Answer(
        text=ctypes.string_at(raw.text, raw.text_size).decode("utf-8", "replace") if raw.text else "",
        token_ids=tuple(raw.token_ids[: raw.token_count]),
        finish_reason=_abi.FINISH_REASONS[raw.finish_reason],
        prompt_tokens=raw.prompt_tokens,
        visual_tokens_kept=raw.visual_tokens_kept,
        reused_tokens=raw.reused_tokens,
        kv_tokens=raw.kv_tokens,
        images=images,
        timings=copy_stats(stats),
    )


def copy_stats(stats: _abi.Stats) -> StageTimings:
    return StageTimings(**{name: getattr(stats, name) for name, *_ in stats._fields_ if name != "struct_size"})


def floats(pointer: Any, *shape: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    """A copy of borrowed floats."""
    array: np.ndarray[Any, np.dtype[np.float32]] = np.ctypeslib.as_array(pointer, shape).copy()
    return array


def initialised(struct: type[ctypes.Structure], **values: Any) -> Any:
    """A struct of the interface with its struct_size set and every other field at its default, 0."""
    return struct(struct_size=ctypes.sizeof(struct), **values)
