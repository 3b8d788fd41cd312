"""ScienceQA (arXiv 2209.09513): multiple choice, about half of the questions with a picture.

DIR/problems.json (question id -> question, choices, answer as index, hint, image or null, subject) and
DIR/pid_splits.json (split -> ids; test by default), or both in DIR/data/scienceqa; pictures SPLIT/ID/image.png in
DIR/images, beside those files, or in DIR.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgeprune.errors import UserError
from edgeprune.measure.dataset import Dataset, Item, make_item
from edgeprune.measure.formats.files import entry, first_file, json_object, text, texts


def read(folder: Path, split: str | None = None) -> Dataset:
    """Every question of a split, its hint above it; `category` is the subject, `picture` yes or no."""
    path = first_file(folder, ["problems.json", "data/scienceqa/problems.json"])
    problems, splits = json_object(path), json_object(first_file(path.parent, ["pid_splits.json"]))
    name = split or "test"
    if not isinstance(splits.get(name), list):
        raise UserError(f"ScienceQA has no split {name!r}; it has: {', '.join(splits)}.")
    items = []
    for key in map(str, splits[name]):
        where = f"{path} problem {key}"
        items.append(_item(where, key, entry(problems.get(key), where), folder, path.parent, name))
    return Dataset("scienceqa", tuple(items))


def _item(where: str, key: str, fields: Any, folder: Path, home: Path, split: str) -> Item:
    choices, place = texts(fields, "choices", where), fields.get("answer")
    if isinstance(place, bool) or not isinstance(place, int) or not 0 <= place < len(choices):
        raise UserError(f"{where}: 'answer' must be the index of one of {len(choices)} choices, not {place!r}.")
    image = fields.get("image")
    hint = str(fields.get("hint") or "").strip()
    question = text(fields, "question", where)
    return make_item(
        where,
        key,
        f"Context: {hint}\n{question}" if hint else question,
        [choices[place]],
        image=_picture(folder, home, f"{split}/{key}/{image}") if image else None,
        choices=choices,
        metric="choice",
        fields={"category": str(fields.get("subject") or "unknown"), "picture": "yes" if image else "no"},
    )


def _picture(folder: Path, home: Path, name: str) -> Path:
    paths = [folder / "images" / name, home / "images" / name, folder / name]
    return next((path for path in paths if path.is_file()), paths[0])
