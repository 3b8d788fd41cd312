"""A build that cannot fit is refused with its numbers before it starts."""

from __future__ import annotations

import dataclasses
import pathlib
import subprocess
import sys

import pytest

from edgeprune import machine
from edgeprune.bundle import Bundle
from edgeprune.engines import preflight, targets
from edgeprune.errors import UserError
from tests.cli.command import assert_user_error, environment, tree
from tests.ground.sample import FILES, write_bundle

BOTH = {"vision": "int8", "decoder": "int8"}


@pytest.fixture
def bundle(tmp_path: pathlib.Path) -> Bundle:
    return Bundle.open(write_bundle(tmp_path / "sample.bundle"))


def test_the_largest_chosen_graph_decides(bundle: Bundle) -> None:
    vision = len(FILES["onnx/vision-fastervlm.onnx"]) + len(FILES["onnx/vision.data"])
    decoder = len(FILES["onnx/decoder.onnx"])
    assert preflight.needs(bundle, BOTH) == preflight.Needs((300 << 20) + 2 * vision, 2 * (vision + decoder))
    whole = preflight.needs(bundle, {"vision": "fp32", "decoder": "fp16"})
    assert whole.memory == (300 << 20) + 5 * decoder, "held whole while it becomes fp16"
    one = preflight.needs(bundle, {"vision": "fp32", "decoder": "int8"})
    assert one == preflight.Needs((300 << 20) + 2 * decoder, 2 * decoder)


def test_too_little_memory_is_refused_with_the_numbers(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "memory_bytes", lambda: (1 << 30, 200 << 20))
    with pytest.raises(UserError, match=r"about 300 MiB of memory and 200 MiB are free.*--force"):
        preflight.require(bundle, preflight.needs(bundle, BOTH))
    monkeypatch.setattr(machine, "memory_bytes", lambda: (1 << 30, 400 << 20))
    preflight.require(bundle, preflight.needs(bundle, BOTH))


def test_too_little_disk_is_refused(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "DISK_FACTOR", 1e15)
    with pytest.raises(UserError, match="MiB of disk"):
        preflight.require(bundle, preflight.needs(bundle, BOTH))


def test_engines_are_estimated_and_refused_by_the_command(tiny_bundle: pathlib.Path) -> None:
    bundle, target = Bundle.open(tiny_bundle), targets.find("tensorrt-rtx:sm86")
    plain = preflight.engine_needs(bundle, dict.fromkeys(BOTH, "fp32"), target)
    half = preflight.engine_needs(bundle, dict.fromkeys(BOTH, "fp16"), target)
    both = preflight.engine_needs(bundle, dict.fromkeys(BOTH, "fp32"), targets.find("tensorrt-rtx:sm86,sm89"))
    assert plain.memory > preflight.ENGINE_BASE_BYTES
    assert half.memory > plain.memory, "the fp32 graph is held as well"
    assert both.disk - plain.disk == preflight.ENGINE_BYTES * (len(list(bundle.manifest.graphs)) - 1)
    manifest = dataclasses.replace(bundle.manifest, recipe={**bundle.manifest.recipe, "dtype": "fp16"})
    same = Bundle(bundle.path, manifest)
    formed, taken = (
        preflight.engine_needs(same, dict.fromkeys(BOTH, "fp16"), targets.find(name)).memory
        for name in ("tensorrt-rtx:sm86", "tensorrt:orin-nano")
    )
    ratio = (formed - preflight.ENGINE_BASE_BYTES) / (taken - preflight.ENGINE_BASE_BYTES)
    assert ratio == pytest.approx(8.5 / 4.5, rel=1e-4), (
        "a graph that is formed is run in fp32, one taken as it is is not"
    )
    before = tree(tiny_bundle)
    asked = "import edgeprune.machine as m; m.memory_bytes = lambda: (1 << 30, 1 << 29);"
    call = "from edgeprune.cli.main import entry; entry()"
    words = ["build", tiny_bundle, "--target", "tensorrt-rtx:sm86", "--precision", "fp32"]
    done = subprocess.run([sys.executable, "-c", asked + call, *map(str, words)], env=environment(), cwd="/", text=True,
                          capture_output=True, check=False)  # fmt: skip
    assert_user_error(done, "MiB of memory and 512 MiB are free", "--force")
    assert tree(tiny_bundle) == before
