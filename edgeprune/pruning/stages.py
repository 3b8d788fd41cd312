"""Methods in a row: `background@RATIO` before the encoder, another method on the patches that went through it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor

from edgeprune.errors import PruningError, UserError
from edgeprune.keep import keep_count
from edgeprune.pruning.background import FOREGROUND, Background
from edgeprune.pruning.base import PruningMethod, Signal, Stage
from edgeprune.pruning.selectors import gather_tokens
from edgeprune.recipe import check_ratio

#: what the second stage decides: the composed method answers with it
_OF_SECOND: Final = ("scope", "dynamic_keep", "text", "has_scores", "reads_tokens", "gathers", "stable", "nearest")
#: places of a second stage
_PLACES: Final = ("before_projector", "after_projector")


@dataclass(frozen=True)
class Staged(PruningMethod):
    """`background@ratio+second`: K1 = keep_count(N, ratio) patches enter the encoder, `second` keeps K of them.

    `where` is that of the second stage, `before_encoder` when there is none. Ratios and `keep_idx` refer to the
    original grid. The scorer's part: https://arxiv.org/abs/2410.09324, see `Background`.

    Attributes:
        first: the method before the encoder.
        ratio: K1 / N.
        second: chooses among the survivors; `first` itself in `background@RATIO`.

    Raises:
        PruningError: the stages do not fit together.
    """

    first: Background
    ratio: float
    second: PruningMethod

    def __post_init__(self) -> None:
        try:
            check_ratio(self.ratio, f"the ratio of {self.first.name}@RATIO")
        except UserError as error:
            raise PruningError(str(error)) from None
        alone = self.second is self.first
        self._require_first(alone)
        if not alone:
            self._require_second()
        for name in _OF_SECOND:
            object.__setattr__(self, name, getattr(self.second, name))
        object.__setattr__(
            self, "name", f"{self.first.name}@{self.ratio!r}" + ("" if alone else f"+{self.second.name}")
        )
        object.__setattr__(self, "where", "before_encoder" if alone else self.second.where)
        object.__setattr__(self, "identity_at_full", False)

    def _require_first(self, alone: bool) -> None:
        if self.first.trunk is not None:
            raise PruningError(
                "background:trunk=... scores inside the encoder, not before it; leave out @RATIO or trunk"
            )
        if self.first.gate and not alone:
            raise PruningError("background:gate=true chooses the kept tokens itself; leave out gate or what follows +")

    def _require_second(self) -> None:
        name, second = self.second.name, self.second
        if isinstance(second, Background):
            raise PruningError("background cannot follow background; its parameters belong in front of @RATIO")
        if second.where not in _PLACES or second.text:
            raise PruningError(f"{name} cannot follow background@RATIO; methods behind the encoder without text can")
        if second.uncalibrated:
            raise PruningError(
                f"{name} is measured at export on all patches; behind background@RATIO its parameters must be given, "
                f"and an export of {name} alone writes them down"
            )
        if second.needs_grid:
            raise PruningError(f"{name} reads rows and columns of the whole grid, so it cannot follow background@RATIO")

    @property
    def needs(self) -> tuple[Signal, ...]:
        return tuple(dict.fromkeys((FOREGROUND, *self.second.needs)))

    @property
    def needs_grid(self) -> bool:
        return True

    @property
    def honours_padding(self) -> bool:
        return self.second.honours_padding

    @property
    def max_keep(self) -> float:
        return self.ratio

    @property
    def parameters(self) -> dict[str, Any]:
        own = {"ratio": self.ratio, **self.first.parameters}
        return own if self.second is self.first else {**own, self.second.name: self.second.parameters}

    @property
    def stages(self) -> tuple[str, ...]:
        first = f"{self.first.spec}@{self.ratio!r}"
        return (first,) if self.second is self.first else (first, self.second.spec)

    @property
    def spec(self) -> str:
        return "+".join(self.stages)

    def stage(self, n: int) -> Stage:
        return Stage(keep_count(n, self.ratio), self.second)

    def valid_k(self, n: int) -> Sequence[int]:
        return self.second.valid_k(keep_count(n, self.ratio))

    def check_k(self, k: int, n: int) -> None:
        """As the base class; a count above the cap is refused with the numbers."""
        most = keep_count(n, self.ratio)
        if k > most:
            raise PruningError(
                f"{self.name} lets {most} of {n} visual tokens into the encoder, so it cannot keep {k}: "
                f"ask for keep {self.ratio:g} or less, or for a larger ratio behind the @"
            )
        super().check_k(k, n)


def on_grid(keep_idx: Tensor, places: Tensor) -> Tensor:
    """Indices (B,K) into the survivors -> indices into the grid; -1 stays.

    Args:
        places: (B,K1) int64, where on the grid the survivors lie.
    """
    return torch.where(keep_idx < 0, keep_idx, torch.gather(places, 1, keep_idx.clamp_min(0)))


def spread(scores: Tensor, places: Tensor, n: int) -> Tensor:
    """Scores (B,K1) of the survivors -> (B,N): a patch that did not enter the encoder gets the least of them."""
    least = scores.amin(1, keepdim=True).expand(-1, n)
    return least.scatter(1, places, scores)


def rows_of(x: Tensor, places: Tensor) -> Tensor:
    """(B,1+N,C) with [CLS] first -> [CLS] and the rows of the survivors, (B,1+K1,C)."""
    return torch.cat([x[:, :1], gather_tokens(x, places + 1)], dim=1)
