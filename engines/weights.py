"""Graphs of a variant on disk: one weight file that they share, equal weights stored once."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import BinaryIO

import onnx
from onnx import TensorProto, external_data_helper

_SMALLEST_BYTES = 1024
#: onnxruntime maps a weight in place when it starts at a page.
_PAGE_BYTES = 4096


class WeightFile:
    """Moves the large weights of graphs into one file beside them."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._places: dict[tuple[bytes, int], tuple[int, int]] = {}
        self._end = 0

    def save(self, model: onnx.ModelProto, path: Path) -> None:
        """Writes a graph whose weights are inside the model; `path` lies in the folder of the weight file."""
        with self._path.open("ab") as file:
            for tensor in model.graph.initializer:
                if tensor.HasField("raw_data") and len(tensor.raw_data) >= _SMALLEST_BYTES:
                    self._move(tensor, file)
        onnx.save(model, path)

    def _move(self, tensor: TensorProto, file: BinaryIO) -> None:
        data = tensor.raw_data
        key = hashlib.sha256(data).digest(), tensor.data_type
        if key not in self._places:
            start = -(-self._end // _PAGE_BYTES) * _PAGE_BYTES
            file.write(b"\0" * (start - self._end) + data)
            self._places[key] = (start, len(data))
            self._end = start + len(data)
        offset, length = self._places[key]
        external_data_helper.set_external_data(tensor, self._path.name, offset, length)
        tensor.ClearField("raw_data")
