"""Engines in the native back end: with the real TensorRT-RTX as far as it goes without a GPU, and with test doubles of
driver and TensorRT that show which numbers go where. No test here has a GPU."""

from __future__ import annotations

import importlib.util
import json
import os
import pathlib
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from edgeprune.bundle import Bundle
from edgeprune.engines import engine_variant, targets
from tests.conftest import native_dir
from tests.runtime import engine_pair, tensorrt_build, tiny_graphs
from tests.runtime.native_build import REPO
from tests.runtime.tensorrt_build import environment

needs_rtx = pytest.mark.skipif(
    importlib.util.find_spec("tensorrt_rtx") is None, reason="tensorrt_rtx is not installed (make test installs it)"
)
OPEN = """
import sys
from edgeprune.errors import EdgepruneError
from edgeprune.runtime.session import Model
try:
    with Model.open(sys.argv[1], variant=sys.argv[2], verify="sizes") as model:
        with model.new_session() as session:
            session.generate(sys.argv[3], max_new_tokens=int(sys.argv[4]))
except EdgepruneError as error:
    print(type(error).__name__, error, sep="\\n", end="")
"""


def child(env: dict[str, str], *arguments: object) -> str:
    """Standard output of Python in a process of its own: the loader reads its path when a process starts."""
    command = [sys.executable, *map(str, arguments)]
    done = subprocess.run(command, env=env, cwd=REPO, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def doubles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment in which libcuda.so.1 and TensorRT's library are the doubles."""
    tensorrt_build.backend()
    folder = tmp_path_factory.mktemp("doubles")
    return environment(folder, tensorrt_build.compile_doubles(folder))


def talked(root: pathlib.Path, env: dict[str, str]) -> dict[str, Any]:
    found = json.loads(child(env, "-m", "tests.runtime.engine_pair", root))
    assert isinstance(found, dict)
    return found


def test_it_links_neither_tensorrt_nor_cuda() -> None:
    path = tensorrt_build.backend()
    dynamic = subprocess.run(["readelf", "-d", path], capture_output=True, text=True, check=True).stdout
    needed = {line.split("[")[1].split(".so")[0] for line in dynamic.splitlines() if "(NEEDED)" in line}
    assert needed <= {"libc", "libm", "libstdc++", "libgcc_s", "ld-linux-x86-64", "ld-linux-aarch64"}
    symbols = subprocess.run(["nm", "-D", "--defined-only", path], capture_output=True, text=True, check=True).stdout
    own = {line.split()[-1] for line in symbols.splitlines() if " T " in line}
    assert own == {"edgeprune_engine_build", "edgeprune_engine_open"}


@pytest.mark.parametrize("half", [False, True], ids=["fp32", "fp16 embeddings and cache"])
def test_the_same_numbers_come_out(half: bool, tmp_path: pathlib.Path, doubles: dict[str, str]) -> None:
    """The same graphs by onnxruntime, once directly, once behind the back end: equal to the last bit."""
    root = tiny_graphs.write_bundle(tmp_path / "hand.bundle", tiny_graphs.Options(half=half))
    engine_pair.write_engines(root)
    found = talked(root, doubles)
    assert found["engines"] == found["own"]
    module, version = tensorrt_build.header_version()
    name = {"tensorrt": "TensorRT", "tensorrt_rtx": "TensorRT-RTX"}[module]
    assert found["described"]["provider"] == name
    assert found["described"]["tensorrt"]["version"] == f"{name} {version}"
    assert found["described"]["tensorrt"]["library"] == doubles["EDGEPRUNE_TENSORRT_LIB"]
    assert found["after"][:2] == [0, 0], "device memory was not given back"
    # Every token of the long answers makes 2 x layers new tensors; most of them lie in memory that was there.
    made = 3 * 110 * 2 * tiny_graphs.LAYERS
    assert found["during"][3] < made / 4, f"{found['during'][3]} allocations for {made} tensors of the cache"


def test_a_real_decoder_and_a_method_that_reads_the_question(tmp_path: pathlib.Path, doubles: dict[str, str]) -> None:
    from edgeprune.export.pipeline import export
    from edgeprune.recipe import ExportRecipe

    root = export(ExportRecipe(model="tiny", prune=("cdpruner", "fastervlm"), keep=0.25), tmp_path / "tiny.bundle")
    engine_pair.write_engines(root)
    found = talked(root, doubles)
    assert found["engines"] == found["own"]


def test_a_cache_in_fp16(tmp_path: pathlib.Path, doubles: dict[str, str]) -> None:
    """`build` makes the cache fp16 in every precision but fp32, and the manifest does not say so."""
    root = tiny_graphs.write_bundle(tmp_path / "hand.bundle")
    engine_pair.write_engines(root, decoder="fp16")
    found = talked(root, doubles)
    for own, engine in zip(found["own"], found["engines"], strict=True):
        if isinstance(own, dict):
            assert engine["ids"][0] == own["ids"][0]
            np.testing.assert_allclose(engine["prefill"], own["prefill"], rtol=0, atol=0.05)
    assert found["engines"] != found["own"], "nothing was rounded"
    assert found["described"]["kv_bytes_per_token"] == 2 * 2 * 2 * 4 * 2


def test_what_no_profile_serves(tmp_path: pathlib.Path, doubles: dict[str, str]) -> None:
    """A context that was made longer after the build."""
    root = tiny_graphs.write_bundle(tmp_path / "hand.bundle", tiny_graphs.Options(context_length=64))
    engine_pair.write_engines(root)
    text = (root / "manifest.json").read_text()
    (root / "manifest.json").write_text(text.replace('"context_length": 64', '"context_length": 512'))
    name, sentence = child(doubles, "-c", OPEN, root, engine_pair.SLUG, "a" * 80, 1).split("\n")
    assert name == "NativeError"
    assert "decoder.engine: no optimization profile of the engine serves t_inputs_embeds (1, 87, 8), " in sentence
    assert "ask within the context" in sentence


def test_a_gpu_that_is_full(tmp_path: pathlib.Path, doubles: dict[str, str]) -> None:
    root = tiny_graphs.write_bundle(tmp_path / "hand.bundle")
    engine_pair.write_engines(root)
    env = {**doubles, "DOUBLE_DEVICE_BYTES": "16000"}
    name, sentence = child(env, "-c", OPEN, root, engine_pair.SLUG, "a" * 300, 1).split("\n")
    assert (name, sentence) == ("NativeError", "CUDA: cuMemAlloc failed with 2, out of memory (double)")


def test_what_is_no_engine(tmp_path: pathlib.Path, doubles: dict[str, str]) -> None:
    root = tiny_graphs.write_bundle(tmp_path / "hand.bundle")
    engine_pair.write_engines(root)
    (engine,) = root.glob("variants/*/*/decoder.engine")
    engine.write_bytes(b"x" * engine.stat().st_size)
    name, sentence = child(doubles, "-c", OPEN, root, engine_pair.SLUG, "a", 1).split("\n")
    assert name == "NativeError"
    assert sentence.startswith(f"{engine}: TensorRT")
    assert sentence.endswith("cannot read the engine: double: this is no engine")


def test_threads_give_the_answers_of_one_thread(tmp_path: pathlib.Path, doubles: dict[str, str]) -> None:
    """Sessions on threads share the engines' contexts and the memory of the device."""
    root = tiny_graphs.write_bundle(tmp_path / "hand.bundle")
    engine_pair.write_engines(root)
    found = json.loads(child(doubles, "-m", "tests.runtime.engine_pair", root, "6"))
    assert found == [found[0]] * 6


@pytest.fixture(scope="module")
def rtx(tmp_path_factory: pytest.TempPathFactory) -> tuple[pathlib.Path, str, dict[str, str]]:
    """The hand-made bundle with real engines for sm86, their variant, and the environment that names the back end."""
    tensorrt_build.backend()
    root = tiny_graphs.write_bundle(tmp_path_factory.mktemp("rtx") / "hand.bundle")
    slug, _ = engine_variant.build(
        Bundle.open(root), targets.find("tensorrt-rtx:sm86"), {"vision": "fp32", "decoder": "fp32"}
    )
    return root, slug, {**os.environ, "EDGEPRUNE_TENSORRT_BACKEND": str(native_dir() / tensorrt_build.BACKEND)}


def serves_rtx() -> bool:
    """Whether the headers describe TensorRT-RTX 1.7, the version that is installed for the tests."""
    module, version = tensorrt_build.header_version()
    return module == "tensorrt_rtx" or version.startswith("11.")


@needs_rtx
def test_real_engines_are_refused_by_the_real_library(rtx: tuple[pathlib.Path, str, dict[str, str]]) -> None:
    """The end of what can be run here: the runtime is made, it reads the engine's header, and it finds no GPU."""
    import tensorrt_rtx

    root, slug, env = rtx
    name, sentence = child(env, "-c", OPEN, root, slug, "a", 1).split("\n")
    if not serves_rtx():
        assert name == "DependencyError"
        assert "but libedgeprune_tensorrt.so was built with the headers of TensorRT 10." in sentence
        return
    assert name == "NativeError"
    assert f"decoder.engine: TensorRT-RTX {tensorrt_rtx.__version__} cannot read the engine: " in sentence
    if not pathlib.Path("/dev/nvidia0").exists():
        assert "cudaError 35: CUDA driver version is insufficient for CUDA runtime version" in sentence
        assert sentence.endswith("engines run on an NVIDIA GPU, and its driver is not here: libcuda.so.1: cannot open "
                                 "shared object file: No such file or directory")  # fmt: skip


@needs_rtx
def test_corrupted_engines_are_refused(rtx: tuple[pathlib.Path, str, dict[str, str]], tmp_path: pathlib.Path) -> None:
    if not serves_rtx():
        pytest.skip("the back end of this build is for TensorRT 10")
    root, slug, env = rtx
    (engine,) = root.glob("variants/*/*/decoder.engine")
    content = engine.read_bytes()
    try:
        engine.write_bytes(bytes(4) + content[4:])
        name, sentence = child(env, "-c", OPEN, root, slug, "a", 1).split("\n")
        assert name == "NativeError"
        assert "magicTag" in sentence
        engine.write_bytes(content[:-1])
        name, sentence = child(env, "-c", OPEN, root, slug, "a", 1).split("\n")
        assert name == "BundleError"
        assert "decoder.engine has" in sentence
    finally:
        engine.write_bytes(content)


def test_a_library_that_is_not_there(tmp_path: pathlib.Path) -> None:
    root = tiny_graphs.write_bundle(tmp_path / "hand.bundle")
    tensorrt_build.backend()
    engine_pair.write_engines(root)
    name = {"tensorrt": "libnvinfer", "tensorrt_rtx": "libtensorrt_rtx"}[tensorrt_build.header_version()[0]]
    env = environment(tmp_path, tmp_path / f"{name}_none.so")
    name, sentence = child(env, "-c", OPEN, root, engine_pair.SLUG, "a", 1).split("\n")
    assert name == "DependencyError"
    assert "the variant's engines need the library of TensorRT" in sentence
    assert "point EDGEPRUNE_TENSORRT_LIB at it" in sentence
