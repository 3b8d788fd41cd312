"""The wheel as a user gets it: built, installed into an empty environment, run without torch and transformers."""

from __future__ import annotations

import pathlib
import subprocess
import sys
import zipfile

import pytest

REPO = pathlib.Path(__file__).resolve().parent.parent

pytestmark = pytest.mark.slow


def call(*command: str | pathlib.Path, cwd: pathlib.Path) -> str:
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, check=False, cwd=cwd)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    out = tmp_path_factory.mktemp("wheel")
    call(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", out, REPO, cwd=out)
    return next(out.glob("edgeprune-*.whl"))


def test_wheel_holds_the_library_and_no_bare_stage(wheel: pathlib.Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert "edgeprune/lib/libedgeprune.so" in names
    assert "edgeprune/include/edgeprune.h" in names
    assert "edgeprune/runtime/session.py" in names
    assert not [n for n in names if n.split("/")[0] in {"export", "engines", "runtime"}]


def test_installed_wheel_answers(wheel: pathlib.Path, tiny_bundle: pathlib.Path, tmp_path: pathlib.Path) -> None:
    call(sys.executable, "-m", "venv", tmp_path / "venv", cwd=tmp_path)
    python = tmp_path / "venv" / "bin" / "python"
    constraints = REPO / "requirements" / "constraints.txt"
    call(python, "-m", "pip", "install", "-q", "-c", constraints, f"{wheel}[cpu]", cwd=tmp_path)
    picture = next((REPO / "tests" / "data" / "scenes").glob("*.png"))
    run = tmp_path / "venv" / "bin" / "edgeprune"
    text = call(
        "env",
        "-u",
        "EDGEPRUNE_LIB",
        run,
        "run",
        tiny_bundle,
        "--image",
        picture,
        "--prompt",
        "hello",
        "--json",
        cwd=tmp_path,
    )
    assert '"applied": true' in text
    missing = subprocess.run([python, "-c", "import torch"], capture_output=True, check=False)
    assert missing.returncode != 0
