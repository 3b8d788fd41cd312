"""What the readers share: finding files, JSON, typed fields."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from edgeprune.errors import UserError
from edgeprune.measure.dataset import read_text

#: the line with which LLaVA-1.5 asks for answers that exact match can judge
SHORT_ANSWER: Final = "Answer the question using a single word or phrase."


def first_file(folder: Path, candidates: Iterable[str]) -> Path:
    """The first of several relative paths that is a file; UserError names all of them."""
    names = list(candidates)
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise UserError(f"{folder} holds none of: {', '.join(names)}.")


def first_folder(folder: Path, candidates: Iterable[str]) -> Path:
    """The first of several relative paths that is a directory, else the folder itself."""
    return next((folder / name for name in candidates if (folder / name).is_dir()), folder)


def json_object(path: Path) -> dict[str, Any]:
    """A JSON file that holds an object."""
    try:
        value = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not valid JSON: {error}.") from error
    if not isinstance(value, dict):
        raise UserError(f"{path} must hold a JSON object, not {type(value).__name__}.")
    return value


def entry(value: Any, where: str) -> Mapping[str, Any]:
    """UserError unless a value is an object."""
    if not isinstance(value, dict):
        raise UserError(f"{where} must be an object, not {type(value).__name__}.")
    return value


def text(fields: Mapping[str, Any], key: str, where: str) -> str:
    """A field as text; a number counts as text."""
    value = fields.get(key)
    if isinstance(value, bool) or not isinstance(value, str | int) or not str(value).strip():
        raise UserError(f"{where}: {key!r} must be text" + (", but it is missing." if value is None else "."))
    return str(value)


def texts(fields: Mapping[str, Any], key: str, where: str) -> list[str]:
    """A field that is a list of texts."""
    value = fields.get(key)
    if not isinstance(value, list) or not value or not all(isinstance(part, str) for part in value):
        raise UserError(f"{where}: {key!r} must be a list of texts.")
    return value
