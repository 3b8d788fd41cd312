"""ModelFamily: what the export must know about a model_type. One file per family, listed in registry.py."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from edgeprune.errors import PruningError
from edgeprune.export.graphs import VisionGraph, VisionPath
from edgeprune.export.models.background import ScorerSpec
from edgeprune.export.models.text_encoder import TextEncoderSpec
from edgeprune.export.trace import Interface
from edgeprune.export.weights import WeightSource
from edgeprune.pruning.base import PruningMethod
from edgeprune.pruning.registry import METHODS, method_class


class ModelFamily(ABC):
    """A checkpoint's config as one family reads it.

    Attributes:
        config: the transformers config object.
        grid: (rows, columns) of visual tokens.
        letterbox: pictures are padded to a square, and graphs that choose tokens read which ones are padding.
        background: sizes of the background scorer, set where a method reads the signal `foreground`.
        text_encoder: sizes of the text encoder, set where a method reads the question through one.
    """

    model_type: ClassVar[str]
    #: kinds of pruning.base.SIGNAL_KINDS that the family serves
    signals: ClassVar[frozenset[str]]
    #: where kept tokens get their position ids from, see the manifest
    positions: ClassVar[str] = "compact"
    #: prompt of the family where a checkpoint brings no chat template: before pictures, per picture, after the question
    template: ClassVar[tuple[str, str, str]]
    config: Any
    grid: tuple[int, int]
    letterbox: bool
    background: ScorerSpec | None = None
    text_encoder: TextEncoderSpec | None = None

    @abstractmethod
    def __init__(self, config: Any, image_px: int, *, letterbox: bool = False) -> None:
        """`config`: the transformers config; `image_px`: side of the picture that preprocessing delivers."""

    @property
    @abstractmethod
    def patch_px(self) -> int:
        """Edge of the patch that a visual token stands for."""

    @property
    def clip_width(self) -> int | None:
        """Width of the vision tower where it is a CLIP's, whose tokens a visual projection can read; else None."""
        return None

    @property
    def visual_tokens(self) -> int:
        """N of one picture before pruning."""
        return self.grid[0] * self.grid[1]

    @abstractmethod
    def canonical(self, name: str) -> str:
        """Checkpoint tensor name, of any layout -> canonical name, which is the initialiser's."""

    @abstractmethod
    def path(self, method: PruningMethod) -> VisionPath:
        """The blocks of the vision tower that a method needs."""

    @abstractmethod
    def vision(self, method: PruningMethod, static_keep: int | None, dtype: torch.dtype, *, whole: bool) -> VisionGraph:
        """VisionGraph, with every block or (`whole` False) with one block of each run."""

    @abstractmethod
    def patch_embedding(self, source: WeightSource) -> Tensor:
        """The vision tower's patch embedding (C,3,px,px), by which encoders are told apart."""

    @abstractmethod
    def vision_interface(self, method: PruningMethod, static_keep: int | None, dtype: torch.dtype) -> Interface: ...

    @abstractmethod
    def embedding(self, dtype: torch.dtype) -> nn.Module: ...

    @abstractmethod
    def embedding_interface(self, dtype: torch.dtype) -> Interface: ...

    @abstractmethod
    def decoder(self, dtype: torch.dtype, *, whole: bool) -> nn.Module:
        """DecoderGraph, with every layer or with one."""

    @abstractmethod
    def decoder_interface(self, dtype: torch.dtype) -> Interface: ...

    def require(self, method: PruningMethod) -> None:
        """Refuse a method that needs a signal this family does not serve, or a patch grid where there is none.

        Raises:
            PruningError: names the nearest method that fits, and all that do.
        """
        if self.letterbox and not method.honours_padding:
            raise PruningError(f"{method.spec} cannot keep padding last; leave out --letterbox or take another method")
        missing = self.missing(method)
        if missing is None:
            return
        fitting = [name for name in METHODS if self.missing(method_class(name)()) is None]
        near = [name for name in method.nearest if name in fitting] or fitting
        raise PruningError(
            f"{method.name} needs {missing}, which {self.model_type} does not serve; the nearest that fits is "
            f"{near[0]}; methods that fit: {', '.join(fitting)}"
        )

    def reads_padding(self, method: PruningMethod) -> bool:
        """The method's graph reads the padding mask."""
        return self.letterbox and method.where != "nowhere"

    def missing(self, method: PruningMethod) -> str | None:
        """What a method needs and this checkpoint cannot serve, or None."""
        if method.needs_grid and self.grid[0] == 1:
            return "a grid of patches without [CLS] among them"
        return next((signal.kind for signal in method.needs if signal.kind not in self.signals), None)
