"""The families by model_type. A new family is one file in this folder and one line here."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Final

from edgeprune.errors import CheckpointError

if TYPE_CHECKING:
    from edgeprune.export.models.base import ModelFamily

#: model_type -> "module:class"
FAMILIES: Final[dict[str, str]] = {"llava": "edgeprune.export.models.llava:Llava"}


def family_class(model_type: str) -> type[ModelFamily]:
    """The family of a config's model_type.

    Raises:
        CheckpointError: no family serves it.
    """
    if model_type not in FAMILIES:
        raise CheckpointError(f"model_type {model_type!r} is not served; served are {', '.join(FAMILIES)}")
    module, _, attribute = FAMILIES[model_type].partition(":")
    return getattr(importlib.import_module(module), attribute)
