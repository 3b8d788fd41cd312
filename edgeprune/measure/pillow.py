"""Pillow, imported when something is drawn."""

from __future__ import annotations

import importlib
from typing import Any

from edgeprune.errors import DependencyError


def pillow(module: str) -> Any:
    """`PIL.MODULE`; DependencyError when Pillow is not installed."""
    try:
        return importlib.import_module(f"PIL.{module}")
    except ModuleNotFoundError as error:
        raise DependencyError("drawing needs Pillow, which is not installed: run `pip install pillow`.") from error
