"""Golden tensors: one picture and one question, with the torch reference's answer at every stage."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

import numpy as np

from edgeprune.export.reference import Reference, VisionReference
from edgeprune.export.text_encoder import TextEncoderWeights
from edgeprune.export.tokens import Tokens
from edgeprune.pruning.base import PruningMethod

QUESTION: Final = "What is in the image?"
NEW_TOKENS: Final = 16


@dataclass(frozen=True)
class Seen:
    """The picture and what preprocessing makes of it.

    Attributes:
        image: (H,W,3) uint8.
        pixels: (S,S,3) uint8. values: the same normalised, (1,3,S,S).
        padding: (N,) float32, 1 where a patch is padding; None without a letter-box.
    """

    image: np.ndarray
    pixels: np.ndarray
    values: np.ndarray
    padding: np.ndarray | None = None


@dataclass(frozen=True)
class Golden:
    """Arrays of inputs.npz and outputs.npz, and what parity compares with.

    Attributes:
        vision: method key -> its vision outputs.
        prompts: method key -> prompt embeddings (L - 1 + K, D) with the visual tokens in place.
    """

    inputs: dict[str, np.ndarray]
    outputs: dict[str, np.ndarray]
    seen: Seen
    vision: dict[str, VisionReference]
    prompts: dict[str, np.ndarray]

    def write(self, folder: Path) -> None:
        folder.mkdir()
        for name, arrays in (("inputs", self.inputs), ("outputs", self.outputs)):
            np.savez(folder / f"{name}.npz", **cast(Any, arrays))


def picture(wide: bool = False) -> np.ndarray:
    """A made picture (150,200,3) uint8: a slope of colours, a disc, a striped square; `wide`: 80 rows of it, which a
    letter-box pads by more than a quarter above and below."""
    rows, columns = np.mgrid[0:150, 0:200]
    image = np.stack([columns, rows + 60, 255 - columns], axis=-1).astype(np.uint8)
    image[(rows - 50) ** 2 + (columns - 60) ** 2 < 30**2] = (230, 40, 30)
    square = (abs(rows - 105) < 28) & (abs(columns - 145) < 28)
    image[square & (rows // 5 % 2 == 0)] = (250, 250, 250)
    image[square & (rows // 5 % 2 == 1)] = (10, 10, 40)
    return image[40:120].copy() if wide else image


@dataclass(frozen=True)
class Asked:
    """The question as ids.

    Attributes:
        prompt: of the whole prompt. marker: the id in it that stands for the picture.
        question: of the question alone, for the decoder's embeddings. encoder: for a text encoder, or [].
    """

    prompt: list[int]
    marker: int
    question: list[int]
    encoder: list[int]

    def of(self, method: PruningMethod) -> list[int]:
        """What a method that reads the question is given."""
        return self.encoder if method.text_encoder else self.question


def asked(tokens: Tokens, encoder: TextEncoderWeights | None) -> Asked:
    """QUESTION about one picture."""
    whole = tokens.ids(tokens.prompt(QUESTION, 1))
    ids = [] if encoder is None else encoder.tokens.ids(QUESTION)
    return Asked(whole, tokens.manifest["image"], tokens.plain_ids(QUESTION), ids)


def make(
    reference: Reference,
    methods: dict[str, tuple[PruningMethod, int]],
    ids: Asked,
    keep: float,
    image: Seen,
) -> Golden:
    """Runs the reference.

    Args:
        methods: key -> method and its K.
        ids: the question.
        keep: the bundle's default keep ratio.
        image: what the reference sees; K is capped at its patches outside padding, as the runtime does.
    """
    outputs: dict[str, Any] = {"pixels_rgb": image.pixels, "prompt_ids": np.asarray(ids.prompt, np.int64)}
    if any(method.text and not method.text_encoder for method, _ in methods.values()):
        outputs["question_ids"] = np.asarray(ids.question, np.int64)
    if ids.encoder:
        outputs["text_encoder_ids"] = np.asarray(ids.encoder, np.int64)
    vision, prompts = {}, {}
    for key, (method, count) in methods.items():
        kept = capped(method, count, image.padding)
        seen = vision[key] = reference.vision(image.values, method, kept, image.padding, ids.of(method))
        prompts[key] = splice(reference.embed(ids.prompt), ids.prompt, ids.marker, seen.visual_embeds)
        if not method.stable:
            continue  # another machine's rounding may keep other tokens
        logits, made = reference.greedy(prompts[key], NEW_TOKENS)
        outputs |= {
            f"keep_idx/{key}": seen.keep_idx.astype(np.int64),
            f"visual_embeds/{key}": seen.visual_embeds.astype(np.float32),
            f"logits/{key}": logits.astype(np.float32),
            f"greedy_ids/{key}": made,
        }
        if seen.scores is not None:
            outputs[f"scores/{key}"] = seen.scores.astype(np.float32)
    inputs = {
        "image_rgb": image.image,
        "prompt": np.asarray(QUESTION),
        "keep": np.asarray(keep, np.float64),
        "max_new_tokens": np.asarray(NEW_TOKENS, np.int64),
    }
    return Golden(inputs, outputs, image, vision, prompts)


def capped(method: PruningMethod, count: int, padding: np.ndarray | None) -> int:
    """K where no more patches than those outside padding (N,) are kept; a method of fixed K keeps its own."""
    if padding is None or not method.dynamic_keep:
        return count
    most = min(count, int((padding == 0).sum()))
    return max(k for k in method.valid_k(len(padding)) if k <= most)


def splice(embeds: np.ndarray, ids: list[int], marker: int, visual: np.ndarray) -> np.ndarray:
    """(L,D) with the row of the image marker replaced by the visual tokens (K,D)."""
    place = ids.index(marker)
    return np.ascontiguousarray(np.concatenate([embeds[:place], visual, embeds[place + 1 :]]), dtype=np.float32)
