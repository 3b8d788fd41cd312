"""The work file of an evaluation: what has been answered so far, so that an interrupted run goes on where it stopped.

JSON lines. The first states what the results depend on; every further one holds the answers of one case about one
picture. A line is appended and flushed when all its answers are there, and a torn last line is dropped on reading.
"""

from __future__ import annotations

import fcntl
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TextIO

from edgeprune.errors import UserError

_FORMAT = 1


@dataclass(frozen=True)
class Asked:
    """One answer.

    Attributes:
        text: as generated, or the likeliest choice.
        read: what the metric read in it.
        score: 0..1.
        log_probabilities: of the choices, for `likelihood`.
    """

    id: str
    text: str
    read: str
    score: float
    finish_reason: str
    log_probabilities: tuple[float, ...] | None = None


@dataclass(frozen=True)
class Block:
    """The answers of one case about one picture.

    Attributes:
        embeds: SHA-256 of the visual embeddings that the decoder read, "" without a picture.
        kept, visual_tokens: K and N, from the shapes of executed tensors; 0 without a picture.
    """

    case: str
    picture: str
    embeds: str
    kept: int
    visual_tokens: int
    answers: tuple[Asked, ...]


class WorkFile:
    """Blocks by (case, picture), kept in a file where one is given.

    Args:
        path: None: nothing is kept on the disk.
        settings: JSON-ready facts on which the results depend.

    Raises:
        UserError: the file is of another run; the sentence names the first fact that differs.
    """

    def __init__(self, path: Path | None, settings: Mapping[str, Any]) -> None:
        self.path = path
        self.blocks: dict[tuple[str, str], Block] = {}
        self._stream: TextIO | None = None
        if path is not None:
            self._open(path, {"edgeprune_eval": _FORMAT, **settings})

    def add(self, block: Block) -> None:
        """Keeps a block, on the disk before the call returns."""
        self.blocks[block.case, block.picture] = block
        if self._stream is not None:
            self._write(asdict(block))

    def close(self) -> None:
        """Closes the file; it stays where it is."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    def _open(self, path: Path, settings: dict[str, Any]) -> None:
        try:
            self._stream = path.open("a", encoding="utf-8")
            fcntl.flock(self._stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            size = self._read(path, settings)
            self._stream.truncate(size)
        except BlockingIOError:
            self.close()
            raise UserError(f"another evaluation is writing {path}; wait for it or name another file.") from None
        except OSError as error:
            raise UserError(f"cannot use the work file {path}: {error.strerror}.") from error
        if not size:
            self._write(settings)

    def _read(self, path: Path, settings: dict[str, Any]) -> int:
        """Reads what is there and returns how many bytes of it are whole lines."""
        data = path.read_bytes()
        whole = data.rfind(b"\n") + 1
        lines = data[:whole].splitlines()
        if not lines:
            return 0
        try:
            head, *rows = (json.loads(line) for line in lines)
            _require_equal(path, head, settings)
            for row in rows:
                answers = tuple(_asked(answer) for answer in row.pop("answers"))
                block = Block(**row, answers=answers)
                self.blocks[block.case, block.picture] = block
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise UserError(f"{path} is not the work file of an evaluation; name another or remove it.") from error
        return whole

    def _write(self, row: dict[str, Any]) -> None:
        assert self._stream is not None
        self._stream.write(json.dumps(row) + "\n")
        self._stream.flush()


def _asked(fields: dict[str, Any]) -> Asked:
    found = fields["log_probabilities"]
    return Asked(**{**fields, "log_probabilities": None if found is None else tuple(found)})


def _require_equal(path: Path, head: dict[str, Any], settings: dict[str, Any]) -> None:
    names = {"data": "the data", "bundle": "the bundle", "edgeprune_eval": "the file format"}
    for key, value in settings.items():
        if head[key] != value:
            what = names.get(key, f"the setting {key}")
            raise UserError(f"{path} was begun with another state of {what}; remove it to begin again.")
