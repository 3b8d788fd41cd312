"""A variant of engines where nothing can run it: one sentence that says what is missing, and nothing else breaks."""

from __future__ import annotations

import pathlib
import subprocess

import pytest

from edgeprune.errors import DependencyError
from edgeprune.runtime import library
from tests.cli.bad_images import write_picture
from tests.cli.command import assert_user_error, edgeprune, environment
from tests.runtime import engine_pair, tiny_graphs
from tests.runtime.conftest import BundleWriter
from tests.runtime.native_build import REPO, cmake_tool
from tests.runtime.test_opening import UNSUPPORTED, native_open, refused, with_variant

RTX, TENSORRT = ("tensorrt_rtx", "1.7.1.116"), ("tensorrt", "10.3.0.26")
OPEN = 'extern "C" void* edgeprune_engine_open(void*) { return nullptr; }'
BUILD = 'extern "C" const char* edgeprune_engine_build() { return "edgeprune 9.9.9, engine interface 1"; }'


def with_engines(path: pathlib.Path, built_with: tuple[str, str] = RTX) -> pathlib.Path:
    engine_pair.write_engines(path, built_with=built_with)
    return path


def sentence(path: pathlib.Path) -> str:
    with pytest.raises(DependencyError) as caught:
        native_open(path, variant=engine_pair.SLUG.encode())
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_no_back_end(write_bundle: BundleWriter, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = with_engines(write_bundle())
    missing = tmp_path / "nowhere" / "libedgeprune_tensorrt.so"
    monkeypatch.setenv("EDGEPRUNE_TENSORRT_BACKEND", str(missing))
    text = sentence(path)
    assert text.startswith('variant "doubles" holds TensorRT-RTX engines, and the back end that runs them, ')
    assert f"{missing}: cannot open shared object file" in text
    assert "build edgeprune where NvInfer.h is found (libnvinfer-dev of JetPack, or -DEDGEPRUNE_TENSORRT_INC" in text
    assert "pip install edgeprune[cpu]" not in text, "onnxruntime is not what is missing"
    assert "holds TensorRT engines" in sentence(with_engines(path, TENSORRT))
    native_open(path)


def test_every_place_is_named(write_bundle: BundleWriter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EDGEPRUNE_TENSORRT_BACKEND", raising=False)
    beside = library.load().path.resolve().parent / "libedgeprune_tensorrt.so"
    if beside.exists():
        pytest.skip("this build has the back end")
    text = sentence(with_engines(write_bundle()))
    assert f"({beside}: cannot open" in text
    assert "; libedgeprune_tensorrt.so: cannot open" in text, "the loader's own places"


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("int nothing;", "it is no back end of edgeprune"),
        (f"{OPEN}\n{BUILD}", "it is of edgeprune 9.9.9, engine interface 1, this library of edgeprune 0.1.0, engine"),
    ],
)
def test_another_library_is_not_called(
    source: str, words: str, write_bundle: BundleWriter, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "libedgeprune_tensorrt.so"
    subprocess.run(["c++", "-shared", "-fPIC", "-x", "c++", "-", "-o", path], input=source, text=True, check=True)
    monkeypatch.setenv("EDGEPRUNE_TENSORRT_BACKEND", str(path))
    assert f"({path}: {words}" in sentence(with_engines(write_bundle()))


def test_configuring_says_whether_it_is_built(tmp_path: pathlib.Path) -> None:
    """A folder that is named is the only one, so the same is said on machines that have the headers."""
    command = [cmake_tool("cmake"), "-S", REPO, "-B", tmp_path / "build", f"-DEDGEPRUNE_TENSORRT_INCLUDE={tmp_path}"]
    automatic = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "TensorRT back end: not built, NvInferRuntime.h was not found: install libnvinfer-dev (JetPack)" in automatic
    wanted = subprocess.run([*command, "-DEDGEPRUNE_TENSORRT=ON"], capture_output=True, text=True, check=False)
    assert wanted.returncode == 1
    assert "TensorRT back end: NvInferRuntime.h was not found" in wanted.stderr


def test_a_cache_that_engines_do_not_have(write_bundle: BundleWriter) -> None:
    words = {"vision": "fp16", "decoder": "fp16"}
    path = write_bundle(tiny_graphs.Options(cache="fixed"))
    with_variant(path, target="tensorrt:orin-nano", precision=words, graphs=None)
    refused(path, UNSUPPORTED, 'does not know a "fixed" KV cache of engines', variant=b"cpu-int8")


def test_the_command_says_it_too(write_bundle: BundleWriter, tmp_path: pathlib.Path) -> None:
    """From the command line the variant's files and fingerprint are compared first, then the back end is looked for."""
    root = with_engines(write_bundle(), TENSORRT)
    env = environment(EDGEPRUNE_TENSORRT_BACKEND=str(tmp_path / "none.so"))
    image = write_picture(tmp_path / "picture.png")
    done = edgeprune("run", root, "--variant", engine_pair.SLUG, "--image", image, "--prompt", "x", env=env)
    assert_user_error(done, "holds TensorRT engines", "none.so: cannot open shared object file", "libnvinfer-dev")
