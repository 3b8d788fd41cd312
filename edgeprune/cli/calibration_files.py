"""`build --calibrate`: a directory of pictures, or lines of JSON, as the runtime prepares them for the graphs.

A directory holds JPEG and PNG files and may hold `prompts.txt`, a question per line; pictures and questions are paired
in order, and the shorter of the two lists starts again. A line of a `.jsonl` file holds `image`, relative to the file,
and `question`, as for `edgeprune eval`; other fields are ignored.
"""

from __future__ import annotations

from itertools import cycle, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeprune.cli.output import needs_extra
from edgeprune.errors import DependencyError, UserError

if TYPE_CHECKING:
    from edgeprune.bundle import Bundle
    from edgeprune.engines.calibration import Samples
    from edgeprune.runtime.session import Model

PROMPTS = "prompts.txt"
#: the question where a directory names none
QUESTION = "Describe the image."
#: each is run through every graph several times, and its inputs are held in memory
MOST = 256
_PICTURES = (".jpg", ".jpeg", ".png")


def read(path: Path, bundle: Bundle) -> Samples:
    """Pixels and token ids of every pair of picture and question.

    Raises:
        UserError: nothing there, more than MOST, a file that cannot be read, or a question that holds special tokens.
    """
    from edgeprune.runtime.session import Model

    with needs_extra("build", "build --calibrate"):
        from edgeprune.engines.calibration import Sample, Samples

    found = _in_directory(path) if path.is_dir() else _in_lines(path)
    if len(found) > MOST:
        raise UserError(f"{path} holds {len(found)} samples, and at most {MOST} can calibrate a build: name fewer.")
    with Model.open(bundle.path, verify="sizes", map_weights=True) as model:
        items = tuple(Sample(*_prepared(model, bundle, image, question)) for image, question in found)
    count = len({image for image, _ in found})
    return Samples(f"{len(items)} sample(s) of {path.name}: {count} picture(s)", items)


def _in_directory(path: Path) -> list[tuple[Path, str]]:
    pictures = sorted(file for file in path.iterdir() if file.suffix.lower() in _PICTURES)
    if not pictures:
        raise UserError(f"{path} holds no picture to calibrate on; put JPEG or PNG files there.")
    questions = [QUESTION]
    if (path / PROMPTS).exists():
        from edgeprune.measure.dataset import read_text

        questions = [line.strip() for line in read_text(path / PROMPTS).splitlines() if line.strip()]
        if not questions:
            raise UserError(f"{path / PROMPTS} holds no question; write one per line or remove it.")
    return list(islice(zip(cycle(pictures), cycle(questions), strict=False), max(len(pictures), len(questions))))


def _in_lines(path: Path) -> list[tuple[Path, str]]:
    from edgeprune.measure.dataset import json_lines

    found = []
    for where, entry in json_lines(path):
        for name in ("image", "question"):
            if not isinstance(entry.get(name), str) or not entry[name]:
                raise UserError(f"{where}: a line to calibrate on needs {name!r}, a text.")
        found.append((path.parent / entry["image"], entry["question"]))
    if not found:
        raise UserError(f"{path} holds no line to calibrate on.")
    return found


def _prepared(model: Model, bundle: Bundle, image: Path, question: str) -> tuple[Any, Any, Any]:
    """(S,S,3) pixels, ids of the whole prompt, ids of the question."""
    from edgeprune.measure.parity import prompt_ids

    plain = model.tokenize(question)
    if plain != model.tokenize(question, allow_special=True):
        raise UserError(f"the question {question!r} holds a special token of the model; write it without.")
    ids = prompt_ids(bundle.manifest, model, question)
    return model.preprocess(_pixels(image)), np.array(ids, np.int64), np.array(plain, np.int64)


def _pixels(path: Path) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """(H,W,3) RGB."""
    try:
        from PIL import Image
    except ModuleNotFoundError as error:
        raise DependencyError("reading pictures to calibrate on needs Pillow: run `pip install pillow`.") from error
    try:
        with Image.open(path) as picture:
            return np.asarray(picture.convert("RGB"))
    except (OSError, Image.DecompressionBombError) as error:
        reason = getattr(error, "strerror", None) or "not a picture that can be read"
        raise UserError(f"cannot read {path}: {reason}.") from error
