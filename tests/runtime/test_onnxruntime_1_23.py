"""The runtime tests on the oldest onnxruntime that the package allows."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys

import pytest

from tests.runtime.native_build import REPO
from tests.runtime.onnxruntime_wheel import OLDEST, download

pytestmark = pytest.mark.slow

FILES = ("answers", "endings", "interface", "abi", "wrapper", "robot_loop", "camera_loop", "frames")
VERSION = "import sys, edgeprune; print(edgeprune.load(sys.argv[1]).describe()['onnxruntime']['version'])"


@pytest.fixture(scope="module")
def oldest(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment that makes everything open it."""
    path = download(OLDEST, tmp_path_factory.mktemp("onnxruntime"))
    return {**os.environ, "EDGEPRUNE_ORT_LIB": str(path)}


def test_it_is_what_the_library_opens(oldest: dict[str, str], hand_bundle: pathlib.Path) -> None:
    command = [sys.executable, "-c", VERSION, str(hand_bundle)]
    done = subprocess.run(command, env=oldest, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == OLDEST


def test_runtime_tests(oldest: dict[str, str]) -> None:
    files = [f"tests/runtime/test_{name}.py" for name in FILES]
    command = [sys.executable, "-m", "pytest", "-q", "-m", "not slow", "-p", "no:cacheprovider", *files]
    done = subprocess.run(command, cwd=REPO, env=oldest, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-5000:]
    assert " skipped" not in done.stdout
