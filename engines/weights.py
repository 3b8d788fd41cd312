"""Graphs of a variant on disk: one weight file that they share, equal weights stored once."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

import onnx
from onnx import TensorProto, external_data_helper

from edgeprune.errors import BundleError

_SMALLEST_BYTES = 1024
#: onnxruntime maps a weight in place when it starts at a page.
_PAGE_BYTES = 4096


class WeightFile:
    """Moves the large weights of graphs into one file beside them."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._places: dict[tuple[bytes, int], tuple[int, int]] = {}
        self._end = 0

    def save(self, model: onnx.ModelProto, path: Path, folder: Path | None = None) -> None:
        """Writes a graph; `path` lies in the folder of the weight file, and weights that are not inside the model in
        `folder`: they are read one after the other."""
        self.move(model.graph.initializer, folder)
        onnx.save(model, path)

    def move(self, tensors: Iterable[TensorProto], folder: Path | None = None) -> None:
        """Moves tensors into the file; those that lie in `folder` are copied."""
        with self._path.open("ab") as file:
            for tensor in tensors:
                if tensor.data_location == TensorProto.EXTERNAL:
                    assert folder is not None
                    self._move(tensor, _data(tensor, folder), file)
                elif tensor.HasField("raw_data") and len(tensor.raw_data) >= _SMALLEST_BYTES:
                    self._move(tensor, tensor.raw_data, file)

    def _move(self, tensor: TensorProto, data: bytes, file: BinaryIO) -> None:
        key = hashlib.sha256(data).digest(), tensor.data_type
        if key not in self._places:
            start = -(-self._end // _PAGE_BYTES) * _PAGE_BYTES
            file.write(b"\0" * (start - self._end))
            file.write(data)
            self._places[key] = (start, len(data))
            self._end = start + len(data)
        offset, length = self._places[key]
        if not tensor.HasField("raw_data"):  # the helper moves what is inside only
            tensor.raw_data = b""
        external_data_helper.set_external_data(tensor, self._path.name, offset, length)
        tensor.ClearField("raw_data")


def inside(tensor: TensorProto, folder: Path) -> TensorProto:
    """A copy of a tensor with its data inside, read from `folder` where they are external.

    Not onnx's own reader: that refuses a file that has several links, which is how a graph of a bundle is tried.
    """
    copy = TensorProto()
    copy.CopyFrom(tensor)
    if tensor.data_location == TensorProto.EXTERNAL:
        copy.raw_data = _data(tensor, folder)
        copy.data_location = TensorProto.DEFAULT
        del copy.external_data[:]
    return copy


def all_inside(model: onnx.ModelProto, folder: Path) -> onnx.ModelProto:
    """The model with all its weights inside, read from `folder` one after the other; it is changed."""
    for tensor in model.graph.initializer:
        tensor.CopyFrom(inside(tensor, folder))
    return model


def _data(tensor: TensorProto, folder: Path) -> bytes:
    info = external_data_helper.ExternalDataInfo(tensor)
    with (folder / Path(info.location).name).open("rb") as file:
        file.seek(info.offset or 0)
        data = file.read(-1 if info.length is None else info.length)
    if info.length is not None and len(data) != info.length:
        raise BundleError(f"{info.location} is too short for {tensor.name}; export the bundle again.")
    return data
