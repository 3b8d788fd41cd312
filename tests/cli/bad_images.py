"""Files that are no usable picture, by name."""

from __future__ import annotations

import io
import pathlib
import struct
import zlib

import numpy as np
from PIL import Image


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_header_only(width: int, height: int) -> bytes:
    """A well-formed PNG that claims a size and holds next to nothing."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = png_chunk(b"IHDR", header) + png_chunk(b"IDAT", zlib.compress(b"\0" * 64)) + png_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def encoded(form: str, **settings: object) -> bytes:
    """A real 90 x 70 picture of noise."""
    pixels = np.random.default_rng(0).integers(0, 256, (70, 90, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, form, **settings)
    return buffer.getvalue()


def jpeg_of_claimed_size(width: int, height: int) -> bytes:
    """A real JPEG whose frame header claims another size."""
    data = bytearray(encoded("JPEG"))
    place = data.index(b"\xff\xc0") + 5
    data[place : place + 4] = struct.pack(">HH", height, width)
    return bytes(data)


#: name -> contents, and a word that the sentence about it must hold.
BAD_IMAGES: dict[str, tuple[bytes, str]] = {
    "empty.png": (b"", "empty"),
    "text.png": (b"this is no picture at all, but a text\n", "JPEG"),
    "truncated.png": (encoded("PNG")[:2000], "truncated"),
    "truncated.jpg": (encoded("JPEG")[:1500], "truncated"),
    "signature.png": (b"\x89PNG\r\n\x1a\n", "truncated"),
    "zero.png": (png_header_only(0, 0), "zero.png"),
    "huge.png": (png_header_only(100_000, 100_000), "100000"),
    "zero.jpg": (jpeg_of_claimed_size(0, 0), "zero.jpg"),
    "huge.jpg": (jpeg_of_claimed_size(65_500, 65_500), "65500"),
    "gif.png": (encoded("GIF"), "JPEG"),
}


def write_bad_image(folder: pathlib.Path, name: str) -> pathlib.Path:
    path = folder / name
    path.write_bytes(BAD_IMAGES[name][0])
    return path


def write_picture(path: pathlib.Path) -> pathlib.Path:
    """A real picture, JPEG or PNG by its suffix."""
    path.write_bytes(encoded("JPEG" if path.suffix == ".jpg" else "PNG"))
    return path
