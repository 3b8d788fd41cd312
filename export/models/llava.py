"""Family llava: LlavaForConditionalGeneration with a CLIP or DINOv2 vision tower and a Llama-type decoder."""

from __future__ import annotations

import math
from types import ModuleType
from typing import Any, ClassVar, Final

import torch

from edgeprune.errors import CheckpointError, PruningError
from edgeprune.export.graphs import (
    DecoderGraph,
    EmbeddingGraph,
    LetterboxedVisionGraph,
    VisionGraph,
    VisionPath,
    anchors_name,
)
from edgeprune.export.models import clip, dinov2
from edgeprune.export.models.background import BackgroundModules
from edgeprune.export.models.base import ModelFamily
from edgeprune.export.models.layers import Linear, Table, TableRows
from edgeprune.export.models.llama import Llama
from edgeprune.export.models.projector import Projector
from edgeprune.export.models.text_encoder import TextSpace
from edgeprune.export.models.vit import Vit
from edgeprune.export.passes.repeat import Run
from edgeprune.export.stages import LetterboxedStagedVisionGraph, StagedVisionGraph
from edgeprune.export.trace import Axis, Interface
from edgeprune.export.weights import WeightSource, renamer
from edgeprune.pruning.background import FOREGROUND
from edgeprune.pruning.base import OUTPUT_KINDS, SIGNAL_KINDS, PruningMethod, Signal
from edgeprune.pruning.in_encoder import InEncoder

TOWERS: Final[dict[str, ModuleType]] = {"clip_vision_model": clip, "dinov2": dinov2}

#: tensor names up to transformers 4 and those since 5, to ours
RENAMES: Final = (
    (r"^model\.", ""),
    (r"^language_model\.lm_head\.", "lm_head."),
    (r"^language_model\.model\.", "language_model."),
    (r"^language_model\.embed_tokens\.", "embed_tokens."),
)

_DTYPES: Final = {torch.float32: "float32", torch.float16: "float16"}


class Llava(ModelFamily):
    """LLaVA 1.5 and its relatives with one square view per picture."""

    model_type: ClassVar[str] = "llava"
    signals: ClassVar[frozenset[str]] = frozenset(SIGNAL_KINDS)
    template: ClassVar[tuple[str, str, str]] = ("USER: ", "<image>\n", " ASSISTANT:")

    def __init__(self, config: Any, image_px: int, *, letterbox: bool = False) -> None:
        """
        Args:
            config: a LlavaConfig. A key `edgeprune_score_layer` overrides the score block (0-based).
            image_px: side of the picture that preprocessing delivers.
            letterbox: the graphs read which patches are padding.

        Raises:
            CheckpointError: a part of the config is not served; the message names it.
        """
        vision, text = config.vision_config, config.text_config
        if vision.model_type not in TOWERS:
            raise CheckpointError(f"vision tower {vision.model_type!r} is not served; served are {', '.join(TOWERS)}")
        if text.model_type != "llama":
            raise CheckpointError(f"decoder {text.model_type!r} is not served; served is llama")
        if vision.num_channels != 3:
            raise CheckpointError(f"a vision tower with {vision.num_channels} channels is not served; pictures have 3")
        tower = TOWERS[vision.model_type]
        self.config = config
        self.image_px = image_px
        self.spec = tower.vit_spec(vision, image_px)
        self.first_token = 1 if config.vision_feature_select_strategy == "default" else 0
        # with [CLS] among the visual tokens there is no rectangle of patches any more
        self.grid = self.spec.grid if self.first_token else (1, self.spec.patches + 1)
        if letterbox and not self.first_token:
            raise CheckpointError("letterbox needs visual tokens that are patches, and here [CLS] is one of them")
        self.letterbox = letterbox
        self.feature_block = _feature_block(config.vision_feature_layer, self.spec.layers)
        self._tower_name = renamer(tower.RENAMES)
        self._name = renamer(RENAMES)

    @property
    def patch_px(self) -> int:
        return self.spec.patch_px

    @property
    def clip_width(self) -> int | None:
        return self.spec.width if self.config.vision_config.model_type == "clip_vision_model" else None

    def canonical(self, name: str) -> str:
        name = self._name(name)
        head, _, tail = name.partition(".")
        return f"{head}.{self._tower_name(tail)}" if head == "vision_tower" else name

    def path(self, method: PruningMethod) -> VisionPath:
        if isinstance(method, InEncoder):
            return VisionPath(self.feature_block, {}, self.first_token, prunes_in_blocks=True)
        stage = method.stage(self.spec.patches)
        needs = [signal for signal in (stage.method if stage else method).needs if signal != FOREGROUND]
        blocks = {signal: self._signal_block(method, signal) for signal in needs}
        return VisionPath(self.feature_block, blocks, self.first_token, survivors=stage.kept if stage else None)

    def _signal_block(self, method: PruningMethod, signal: Signal) -> int:
        layer = signal.layer
        if layer is None and signal.depth is not None:
            return math.floor(signal.depth * self.spec.layers + 0.5)
        if layer is None and signal.kind in OUTPUT_KINDS:
            return self.feature_block
        if layer is None:
            layer = getattr(self.config, "edgeprune_score_layer", None)
        if layer is None:
            return max(self.feature_block, 0)
        count = self.spec.layers
        if not -count <= layer < count:
            raise PruningError(f"{method.name}: layer {layer} is outside the vision tower's blocks 0 to {count - 1}")
        return layer % count

    def vision(self, method: PruningMethod, static_keep: int | None, dtype: torch.dtype, *, whole: bool) -> VisionGraph:
        path = self.path(method)
        blocks = range(path.blocks) if whole else [run.first for run in path.runs]
        tower, projector = Vit(self.spec, blocks, dtype), Projector(self.config, dtype)
        background, anchors = self._background(method, path), self._anchors(path, dtype)
        stage = method.stage(self.spec.patches)
        if stage is None:
            graph = LetterboxedVisionGraph if self.reads_padding(method) else VisionGraph
            return graph(tower, projector, method, path, static_keep, anchors, background, self._text_space(method))
        assert background is not None
        staged = LetterboxedStagedVisionGraph if self.reads_padding(method) else StagedVisionGraph
        return staged(tower, projector, stage, path, static_keep, anchors, background)

    def _anchors(self, path: VisionPath, dtype: torch.dtype) -> dict[str, TableRows]:
        """Rows of the embedding table that signals ask for.

        Raises:
            PruningError: an id is outside the vocabulary.
        """
        text, made = self.config.text_config, {}
        for signal in path.signal_blocks:
            if signal.kind == "anchor_embeddings":
                if max(signal.anchors) >= text.vocab_size:
                    raise PruningError(f"anchor {max(signal.anchors)} is outside the vocabulary of {text.vocab_size}")
                made[anchors_name(signal)] = TableRows(signal.anchors, text.vocab_size, text.hidden_size, dtype)
        return made

    def _background(self, method: PruningMethod, path: VisionPath) -> BackgroundModules | None:
        if all(signal.kind != FOREGROUND.kind for signal in method.needs):
            return None
        if self.background is None:
            raise RuntimeError(f"{method.name} needs the sizes of a background scorer: set family.background")
        return BackgroundModules(method.needs, self.background, self.spec.width, path.signal_blocks)

    def _text_space(self, method: PruningMethod) -> TextSpace | None:
        if not method.text_encoder:
            return None
        if self.text_encoder is None:
            raise RuntimeError(f"{method.name} needs the sizes of a text encoder: set family.text_encoder")
        return TextSpace(self.text_encoder, self.spec.eps)

    def patch_embedding(self, source: WeightSource) -> torch.Tensor:
        side = self.patch_px
        return source.tensor("vision_tower.patches.weight", (self.spec.width, 3, side, side))

    def vision_interface(self, method: PruningMethod, static_keep: int | None, dtype: torch.dtype) -> Interface:
        kept: int | str = "K" if static_keep is None else static_keep
        inputs = [Axis("pixel_values", "pixel_values", "float32", ("B", 3, self.image_px, self.image_px))]
        if self.reads_padding(method):
            inputs.append(Axis("pad_mask", "pad_mask", "float32", ("B", self.visual_tokens)))
        if static_keep is None:
            inputs.append(Axis("keep_slots", "keep_slots", "float32", ("K",)))
        outputs = [
            Axis("visual_embeds", "visual_embeds", _DTYPES[dtype], ("B", kept, self.config.text_config.hidden_size)),
            Axis("keep_idx", "keep_idx", "int64", ("B", kept)),
        ]
        if method.has_scores:
            outputs.append(Axis("scores", "scores", "float32", ("B", self.visual_tokens)))
        runs = tuple(run for run in self.path(method).runs if run.count > 1)
        return Interface(tuple(inputs), tuple(outputs), runs)

    def embedding(self, dtype: torch.dtype) -> EmbeddingGraph:
        return EmbeddingGraph(self._table(dtype))

    def embedding_interface(self, dtype: torch.dtype) -> Interface:
        width = self.config.text_config.hidden_size
        return Interface(
            (Axis("input_ids", "input_ids", "int64", ("B", "L")),),
            (Axis("inputs_embeds", "inputs_embeds", _DTYPES[dtype], ("B", "L", width)),),
        )

    def decoder(self, dtype: torch.dtype, *, whole: bool) -> DecoderGraph:
        text = self.config.text_config
        layers = text.num_hidden_layers if whole else 1
        head = self._table(dtype) if self.tied else Linear(text.hidden_size, text.vocab_size, False, dtype)
        return DecoderGraph(Llama(text, layers, dtype), head)

    def decoder_interface(self, dtype: torch.dtype) -> Interface:
        text, kind = self.config.text_config, _DTYPES[dtype]
        past = ("B", text.num_key_value_heads, "P0", text.head_dim)
        present = ("B", text.num_key_value_heads, "S", text.head_dim)
        inputs = (
            Axis("inputs_embeds", "inputs_embeds", kind, ("B", "T", text.hidden_size)),
            Axis("position_ids", "position_ids", "int64", ("B", "T")),
            Axis("attention_mask", "attention_mask", "int64", ("B", "S")),
            Axis("past_key.0", "past_key_values.0.key", kind, past),
            Axis("past_value.0", "past_key_values.0.value", kind, past),
        )
        outputs = (
            Axis("logits", "logits", kind, ("B", 1, text.vocab_size)),
            Axis("present_key.0", "present.0.key", kind, present),
            Axis("present_value.0", "present.0.value", kind, present),
        )
        per_layer = (tuple(axis.name for axis in inputs[3:]), tuple(axis.name for axis in outputs[1:]))
        runs = (Run("language_model.layers", 0, text.num_hidden_layers, *per_layer),)
        return Interface(inputs, outputs, runs)

    @property
    def tied(self) -> bool:
        """The output head is the embedding table."""
        return bool(self.config.tie_word_embeddings)

    def _table(self, dtype: torch.dtype) -> Table:
        return Table(self.config.text_config.vocab_size, self.config.text_config.hidden_size, dtype)


def _feature_block(layer: Any, blocks: int) -> int:
    """vision_feature_layer, an index into blocks + 1 hidden states -> 0-based block whose output it is, -1: embeddings.

    Raises:
        CheckpointError: a list, or out of range.
    """
    if not isinstance(layer, int):
        raise CheckpointError(f"vision_feature_layer {layer} joins several layers, which is not served; one integer is")
    if not -(blocks + 1) <= layer <= blocks:
        raise CheckpointError(f"vision_feature_layer {layer} is outside the {blocks} blocks of the vision tower")
    return layer % (blocks + 1) - 1
