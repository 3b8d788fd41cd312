"""Where the background scorer's weights come from: the user's file, the package, or a seed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

import edgeprune.errors
from edgeprune.errors import CheckpointError, PruningError
from edgeprune.export.models.background import KIND, ScorerSpec
from edgeprune.export.weights import WeightSource
from edgeprune.pruning.base import PruningMethod

ASSETS: Final = Path(edgeprune.errors.__file__).parent / "assets" / "background"
#: prefix of every tensor that belongs to the scorer or to a head
PREFIX: Final = "background."
_PATCHES: Final = "background.scorer.patches."
_OPTION: Final = "give weights trained for it with --background-weights FILE (examples/background_scorer makes them)"


@dataclass(frozen=True)
class BackgroundWeights:
    """Weights for one grid.

    Attributes:
        spec: sizes of the scorer.
        file: safetensors; None: seeded random values.
        encoder: fingerprint of the encoder that the heads belong to, or None.
        blocks: encoder blocks that have a head; empty with random values, which serve every block.
    """

    spec: ScorerSpec
    file: Path | None
    encoder: str | None = None
    blocks: frozenset[int] = frozenset()

    def describe(self) -> str:
        """A sentence for the plan and the manifest."""
        rows, columns = self.spec.grid
        where = f"the background scorer for {rows} x {columns} patches of {self.spec.patch_px} px"
        if self.file is None:
            return f"{where} has random weights: its choice means nothing"
        origin = "those of the package, trained on drawn objects" if self.file.parent == ASSETS else self.file.name
        return f"weights of {where}: {origin}, sha256 {hashlib.sha256(self.file.read_bytes()).hexdigest()[:12]}"

    def source(self, other: WeightSource, preprocess: dict[str, Any]) -> WeightSource:
        """`other` with the background tensors of this file; from a seed they come from `other` itself."""
        return other if self.file is None else _Joined(other, self.file, self.spec, preprocess)

    def require_heads(self, blocks: Iterable[int], encoder: str, embedding: Tensor) -> None:
        """Refuse a head for another encoder or block.

        Args:
            embedding: the encoder's patch embedding, whose fingerprint tells encoders apart.

        Raises:
            PruningError: one sentence.
        """
        missing = sorted(set(blocks) - self.blocks)
        if self.file is None or not set(blocks):
            return
        if missing or self.encoder is None:
            have = ", ".join(map(str, sorted(self.blocks))) or "none"
            raise PruningError(
                f"{self.file.name} has no head for encoder block {missing[0] if missing else 'any'} (it has: {have}); "
                "choose another trunk, or train one with examples/background_scorer/trunk.py"
            )
        if fingerprint(embedding) != self.encoder:
            raise PruningError(
                f"the heads of {self.file.name} belong to another encoder than that of {encoder}; "
                "leave out trunk, or train heads with examples/background_scorer/trunk.py"
            )


def fingerprint(embedding: Tensor) -> str:
    """Of an encoder by its patch embedding, whatever the dtype it is stored in: bf16 and fp16 copies of one encoder
    differ, so heads are tied to the values they were trained on, rounded to half precision."""
    return hashlib.sha256(embedding.detach().half().contiguous().numpy().tobytes()).hexdigest()


def find(
    methods: Iterable[PruningMethod],
    file: str | None,
    grid: tuple[int, int],
    patch_px: int,
    preprocess: dict[str, Any],
    *,
    random_weights: bool,
) -> BackgroundWeights | None:
    """The weights for a grid: `file`, else those of the package, else random ones where the whole model is random.

    Returns:
        None where no method reads the signal.

    Raises:
        PruningError: no weights for this grid, or weights nothing reads; one sentence.
    """
    if not any(signal.kind == KIND for method in methods for signal in method.needs):
        if file is not None:
            raise PruningError("--background-weights belongs to --prune background; add it, or leave the weights out")
        return None
    if file is not None:
        return _fitting(read(Path(file)), grid, patch_px)
    shipped = [read(path) for path in sorted(ASSETS.glob("*.safetensors"))]
    for weights in shipped:
        if (weights.spec.grid, weights.spec.patch_px) == (grid, patch_px) and not random_weights:
            return weights
    if random_weights:
        return BackgroundWeights(ScorerSpec(grid, patch_px, tuple(preprocess["mean"]), tuple(preprocess["std"])), None)
    raise PruningError(
        f"the package has no background scorer for {grid[0]} x {grid[1]} patches of {patch_px} px: {_OPTION}"
    )


def read(path: Path) -> BackgroundWeights:
    """What a file holds. PruningError: it cannot be read, or is no scorer."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as opened:
            metadata, names = opened.metadata() or {}, list(opened.keys())
        spec = ScorerSpec.from_json(metadata["scorer"])
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise PruningError(f"{path} is no background scorer: {error}; examples/background_scorer makes one") from None
    blocks = frozenset(int(name.split(".")[2]) for name in names if name.startswith(f"{PREFIX}trunk."))
    return BackgroundWeights(spec, path, metadata.get("trunk_encoder"), blocks)


def _fitting(weights: BackgroundWeights, grid: tuple[int, int], patch_px: int) -> BackgroundWeights:
    spec = weights.spec
    if (spec.grid, spec.patch_px) != (grid, patch_px):
        raise PruningError(
            f"{weights.file} was trained for {spec.grid[0]} x {spec.grid[1]} patches of {spec.patch_px} px, the model "
            f"has {grid[0]} x {grid[1]} of {patch_px} px: give weights trained for that grid"
        )
    return weights


class _Joined:
    """A checkpoint's weights, and the scorer's from its own file."""

    def __init__(self, other: WeightSource, file: Path, spec: ScorerSpec, preprocess: dict[str, Any]) -> None:
        self._other, self._file, self._spec, self._preprocess = other, file, spec, preprocess

    def tensor(self, name: str, shape: tuple[int, ...]) -> Tensor:
        if not name.startswith(PREFIX):
            return self._other.tensor(name, shape)
        found = self._folded(name) if name.startswith(_PATCHES) else self._stored(name)
        if tuple(found.shape) != shape:
            raise CheckpointError(f"{self._file} has {name} of shape {list(found.shape)}, needed is {list(shape)}")
        return found

    def _stored(self, name: str) -> Tensor:
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(self._file, framework="pt") as opened:
                return opened.get_tensor(name).float()
        except SafetensorError as error:
            raise CheckpointError(f"{self._file} lacks {name}: {error}") from None

    def _folded(self, name: str) -> Tensor:
        """The patch embedding for pixels that another family normalises with other values: exact, because it is
        linear and reads no padding."""
        ours, theirs = (
            (torch.tensor(self._spec.mean), torch.tensor(self._spec.std), 1 / 255),
            (*(torch.tensor(self._preprocess[key]) for key in ("mean", "std")), self._preprocess["rescale"]),
        )
        weight, bias = (self._stored(f"{_PATCHES}{part}") for part in ("weight", "bias"))
        unit = ours[2] / theirs[2]
        gain, shift = theirs[1] * unit / ours[1], (theirs[0] * unit - ours[0]) / ours[1]
        if bool((gain == 1).all()) and bool((shift == 0).all()):
            return weight if name.endswith("weight") else bias
        if name.endswith("weight"):
            return weight * gain.view(1, 3, 1, 1)
        return bias + (weight.sum((2, 3)) * shift).sum(1)
