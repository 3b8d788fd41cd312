"""Every allocation of the library fails once: the status says so, nothing leaks, and the session goes on."""

from __future__ import annotations

import pathlib
import subprocess
from collections.abc import Callable

import pytest

from edgeprune.runtime.library import wheel_onnxruntime
from tests.cli.bad_images import write_picture

OUT_OF_MEMORY = 11


@pytest.mark.parametrize("failing", ["once", "on"])
@pytest.mark.parametrize("what", ["open", "ask"])
def test_every_allocation_may_fail(
    what: str,
    failing: str,
    native_program: Callable[[str], pathlib.Path],
    hand_bundle: pathlib.Path,
    tmp_path: pathlib.Path,
) -> None:
    """open: describing, opening and warming up. ask: a session made, pictures from memory and from a PNG, sampling,
    scoring, truncation, removal. once: one allocation fails; on: it and all that follow.

    Only allocations by operator new in the library are failed, not those inside onnxruntime and libpng.
    """
    picture = write_picture(tmp_path / "picture.png")
    runtime = wheel_onnxruntime()
    if runtime is None:
        pytest.skip("no onnxruntime package is installed")
    command = [native_program("allocations_cli"), what, failing, hand_bundle, runtime, picture]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert int(done.stdout) > 1000


def test_onnxruntimes_lack_of_memory_has_its_status(native_program: Callable[[str], pathlib.Path]) -> None:
    runtime = wheel_onnxruntime()
    if runtime is None:
        pytest.skip("no onnxruntime package is installed")
    done = subprocess.run([native_program("big_tensor_cli"), runtime], capture_output=True, text=True, check=True)
    status, text = done.stdout.split(" ", 1)
    assert (int(status), text.startswith("onnxruntime: ")) == (OUT_OF_MEMORY, True), text
