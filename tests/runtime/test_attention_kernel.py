"""The kernel of the library's own attention, alone and on threads."""

from __future__ import annotations

import pathlib
import subprocess
from collections.abc import Callable


def test_tasks_on_threads_give_the_sums_of_doubles(native_program: Callable[[str], pathlib.Path]) -> None:
    """With all instructions that are chosen at run time, with less and without."""
    done = subprocess.run([native_program("attention_cli")], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
