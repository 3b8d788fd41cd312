"""tests/runtime/native/session_stress.cpp on the hand-made bundle: 8 threads with 8 sessions each on one model."""

from __future__ import annotations

import pathlib
import subprocess
from collections.abc import Callable

from edgeprune.runtime import library


def test_threads_give_the_answers_of_one_thread(
    hand_bundle: pathlib.Path, native_program: Callable[[str], pathlib.Path]
) -> None:
    command = [str(native_program("session_stress")), str(hand_bundle), str(library.wheel_onnxruntime()), "8", "8"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout == f"{8 * 8 * 2 + 11}\n"
    assert done.stderr == ""
