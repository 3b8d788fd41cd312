"""The CLIP checkpoint that reads the question (`export --text-encoder DIR`): config, weights, tokenizer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
from torch import Tensor

from edgeprune.errors import CheckpointError, PruningError
from edgeprune.export.checkpoint import folder_sha256, read_json
from edgeprune.export.models.base import ModelFamily
from edgeprune.export.models.text_encoder import TextEncoderSpec, canonical, require_served
from edgeprune.export.tokens import affixes, load_tokenizer, require_supported
from edgeprune.export.weights import SafetensorsSource, WeightSource
from edgeprune.pruning.base import PruningMethod

#: where the second tokenizer of a bundle lies
TOKENIZER: Final = "text-tokenizer"
_PROBES: Final = ("", "hello", "What is in the image?")


@dataclass(frozen=True)
class TextTokens:
    """The tokenizer of a text encoder; `prefix` and `suffix` are what it puts around a text."""

    tokenizer: Any
    json_text: str
    prefix: list[int]
    suffix: list[int]

    def ids(self, text: str) -> list[int]:
        """Ids of a whole question."""
        return [*self.prefix, *self.tokenizer(text, add_special_tokens=False).input_ids, *self.suffix]

    def write(self, folder: Path) -> None:
        folder.mkdir()
        (folder / "tokenizer.json").write_text(self.json_text, encoding="utf-8")


@dataclass(frozen=True)
class TextEncoderWeights:
    """A CLIP checkpoint directory.

    Attributes:
        config: of transformers. spec: the sizes that the graphs need.
        random_weights: weights are drawn instead of read.
    """

    folder: Path
    config: Any
    spec: TextEncoderSpec
    random_weights: bool

    @cached_property
    def tokens(self) -> TextTokens:
        """Raises:
        CheckpointError: the tokenizer is missing, of a kind the runtime cannot run, or larger than the encoder's table.
        """
        files = [(self.folder / name).is_file() for name in ("tokenizer.json", "vocab.json", "merges.txt")]
        if not (files[0] or all(files[1:])):  # transformers would make an empty tokenizer of nothing
            raise CheckpointError(f"{self.folder} has no tokenizer.json; name a whole CLIP checkpoint directory")
        tokenizer = load_tokenizer(self.folder)
        text = tokenizer.backend_tokenizer.to_str()
        require_supported(text)
        if len(tokenizer) > self.spec.vocab:
            raise CheckpointError(
                f"the tokenizer of {self.folder} makes ids up to {len(tokenizer) - 1}, but its text encoder has "
                f"{self.spec.vocab} rows"
            )
        prefix, suffix = affixes(tokenizer, _PROBES)
        return TextTokens(tokenizer, text, prefix, suffix)

    def describe(self) -> str:
        """A sentence for the plan and the manifest."""
        spec = self.spec
        weights = " with random weights: its choice means nothing" if self.random_weights else ""
        size = f"{spec.layers} layers of width {spec.width}, segments of {spec.positions} ids"
        return f"the question is read by the text encoder of {self.folder.resolve().name}, {size}{weights}"

    def manifest(self) -> dict[str, Any]:
        """The manifest's `text_encoder`."""
        return {
            "id": self.folder.resolve().name,
            "sha256": None if self.random_weights else folder_sha256(self.folder),
            "segment_tokens": self.spec.positions,
            "prefix": self.tokens.prefix,
            "suffix": self.tokens.suffix,
        }

    def source(self, other: WeightSource) -> WeightSource:
        """`other`, the model's weights, with those of the text encoder."""
        return Joined(other, other if self.random_weights else SafetensorsSource(self.folder, canonical))

    def bytes(self) -> int:
        """Memory of the whole CLIP in float32."""
        import torch
        from transformers import CLIPModel

        with torch.device("meta"):
            return 4 * sum(p.numel() for p in CLIPModel(self.config).parameters())


class Joined:
    """A checkpoint's weights and a text encoder's; the last norm of the visual tokens is that of the model's tower."""

    def __init__(self, model: WeightSource, clip: WeightSource) -> None:
        self._model, self._clip = model, clip

    def tensor(self, name: str, shape: tuple[int, ...]) -> Tensor:
        if name.startswith("text_space.post_layernorm."):
            return self._model.tensor(name.replace("text_space", "vision_tower"), shape)
        return (self._clip if name.startswith(("text_encoder.", "text_space.")) else self._model).tensor(name, shape)


def find(
    methods: Mapping[str, PruningMethod], folder: str | None, family: ModelFamily, *, random_weights: bool
) -> TextEncoderWeights | None:
    """The text encoder that methods need.

    Returns:
        None where no method reads the question through one.

    Raises:
        PruningError: one is missing, or one that nothing reads; CheckpointError: it does not fit; one sentence.
    """
    reading = next((method.spec for method in methods.values() if method.text_encoder), None)
    if reading is None:
        if folder is not None:
            raise PruningError(
                "--text-encoder belongs to --prune cdpruner:preset=paper; add it, or leave the encoder out"
            )
        return None
    if folder is None:
        raise PruningError(
            f"{reading} reads the question with CLIP's text encoder: name the CLIP checkpoint that the vision tower "
            "comes from with --text-encoder DIR"
        )
    found = _read(Path(folder), random_weights)
    if family.clip_width is None:
        raise PruningError(f"{reading} needs a CLIP vision tower, whose tokens CLIP's visual projection can read")
    if found.spec.vision_width != family.clip_width:
        raise CheckpointError(
            f"the visual projection of {folder} reads tokens of width {found.spec.vision_width}, but the vision tower "
            f"makes them {family.clip_width} wide: name the CLIP checkpoint that the tower comes from"
        )
    _ = found.tokens  # read now, so that a plan refuses what the export would
    return found


def _read(folder: Path, random_weights: bool) -> TextEncoderWeights:
    from transformers import CLIPConfig

    if not folder.is_dir():
        raise CheckpointError(f"--text-encoder {folder}: there is no such directory")
    decoded = read_json(folder / "config.json", required=True)
    require_served(decoded, str(folder))
    try:
        config = CLIPConfig.from_dict(decoded)
        spec = TextEncoderSpec.of(config)
    except Exception as error:  # strict configs raise many kinds; all of them mean the config is wrong
        raise CheckpointError(f"{folder}: config.json is not usable: {' '.join(str(error).split())}") from error
    return TextEncoderWeights(folder, config, spec, random_weights)


def segments(ids: Iterable[int], length: int) -> np.ndarray:
    """Ids of a question -> (M, at most `length`) int64, the last row filled with 0."""
    row = np.asarray(list(ids), np.int64)
    count = -(-len(row) // length)
    width = min(len(row), length)
    return np.pad(row, (0, count * width - len(row))).reshape(count, width)
