"""The kernel of the library's own product with weights in 4 bits, alone and on threads."""

from __future__ import annotations

import pathlib
import subprocess
from collections.abc import Callable


def test_every_set_of_instructions_gives_the_sums_of_doubles(native_program: Callable[[str], pathlib.Path]) -> None:
    done = subprocess.run([native_program("product_cli")], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
