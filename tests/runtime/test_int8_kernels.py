"""The kernels of the library's own int8 product, alone and on threads."""

from __future__ import annotations

import pathlib
import subprocess
from collections.abc import Callable


def test_every_form_gives_the_sums_of_doubles(native_program: Callable[[str], pathlib.Path]) -> None:
    done = subprocess.run([native_program("int8_cli")], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    assert "portable: 25 x 1024 x 130" in done.stdout


def test_tiles_of_amx_are_used_as_described(native_program: Callable[[str], pathlib.Path]) -> None:
    done = subprocess.run([native_program("int8_amx_cli")], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
