"""Pictures in memory as ep_frame."""

from __future__ import annotations

import ctypes
import os
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np

from edgeprune.errors import UserError
from edgeprune.runtime import _abi

_MOST_PX = 2**31 - 1
_FORMATS = {1: _abi.GRAY8, 3: _abi.RGB8, 4: _abi.RGBA8}
#: Pillow modes whose bytes are what they seem; the rest is converted by Pillow itself.
_PLAIN_MODES = ("RGB", "RGBA", "L")


@runtime_checkable
class ArrayLike(Protocol):
    """numpy arrays, Pillow images, and whatever else shows its memory in numpy's way."""

    @property
    def __array_interface__(self) -> Any: ...


Picture: TypeAlias = "str | os.PathLike[str] | ArrayLike"


def to_frame(picture: Any) -> tuple[_abi.Frame, np.ndarray[Any, np.dtype[np.uint8]]]:
    """A frame and the array that owns its memory.

    Args:
        picture: (H,W,3) RGB, (H,W,4) RGBA or (H,W) grey uint8, or a Pillow image.

    Raises:
        UserError: another type, shape or element type.
    """
    pixels = _pixels(picture)
    channels = 1 if pixels.ndim == 2 else pixels.shape[2]
    frame = _abi.Frame(
        struct_size=ctypes.sizeof(_abi.Frame),
        data=pixels.ctypes.data,
        width_px=pixels.shape[1],
        height_px=pixels.shape[0],
        stride=pixels.shape[1] * channels,
        format=_FORMATS[channels],
    )
    return frame, pixels


def _pixels(picture: Any) -> np.ndarray[Any, np.dtype[np.uint8]]:
    if not isinstance(picture, ArrayLike):
        raise UserError(f"a picture is a file, a uint8 array or a Pillow image, not {type(picture).__name__}.")
    try:
        plain: Any = picture
        if getattr(picture, "mode", "RGB") not in _PLAIN_MODES:
            plain = plain.convert("RGB")
        pixels = np.ascontiguousarray(plain)
    except OSError as error:
        raise UserError(f"the picture cannot be read: {error}.") from error
    known = pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] in _FORMATS)
    if pixels.dtype != np.uint8 or not known or max(pixels.shape) > _MOST_PX:
        raise UserError(
            f"a picture is a uint8 array of shape (H,W,3), (H,W,4) or (H,W), not {pixels.dtype} of {pixels.shape}."
        )
    return pixels
