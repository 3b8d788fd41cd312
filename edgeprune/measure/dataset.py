"""Questions with known answers: `DATA.jsonl`, one JSON object per line, and what the readers of other formats make.

A line holds `question`, `answer` or `answers`, and, as far as they apply, `id` (else the number of the line), `image`
(relative to the file; none: a question without a picture), `choices`, `metric`, and any other plain values, for example
`category` and `size`, by which results are broken down.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgeprune.errors import UserError
from edgeprune.measure.metrics import METRICS, default_metric

_OWN_FIELDS = ("id", "image", "question", "answer", "answers", "choices", "metric")


@dataclass(frozen=True)
class Item:
    """One question.

    Attributes:
        where: file and line, for messages.
        answers: accepted ones; for `vqa` one per annotator; for items with choices one of them.
        image: the picture's file; None: the question is asked without a picture.
        fields: by which results are broken down.
    """

    id: str
    where: str
    question: str
    answers: tuple[str, ...]
    image: Path | None = None
    choices: tuple[str, ...] = ()
    metric: str = "exact"
    fields: Mapping[str, str] = field(default_factory=dict)

    @property
    def picture(self) -> str:
        """Items of equal `picture` share one encoding of it; "" without one."""
        return "" if self.image is None else str(self.image)


@dataclass(frozen=True)
class Dataset:
    """Items in the order of the file.

    Attributes:
        name: of the file or format, for reports.
        suffix: what is put on a new line behind every question that is answered freely.
        totals: a benchmark's own sums from the scores by field; None: it has none.
    """

    name: str
    items: tuple[Item, ...]
    suffix: str = ""
    totals: Callable[[Mapping[str, Any]], dict[str, Any]] | None = None

    def __post_init__(self) -> None:
        if not self.items:
            raise UserError(f"{self.name} holds no questions.")
        first: dict[str, Item] = {}
        for item in self.items:
            if item.id in first:
                raise UserError(f"{item.where}: the id {item.id!r} was used before, in {first[item.id].where}.")
            first[item.id] = item
            if item.image is not None and not item.image.is_file():
                raise UserError(f"{item.where}: the image {item.image} does not exist.")

    def by_picture(self) -> dict[str, list[Item]]:
        """Picture -> its items, in the order in which pictures first appear."""
        groups: dict[str, list[Item]] = {}
        for item in self.items:
            groups.setdefault(item.picture, []).append(item)
        return groups

    def sha256(self) -> str:
        """Of everything that decides a result: questions, answers, metrics, and the bytes of the pictures."""
        digest = hashlib.sha256(self.suffix.encode())
        pictures: dict[Path, str] = {}
        for item in self.items:
            if item.image is not None and item.image not in pictures:
                pictures[item.image] = hashlib.sha256(item.image.read_bytes()).hexdigest()
            shown = None if item.image is None else pictures[item.image]
            asked = [item.id, shown, item.question, item.answers, item.choices, item.metric]
            digest.update(json.dumps([*asked, sorted(item.fields.items())]).encode())
        return digest.hexdigest()


def with_metric(dataset: Dataset, metric: str) -> Dataset:
    """The same items under another metric; UserError where it does not fit one of them."""
    items = [
        make_item(item.where, item.id, item.question, item.answers, image=item.image, choices=item.choices,
                  metric=metric, fields=item.fields)
        for item in dataset.items
    ]  # fmt: skip
    return dataclasses.replace(dataset, items=tuple(items))


def read_jsonl(path: Path, metric: str | None = None) -> Dataset:
    """Reads DATA.jsonl.

    Args:
        metric: for the lines that name none; None: see `metrics.default_metric`.

    Raises:
        UserError: file and line of what is wrong; an empty file, an image that is not there, an id used twice.
    """
    items = [_item(entry, where, path.parent, metric) for where, entry in json_lines(path)]
    return Dataset(path.name, tuple(items))


def json_lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """("FILE line N", object) of every line that is not blank; UserError where a line is no JSON object."""
    for number, line in enumerate(read_text(path).split("\n"), 1):
        where = f"{path} line {number}"
        if not line.strip():
            continue
        try:
            entry = json.loads(line, parse_constant=_no_constant)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{where} is not valid JSON: {error}.") from error
        if not isinstance(entry, dict):
            raise UserError(f"{where} must be a JSON object, not {type(entry).__name__}.")
        yield where, entry


def read_text(path: Path) -> str:
    """A text file; UserError when it cannot be read or is not UTF-8."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text: byte {error.start} cannot be read.") from error
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}.") from error


def make_item(
    where: str,
    id: str,
    question: str,
    answers: Sequence[str],
    *,
    image: Path | None = None,
    choices: Sequence[str] = (),
    metric: str | None = None,
    fields: Mapping[str, str] | None = None,
) -> Item:
    """An Item whose parts fit together; UserError, beginning with `where`, when they do not."""
    chosen = metric or default_metric(answers, choices)
    if chosen not in METRICS:
        raise UserError(f"{where}: the metric {chosen!r} is unknown; known: {', '.join(METRICS)}.")
    problem = METRICS[chosen].problem(answers, choices)
    if problem:
        raise UserError(f"{where}: {problem}.")
    return Item(id, where, question, tuple(answers), image, tuple(choices), chosen, dict(fields or {}))


def _item(entry: dict[str, Any], where: str, folder: Path, metric: str | None) -> Item:
    get = _Reader(entry, where)
    choices = get.texts("choices", optional=True)
    image = get.text("image", optional=True)
    line = where.rpartition(" ")[2]
    named = get.text("id", optional=True, convert=str)
    return make_item(
        where,
        named or line,
        get.text("question"),
        _answers(entry, get, choices),
        image=folder / image if image else None,
        choices=choices,
        metric=get.text("metric", optional=True) or metric,
        fields={key: _plain(entry[key]) for key in entry if key not in _OWN_FIELDS and not _nested(entry[key])},
    )


def _answers(entry: dict[str, Any], get: _Reader, choices: tuple[str, ...]) -> tuple[str, ...]:
    """`answer` as one of several; a number among choices is the 0-based index of one."""
    if ("answer" in entry) == ("answers" in entry):
        raise UserError(f"{get.where}: give either 'answer' or 'answers'.")
    if "answers" in entry:
        return get.texts("answers")
    answer = entry["answer"]
    if choices and isinstance(answer, int) and not isinstance(answer, bool):
        if not 0 <= answer < len(choices):
            raise UserError(f"{get.where}: 'answer' is {answer}, but there are {len(choices)} choices, counted from 0.")
        return (choices[answer],)
    return (get.text("answer", convert=_number_text),)


def _number_text(value: Any) -> str:
    """1 -> "1"; true -> "yes", false -> "no"."""
    return ("no", "yes")[value] if isinstance(value, bool) else str(value)


def _nested(value: Any) -> bool:
    return isinstance(value, dict | list) or value is None


def _plain(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _no_constant(text: str) -> Any:
    raise ValueError(f"{text} is not JSON")


@dataclass(frozen=True)
class _Reader:
    """Typed access to one line."""

    entry: dict[str, Any]
    where: str

    def text(self, key: str, *, optional: bool = False, convert: Callable[[Any], str] | None = None) -> str:
        """Text that is not blank, "" where an optional key is absent or null; numbers only where `convert` is given."""
        value = self.entry.get(key)
        if value is None and optional:
            return ""
        if convert is not None and isinstance(value, int | float):
            value = convert(value)
        if not isinstance(value, str) or not value.strip():
            raise UserError(f"{self.where}: {key!r} must be text" + (", but it is missing." if value is None else "."))
        return value

    def texts(self, key: str, *, optional: bool = False) -> tuple[str, ...]:
        """A list of at least one text."""
        value = self.entry.get(key)
        if value is None and optional:
            return ()
        if not isinstance(value, list) or not value or not all(isinstance(part, str) for part in value):
            raise UserError(f"{self.where}: {key!r} must be a list of texts.")
        return tuple(value)
