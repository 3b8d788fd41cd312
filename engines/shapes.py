"""Bounds of every free dimension of a bundle's graphs, from its manifest.

Shape letters: B views, K kept tokens, L prompt tokens, M tokens of the question that a method reads, or its segments,
T new positions, P<layer> cached positions, S = P + T.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from edgeprune.keep import keep_count
from edgeprune.manifest import Manifest

#: prompt text around the visual tokens that engines are tuned for; other lengths run too.
USUAL_TEXT_TOKENS = 64
#: tokens of a question, without template, that engines are tuned for.
USUAL_QUESTION_TOKENS = 16
#: libedgeprune encodes one view at a time and decodes one conversation.
BATCH = 1


@dataclasses.dataclass(frozen=True)
class ShapeRange:
    """Smallest, most usual and largest shape of one graph input: an optimization profile's min/opt/max."""

    min: tuple[int, ...]
    opt: tuple[int, ...]
    max: tuple[int, ...]

    def __post_init__(self) -> None:
        if not len(self.min) == len(self.opt) == len(self.max):
            raise ValueError(f"min, opt and max differ in rank: {self}")
        if not all(a <= b <= c for a, b, c in zip(self.min, self.opt, self.max, strict=True)):
            raise ValueError(f"min <= opt <= max does not hold: {self}")


@dataclasses.dataclass(frozen=True)
class Span:
    """Smallest, most usual and largest value of one dimension."""

    min: int
    opt: int
    max: int


def spans(manifest: Manifest) -> dict[str, Span]:
    """Letter -> what it may become in any request; P stands for the past length of every layer."""
    kept = kept_tokens(manifest)
    context = manifest.context_length
    usual = min(kept.opt + USUAL_TEXT_TOKENS, context)
    return {
        "B": Span(BATCH, BATCH, BATCH),
        "K": kept,
        "L": Span(1, usual, context),
        "M": Span(1, min(USUAL_QUESTION_TOKENS, context), context),
        "T": Span(1, usual, context),
        "P": Span(0, 0, context),
        "S": Span(1, usual, context),
    }


def text_spans(manifest: Manifest) -> dict[str, Span]:
    """Spans where a text encoder reads the question: M segments of L ids. A question has no more ids than the context
    has places, whichever tokenizer counts them."""
    known, encoder = spans(manifest), manifest.text_encoder
    if encoder is None:
        return known
    length = encoder.segment_tokens
    usual = min(USUAL_QUESTION_TOKENS + len(encoder.prefix) + len(encoder.suffix), length)
    return {**known, "M": Span(1, 1, -(-manifest.context_length // length)), "L": Span(1, usual, length)}


def kept_tokens(manifest: Manifest) -> Span:
    """K of the smallest, the default and the largest keep ratio that a request may ask for; a letter-box may lower it
    to 1."""
    keep, count = manifest.keep, manifest.visual_tokens
    least, usual, most = (keep_count(count, ratio) for ratio in (keep.min, keep.default, keep.max))
    return Span(1 if manifest.preprocess.pad_mask else least, usual, most)


def span_of(letter: str, known: Mapping[str, Span]) -> Span | None:
    """The span of a letter as the manifest writes it (P0, P1, ... are layers); None: nothing bounds it."""
    return known.get("P" if letter[:1] == "P" and letter[1:].isdigit() else letter)


def decoder_phases(manifest: Manifest) -> dict[str, dict[str, Span]]:
    """prefill: many new positions after any past; decode: one new position after at least one.

    S = P + T holds at min, opt and max of each, though no request of more than the context length comes: TensorRT
    warns of a profile that contradicts itself at its ends.
    """
    whole = spans(manifest)
    context, usual = manifest.context_length, whole["S"].opt
    past = Span(1, min(usual, max(1, context - 1)), max(1, context - 1))
    before, new = Span(0, 0, past.max), whole["T"]
    prefill = {**whole, "P": before, "S": Span(new.min, new.opt, new.max + before.max)}
    decode = {**whole, "T": Span(1, 1, 1), "P": past, "S": Span(*(n + 1 for n in (past.min, past.opt, past.max)))}
    return {"prefill": prefill, "decode": decode}


def shape_range(shape: Sequence[int | str], known: Mapping[str, Span]) -> ShapeRange:
    """The range of one input. ValueError: a letter that nothing bounds."""
    found = []
    for size in shape:
        span = Span(size, size, size) if isinstance(size, int) else span_of(size, known)
        if span is None:
            raise ValueError(f"nothing bounds the dimension {size!r}")
        found.append(span)
    return ShapeRange(tuple(s.min for s in found), tuple(s.opt for s in found), tuple(s.max for s in found))
