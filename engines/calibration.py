"""Inputs of a bundle's graphs to measure with: the golden picture and question where there are some, else made ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeprune.bundle import Bundle
from edgeprune.engines.quantise import run
from edgeprune.errors import UserError
from edgeprune.manifest import Graph, Manifest, Preprocess

Array = np.ndarray[Any, Any]
_TEXT_TOKENS = 16


@dataclass(frozen=True)
class Inputs:
    """Feeds of every graph, by tensor name, and what they are made of in words."""

    source: str
    vision: dict[str, dict[str, Array]]
    decoder: dict[str, Array]


def inputs(bundle: Bundle) -> Inputs:
    """One picture with every visual token kept, and the prefill of its question.

    Raises:
        UserError: a graph reads a role that these inputs do not have.
    """
    manifest = bundle.manifest
    graphs = {method: stages[0] for method, stages in manifest.graphs.vision.items()}
    edge = _shape(graphs[manifest.methods.default], "pixel_values")[2:]
    golden = manifest.golden.outputs is not None
    outputs = bundle.golden()[1] if golden else {}
    noise = np.random.default_rng(0)
    pixels = outputs["pixels_rgb"] if golden else noise.integers(0, 256, (*edge, 3), dtype=np.uint8)
    ids = (
        outputs["prompt_ids"] if golden else noise.integers(0, _shape_vocabulary(manifest.graphs.decoder), _TEXT_TOKENS)
    )
    values = normalise(pixels, manifest.preprocess)
    vision = {name: _vision_feeds(graph, values, _slots(manifest, name)) for name, graph in graphs.items()}
    text_ids = np.where(ids == manifest.tokens.image, 0, ids)[None].astype(np.int64)
    embedding = manifest.graphs.embedding
    text = _role_run(bundle, embedding, {_name(embedding, "input_ids"): text_ids}, "inputs_embeds")[0]
    default = manifest.methods.default
    seen = _kept(bundle, manifest.graphs.vision[default], vision[default], _slots(manifest, default), text)
    rows = np.concatenate([text, seen.astype(text.dtype)])
    source = "the golden picture and question" if golden else "seeded noise, since the bundle has no golden tensors"
    return Inputs(source, vision, _decoder_feeds(manifest.graphs.decoder, rows[-manifest.context_length :]))


def normalise(pixels: Array, preprocess: Preprocess) -> Array:
    """(S,S,3) bytes -> (1,3,S,S) float32 as the vision graph reads it."""
    values = pixels.astype(np.float32)
    if not preprocess.folded:
        values = (values * preprocess.rescale - np.array(preprocess.mean)) / np.array(preprocess.std)
    return np.ascontiguousarray(values.transpose(2, 0, 1)[None], dtype=np.float32)


@dataclass(frozen=True)
class _Slots:
    """N, and the most tokens that a method keeps of them: one with a stage before the encoder serves fewer than N."""

    visual_tokens: int
    most: int


def _slots(manifest: Manifest, method: str) -> _Slots:
    runs = manifest.methods.each[method].keep_counts
    count = manifest.visual_tokens
    return _Slots(count, count if runs is None else max(run.last for run in runs))


def _vision_feeds(graph: Graph, values: Array, slots: _Slots) -> dict[str, Array]:
    known = {
        "pixel_values": values,
        "keep_slots": np.zeros(slots.most, np.float32),
        "pad_mask": np.zeros((1, slots.visual_tokens), np.float32),
    }
    unknown = [tensor.role for tensor in graph.inputs if tensor.role not in known]
    if unknown:
        raise UserError(f"{graph.file} reads {unknown[0]}, which there are no inputs to measure with yet.")
    return {tensor.name: known[tensor.role] for tensor in graph.inputs}


def _kept(bundle: Bundle, stages: tuple[Graph, ...], feeds: dict[str, Array], slots: _Slots, text: Array) -> Array:
    """(K,D) visual embeddings of one picture; `text` (T,D) stands for the question, for methods that read it."""
    if len(stages) == 1:
        whole: Array = _role_run(bundle, stages[0], feeds, "visual_embeds")[0]
        return whole
    encode, select = stages
    names = [tensor.name for tensor in encode.outputs]
    made = run(bundle.file(encode.file), feeds, names)
    known = {tensor.role: value for tensor, value in zip(encode.outputs, made, strict=True)}
    known |= {"keep_slots": np.zeros(slots.most, np.float32), "text_embeds": text[None].astype(np.float32)}
    known["text_mask"] = np.ones((1, len(text)), np.float32)
    given = {tensor.name: known[tensor.role] for tensor in select.inputs}
    kept: Array = _role_run(bundle, select, given, "visual_embeds")[0]
    return kept


def _decoder_feeds(graph: Graph, rows: Array) -> dict[str, Array]:
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


def _role_run(bundle: Bundle, graph: Graph, feeds: dict[str, Array], role: str) -> Array:
    return run(bundle.file(graph.file), feeds, [_name(graph, role)])[0]


def _name(graph: Graph, role: str) -> str:
    return next(tensor.name for tensor in (*graph.inputs, *graph.outputs) if tensor.role == role)


def _shape(graph: Graph, role: str) -> tuple[int, ...]:
    tensor = next(tensor for tensor in (*graph.inputs, *graph.outputs) if tensor.role == role)
    return tuple(size if isinstance(size, int) else 1 for size in tensor.shape)


def _shape_vocabulary(decoder: Graph) -> int:
    return _shape(decoder, "logits")[-1]
