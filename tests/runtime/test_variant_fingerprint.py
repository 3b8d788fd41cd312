"""A variant that does not fit is refused by the C library in the words of Python, before any of it is read."""

from __future__ import annotations

import importlib.util
import os
import pathlib
import subprocess
import sys
from typing import Any

import pytest

from edgeprune import devices
from edgeprune.bundle import Bundle
from edgeprune.errors import BundleError
from tests.ground.sample import write_bundle
from tests.ground.test_fingerprint import GRAPH, edit, write_variant

MODULE = "tensorrt_rtx"
INSTALLED = "1.7.1.116"
#: opens with the C library alone and prints the status and the sentence; a process of its own, for the loader's path.
OPEN = """
import sys
from edgeprune.errors import NativeError
from tests.runtime.test_opening import native_open
try:
    native_open(sys.argv[1], variant=b"built")
except NativeError as error:
    print(error.status, error, sep="\\n", end="")
"""
CUDA = """
int cuInit(unsigned flags) { (void)flags; return 0; }
int cuDeviceGet(int* device, int index) { *device = index; return 0; }
int cuDeviceGetAttribute(int* value, int attribute, int device) {
    (void)device;
    *value = attribute == 75 ? 8 : attribute == 76 ? 9 : -1;
    return attribute == 75 || attribute == 76 ? 0 : 1;
}
"""
TENSORRT = """
int getInferLibMajorVersion(void) { return 1; }
int getInferLibMinorVersion(void) { return 7; }
int getInferLibPatchVersion(void) { return 1; }
int getInferLibBuildVersion(void) { return 116; }
"""


@pytest.fixture
def machine(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """A folder for the loader's path: a driver with one GPU of compute capability 8.9, and TensorRT-RTX 1.7.1.116.
    Python is told the same by nvidia-smi and by the installed package."""
    folder = tmp_path / "machine"
    folder.mkdir()
    for name, source in (("libcuda.so.1", CUDA), ("libtensorrt_rtx.so.1", TENSORRT)):
        command = ["cc", "-shared", "-fPIC", "-x", "c", "-", "-o", folder / name]
        subprocess.run(command, input=source, text=True, check=True)
    (folder / "nvidia-smi").write_text("#!/bin/sh\necho 'Some GPU, 560.35, 8.9'\n")
    (folder / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=":")
    monkeypatch.setattr("edgeprune.fingerprint.library_version", {MODULE: INSTALLED}.get)
    return folder


@pytest.fixture
def root(tmp_path: pathlib.Path) -> pathlib.Path:
    return write_bundle(tmp_path / "it's a bundle").resolve()


def engines(root: pathlib.Path, **changes: Any) -> dict[str, Any]:
    """A build.json of two engines that fit the machine above, except for `changes` of their fingerprints."""
    print_ = {
        "module": MODULE, "versions": {MODULE: INSTALLED}, "compute_capabilities": ["8.6", "8.9"],
        **dict.fromkeys(devices.FACTS), "graph_sha256": {GRAPH: Bundle.open(root).manifest.files[GRAPH].sha256},
        **changes,
    }  # fmt: skip
    return {"engines": [{"file": "decoder.engine", "fingerprint": print_}] * 2}


def by_c(root: pathlib.Path, loader_path: pathlib.Path | str = "") -> tuple[int, str]:
    """Status and sentence of the C library; (0, "") when it opens."""
    env = {**os.environ, "LD_LIBRARY_PATH": str(loader_path)}
    repo = pathlib.Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-c", OPEN, root], env=env, cwd=repo, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    status, _, text = done.stdout.partition("\n")
    return int(status or 0), text


def by_python(root: pathlib.Path) -> str:
    with pytest.raises(BundleError) as refused:
        Bundle.open(root).variant("built", to_run=True)
    return str(refused.value)


OTHER = {
    "graph": ({"graph_sha256": {GRAPH: "ab" * 32}}, f"sha256 of {GRAPH} was abababababab... when"),
    "graph that is gone": ({"graph_sha256": {"onnx/x.onnx": "ab" * 32}}, "and is missing here"),
    "version": (
        {"versions": {MODULE: "1.0.0.9"}}, f"{MODULE} was 1.0.0.9 when it was built and is {INSTALLED} here",
    ),
    "capability": ({"compute_capabilities": ["7.5", "8.6"]}, "capability was 7.5, 8.6 when it was built and is 8.9"),
    "its own GPU": (
        {"compute_capabilities": [], "gpu": "Some GPU", "compute_capability": "8.7"}, "capability was 8.7 when it",
    ),
    "everything": (
        {
            "graph_sha256": {"onnx/y": "1" * 64, GRAPH: "2" * 64, "onnx/a": "3" * 64},
            "versions": {MODULE: "2.0.0.0"}, "compute_capabilities": ["12.0"],
        },
        "; compute capability was 12.0",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("changes", "words"), OTHER.values(), ids=OTHER)
def test_c_and_python_say_the_same(
    root: pathlib.Path, machine: pathlib.Path, changes: dict[str, Any], words: str
) -> None:
    write_variant(root, engines(root, **changes))
    status, text = by_c(root, machine)
    assert (status, text) == (3, by_python(root))
    assert words in text
    assert "run `edgeprune build " in text
    assert text.endswith(" --precision fp16 --rebuild`.")


def test_precisions_of_their_own_and_the_quoted_path(root: pathlib.Path, machine: pathlib.Path) -> None:
    write_variant(root, engines(root, graph_sha256={GRAPH: "0" * 64}), {"vision": "int8", "decoder": "fp16"})
    status, text = by_c(root, machine)
    assert (status, text) == (3, by_python(root))
    assert "--precision vision=int8,decoder=fp16 --rebuild" in text
    assert "it'\"'\"'s a bundle' --target" in text


@pytest.mark.parametrize("asked", [{"kv_cache": "fp32"}, {"kv_cache": "auto"}, {}, None, ["kv_cache"], "kv_cache"])
@pytest.mark.parametrize("differs", [True, False], ids=["another graph", "says nothing else"])
def test_what_was_asked_for_is_asked_for_again(root: pathlib.Path, asked: object, differs: bool) -> None:
    graphs = [{"graph_sha256": {GRAPH: "0" * 64}}] if differs else 1
    words = {"vision": "fp32", "decoder": "int8"}
    write_variant(root, {"graphs": graphs, "asked": asked}, words, target="cpu")
    status, text = by_c(root)
    assert (status, text) == (3, by_python(root))
    option = " --kv-cache fp32" if asked == {"kv_cache": "fp32"} else ""
    assert text.endswith(f" --target cpu --precision vision=fp32,decoder=int8{option} --rebuild`.")


@pytest.mark.parametrize("build", ["", "{", "[]", '{"engines": [{}]}', '{"graphs": [{"file": "x"}]}', '{"engines": 1}'])
def test_a_build_json_that_says_nothing(root: pathlib.Path, build: str) -> None:
    write_variant(root, build)
    status, text = by_c(root)
    assert (status, text) == (3, by_python(root))
    assert "does not say how the variant was built" in text


def test_what_fits_or_is_not_known_is_no_difference(root: pathlib.Path, machine: pathlib.Path) -> None:
    """One that fits gets as far as its engines; so does one whose library and GPU this machine does not have."""
    write_variant(root, engines(root))
    assert "does not fit" not in by_c(root, machine)[1]
    unknown = engines(root, module="no-such", versions={"no-such": "1"}, compute_capabilities=["1.0"])
    write_variant(root, unknown, target="tensorrt-rtx:sm10")
    status, text = by_c(root)
    assert status != 0
    assert "does not fit" not in text


@pytest.mark.parametrize("sealed", [True, False], ids=["hashed again", "as edited"])
@pytest.mark.parametrize(("changes", "words"), [
    ({"compute_capabilities": ["12.0"]}, "capability was 12.0 when it was built and is 8.6, 8.9 in the manifest's"),
    ({"compute_capabilities": ["8.9", "8.6", "12.1"]}, "capability was 8.9, 8.6, 12.1 when it was built and is 8.6, "),
    ({"versions": {MODULE: "1.6.0.1"}}, f"{MODULE} was 1.6.0.1 when it was built and is {INSTALLED} here"),
])  # fmt: skip
def test_an_edited_fingerprint_without_a_gpu(
    root: pathlib.Path, machine: pathlib.Path, changes: dict[str, Any], words: str, sealed: bool
) -> None:
    """The library is there, a driver is not: both openings name both sides, whether or not the hash was made anew."""
    for name in ("libcuda.so.1", "nvidia-smi"):
        (machine / name).unlink()
    path = write_variant(root, engines(root))
    assert "does not fit" not in by_c(root, machine)[1]
    edit(root, path, changes, sealed=sealed)
    status, text = by_c(root, machine)
    assert (status, text) == (3, by_python(root))
    assert words in text
    assert text.endswith("--target tensorrt-rtx:sm86,sm89 --precision fp16 --rebuild`.")


def test_a_package_that_names_fewer_numbers(root: pathlib.Path, machine: pathlib.Path) -> None:
    write_variant(root, engines(root, versions={MODULE: "1.7.1"}))
    assert "does not fit" not in by_c(root, machine)[1]
    write_variant(root, engines(root, versions={MODULE: "1.7.2"}))
    assert f"{MODULE} was 1.7.2 when it was built and is 1.7.1 here" in by_c(root, machine)[1]


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec(MODULE) is None, reason="tensorrt_rtx is not installed")
def test_the_real_library_says_its_version(root: pathlib.Path) -> None:
    import tensorrt_rtx

    folder = pathlib.Path(tensorrt_rtx.__file__).parent.parent / "tensorrt_rtx_libs"
    write_variant(root, engines(root, versions={MODULE: "1.0.0.9"}))
    assert f"1.0.0.9 when it was built and is {tensorrt_rtx.__version__} here" in by_c(root, folder)[1]
