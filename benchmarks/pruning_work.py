"""What each pruning method costs on paper: operations and memory, counted from its maths. `pruning_cost.py` measures.

Letters: N visual tokens, S = N + 1 encoder tokens, K kept, C width of the tokens the method reads, V width of the
encoder, D of the decoder, H heads. A multiply-add is two operations; a sort of n numbers is n log2 n. The batch is one
picture; the few tokens of a question are not counted.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from edgeprune.pruning.base import Signal
from edgeprune.pruning.registry import parse

#: largest share of the fp32 encoder that a method's own time may be
GOALS: Final = {"attention": 0.01, "greedy": 0.05}


@dataclass(frozen=True)
class Sizes:
    """The sizes a count is made for."""

    n: int
    k: int
    c: int
    v: int
    heads: int
    d: int = 4096
    blocks: int = 23

    @property
    def sort(self) -> float:
        """One sort of N numbers."""
        return self.n * math.log2(self.n)

    @property
    def cosine(self) -> float:
        """All N x N cosines."""
        return 2.0 * self.n**2 * self.c + 3.0 * self.n * self.c

    @property
    def map_bytes(self) -> int:
        """The whole attention map, float32."""
        return 4 * self.heads * (self.n + 1) ** 2


@dataclass(frozen=True)
class Work:
    """A method's work.

    Attributes:
        goal: key of GOALS.
        flops: of selection and recycling, given its signals.
        extra_bytes: of the largest tensors it holds beside its inputs and outputs, float32.
    """

    goal: str
    flops: Callable[[Sizes], float]
    extra_bytes: Callable[[Sizes], float]


def _vector(s: Sizes) -> float:
    return 4.0 * s.n


def _matrix(s: Sizes) -> float:
    return 4.0 * s.n**2


def _top_k(s: Sizes) -> float:
    return 3 * s.sort


def _gain_steps(s: Sizes) -> float:
    return 3.0 * s.k * s.n**2


def _visionzip(s: Sizes) -> float:
    keys = s.n * s.v + 2.0 * s.n**2 * s.v / s.heads
    return keys + 6 * s.sort + s.n * s.k + 2.0 * s.k * s.n * s.c


def _recoverable(s: Sizes) -> float:
    """Cosines with [CLS] and with the question, two choices, cosines of encoder features, and the merge."""
    return 2.0 * s.n**2 * s.v + 7.0 * s.n * s.v + 5.0 * s.n * s.c + 6 * s.sort + s.n * s.k + 2.0 * s.k * s.n * s.c


def _prumerge(s: Sizes) -> float:
    return s.sort * (1 + s.k) + 2.0 * s.k * s.n * s.v + 2.0 * s.k * s.n * s.c


def _vispruner(s: Sizes) -> float:
    return s.cosine + (math.ceil(s.n / 8) + 4) * (s.n**2 + 2 * s.sort) + 5 * s.sort


def _cdpruner(s: Sizes) -> float:
    """The question's tokens, a few, are not counted."""
    return s.cosine + 2.0 * s.n * s.c + 2.0 * s.n**2 + s.k * (2.0 * s.k * s.n + 6.0 * s.n)


def _pagerank(s: Sizes) -> float:
    return 5 * (2.0 * s.heads * (s.n + 1) ** 2) + _top_k(s)


def _holov(s: Sizes) -> float:
    run = s.n / 16
    return 2.0 * s.n * run * s.c + 3.0 * s.n * s.c + 6.0 * s.n * run + 2 * s.n * math.log2(run) + 5 * s.sort


def _tome(s: Sizes) -> float:
    """Per block: keys averaged over heads, half against half, three sorts, and the sum of those that leave."""
    total, before = 0.0, s.n
    for after in parse("tome").schedule(s.n, s.blocks, s.k):
        half, gone = (before + 1) / 2, before - after
        alike = (before + 1) * s.v + 2 * half**2 * s.v / s.heads + half**2
        total += alike + 3 * half * math.log2(half) + 2 * half * gone * s.v + 2 * (before + 1) * s.v
        before = after
    return total


def _flowcut(s: Sizes) -> float:
    """Per block: [CLS] value against all, softmax, 1-norm, two sorts; and what a stage gathers."""
    total, before = 0.0, s.n
    for after in parse("flowcut").schedule(s.n, s.blocks, s.k)[:-1]:
        total += (
            2.0 * before * s.v + 5.0 * before * s.heads + 2.0 * before * s.v / s.heads + 3 * before * math.log2(before)
        )
        before = after
    return total


def _vflowopt(s: Sizes) -> float:
    """Mean over heads, importance, four windows."""
    return s.map_bytes / 4 + 2.0 * s.n**2 + 8.0 * s.n * s.c + 6 * s.sort


def _dart_pre(s: Sizes) -> float:
    """Four pivots."""
    return 5.0 * s.n * s.c + 8.0 * s.n * s.c + 12 * s.sort


def _aim_merge(s: Sizes) -> float:
    """Four rounds of n / 2 by n / 2 cosines and as large a product with the tokens."""
    lengths = [s.n / 2**i for i in range(4)]
    return sum(length**2 * s.c + 5.0 * length * s.c for length in lengths)


#: method -> its work; a key for every registered method
WORK: Final[dict[str, Work]] = {
    "none": Work("attention", lambda s: 0.0, lambda s: 0.0),
    "random": Work("attention", _top_k, _vector),
    "stride": Work("attention", lambda s: 4.0 * s.k, lambda s: 8.0 * s.k),
    "fastervlm": Work("attention", _top_k, _vector),
    "received-attention": Work("attention", _top_k, _vector),
    "hiprune": Work("attention", lambda s: 7 * s.sort + 6.0 * s.n, lambda s: 6.0 * _vector(s)),
    "fopru": Work("attention", _top_k, _vector),
    "visionzip": Work("attention", _visionzip, lambda s: _matrix(s) + 4.0 * s.k * s.n),
    "vispruner": Work("attention", _vispruner, lambda s: 2 * _matrix(s)),
    "pagerank": Work("attention", _pagerank, lambda s: s.heads * _vector(s)),
    "prumerge": Work("attention", _prumerge, lambda s: 3.0 * 4 * s.k * s.n),
    "holov": Work("attention", _holov, lambda s: 4.0 * s.n * s.c + 4.0 * s.n**2 / 16),
    "vflowopt": Work("attention", _vflowopt, lambda s: 4.0 * (s.n + 1) ** 2),
    "agileprune": Work("greedy", lambda s: s.cosine + 5.0 * s.n**2 + 4.0 * s.k * s.n, lambda s: 2 * _matrix(s)),
    "dart-pre": Work("greedy", _dart_pre, lambda s: 4.0 * s.n * s.c),
    "aim-merge": Work("greedy", _aim_merge, lambda s: 4.0 * 2 * s.n * s.c + _matrix(s) / 4),
    "divprune": Work("greedy", lambda s: s.cosine + s.n * s.sort + 3.0 * s.k * s.n, lambda s: 2 * _matrix(s)),
    "todre": Work("greedy", lambda s: s.cosine + 3.0 * s.k * s.n, _matrix),
    "mmr": Work("greedy", lambda s: s.cosine + 5.0 * s.k * s.n, _matrix),
    "zoo": Work("greedy", lambda s: s.cosine + 5.0 * s.k * s.n, _matrix),
    "embedlens": Work("attention", lambda s: 9.0 * s.n * s.c + _top_k(s), lambda s: 4.0 * s.n * s.c),
    "tome": Work("attention", _tome, _matrix),
    "flowcut": Work("attention", _flowcut, lambda s: s.heads * _vector(s)),
    "scope": Work("greedy", lambda s: s.cosine + s.n**2 + _gain_steps(s), lambda s: 2 * _matrix(s)),
    "recoverable": Work("attention", _recoverable, lambda s: _matrix(s) + 4.0 * s.k * s.n),
    "cdpruner": Work("greedy", _cdpruner, lambda s: 2 * _matrix(s) + 4.0 * s.k * s.n),
    "mmtok": Work("greedy", lambda s: s.cosine + 4.0 * s.n**2 + _gain_steps(s), lambda s: 2 * _matrix(s)),
    "mmtok-vv": Work("greedy", lambda s: s.cosine + 4.0 * s.n**2 + _gain_steps(s), lambda s: 2 * _matrix(s)),
    "background": Work("attention", _top_k, _vector),
}

#: width of the space that CLIP ViT-L/14-336 shares with its text encoder
TEXT_SPACE: Final = 768

#: kind of signal -> operations that the encoder spends on it and would not spend without it (its keys exist anyway)
SIGNAL_FLOPS: Final[dict[str, Callable[[Sizes], float]]] = {
    "cls_attention": lambda s: 2.0 * s.v**2 + 2.0 * (s.n + 1) * s.v,
    "wide_cls_attention": lambda s: 2.0 * s.v**2 + 2.0 * (s.n + 1) * s.v,
    "received_attention": lambda s: 2.0 * (s.n + 1) * s.v**2 + 2.0 * (s.n + 1) ** 2 * s.v + 5 * s.map_bytes / 4,
    "attention": lambda s: 2.0 * (s.n + 1) * s.v**2 + 2.0 * (s.n + 1) ** 2 * s.v + 4 * s.map_bytes / 4,
    "keys": lambda s: 0.0,
    "cls_hidden": lambda s: 0.0,
    "hidden": lambda s: 0.0,
    "anchor_embeddings": lambda s: 0.0,
    "foreground": lambda s: scorer_flops(s.n),
    # to the width of the space of CLIP ViT-L
    "text_space": lambda s: 2.0 * s.n * s.v * TEXT_SPACE,
    # along its default number of directions
    "projector_sensitivity": lambda s: Signal("").directions * 2.0 * s.d * (s.v + s.n * (s.d + 1)) + 8.0 * s.n * s.d,
}


def scorer_flops(n: int, width: int = 128, layers: int = 2, patch_px: int = 14) -> float:
    """Operations of the background scorer on N patches, MLP of four times its width."""
    return 2.0 * n * 3 * patch_px**2 * width + layers * (24.0 * n * width**2 + 4.0 * n**2 * width) + 2.0 * n * width


def encoder_flops(s: Sizes, blocks: int, mlp: int) -> float:
    """Operations of `blocks` transformer blocks on S tokens, MLP of width `mlp`."""
    tokens = s.n + 1
    return blocks * (tokens * s.v * (8.0 * s.v + 4.0 * mlp) + 4.0 * tokens**2 * s.v)


def vision_flops(
    *,
    n: int,
    entered: int,
    kept: int,
    width: int,
    mlp: int,
    blocks: int,
    patch_px: int,
    decoder_width: int,
    scorer: bool,
) -> float:
    """Operations of a whole vision graph: patch embedding of N, `blocks` blocks on the patches that entered and [CLS],
    the last of them with queries and MLP for kept tokens only, projector on kept tokens, and the background scorer."""
    tokens = entered + 1
    patches = 2.0 * n * 3 * patch_px**2 * width
    whole = (blocks - 1) * (tokens * width * (8.0 * width + 4.0 * mlp) + 4.0 * tokens**2 * width)
    last = 4.0 * tokens * width**2 + kept * (4.0 * width**2 + 4.0 * width * mlp + 4.0 * tokens * width)
    own = scorer_flops(n) if scorer else 0.0
    return patches + whole + last + projector_flops(kept, width, decoder_width) + own


def thinned_encoder_flops(s: Sizes, counts: tuple[int, ...], mlp: int) -> float:
    """Operations of blocks that `counts` visual tokens leave, s.n entering the first: attention sees those that enter,
    the MLP those that leave (tome; flowcut spares the queries of the others, too)."""
    total, before = 0.0, s.n
    for after in counts:
        total += (before + 1) * s.v * 8.0 * s.v + 4.0 * (before + 1) ** 2 * s.v + (after + 1) * s.v * 4.0 * mlp
        before = after
    return total


def projector_flops(rows: int, v: int, d: int) -> float:
    """Operations of the projector (two layers, V -> D -> D) on `rows` tokens."""
    return 2.0 * rows * d * (v + d)
