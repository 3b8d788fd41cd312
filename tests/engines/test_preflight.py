"""A build that cannot fit is refused with its numbers before it starts."""

from __future__ import annotations

import pathlib

import pytest

from edgeprune import machine
from edgeprune.bundle import Bundle
from edgeprune.engines import preflight
from edgeprune.errors import UserError
from tests.ground.sample import FILES, write_bundle

BOTH = {"vision": "int8", "decoder": "int8"}


@pytest.fixture
def bundle(tmp_path: pathlib.Path) -> Bundle:
    return Bundle.open(write_bundle(tmp_path / "sample.bundle"))


def test_the_largest_chosen_graph_decides(bundle: Bundle) -> None:
    vision = len(FILES["onnx/vision-fastervlm.onnx"]) + len(FILES["onnx/vision.data"])
    decoder = len(FILES["onnx/decoder.onnx"])
    assert preflight.needs(bundle, BOTH) == preflight.Needs((300 << 20) + 5 * vision, 2 * (vision + decoder))
    one = preflight.needs(bundle, {"vision": "fp32", "decoder": "int8"})
    assert one == preflight.Needs((300 << 20) + 5 * decoder, 2 * decoder)


def test_too_little_memory_is_refused_with_the_numbers(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "memory_bytes", lambda: (1 << 30, 200 << 20))
    with pytest.raises(UserError, match=r"about 300 MiB of memory and 200 MiB are free.*--force"):
        preflight.require(bundle, BOTH)
    monkeypatch.setattr(machine, "memory_bytes", lambda: (1 << 30, 400 << 20))
    preflight.require(bundle, BOTH)


def test_too_little_disk_is_refused(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "DISK_FACTOR", 1e15)
    with pytest.raises(UserError, match="MiB of disk"):
        preflight.require(bundle, BOTH)
