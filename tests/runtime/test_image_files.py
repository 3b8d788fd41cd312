"""Image files: the native library's pixels against Pillow's `Image.open(path).convert("RGB")`, and bad files."""

from __future__ import annotations

import io
import os
import pathlib
import random
import struct
import subprocess
import zlib
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from PIL import Image

from tests.runtime.image_program import IMAGE, IO, UNSUPPORTED, ImageProgram, NativeError, Pixels


@pytest.fixture(scope="module")
def program(native_program: Callable[[str], pathlib.Path]) -> Iterator[ImageProgram]:
    running = ImageProgram(native_program("image_cli"))
    yield running
    running.close()


def scene(height: int = 61, width: int = 83, channels: int = 3) -> Pixels:
    """Waves, an edge and a little noise: compressible, with chroma that upsampling has to interpolate."""
    y, x = np.mgrid[0:height, 0:width]
    planes = [127 + 120 * np.sin(x / (3 + c) + y / (5 + 2 * c)) for c in range(channels)]
    image = np.stack(planes, axis=-1) + np.random.default_rng(0).normal(0, 6, (height, width, channels))
    image[:, width // 2 :] = 255 - image[:, width // 2 :]
    return np.clip(image, 0, 255).astype(np.uint8)


def assert_equal_to_pillow(program: ImageProgram, path: pathlib.Path) -> None:
    with Image.open(path) as picture:
        expected = np.asarray(picture.convert("RGB"))
    np.testing.assert_array_equal(program.decode(path), expected)


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0"])
@pytest.mark.parametrize("quality", [30, 92])
def test_jpeg_color(
    program: ImageProgram, tmp_path: pathlib.Path, progressive: bool, subsampling: str, quality: int
) -> None:
    for size in [(61, 83), (64, 64), (1, 1), (3, 200), (17, 2)]:
        path = tmp_path / f"{size}.jpg"
        Image.fromarray(scene(*size)).save(path, progressive=progressive, subsampling=subsampling, quality=quality)
        assert_equal_to_pillow(program, path)


@pytest.mark.parametrize("progressive", [False, True])
def test_jpeg_gray_and_rgb_and_cmyk(program: ImageProgram, tmp_path: pathlib.Path, progressive: bool) -> None:
    gray, rgb, cmyk = tmp_path / "gray.jpg", tmp_path / "rgb.jpg", tmp_path / "cmyk.jpg"
    Image.fromarray(scene()[..., 0]).save(gray, progressive=progressive)
    Image.fromarray(scene()).save(rgb, keep_rgb=True, progressive=progressive)
    Image.frombytes("CMYK", (83, 61), scene(channels=4).tobytes()).save(cmyk, progressive=progressive)
    for path in (gray, rgb, cmyk):
        assert_equal_to_pillow(program, path)


def test_jpeg_ycck(program: ImageProgram, tmp_path: pathlib.Path) -> None:
    """An Adobe marker that says YCCK (transform 2) over four components."""
    buffer = io.BytesIO()
    Image.frombytes("CMYK", (83, 61), scene(channels=4).tobytes()).save(buffer, "jpeg")
    data = bytearray(buffer.getvalue())
    data[data.index(b"Adobe") + 11] = 2
    path = tmp_path / "ycck.jpg"
    path.write_bytes(data)
    assert_equal_to_pillow(program, path)


def test_jpeg_orientation_is_not_applied_and_name_does_not_matter(
    program: ImageProgram, tmp_path: pathlib.Path
) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # rotated by 90 degrees
    path = tmp_path / "turned.png"
    Image.fromarray(scene()).save(path, "jpeg", exif=exif)
    assert_equal_to_pillow(program, path)
    assert program.decode(path).shape == (61, 83, 3)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, depth: int, color: int, rows: bytes, *extra: bytes) -> bytes:
    """A PNG without interlacing; `rows` includes the filter bytes."""
    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    data = chunk(b"IDAT", zlib.compress(rows))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + b"".join(extra) + data + chunk(b"IEND", b"")


CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
LAYOUTS = [(d, 0) for d in (1, 2, 4, 8)] + [(d, c) for c in (2, 4, 6) for d in (8, 16)] + [(d, 3) for d in (1, 2, 4, 8)]


@pytest.mark.parametrize(("depth", "color"), LAYOUTS)
@pytest.mark.parametrize("transparency", [False, True])
def test_png_layouts(program: ImageProgram, tmp_path: pathlib.Path, depth: int, color: int, transparency: bool) -> None:
    """Every color type and depth, with and without tRNS; palettes are shorter than the indices that occur."""
    rng = np.random.default_rng(depth * 10 + color)
    extra = [chunk(b"PLTE", rng.bytes(3 * min(2**depth, 200) - 3))] if color == 3 else []
    if transparency and color in (0, 2, 3):
        extra.append(chunk(b"tRNS", {0: b"\0\1", 2: b"\0\1\0\2\0\3", 3: b"\0"}[color]))
    path = tmp_path / "layout.png"
    for width, height in [(19, 7), (1, 1), (8, 3)]:
        row_bytes = (width * depth * CHANNELS[color] + 7) // 8
        rows = b"".join(b"\0" + rng.bytes(row_bytes) for _ in range(height))
        path.write_bytes(png(width, height, depth, color, rows, *extra))
        assert_equal_to_pillow(program, path)


# first row, first column, row step, column step of each pass
ADAM7 = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]


def adam7(image: Pixels) -> bytes:
    """An interlaced PNG of (H,W,C) 8-bit pixels."""
    height, width, channels = image.shape
    rows = b""
    for y, x, dy, dx in [
        (0, 0, 8, 8),
        (0, 4, 8, 8),
        (4, 0, 8, 4),
        (0, 2, 4, 4),
        (2, 0, 4, 2),
        (0, 1, 2, 2),
        (1, 0, 2, 1),
    ]:
        part = image[y::dy, x::dx]
        if part.size:
            rows += b"".join(b"\0" + row.tobytes() for row in part)
    color = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    header = struct.pack(">IIBBBBB", width, height, 8, color, 0, 0, 1)
    data = chunk(b"IDAT", zlib.compress(rows))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + data + chunk(b"IEND", b"")


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_png_interlaced(program: ImageProgram, tmp_path: pathlib.Path, channels: int) -> None:
    path = tmp_path / "interlaced.png"
    for size in [(61, 83), (1, 1), (3, 2), (5, 1)]:
        image = scene(*size, channels)
        path.write_bytes(adam7(image))
        assert_equal_to_pillow(program, path)
        np.testing.assert_array_equal(program.decode(path)[..., 0], image[..., 0])


def test_png_filters_of_a_real_encoder(program: ImageProgram, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "scene.jpg"
    Image.fromarray(scene(301, 407)).save(path, "png", optimize=True)
    assert_equal_to_pillow(program, path)


def test_png_gray16_is_refused(program: ImageProgram, tmp_path: pathlib.Path) -> None:
    """Pillow whitens it: every value above 255 becomes 255."""
    path = tmp_path / "depth.png"
    Image.fromarray(np.arange(60, dtype=np.uint16).reshape(6, 10) * 1000).save(path)
    with pytest.raises(NativeError, match="16-bit grayscale") as caught:
        program.decode(path)
    assert caught.value.status == IMAGE


def encoded(kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(scene()).save(buffer, kind, **options)
    return buffer.getvalue()


def refusal(program: ImageProgram, path: pathlib.Path) -> NativeError:
    """The error, which names the file in one sentence."""
    with pytest.raises(NativeError) as caught:
        program.decode(path)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    return caught.value


@pytest.mark.parametrize(
    "options",
    [{"kind": "jpeg"}, {"kind": "jpeg", "progressive": True}, {"kind": "png"}],
    ids=["jpeg", "progressive", "png"],
)
def test_truncated(program: ImageProgram, tmp_path: pathlib.Path, options: dict[str, object]) -> None:
    data = encoded(**options)  # type: ignore[arg-type]
    path = tmp_path / "cut"
    pixels_end = len(data) - (12 if options["kind"] == "png" else 0)  # a PNG may lack its IEND, as for Pillow
    for keep in [8, 30, 200, len(data) // 2, pixels_end - 40, pixels_end - 2]:
        path.write_bytes(data[:keep])
        error = refusal(program, path)
        assert error.status == IMAGE
        assert "truncated" in str(error)


def test_not_images(program: ImageProgram, tmp_path: pathlib.Path) -> None:
    for name, data, words in [
        ("empty.png", b"", "empty"),
        ("text.png", b"hello, world" * 9, "neither a JPEG nor a PNG"),
        ("gif.png", b"GIF89a", "neither a JPEG nor a PNG"),
        ("short", b"\xff\xd8", "neither a JPEG nor a PNG"),
        ("only_magic.jpg", b"\xff\xd8\xff", "truncated"),
        ("broken.jpg", b"\xff\xd8\xff\xd8" + b"x" * 100, "cannot be decoded"),
        ("broken.png", b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", b"x" * 13), "cannot be decoded"),
        ("zero.png", png(0, 5, 8, 2, b"\0"), "cannot be decoded"),
        ("huge.png", png(100_000, 100_000, 8, 2, b"\0"), "limit is 178956970"),
    ]:
        path = tmp_path / name
        path.write_bytes(data)
        error = refusal(program, path)
        assert error.status == IMAGE, name
        assert words in str(error), name


def test_huge_jpeg_is_refused_from_its_header(program: ImageProgram, tmp_path: pathlib.Path) -> None:
    data = bytearray(encoded("jpeg"))
    frame = data.index(b"\xff\xc0")
    data[frame + 5 : frame + 9] = struct.pack(">HH", 60_000, 60_000)
    path = tmp_path / "huge.jpg"
    path.write_bytes(data)
    error = refusal(program, path)
    assert error.status == IMAGE
    assert "60000 x 60000" in str(error)


def test_unreadable(program: ImageProgram, tmp_path: pathlib.Path) -> None:
    assert refusal(program, tmp_path / "missing.png").status == IO
    assert refusal(program, tmp_path).status == IO
    large = tmp_path / "large.png"
    with large.open("wb") as file:
        file.truncate(513 << 20)  # sparse: takes no disk
    assert refusal(program, large).status == IMAGE
    if os.geteuid() != 0:
        secret = tmp_path / "secret.png"
        secret.write_bytes(encoded("png"))
        secret.chmod(0)
        assert refusal(program, secret).status == IO


def test_pipe(program: ImageProgram, tmp_path: pathlib.Path) -> None:
    """A file without a size, longer than one buffer."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    whole = tmp_path / "whole.png"
    Image.fromarray(scene(301, 407)).save(whole)
    with subprocess.Popen(["dd", f"if={whole}", f"of={fifo}", "status=none"]):
        pixels = program.decode(fifo)
    np.testing.assert_array_equal(pixels, scene(301, 407))


@pytest.mark.parametrize("kind", ["jpeg", "png"])
def test_damaged_bytes_give_an_answer_or_an_error(program: ImageProgram, tmp_path: pathlib.Path, kind: str) -> None:
    """300 files with a few random bytes changed: pixels or EP_ERROR_IMAGE, and the process lives."""
    data = encoded(kind)
    dice = random.Random(kind)
    path = tmp_path / "damaged"
    statuses = set()
    for _ in range(300):
        damaged = bytearray(data)
        for _ in range(dice.randint(1, 6)):
            damaged[dice.randrange(3, len(data))] = dice.randrange(256)
        path.write_bytes(damaged)
        try:
            statuses.add(0 if program.decode(path).size else -1)
        except NativeError as error:
            statuses.add(error.status)
    assert statuses in ({IMAGE}, {0, IMAGE})


def test_missing_libraries_are_named(native_program: Callable[[str], pathlib.Path], tmp_path: pathlib.Path) -> None:
    """Broken libjpeg and libpng on the loader's path: files are refused with the library's name, frames still work."""
    for name in ("libjpeg.so.62", "libjpeg.so.8", "libpng16.so.16"):
        (tmp_path / name).write_bytes(b"not a library")
    program = ImageProgram(native_program("image_cli"), env={"LD_LIBRARY_PATH": str(tmp_path)})
    for kind, library in [("jpeg", "libjpeg.so."), ("png", "libpng16.so.16")]:
        path = tmp_path / f"picture.{kind}"
        path.write_bytes(encoded(kind))
        error = refusal(program, path)
        assert error.status == UNSUPPORTED
        assert library in str(error)
    _, pixels = program.ask("frame", b"abc", width=1, height=1, stride=0, format=0)
    assert pixels == b"abc"
    program.close()
