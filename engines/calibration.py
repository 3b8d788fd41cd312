"""Inputs of a bundle's graphs to measure with: pictures and questions that are given, the golden pair, or made ones."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeprune.bundle import Bundle
from edgeprune.engines.quantise import run_each
from edgeprune.errors import UserError
from edgeprune.manifest import Graph, Manifest, Preprocess

Array = np.ndarray[Any, Any]
Feeds = dict[str, Array]
_TEXT_TOKENS = 16


@dataclass(frozen=True)
class Sample:
    """One picture and one question, as the runtime prepares them.

    Attributes:
        pixels: (S,S,3) uint8, resized and cropped.
        prompt_ids: of the whole prompt, the image marker once.
        question_ids: of the question alone, for methods that read it; none: the prompt stands for it.
    """

    pixels: Array
    prompt_ids: Array
    question_ids: Array | None = None


@dataclass(frozen=True)
class Samples:
    """What to measure on; `source` names it in words, for build.json."""

    source: str
    items: tuple[Sample, ...]

    def sha256(self) -> str:
        """Of every pixel and id, in their order: part of a fingerprint."""
        digest = hashlib.sha256()
        for item in self.items:
            for array in (item.pixels, item.prompt_ids, item.question_ids):
                digest.update(b"" if array is None else repr(array.shape).encode() + array.tobytes())
        return digest.hexdigest()


@dataclass(frozen=True)
class Inputs:
    """Feeds of every graph by tensor name, of one sample; `further`: those of the samples after the first."""

    source: str
    vision: dict[str, Feeds]
    decoder: Feeds
    further: tuple[Inputs, ...] = ()

    def sets(self, stage: str, method: str) -> list[Feeds]:
        """Feeds of one graph, of every sample; `method` counts for the stage "vision" only."""
        every = (self, *self.further)
        return [one.decoder if stage == "decoder" else one.vision[method] for one in every]


def inputs(bundle: Bundle, samples: Samples | None = None) -> Inputs:
    """Each picture with every visual token kept, and the prefill of its question; by default the golden pair.

    Raises:
        UserError: a graph reads a role that these inputs do not have.
    """
    samples = samples or _own(bundle)
    manifest = bundle.manifest
    texts = _text_embeds(bundle, samples)
    graphs = {method: stages[0] for method, stages in manifest.graphs.vision.items()}
    views = [normalise(sample.pixels, manifest.preprocess) for sample in samples.items]
    slots = {name: _slots(manifest, name) for name in graphs}
    vision = [{name: _vision_feeds(g, view, slots[name]) for name, g in graphs.items()} for view in views]
    default = manifest.methods.default
    stages, firsts = manifest.graphs.vision[default], [feeds[default] for feeds in vision]
    seen = _kept(bundle, stages, firsts, slots[default], texts)
    made = []
    for sample, feeds, (text, _), visual in zip(samples.items, vision, texts, seen, strict=True):
        rows = splice(text, sample.prompt_ids, manifest.tokens.image, visual)
        decoder = _decoder_feeds(manifest.graphs.decoder, rows[-manifest.context_length :])
        made.append(Inputs(samples.source, feeds, decoder))
    return Inputs(samples.source, made[0].vision, made[0].decoder, tuple(made[1:]))


def normalise(pixels: Array, preprocess: Preprocess) -> Array:
    """(S,S,3) bytes -> (1,3,S,S) float32 as the vision graph reads it."""
    values = pixels.astype(np.float32)
    if not preprocess.folded:
        values = (values * preprocess.rescale - np.array(preprocess.mean)) / np.array(preprocess.std)
    return np.ascontiguousarray(values.transpose(2, 0, 1)[None], dtype=np.float32)


def splice(text: Array, ids: Array, marker: int, visual: Array) -> Array:
    """Prompt embeddings (T,D) with the visual tokens (K,D) in the place of the first marker; without one, in front."""
    places = np.flatnonzero(ids == marker)
    before, after = (text[: places[0]], text[places[0] + 1 :]) if len(places) else (text[:0], text)
    return np.concatenate([before, visual.astype(text.dtype), after])


def _own(bundle: Bundle) -> Samples:
    """The golden picture and question, else seeded noise."""
    manifest = bundle.manifest
    if manifest.golden.outputs is not None:
        golden = bundle.golden()[1]
        sample = Sample(golden["pixels_rgb"], golden["prompt_ids"], golden.get("question_ids"))
        return Samples("the golden picture and question", (sample,))
    noise = np.random.default_rng(0)
    edge = _shape(manifest.graphs.vision[manifest.methods.default][0], "pixel_values")[2:]
    pixels = noise.integers(0, 256, (*edge, 3), dtype=np.uint8)
    ids = noise.integers(0, _shape(manifest.graphs.decoder, "logits")[-1], _TEXT_TOKENS)
    return Samples("seeded noise, since the bundle has no golden tensors", (Sample(pixels, ids),))


def _text_embeds(bundle: Bundle, samples: Samples) -> list[tuple[Array, Array]]:
    """Embeddings of the prompt (T,D) and of the question (M,D) of each sample."""
    graph, image = bundle.manifest.graphs.embedding, bundle.manifest.tokens.image
    wanted = []
    for sample in samples.items:
        wanted += [sample.prompt_ids, sample.prompt_ids if sample.question_ids is None else sample.question_ids]
    feeds = [{_name(graph, "input_ids"): np.where(ids == image, 0, ids)[None].astype(np.int64)} for ids in wanted]
    found = [rows[0][0] for rows in run_each(bundle.file(graph.file), feeds, [_name(graph, "inputs_embeds")])]
    return list(zip(found[::2], found[1::2], strict=True))


@dataclass(frozen=True)
class _Slots:
    """N, and the most tokens that a method keeps of them: one with a stage before the encoder serves fewer than N."""

    visual_tokens: int
    most: int


def _slots(manifest: Manifest, method: str) -> _Slots:
    runs = manifest.methods.each[method].keep_counts
    count = manifest.visual_tokens
    return _Slots(count, count if runs is None else max(run.last for run in runs))


def _vision_feeds(graph: Graph, values: Array, slots: _Slots) -> Feeds:
    known = {
        "pixel_values": values,
        "keep_slots": np.zeros(slots.most, np.float32),
        "pad_mask": np.zeros((1, slots.visual_tokens), np.float32),
    }
    unknown = [tensor.role for tensor in graph.inputs if tensor.role not in known]
    if unknown:
        raise UserError(f"{graph.file} reads {unknown[0]}, which there are no inputs to measure with yet.")
    return {tensor.name: known[tensor.role] for tensor in graph.inputs}


def _kept(
    bundle: Bundle,
    stages: tuple[Graph, ...],
    sets: Sequence[Feeds],
    slots: _Slots,
    texts: Sequence[tuple[Array, Array]],
) -> list[Array]:
    """(K,D) visual embeddings of every picture; the question is given to methods that read it."""
    first, last = stages[0], stages[-1]
    wanted = ["visual_embeds"] if first is last else [tensor.role for tensor in first.outputs]
    names = [_name(first, role) for role in wanted]
    made = list(run_each(bundle.file(first.file), sets, names))
    if first is not last:
        given = []
        for values, (_, question) in zip(made, texts, strict=True):
            known = {"keep_slots": np.zeros(slots.most, np.float32), **_question(last, question)}
            known |= dict(zip(wanted, values, strict=True))
            given.append({tensor.name: known[tensor.role] for tensor in last.inputs})
        made = list(run_each(bundle.file(last.file), given, [_name(last, "visual_embeds")]))
    return [values[0][0] for values in made]


def _question(select: Graph, embeds: Array) -> Feeds:
    """Role -> what a select graph reads of a question whose embeddings by the decoder's table are (M,D). One that
    reads a text encoder's is given none, zeros: every token is kept here, whatever the question is."""
    width = [tensor.shape[2] for tensor in select.inputs if tensor.role == "text_embeds"]
    if width not in ([], [embeds.shape[1]]):
        embeds = np.zeros((1, int(width[0])), np.float32)
    return {"text_embeds": embeds[None].astype(np.float32), "text_mask": np.ones((1, len(embeds)), np.float32)}


def _decoder_feeds(graph: Graph, rows: Array) -> Feeds:
    """Prefill of the embeddings (T,D) with an empty cache."""
    count = len(rows)
    known = {
        "inputs_embeds": rows[None],
        "position_ids": np.arange(count)[None],
        "attention_mask": np.ones((1, count), np.int64),
    }
    feeds = {}
    for tensor in graph.inputs:
        empty = [size if isinstance(size, int) else int(size == "B") for size in tensor.shape]
        feeds[tensor.name] = known[tensor.role] if tensor.role in known else np.zeros(empty, tensor.dtype)
    return feeds


def _name(graph: Graph, role: str) -> str:
    return next(tensor.name for tensor in (*graph.inputs, *graph.outputs) if tensor.role == role)


def _shape(graph: Graph, role: str) -> tuple[int, ...]:
    tensor = next(tensor for tensor in (*graph.inputs, *graph.outputs) if tensor.role == role)
    return tuple(size if isinstance(size, int) else 1 for size in tensor.shape)
