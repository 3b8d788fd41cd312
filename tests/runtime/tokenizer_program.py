"""Python side of tests/runtime/native/tokenizer_cli.cpp: requests in, replies out, one process per batch."""

from __future__ import annotations

import pathlib
import struct
import subprocess
from collections.abc import Callable, Sequence
from typing import TypeVar

T = TypeVar("T")
Spans = Sequence[tuple[int, int]]


class RefusedError(Exception):
    """The native tokenizer refused; `status` is the ep_status."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def _text(data: bytes) -> bytes:
    return struct.pack("<I", len(data)) + data


def _ids(ids: Sequence[int]) -> bytes:
    return struct.pack(f"<I{len(ids)}i", len(ids), *ids)


class _Reader:
    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def u32(self) -> int:
        self.at += 4
        return int.from_bytes(self.data[self.at - 4 : self.at], "little")

    def text(self) -> bytes:
        length = self.u32()
        self.at += length
        return self.data[self.at - length : self.at]

    def ids(self) -> list[int]:
        count = self.u32()
        self.at += 4 * count
        return list(struct.unpack_from(f"<{count}i", self.data, self.at - 4 * count))


class NativeTokenizer:
    """The native tokenizer of one tokenizer.json.

    Args:
        program: path of tokenizer_cli.
        path: path of the tokenizer.json.
    """

    def __init__(self, program: pathlib.Path, path: pathlib.Path) -> None:
        self.command = [str(program), str(path)]

    def _run(self, request: bytes) -> _Reader:
        done = subprocess.run(self.command, input=request, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr.decode()
        reader = _Reader(done.stdout)
        status, message = reader.u32(), reader.text().decode()
        if status != 0:
            raise RefusedError(status, message)
        return reader

    def _batch(self, requests: Sequence[bytes], read: Callable[[_Reader], T]) -> list[T]:
        reader = self._run(b"".join(requests))
        replies = [read(reader) for _ in requests]
        assert reader.at == len(reader.data)
        return replies

    def load(self) -> None:
        """Only read the file."""
        self._run(b"")

    def encode(self, texts: Sequence[bytes], plain: Sequence[Spans] | None = None) -> list[list[int]]:
        """Ids of each text; `plain` gives byte spans per text."""
        requests = []
        for i, text in enumerate(texts):
            spans = plain[i] if plain is not None else ()
            packed = b"".join(struct.pack("<II", begin, end) for begin, end in spans)
            requests.append(b"E" + struct.pack("<I", len(spans)) + packed + _text(text))
        return self._batch(requests, _Reader.ids)

    def decode(self, lists: Sequence[Sequence[int]]) -> tuple[list[bytes], list[bytes], list[list[bytes]]]:
        """For each list of ids: its text, its text without special tokens, and the pieces of StreamDecoder (the last
        one from finish())."""
        requests = []
        for ids in lists:
            packed = _ids(ids)
            requests.append(b"D" + struct.pack("<I", 0) + packed + b"D" + struct.pack("<I", 1) + packed + b"S" + packed)
        replies = self._batch(requests, lambda r: (r.text(), r.text(), [r.text() for _ in range(r.u32())]))
        return [r[0] for r in replies], [r[1] for r in replies], [r[2] for r in replies]

    def token_to_id(self, tokens: Sequence[str]) -> list[int]:
        """Id of each token, -1 when absent."""
        return [ids[0] for ids in self._batch([b"T" + _text(token.encode()) for token in tokens], _Reader.ids)]

    def vocab_size(self) -> int:
        """Number of tokens, added ones included."""
        return self._batch([b"V"], _Reader.ids)[0][0]
