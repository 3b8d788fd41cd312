"""The KV cache alone: shortening it happens where it lies, and never under the hands of a copy."""

from __future__ import annotations

import pathlib
import subprocess
from collections.abc import Callable

from edgeprune.runtime import library


def test_shortening_stays_in_place(native_program: Callable[[str], pathlib.Path]) -> None:
    command = [native_program("kv_cache_cli"), str(library.wheel_onnxruntime())]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "held\n", "")
