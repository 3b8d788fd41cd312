"""TextVQA (arXiv 1904.08920): questions about text in pictures, ten answers each.

DIR/TextVQA_0.5.1_SPLIT.json (val), an object whose `data` lists question_id, question, image_id and answers; pictures
IMAGE_ID.jpg in DIR/train_images, DIR/train_val_images/train_images, DIR/images or DIR.
"""

from __future__ import annotations

from pathlib import Path

from edgeprune.errors import UserError
from edgeprune.measure.dataset import Dataset, Item, make_item
from edgeprune.measure.formats.files import SHORT_ANSWER, entry, first_file, first_folder, json_object, text, texts


def read(folder: Path, split: str | None = None) -> Dataset:
    """Every question of a split; scored by VQA soft accuracy."""
    path = first_file(folder, [f"TextVQA_0.5.1_{split or 'val'}.json"])
    rows = json_object(path).get("data")
    if not isinstance(rows, list):
        raise UserError(f"{path}: 'data' must be a list.")
    images = first_folder(folder, ("train_images", "train_val_images/train_images", "images"))
    return Dataset("textvqa", tuple(_item(f"{path} entry {place}", row, images) for place, row in enumerate(rows)),
                   SHORT_ANSWER)  # fmt: skip


def _item(where: str, row: object, images: Path) -> Item:
    fields = entry(row, where)
    return make_item(
        where,
        text(fields, "question_id", where),
        text(fields, "question", where),
        texts(fields, "answers", where),
        image=images / f"{text(fields, 'image_id', where)}.jpg",
        metric="vqa",
    )
