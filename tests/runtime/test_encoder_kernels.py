"""The kernels of the library's own attention of an encoder, alone and on threads."""

from __future__ import annotations

import pathlib
import subprocess
from collections.abc import Callable


def test_every_form_gives_the_sums_of_doubles(native_program: Callable[[str], pathlib.Path]) -> None:
    done = subprocess.run([native_program("encoder_cli")], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    assert "portable, bfloat16: 577 x 577 x 64" in done.stdout
