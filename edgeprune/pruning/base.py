"""VisualFeatures and PruningMethod: what a method is given and what it must say about itself.

Shape letters: B images, N visual tokens per image, K kept tokens, C vision width, H heads.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final, NamedTuple

import torch
from torch import Tensor

from edgeprune.errors import PruningError
from edgeprune.pruning.selectors import gather_tokens, raster_top_k

#: every kind of signal a family may serve -> its shape; S = N + 1 encoder tokens where the tower has a [CLS], else N
SIGNAL_KINDS: Final[dict[str, str]] = {
    "cls_attention": "(B,N) float32: mean over heads of the [CLS] row of the attention map, [CLS] column dropped",
    "received_attention": "(B,N) float32: mean over heads and all query rows ([CLS] included), [CLS] column dropped",
    "wide_cls_attention": "(B,N) float32: as cls_attention with all heads joined to one of width H d",
    "attention": "(B,H,S,S) float32: the whole attention map, [CLS] first",
    "keys": "(B,H,N,d): keys of the visual tokens as the block projects them",
    "hidden": "(B,N,C): output of the block",
    "cls_hidden": "(B,1,C): the [CLS] row of the output of the block",
    "foreground": "(B,N) float32: logit of foreground minus background, from a head on the output of the block; "
    "layer None: from the scorer in front of the encoder",
    "projector_sensitivity": "(B,N) float32: mean length of the projector's derivative along fixed unit directions",
    "anchor_embeddings": "(1,A,D): rows of the decoder's embedding table",
    "text_space": "(B,N,E) float32: the visual tokens where the embeddings of a CLIP text encoder lie, through the "
    "tower's last norm and CLIP's visual projection",
}

#: kinds that are outputs of a block or known only behind it: they need the whole block, by default that of the features
OUTPUT_KINDS: Final = frozenset(
    {"hidden", "cls_hidden", "projector_sensitivity", "anchor_embeddings", "foreground", "text_space"}
)

#: axis of a kind that runs over the S encoder tokens and loses [CLS]; kinds not listed are given as they are
_TOKEN_AXES: Final[dict[str, int]] = {
    "cls_attention": 1,
    "received_attention": 1,
    "wide_cls_attention": 1,
    "keys": 2,
    "hidden": 1,
    "foreground": 1,
}


class Signal(NamedTuple):
    """A signal a method asks for.

    Attributes:
        kind: of SIGNAL_KINDS.
        layer: encoder block, 0-based, negative from the end; None: as `depth` says.
        depth: share of the encoder's blocks that lie before the block, in [0, 1); None: the family's default score
            block, or its feature block for OUTPUT_KINDS.
        directions, seed: how many unit directions and which, of projector_sensitivity.
        anchors: token ids, of anchor_embeddings.
    """

    kind: str
    layer: int | None = None
    depth: float | None = None
    directions: int = 16
    seed: int = 0
    anchors: tuple[int, ...] = (0,)

    def unit_directions(self, width: int) -> Tensor:
        """(directions, width) float32, each row a normal vector scaled to length 1."""
        generator = torch.Generator().manual_seed(self.seed)
        drawn = torch.randn(self.directions, width, generator=generator, dtype=torch.float64)
        length = torch.sqrt((drawn * drawn).sum(1, keepdim=True))
        return (drawn / length).to(torch.float32)


class Stage(NamedTuple):
    """A selection before the encoder.

    Attributes:
        kept: K1, how many patches enter the encoder; None: as many as the request keeps.
        method: what selects among them behind the encoder.
    """

    kept: int | None
    method: PruningMethod


def visual_part(made: Tensor, kind: str, first_token: int) -> Tensor:
    """A signal over all encoder tokens -> the part that belongs to the visual tokens."""
    axis = _TOKEN_AXES.get(kind)
    return made if axis is None else made.narrow(axis, first_token, made.shape[axis] - first_token)


def output_signal(kind: str, x: Tensor, first_token: int) -> Tensor:
    """Hidden states from the output (B,S,C) of a block."""
    return x[:, :1] if kind == "cls_hidden" else visual_part(x, kind, first_token)


@dataclass(frozen=True)
class VisualFeatures:
    """What the vision encoder hands to a method.

    Attributes:
        tokens: (B,N,C) features in raster order, projected ones (B,N,D) where the method works after the projector;
            None where the method does not read them.
        signals: the signals the method needs, each as SIGNAL_KINDS says.
        grid: (rows, columns) of the patches.
        constants: tensors of `PruningMethod.constants(N)`, held as buffers by the graph.
        batch: (B,) any tensor whose first dimension is B.
        pad_mask: (B,N) bool, True where a token lies in padding, or None.
        text_embeds: (B,M,D) the decoder's embeddings of the question's tokens, or (B,M,E) a text encoder's embeddings
            of its segments where the method says `text_encoder`; None where it reads no text.
        text_mask: (B,M) float32, 1 for a token or segment of the question, 0 for padding; None where text_embeds is.
    """

    tokens: Tensor | None
    signals: Mapping[Signal, Tensor]
    grid: tuple[int, int]
    constants: Mapping[str, Tensor]
    batch: Tensor
    pad_mask: Tensor | None = None
    text_embeds: Tensor | None = None
    text_mask: Tensor | None = None


@dataclass(frozen=True)
class PruningMethod:
    """A pruning method: signal (B,N) -> select (B,K) -> recycle (B,K',C).

    A subclass overrides only what its paper changes. Its dataclass fields are the parameters of its SPEC string.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    source: ClassVar[str]
    where: ClassVar[str] = "before_projector"
    scope: ClassVar[str] = "view"
    dynamic_keep: ClassVar[bool] = True
    text: ClassVar[bool] = False
    has_scores: ClassVar[bool] = True
    #: scores are shares of one whole, never negative, and no question plays a part: K can be chosen by their mass
    has_mass: ClassVar[bool] = False
    #: selection reads the tokens themselves, so they must all be there before it
    reads_tokens: ClassVar[bool] = False
    #: recycle is a plain gather, so dropped tokens need not be computed once the keep set is known
    gathers: ClassVar[bool] = True
    #: at K = N the output equals the unpruned one
    identity_at_full: ClassVar[bool] = True
    #: rounding of the features hardly ever changes the keep set, so golden tensors can hold it
    stable: ClassVar[bool] = True
    #: methods to name where a family cannot serve this one, nearest first
    nearest: ClassVar[tuple[str, ...]] = ("received-attention", "stride")

    @property
    def needs(self) -> tuple[Signal, ...]:
        """Signals the family must serve."""
        return ()

    @property
    def needs_grid(self) -> bool:
        """The method reads rows and columns of the patch grid."""
        return False

    @property
    def text_encoder(self) -> bool:
        """The question is read through a text encoder of its own (`export --text-encoder`), not as the decoder's
        embeddings."""
        return False

    @property
    def uncalibrated(self) -> bool:
        """An export must measure something on pictures before the graph can be made (`export/calibrate.py`)."""
        return False

    @property
    def honours_padding(self) -> bool:
        """With a padding mask, tokens in padding are kept only after all others, and merge into none; where this is
        False, `export --letterbox` refuses the method."""
        return True

    @property
    def parameters(self) -> dict[str, Any]:
        """Parameter name -> value."""
        return dataclasses.asdict(self)

    @property
    def spec(self) -> str:
        """The shortest SPEC string that parses to this method."""
        given = [
            f"{item.name}={getattr(self, item.name)}"
            for item in dataclasses.fields(self)
            if getattr(self, item.name) != item.default
        ]
        return self.name + (":" + ",".join(given) if given else "")

    @property
    def stages(self) -> tuple[str, ...]:
        """SPEC of every stage, in the order in which they run."""
        return (self.spec,)

    @property
    def max_keep(self) -> float:
        """The largest keep ratio the method can serve."""
        return 1.0

    def stage(self, n: int) -> Stage | None:
        """The selection before the encoder of `n` patches, if there is one; the method's own maths is then unused."""
        return None

    def valid_k(self, n: int) -> Sequence[int]:
        """Counts the method can serve out of `n` tokens, ascending. The manifest states them (`keep_counts`)."""
        return range(1, n + 1)

    def check_k(self, k: int, n: int) -> None:
        """Refuse a count the method cannot serve, naming the nearest one it can.

        Raises:
            PruningError: `k` is not in `valid_k(n)`.
        """
        valid = self.valid_k(n)
        if k not in valid:
            nearest = min(valid, key=lambda count: abs(count - k))
            raise PruningError(
                f"{self.name} cannot keep {k} of {n} visual tokens; the nearest count it can is {nearest} "
                f"(keep {nearest / n:g})"
            )

    def constants(self, n: int) -> dict[str, Tensor]:
        """Index vectors and other constants for `n` tokens. They become buffers of the graph: an index vector made
        inside a traced function may be folded to uint16, which TensorRT refuses."""
        return {"iota": torch.arange(n, dtype=torch.int64)}

    def signal(self, features: VisualFeatures) -> Tensor | None:
        """Scores (B,N) float32, higher is kept; None for methods without scores."""
        raise NotImplementedError

    def select(self, scores: Tensor | None, keep_slots: Tensor, features: VisualFeatures) -> Tensor:
        """Indices (B,K) int64 in raster order; K is the length of `keep_slots` (K,) float32."""
        assert scores is not None
        return raster_top_k(scores, keep_slots, features.constants["iota"], features.pad_mask)

    def recycle(self, tokens: Tensor, keep_idx: Tensor, features: VisualFeatures) -> Tensor:
        """(B,N,C) and (B,K) -> the tokens that go on, (B,K,C). Merging methods find -1 in `keep_idx` where a token
        stands for no single patch."""
        return gather_tokens(tokens, keep_idx)
