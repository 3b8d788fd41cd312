"""tests/runtime/native/variant_cli.cpp with a variant of engines: opened, asked and freed several times. Under `make
sanitize` by AddressSanitizer, which also looks for leaks; no Python holds the library here."""

from __future__ import annotations

import importlib.util
import pathlib
import subprocess
from collections.abc import Callable

import pytest

from edgeprune.bundle import Bundle
from edgeprune.engines import engine_variant, targets
from edgeprune.runtime import library
from tests.runtime import engine_pair, tensorrt_build, tiny_graphs

ROUNDS = 3


def lines(program: pathlib.Path, root: pathlib.Path, slug: str, env: dict[str, str]) -> list[str]:
    command = [program, root, library.wheel_onnxruntime() or "", slug, "Where is it?", str(ROUNDS)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def test_doubles(tmp_path: pathlib.Path, native_program: Callable[[str], pathlib.Path]) -> None:
    tensorrt_build.backend()
    root = tiny_graphs.write_bundle(tmp_path / "hand.bundle", tiny_graphs.Options(half=True))
    engine_pair.write_engines(root)
    env = tensorrt_build.environment(tmp_path, tensorrt_build.compile_doubles(tmp_path))
    told = lines(native_program("variant_cli"), root, engine_pair.SLUG, env)
    assert len(told[0]) > 40
    assert told == [told[0]] * ROUNDS


@pytest.mark.skipif(importlib.util.find_spec("tensorrt_rtx") is None, reason="tensorrt_rtx is not installed")
def test_the_real_library(tmp_path: pathlib.Path, native_program: Callable[[str], pathlib.Path]) -> None:
    tensorrt_build.backend()
    root = tiny_graphs.write_bundle(tmp_path / "hand.bundle")
    words = {"vision": "fp32", "decoder": "fp32"}
    slug, _ = engine_variant.build(Bundle.open(root), targets.find("tensorrt-rtx:sm86"), words)
    spec = importlib.util.find_spec("tensorrt_rtx_libs")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    real = pathlib.Path(next(iter(spec.submodule_search_locations))) / "libtensorrt_rtx.so.1"
    told = lines(native_program("variant_cli"), root, slug, tensorrt_build.environment(tmp_path, real))
    if pathlib.Path("/dev/nvidia0").exists():
        pytest.skip("there is a GPU: what is refused without one is not refused here")
    status, sentence = told
    if status == "6":
        assert "cudaError 35" in sentence
    else:
        assert (status, "was built with the headers of TensorRT 10." in sentence) == ("5", True)
