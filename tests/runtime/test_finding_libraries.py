"""Which onnxruntime and which libedgeprune are found, and what is said where none is."""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess
import sys
from collections.abc import Callable

import pytest

from edgeprune.errors import DependencyError
from edgeprune.runtime import library
from edgeprune.runtime.session import Model
from tests.runtime.conftest import BundleWriter
from tests.runtime.test_opening import set_path

FAKE = """
static const char *version(void) { return "%s"; }
static const void *api(unsigned v) { (void)v; return 0; }
static const struct { const void *(*api)(unsigned); const char *(*version)(void); } base = {api, version};
const void *OrtGetApiBase(void) { return &base; }
"""


@pytest.fixture
def fake_library(tmp_path: pathlib.Path) -> Callable[[str], pathlib.Path]:
    """Compiles a library that claims to be onnxruntime of a version."""

    def build(version: str) -> pathlib.Path:
        source, library = tmp_path / "fake.c", tmp_path / f"libonnxruntime.so.{version}"
        source.write_text(FAKE % version)
        subprocess.run(["cc", "-shared", "-fPIC", source, "-o", library], check=True)
        return library

    return build


def test_an_old_or_broken_onnxruntime(
    hand_bundle: pathlib.Path, fake_library: Callable[[str], pathlib.Path], tmp_path: pathlib.Path
) -> None:
    cases = [
        (fake_library("1.16.3"), "version 1.16.3 is older than 1.17"),
        (fake_library("1.99.0"), "does not offer its interface 17"),
        (fake_library("nonsense"), "is not a version number"),
        (tmp_path / "missing.so", "cannot open shared object file"),
        (library.load().path, "it has no OrtGetApiBase"),
    ]
    for path, reason in cases:
        with pytest.raises(DependencyError) as caught:
            Model.open(hand_bundle, onnxruntime_library=path)
        text = str(caught.value)
        assert f"tried {path} (option onnxruntime_library: " in text
        assert reason in text
        assert "edgeprune[cpu]" in text
        assert "edgeprune[gpu]" in text


def test_the_bundle_states_the_least_onnxruntime(write_bundle: BundleWriter) -> None:
    path = write_bundle(change=lambda manifest: set_path(manifest, "min_onnxruntime", "1.99"))
    with pytest.raises(DependencyError, match=r"is older than 1\.99"):
        Model.open(path)


def run_python(code: str, **env: str) -> str:
    """Runs code in a new interpreter that has the library but no environment of its own."""
    here = pathlib.Path(__file__).resolve().parents[2]
    base = {"PYTHONPATH": str(here), "EDGEPRUNE_LIB": str(library.load().path), "PATH": os.environ["PATH"]}
    done = subprocess.run([sys.executable, "-c", code], env=base | env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


BLOCK_WHEEL = "import importlib.util; importlib.util.find_spec = lambda name: None\n"
OPEN = "from edgeprune.runtime.session import load\nprint(load({!r}).describe()['onnxruntime']['library'])\n"


def test_where_onnxruntime_is_looked_for(hand_bundle: pathlib.Path, tmp_path: pathlib.Path) -> None:
    wheel = library.wheel_onnxruntime()
    assert wheel is not None
    opening = OPEN.format(str(hand_bundle))
    assert run_python(opening).strip() == str(wheel)
    named = tmp_path / "libnamed.so"
    shutil.copy(wheel, named)
    assert run_python(opening, EDGEPRUNE_ORT_LIB=str(named)).strip() == str(named)
    (tmp_path / "libonnxruntime.so.1").symlink_to(wheel)
    on_path = run_python(BLOCK_WHEEL + opening, LD_LIBRARY_PATH=str(tmp_path)).strip()
    assert on_path == str(tmp_path / "libonnxruntime.so.1")


def test_without_any_onnxruntime_every_place_is_named(hand_bundle: pathlib.Path) -> None:
    code = BLOCK_WHEEL + (
        "from edgeprune.errors import DependencyError\nfrom edgeprune.runtime.session import load\n"
        f"try: load({str(hand_bundle)!r})\nexcept DependencyError as error: print(error)\n"
    )
    text = run_python(code)
    for place in (
        "libonnxruntime.so.1",
        "libonnxruntime.so (",
        "EDGEPRUNE_ORT_LIB",
        "edgeprune[cpu]",
        "edgeprune[gpu]",
    ):
        assert place in text
    assert "/nowhere/libonnxruntime.so" in run_python(code, EDGEPRUNE_ORT_LIB="/nowhere/libonnxruntime.so")


def test_the_onnxruntime_package_is_not_imported(hand_bundle: pathlib.Path) -> None:
    heavy = ("onnxruntime", "torch", "onnx", "PIL", "transformers")
    code = f"import sys\n{OPEN.format(str(hand_bundle))}print([m for m in {heavy!r} if m in sys.modules])\n"
    assert run_python(code).splitlines()[-1] == "[]"


def test_a_missing_libedgeprune_names_the_places(tmp_path: pathlib.Path) -> None:
    code = (
        "from edgeprune.errors import DependencyError\nfrom edgeprune.runtime import library\n"
        "try: library.load()\nexcept DependencyError as error: print(error)\n"
    )
    missing = tmp_path / "libedgeprune.so"
    text = run_python(code, EDGEPRUNE_LIB=str(missing))
    assert f"tried {missing} (not there)" in text
    assert "EDGEPRUNE_LIB" in text
    missing.write_bytes(b"\x7fELF")
    assert "is no usable libedgeprune" in run_python(code, EDGEPRUNE_LIB=str(missing))
