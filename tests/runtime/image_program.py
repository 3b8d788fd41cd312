"""Talks to tests/runtime/native/image_cli.cpp."""

from __future__ import annotations

import json
import pathlib
import subprocess
from typing import Any

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]

# ep_status values
INVALID_ARGUMENT, IO, BUNDLE, UNSUPPORTED, IMAGE = 1, 2, 3, 4, 7


class NativeError(Exception):
    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class ImageProgram:
    """tests/runtime/native/image_cli.cpp, kept running."""

    def __init__(self, path: pathlib.Path, env: dict[str, str] | None = None) -> None:
        self.process = subprocess.Popen([path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env)

    def ask(self, op: str, body: bytes = b"", **fields: Any) -> tuple[dict[str, Any], bytes]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        request = {"op": op, "bytes": len(body), **fields}
        self.process.stdin.write(json.dumps(request).encode() + b"\n" + body)
        self.process.stdin.flush()
        head = json.loads(self.process.stdout.readline())
        answer = self.process.stdout.read(head["bytes"])
        if "error" in head:
            raise NativeError(head["status"], head["error"])
        return head, answer

    def decode(self, path: pathlib.Path) -> Pixels:
        head, body = self.ask("file", path=str(path))
        return np.frombuffer(body, np.uint8).reshape(head["height"], head["width"], 3)

    def preprocess(self, image: Pixels, spec: dict[str, Any]) -> tuple[Pixels, NDArray[np.float32]]:
        """(H,W,3) -> (S,S,3) bytes, (3,S,S) floats."""
        height, width, _ = image.shape
        head, body = self.ask("preprocess", image.tobytes(), spec=spec, width=width, height=height)
        shape = (head["height"], head["width"], 3)
        count = int(np.prod(shape))
        floats = np.frombuffer(body, np.float32, offset=count).reshape(3, *shape[:2])
        return np.frombuffer(body, np.uint8, count).reshape(shape), floats

    def close(self) -> None:
        self.process.communicate(timeout=10)
        assert self.process.returncode == 0
