"""Pictures in memory as ep_frame."""

from __future__ import annotations

import ctypes
import os
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias, runtime_checkable

import numpy as np

from edgeprune.errors import UserError
from edgeprune.runtime import _abi

Bytes: TypeAlias = "np.ndarray[Any, np.dtype[np.uint8]]"

_MOST_PX = 2**31 - 1
#: name -> (ep_pixel_format, what stands behind (H,W) in the shape of the array)
_FORMATS: dict[str, tuple[int, tuple[int, ...]]] = {
    "rgb": (_abi.RGB8, (3,)),
    "bgr": (_abi.BGR8, (3,)),
    "rgba": (_abi.RGBA8, (4,)),
    "gray": (_abi.GRAY8, ()),
    "nv12": (_abi.NV12, ()),
    "yuyv": (_abi.YUYV, (2,)),
}
_MATRICES = {"bt601": 0, "bt709": 1}
_RANGES = {"limited": 0, "full": 1}
_CHANNELS = {1: "gray", 3: "rgb", 4: "rgba"}
#: Pillow modes whose bytes are what they seem; the rest is converted by Pillow itself.
_PLAIN_MODES = ("RGB", "RGBA", "L")


@runtime_checkable
class ArrayLike(Protocol):
    """numpy arrays, Pillow images, and whatever else shows its memory in numpy's way."""

    @property
    def __array_interface__(self) -> Any: ...


@dataclass(frozen=True, eq=False)
class Frame:
    """A camera's frame as it lies in memory; its rows are read where they are, nothing is copied.

    Attributes:
        data: uint8. "rgb", "bgr": (H,W,3); "rgba": (H,W,4); "gray": (H,W); "yuyv": (H,W,2), W even;
            "nv12": the luma plane (H,W), or both planes in one array (H*3/2,W), H and W even, when chroma is None.
            Rows may be apart (a slice of a larger array); the bytes of a row must not.
        format: how the bytes are to be read.
        chroma: "nv12": the plane of Cb Cr pairs, uint8 (ceil(H/2), 2*ceil(W/2)).
        matrix: "nv12" and "yuyv": the standard whose matrix made Y, Cb and Cr.
        range: "nv12" and "yuyv": limited (Y 16..235) or full (0..255).

    Raises:
        UserError: another type or shape, or a word that is none of these.
    """

    data: Bytes
    format: Literal["rgb", "bgr", "rgba", "gray", "nv12", "yuyv"] = "rgb"
    chroma: Bytes | None = None
    matrix: Literal["bt601", "bt709"] = "bt601"
    range: Literal["limited", "full"] = "limited"

    def __post_init__(self) -> None:
        for name, word, known in (
            ("format", self.format, _FORMATS),
            ("matrix", self.matrix, _MATRICES),
            ("range", self.range, _RANGES),
        ):
            if word not in known:
                raise UserError(f"a frame's {name} is one of {', '.join(known)}, not {word!r}.")
        tail = _FORMATS[self.format][1]
        _check_plane("data", self.data, 2 + len(tail))
        if self.data.shape[2:] != tail:
            raise UserError(f"{self.format} data have the shape {_shape_text(tail)}, not {self.data.shape}.")
        if self.format == "yuyv" and self.data.shape[1] % 2:
            raise UserError("yuyv data have an even number of columns.")
        self._check_chroma()

    def _check_chroma(self) -> None:
        rows, columns = self.data.shape[:2]
        if self.chroma is None:
            if self.format == "nv12" and (rows % 3 or columns % 2):
                raise UserError("nv12 without chroma holds both planes: (H*3/2,W), H and W even.")
            return
        if self.format != "nv12":
            raise UserError(f"a frame of format {self.format} has no chroma plane.")
        _check_plane("chroma", self.chroma, 2)
        expected = ((rows + 1) // 2, (columns + 1) // 2 * 2)
        if self.chroma.shape != expected:
            raise UserError(f"the chroma plane of {self.data.shape} luma has the shape {expected}.")

    def raw(self) -> _abi.Frame:
        """The C struct; it borrows the memory of this frame's arrays."""
        rows, columns = self.data.shape[:2]
        height = rows * 2 // 3 if self.format == "nv12" and self.chroma is None else rows
        color = self.format in ("nv12", "yuyv")
        return _abi.Frame(
            struct_size=ctypes.sizeof(_abi.Frame),
            data=self.data.ctypes.data,
            width_px=columns,
            height_px=height,
            stride=self.data.strides[0],
            format=_FORMATS[self.format][0],
            chroma=None if self.chroma is None else self.chroma.ctypes.data,
            chroma_stride=0 if self.chroma is None else self.chroma.strides[0],
            color_matrix=_MATRICES[self.matrix] if color else 0,
            color_range=_RANGES[self.range] if color else 0,
        )


Picture: TypeAlias = "str | os.PathLike[str] | ArrayLike | Frame"


def to_frame(picture: Any) -> tuple[_abi.Frame, Frame]:
    """A C struct and the frame that owns its memory.

    Args:
        picture: (H,W,3) RGB, (H,W,4) RGBA or (H,W) grey uint8, a Pillow image, or a Frame.

    Raises:
        UserError: another type, shape or element type.
    """
    if not isinstance(picture, Frame):
        pixels = _pixels(picture)
        channels = 1 if pixels.ndim == 2 else pixels.shape[2]
        if channels == 1:
            pixels = pixels.reshape(pixels.shape[:2])
        picture = Frame(pixels, _CHANNELS[channels])  # type: ignore[arg-type]
    return picture.raw(), picture


def _pixels(picture: Any) -> Bytes:
    if not isinstance(picture, ArrayLike):
        raise UserError(f"a picture is a file, a uint8 array or a Pillow image, not {type(picture).__name__}.")
    try:
        plain: Any = picture
        if getattr(picture, "mode", "RGB") not in _PLAIN_MODES:
            plain = plain.convert("RGB")
        pixels = np.ascontiguousarray(plain)
    except OSError as error:
        raise UserError(f"the picture cannot be read: {error}.") from error
    known = pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] in _CHANNELS)
    if pixels.dtype != np.uint8 or not known or max(pixels.shape) > _MOST_PX:
        raise UserError(
            f"a picture is a uint8 array of shape (H,W,3), (H,W,4) or (H,W), not {pixels.dtype} of {pixels.shape}."
        )
    return pixels


def _shape_text(tail: tuple[int, ...]) -> str:
    return f"({','.join(['H', 'W', *map(str, tail)])})"


def _check_plane(name: str, plane: Any, dimensions: int) -> None:
    """A uint8 array whose rows are contiguous and follow each other downwards in memory."""
    if not isinstance(plane, np.ndarray) or plane.dtype != np.uint8 or plane.ndim != dimensions:
        raise UserError(f"a frame's {name} is a uint8 array of {dimensions} dimensions.")
    if max(plane.shape) > _MOST_PX:
        raise UserError(f"a frame's {name} has the shape {plane.shape}; an edge is at most {_MOST_PX}.")
    if plane.size == 0:
        return  # the library says that there are no pixels
    row = plane[0]
    if not row.flags.c_contiguous or plane.strides[0] < row.nbytes:
        raise UserError(f"the rows of a frame's {name} are not contiguous; pass numpy.ascontiguousarray of it.")
