"""tests/runtime/native/session_stress.cpp on the hand-made bundle: 8 threads with 8 sessions each on one model."""

from __future__ import annotations

import os
import pathlib
import subprocess
from collections.abc import Callable

import pytest

from edgeprune.runtime import library

SUPPRESSIONS = pathlib.Path(__file__).resolve().parent / "sanitizers" / "tsan.supp"


@pytest.mark.parametrize("graph_threads", [1, 2])
def test_threads_give_the_answers_of_one_thread(
    graph_threads: int, hand_bundle: pathlib.Path, native_program: Callable[[str], pathlib.Path]
) -> None:
    program, onnxruntime = native_program("session_stress"), library.wheel_onnxruntime()
    command = [str(program), str(hand_bundle), str(onnxruntime), "8", "8", str(graph_threads)]
    # Only a program built with ThreadSanitizer (make sanitize) reads this.
    hidden = {"TSAN_OPTIONS": f"suppressions={SUPPRESSIONS}"} if graph_threads > 1 else {}
    env = {**os.environ, **hidden}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout == f"{8 * 8 * 2 + 11}\n"
    assert done.stderr == ""
