"""A vision graph as two: `encode` (pixels -> what selection needs), `select` (that, the question -> visual tokens).

Written so for methods that read the question, and where K is chosen from the scores: another question, or the K that
the scores ask for, costs the second graph only. What the select graph reads is what the method reads, found out by
running its selection once on zeros.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from edgeprune.export.graphs import LetterboxedVisionGraph, VisionGraph, visual_tokens
from edgeprune.export.part import add_pruning_part
from edgeprune.export.trace import Axis, Interface
from edgeprune.pruning.base import Signal, VisualFeatures


@dataclass(frozen=True)
class Link:
    """What goes from encode to select, beside the tokens.

    Attributes:
        signals: those that selection or recycling reads, in the order of `PruningMethod.needs`.
        scores: they go too, made by encode; else select makes them, from the question.
        scored: the signal that the scores are, unchanged: it goes once, as scores.
    """

    signals: tuple[Signal, ...]
    scores: bool
    scored: Signal | None = None

    def roles(self) -> list[str]:
        """Roles of the tensors, in order."""
        return ["tokens", *(f"signal.{i}" for i in range(len(self.signals))), *(["scores"] if self.scores else [])]


class EncodeGraph(VisionGraph):
    """pixel_values (B,3,S,S) -> tokens (B,N,C), projected ones (B,N,D) for methods that select on them, the signals of
    the link, and scores (B,N) float32 where the question plays no part in them."""

    def __init__(self, whole: VisionGraph) -> None:
        parts = whole.vision_tower, whole.multi_modal_projector, whole.method, whole.path, whole.static_keep
        super().__init__(*parts, text_space=whole.text_space)
        self.link = link_of(whole)

    def prunes_inside(self) -> bool:
        """Never: the keep set is not known here, so the last block runs for all tokens."""
        return False

    def forward(self, pixel_values: Tensor, keep_slots: Tensor | None = None) -> tuple[Tensor, ...]:
        tokens, signals, _ = self.see(self.vision_tower.embed(pixel_values), {})
        assert tokens is not None
        passed = [tokens, *(signals[signal] for signal in self.link.signals)]
        if self.link.scores:
            scores = self.pruning(self.method.signal, self.features(signals, tokens, pixel_values, None))
            assert scores is not None
            passed.append(scores)
        return tuple(passed)


class SelectGraph(nn.Module):
    """[what the link passes, pad_mask (B,N) float32 where pictures are letter-boxed, keep_slots (K,), text_embeds
    (B,M,D) float32, text_mask (B,M) float32] -> visual_embeds (B,K,D), keep_idx (B,K) int64 [, scores (B,N) float32
    unless encode gave them]."""

    def __init__(self, whole: VisionGraph) -> None:
        super().__init__()
        self.method, self.link, self.static_keep = whole.method, link_of(whole), whole.static_keep
        self.padded = isinstance(whole, LetterboxedVisionGraph)
        self.pruning = add_pruning_part(self)
        self.grid = whole.vision_tower.spec.grid
        if not whole.projects_all():
            self.multi_modal_projector = whole.multi_modal_projector
        self.constant_names = whole.constant_names
        for name in self.constant_names:
            self.register_buffer(f"constant_{name}", getattr(whole, f"constant_{name}"), persistent=False)
        if self.static_keep is not None:
            self.register_buffer("static_slots", torch.zeros(self.static_keep), persistent=False)

    def roles(self) -> list[str]:
        """Roles of the inputs, in order."""
        slots = ["keep_slots"] if self.static_keep is None else []
        padding = ["pad_mask"] if self.padded else []
        return [*self.link.roles(), *padding, *slots, *(["text_embeds", "text_mask"] if self.method.text else [])]

    def forward(self, inputs: list[Tensor]) -> tuple[Tensor, ...]:
        given = dict(zip(self.roles(), inputs, strict=True))
        tokens = given["tokens"]
        signals = {signal: given[f"signal.{i}"] for i, signal in enumerate(self.link.signals)}
        if self.link.scored is not None:
            signals[self.link.scored] = given["scores"]
        constants = {name: getattr(self, f"constant_{name}") for name in self.constant_names}
        text = given.get("text_embeds"), given.get("text_mask")
        pad_mask = given["pad_mask"] > 0.5 if self.padded else None
        features = VisualFeatures(tokens, signals, self.grid, constants, tokens, pad_mask, *text)
        scores = given["scores"] if self.link.scores else self.pruning(self.method.signal, features)
        slots = given["keep_slots"] if self.static_keep is None else cast(Tensor, self.static_slots)
        keep_idx = self.pruning(self.method.select, scores, slots, features)
        kept = self.pruning(self.method.recycle, tokens, keep_idx, features)
        embeds = self.multi_modal_projector(kept) if hasattr(self, "multi_modal_projector") else kept
        return (embeds, keep_idx) if self.link.scores or scores is None else (embeds, keep_idx, scores)


def link_of(graph: VisionGraph) -> Link:
    """What the select graph of a method reads."""
    method, given_scores = graph.method, graph.method.has_scores and not graph.method.text
    values = {signal: torch.zeros(shape) for signal, shape in signal_shapes(graph).items()}
    read = _Reads(values)
    scores = method.signal(_zero_features(graph, values)) if given_scores else None
    _select_once(graph, read, scores)
    scored = next((signal for signal, value in values.items() if value is scores), None)
    return Link(tuple(s for s in method.needs if s in read.names and s != scored), given_scores, scored)


def signal_shapes(graph: VisionGraph) -> dict[Signal, tuple[int, ...]]:
    """Signal -> its shape as SIGNAL_KINDS says, for one picture."""
    spec, count = graph.vision_tower.spec, visual_tokens(graph.vision_tower.spec, graph.path)
    shapes = {
        "attention": (1, spec.heads, spec.patches + 1, spec.patches + 1),
        "keys": (1, spec.heads, count, spec.head_width),
        "hidden": (1, count, spec.width),
        "cls_hidden": (1, 1, spec.width),
        "text_space": (1, count, text_width(graph)),
    }
    return {signal: shapes.get(signal.kind, (1, count)) for signal in graph.path.signal_blocks}


def text_width(graph: VisionGraph) -> int:
    """E of the text encoder that the method reads the question through; 0 where it takes the decoder's embeddings."""
    return 0 if graph.text_space is None else graph.text_space.width


def _select_once(graph: VisionGraph, signals: Mapping[Signal, Tensor], scores: Tensor | None) -> None:
    """Selection and recycling of the fewest tokens that the method serves; scores are made where not given."""
    method, features = graph.method, _zero_features(graph, signals)
    assert features.tokens is not None
    scores = method.signal(features) if scores is None else scores
    keep_idx = method.select(scores, torch.zeros(method.valid_k(features.tokens.shape[1])[0]), features)
    method.recycle(features.tokens, keep_idx, features)


def _zero_features(graph: VisionGraph, signals: Mapping[Signal, Tensor]) -> VisualFeatures:
    """One picture of zeros, and a question of one token."""
    spec, count = graph.vision_tower.spec, visual_tokens(graph.vision_tower.spec, graph.path)
    constants = {name: getattr(graph, f"constant_{name}") for name in graph.constant_names}
    tokens = torch.zeros(1, count, spec.width)
    words = torch.zeros(1, 1, text_width(graph) or spec.width)
    text = (words, torch.ones(1, 1)) if graph.method.text else (None, None)
    return VisualFeatures(tokens, signals, spec.grid, constants, tokens, None, *text)


class _Reads(Mapping[Signal, Tensor]):
    """Signals that remember which of them were read."""

    def __init__(self, values: dict[Signal, Tensor]) -> None:
        self.values_, self.names = values, set[Signal]()

    def __getitem__(self, signal: Signal) -> Tensor:
        self.names.add(signal)
        return self.values_[signal]

    def __iter__(self) -> Iterator[Signal]:
        return iter(self.values_)

    def __len__(self) -> int:
        return len(self.values_)


def interfaces(graph: VisionGraph, whole: Interface, dtype: str) -> tuple[Interface, Interface]:
    """Inputs and outputs of encode and select.

    Args:
        whole: of the same method as one graph.
        dtype: of tokens, and of signals that are no attention.
    """
    by_role = {axis.role: axis for axis in (*whole.inputs, *whole.outputs)}
    width = by_role["visual_embeds"].shape[2]
    link = link_of(graph)
    passed = [_axis(role, *shape) for role, shape in _passed(graph, link, dtype, width)]
    inputs = [by_role.get(axis.role, axis) for axis in passed]
    text = [
        Axis("text_embeds", "text_embeds", "float32", ("B", "M", text_width(graph) or width)),
        Axis("text_mask", "text_mask", "float32", ("B", "M")),
    ]
    select_inputs = [*inputs, *(axis for axis in whole.inputs if axis.role in ("pad_mask", "keep_slots"))]
    select_inputs += text if graph.method.text else []
    outputs = tuple(axis for axis in whole.outputs if not (link.scores and axis.role == "scores"))
    encode = Interface((by_role["pixel_values"],), tuple(inputs), whole.runs)
    return encode, Interface(tuple(select_inputs), outputs)


def _passed(graph: VisionGraph, link: Link, dtype: str, width: Any) -> Iterator[tuple[str, tuple[str, Any]]]:
    """(role, (dtype, shape)) of every tensor of the link."""
    spec = graph.vision_tower.spec
    count = visual_tokens(spec, graph.path)
    yield "tokens", (dtype, ("B", count, width if graph.projects_all() else spec.width))
    shapes = signal_shapes(graph)
    for index, signal in enumerate(link.signals):
        plain = signal.kind in ("keys", "hidden", "cls_hidden")
        yield f"signal.{index}", (dtype if plain else "float32", ("B", *shapes[signal][1:]))
    if link.scores:
        yield "scores", ("float32", ("B", count))


def _axis(role: str, dtype: str, shape: tuple[int | str, ...]) -> Axis:
    return Axis(role, role.replace(".", "_"), dtype, shape)
