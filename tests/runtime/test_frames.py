"""NV12 and YUYV frames against the standards' matrices in numpy, and frames of every format through the resize."""

from __future__ import annotations

import itertools
import pathlib
import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import edgeprune
from edgeprune.errors import UserError
from edgeprune.runtime.session import Model, Session
from edgeprune.tolerances import TOLERANCES
from tests.runtime.conftest import Pixels, picture
from tests.runtime.image_program import ImageProgram

RGB8, BGR8, RGBA8, GRAY8, NV12, YUYV = range(6)
MATRICES = ("bt601", "bt709")
RANGES = ("limited", "full")
#: Kr, Kb of ITU-R BT.601-7 section 2.5.1 and BT.709-6 section 3.
LUMA = {"bt601": (0.299, 0.114), "bt709": (0.2126, 0.0722)}


@pytest.fixture(scope="module")
def program(native_program: Callable[[str], pathlib.Path]) -> Iterator[ImageProgram]:
    running = ImageProgram(native_program("image_cli"))
    yield running
    running.close()


def oracle(y: Any, cb: Any, cr: Any, matrix: str, limits: str) -> np.ndarray[Any, np.dtype[np.float64]]:
    """R'G'B' on a scale of 255, unrounded, clipped: quantised values undone, then the forward matrix inverted."""
    kr, kb = LUMA[matrix]
    luma = np.array([kr, 1 - kr - kb, kb])
    red, blue = np.array([1.0, 0, 0]), np.array([0, 0, 1.0])
    forward = np.stack([luma, (blue - luma) / (2 * (1 - kb)), (red - luma) / (2 * (1 - kr))])
    black, luma_steps, chroma_steps = (16, 219, 224) if limits == "limited" else (0, 255, 255)
    signals = np.stack(
        [
            (np.float64(y) - black) / luma_steps,
            (np.float64(cb) - 128) / chroma_steps,
            (np.float64(cr) - 128) / chroma_steps,
        ]
    )
    rgb = np.tensordot(np.linalg.inv(forward), signals, 1)
    return np.moveaxis(np.clip(rgb * 255, 0, 255), 0, -1)


def assert_rounded(got: Pixels, exact: np.ndarray[Any, np.dtype[np.float64]]) -> None:
    assert got.shape == exact.shape
    assert np.abs(got - exact).max() <= 0.5 + TOLERANCES["yuv_rounding"]


def convert(program: ImageProgram, body: bytes, width: int, height: int, **fields: Any) -> Pixels:
    head, answer = program.ask("frame", body, **{"width": width, "height": height, "stride": 0, **fields})
    return np.frombuffer(answer, np.uint8).reshape(head["height"], head["width"], 3)


@pytest.mark.parametrize("matrix", MATRICES)
@pytest.mark.parametrize("limits", RANGES)
def test_every_luma_with_a_third_of_the_chromas(program: ImageProgram, matrix: str, limits: str) -> None:
    chroma = np.arange(0, 256, 3)
    cb, cr = (plane.reshape(-1, 1) for plane in np.meshgrid(chroma, chroma))
    pixels = np.empty((len(cb), 256, 2), np.uint8)
    pixels[:, :, 0] = np.arange(256)
    pixels[:, 0::2, 1], pixels[:, 1::2, 1] = cb, cr
    fields = {"format": YUYV, "matrix": MATRICES.index(matrix), "range": RANGES.index(limits)}
    got = convert(program, pixels.tobytes(), 256, len(cb), **fields)
    y, cb, cr = np.broadcast_arrays(np.arange(256), cb, cr)
    assert_rounded(got, oracle(y, cb, cr, matrix, limits))


def test_known_colours(program: ImageProgram) -> None:
    """Black, white and the primaries of a limited-range BT.601 colour bar, as its tables print them."""
    bars = {(16, 128, 128): (0, 0, 0), (235, 128, 128): (255, 255, 255), (81, 90, 240): (255, 0, 0)}
    bars |= {(145, 54, 34): (0, 255, 0), (41, 240, 110): (0, 0, 255)}
    for (y, cb, cr), expected in bars.items():
        got = convert(program, bytes([y, cb, y, cr]), 2, 1, format=YUYV)
        assert np.abs(got[0].astype(int) - expected).max() <= 1


def planes(width: int, height: int, seed: int) -> tuple[Pixels, Pixels]:
    rng = np.random.default_rng(seed)
    luma = rng.integers(0, 256, (height, width), dtype=np.uint8)
    return luma, rng.integers(0, 256, ((height + 1) // 2, (width + 1) // 2, 2), dtype=np.uint8)


def nv12_oracle(luma: Pixels, chroma: Pixels, matrix: str = "bt601", limits: str = "limited") -> Any:
    spread = chroma.repeat(2, axis=0).repeat(2, axis=1)[: luma.shape[0], : luma.shape[1]]
    return oracle(luma, spread[..., 0], spread[..., 1], matrix, limits)


def padded(rows: Pixels, stride: int) -> bytes:
    """Rows `stride` bytes apart, the space between them filled with what must not be read."""
    out = np.full((len(rows), stride), 255, np.uint8)
    flat = rows.reshape(len(rows), -1)
    out[:, : flat.shape[1]] = flat
    return out.tobytes()


@pytest.mark.parametrize(("width", "height"), [(2, 2), (1, 1), (7, 5), (8, 6), (33, 2), (2, 33)])
def test_nv12_layouts(program: ImageProgram, width: int, height: int) -> None:
    luma, chroma = planes(width, height, width)
    expected = nv12_oracle(luma, chroma)
    packed = luma.tobytes() + chroma.tobytes()
    assert_rounded(convert(program, packed, width, height, format=NV12), expected)
    stride = width + 5 + width % 2
    apart = padded(luma, stride) + padded(chroma, stride)
    assert_rounded(convert(program, apart, width, height, format=NV12, stride=stride), expected)
    gap, chroma_stride = 11, stride + 9
    elsewhere = padded(luma, stride) + b"\xff" * gap + padded(chroma, chroma_stride)
    fields = {"stride": stride, "chroma": stride * height + gap, "chroma_stride": chroma_stride}
    assert_rounded(convert(program, elsewhere, width, height, format=NV12, **fields), expected)


@pytest.mark.parametrize("width", [1, 2, 7, 8])
def test_yuyv_layouts(program: ImageProgram, width: int) -> None:
    rng = np.random.default_rng(width)
    pairs = rng.integers(0, 256, (3, (width + 1) // 2, 4), dtype=np.uint8)
    luma = pairs[..., [0, 2]].reshape(3, -1)[:, :width]
    cb, cr = (pairs[..., i].repeat(2, axis=1)[:, :width] for i in (1, 3))
    for matrix, limits in itertools.product(MATRICES, RANGES):
        fields = {"format": YUYV, "matrix": MATRICES.index(matrix), "range": RANGES.index(limits)}
        expected = oracle(luma, cb, cr, matrix, limits)
        assert_rounded(convert(program, pairs.tobytes(), width, 3, **fields), expected)
        stride = pairs[0].size + 3
        assert_rounded(convert(program, padded(pairs, stride), width, 3, stride=stride, **fields), expected)


BODY_BYTES = {BGR8: 3, RGBA8: 4, GRAY8: 1, YUYV: 2}


def spec(resize: dict[str, Any], *, pad: bool = False, crop: list[int] | None = None) -> dict[str, Any]:
    return {
        "kind": "square",
        "pad_square": {"color": [12, 200, 77]} if pad else None,
        "resize": {"resample": "bicubic", **resize},
        "center_crop_px": crop,
        "rescale": 1 / 255,
        "mean": [0, 0, 0],
        "std": [1, 1, 1],
        "folded": False,
    }


SPECS = [
    spec({"mode": "exact", "size_px": [24, 24]}),
    spec({"mode": "exact", "size_px": [3, 70]}),  # the vertical pass comes first
    spec({"mode": "exact", "size_px": [90, 90], "resample": "lanczos"}),
    spec({"mode": "exact", "size_px": [66, 50]}),  # one axis, or none, is not resized
    spec({"mode": "shortest_edge", "size_px": [20]}, crop=[14, 14]),
    spec({"mode": "shortest_edge", "size_px": [20]}, pad=True),
    spec({"mode": "shortest_edge", "size_px": [10]}, crop=[40, 40]),  # only zeros around a small picture
]


@pytest.mark.parametrize("fmt", [BGR8, RGBA8, GRAY8, NV12, YUYV])
@pytest.mark.parametrize(("width", "height"), [(50, 66), (50, 300), (300, 50), (2, 2)])
def test_resize_reads_every_format_as_its_rgb(program: ImageProgram, fmt: int, width: int, height: int) -> None:
    size = width * height * 3 // 2 if fmt == NV12 else width * height * BODY_BYTES[fmt]
    body = np.random.default_rng(fmt).integers(0, 256, size, dtype=np.uint8).tobytes()
    rgb = convert(program, body, width, height, format=fmt)
    for manifest in SPECS:
        expected, _ = program.preprocess(rgb, manifest)
        np.testing.assert_array_equal(convert(program, body, width, height, format=fmt, spec=manifest), expected)


def peak_bytes(process: int) -> int:
    status = pathlib.Path(f"/proc/{process}/status").read_text()
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert found is not None
    return int(found[1]) * 1024


@pytest.mark.parametrize("size_px", [[336, 336], [60, 6000]])
def test_a_frame_is_not_copied_whole(native_program: Callable[[str], pathlib.Path], size_px: list[int]) -> None:
    """A 36 MB frame would be 108 MB as RGB."""
    edge = 6000
    running = ImageProgram(native_program("image_cli"))
    body = bytes(edge * edge)
    manifest = spec({"mode": "exact", "size_px": size_px})
    convert(running, body, edge, edge, format=GRAY8, spec=spec({"mode": "exact", "size_px": [1, 1]}, crop=[1, 1]))
    before = peak_bytes(running.process.pid)
    convert(running, body, edge, edge, format=GRAY8, spec=manifest)
    assert peak_bytes(running.process.pid) - before < 40e6
    running.close()


def frames_of(seed: int) -> dict[str, tuple[edgeprune.Frame, Pixels]]:
    """Frame and the RGB picture it should be read as."""
    rgb = picture(seed, 30, 20)
    luma, chroma = planes(30, 20, seed)
    nv12 = np.concatenate([luma, chroma.reshape(10, 30)])
    yuyv = np.random.default_rng(seed).integers(0, 256, (20, 30, 2), dtype=np.uint8)
    cb, cr = (yuyv[:, i::2, 1].repeat(2, axis=1) for i in (0, 1))
    wide = np.zeros((20, 50, 3), np.uint8)
    wide[:, 7:37] = rgb
    flat_chroma = chroma.reshape(10, 30)

    def rounded(exact: Any) -> Pixels:
        return np.floor(exact + 0.5).astype(np.uint8)

    hd = rounded(nv12_oracle(luma, chroma, "bt709", "full"))
    return {
        "bgr": (edgeprune.Frame(np.ascontiguousarray(rgb[..., ::-1]), "bgr"), rgb),
        "slice": (edgeprune.Frame(wide[:, 7:37]), rgb),
        "every other row": (edgeprune.Frame(rgb.repeat(2, axis=0)[::2]), rgb),
        "nv12": (edgeprune.Frame(nv12, "nv12"), rounded(nv12_oracle(luma, chroma))),
        "two planes": (edgeprune.Frame(luma, "nv12", chroma=flat_chroma, matrix="bt709", range="full"), hd),
        "yuyv": (edgeprune.Frame(yuyv, "yuyv"), rounded(oracle(yuyv[..., 0], cb, cr, "bt601", "limited"))),
    }


@pytest.mark.parametrize("name", frames_of(0))
def test_python_frames(model: Model, session: Session, name: str) -> None:
    frame, rgb = frames_of(3)[name]
    np.testing.assert_array_equal(model.preprocess(frame), model.preprocess(rgb))
    images = [session.add_image(picture, keep=0.5) for picture in (frame, rgb)]
    np.testing.assert_array_equal(*(session.image_embeds(image) for image in images))


def zeros(*shape: int) -> Pixels:
    return np.zeros(shape, np.uint8)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"data": zeros(4, 4, 3), "format": "yuv"}, "format is one of rgb, bgr"),
        ({"data": zeros(4, 4, 3), "format": "nv12"}, "2 dimensions"),
        ({"data": zeros(4, 4), "format": "nv12"}, "both planes"),
        ({"data": zeros(6, 3), "format": "nv12"}, "both planes"),
        ({"data": zeros(4, 4), "format": "nv12", "chroma": zeros(4, 2)}, r"has the shape \(2, 4\)"),
        ({"data": zeros(4, 4, 3), "chroma": zeros(2, 4)}, "has no chroma plane"),
        ({"data": zeros(4, 4, 4), "format": "bgr"}, r"\(H,W,3\), not \(4, 4, 4\)"),
        ({"data": zeros(4, 3, 2), "format": "yuyv"}, "even number of columns"),
        ({"data": zeros(4, 4, 3)[:, ::2]}, "ascontiguousarray"),
        ({"data": zeros(4, 4, 3)[::-1]}, "ascontiguousarray"),
        ({"data": np.zeros((4, 4, 3))}, "uint8"),
        ({"data": zeros(6, 4), "format": "nv12", "matrix": "bt2020"}, "matrix is one of bt601, bt709"),
        ({"data": zeros(6, 4), "format": "nv12", "range": "tv"}, "range is one of limited, full"),
    ],
)
def test_bad_python_frames(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        edgeprune.Frame(**arguments)
