"""examples/cpp/camera_loop.cpp: answers, deadline, abort and errors, on the hand-made and on the exported bundle."""

from __future__ import annotations

import pathlib
import re
import time

import numpy as np
import pytest

from edgeprune.runtime.session import Model
from tests.runtime import tiny_graphs
from tests.runtime.conftest import BundleWriter, Pixels
from tests.runtime.native_build import REPO, compile_program, run_program

QUESTION = "Where is it?"
LINE = re.compile(r"^frame (\d+): (\w+): (\d+) tokens: (.*)$", re.MULTILINE)


@pytest.fixture(scope="module")
def camera_loop(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("camera")
    return compile_program(REPO / "examples" / "cpp" / "camera_loop.cpp", folder, "-pthread")


def painted(number: int) -> Pixels:
    """Frame `number` of the simulated camera as RGB."""
    y, x = np.mgrid[:240, :320]
    left = number * 7 % 260
    square = (y > 90) & (y < 150) & (x >= left) & (x < left + 60)
    red, blue = np.where(square, 220, 20), np.where(square, 30, 90 + y // 3)
    return np.stack([red, np.full_like(red, 40), blue], axis=-1).astype(np.uint8)


def check_answers(program: pathlib.Path, bundle: pathlib.Path) -> None:
    code, out, errors = run_program(program, bundle, QUESTION, 0.5, 3)
    assert (code, errors) == (0, "")
    numbers = []
    with Model.open(bundle) as model:
        for frame, finish, tokens, _ in LINE.findall(out):
            expected = model.ask(painted(int(frame)), QUESTION, keep=0.5, max_new_tokens=48)
            assert (finish, int(tokens)) == (expected.finish_reason, len(expected.token_ids))
            assert f"tokens: {expected.text}\n" in out
            numbers.append(int(frame))
    assert len(numbers) == 3
    assert numbers == sorted(set(numbers))


def test_answers_of_the_hand_made_bundle(camera_loop: pathlib.Path, hand_bundle: pathlib.Path) -> None:
    check_answers(camera_loop, hand_bundle)


def test_answers_of_the_exported_bundle(camera_loop: pathlib.Path, tiny_bundle: pathlib.Path) -> None:
    check_answers(camera_loop, tiny_bundle)


def test_deadline_cuts_the_answer_short(camera_loop: pathlib.Path, write_bundle: BundleWriter) -> None:
    bundle = write_bundle(tiny_graphs.Options(slow={"decoder": 20_000}))
    code, out, errors = run_program(camera_loop, bundle, QUESTION, 0, 2, 1)
    assert (code, errors) == (0, "")
    assert [finish for _, finish, _, _ in LINE.findall(out)] == ["deadline"] * 2


def test_obstacle_aborts(camera_loop: pathlib.Path, write_bundle: BundleWriter) -> None:
    """1,000 answers of a slow decoder would take minutes; the obstacle ends them."""
    bundle = write_bundle(tiny_graphs.Options(slow={"decoder": 20_000}))
    start = time.monotonic()
    code, out, errors = run_program(camera_loop, bundle, QUESTION, 0, 1000, 0, 300)
    assert (code, errors) == (0, "")
    assert time.monotonic() - start < 60
    assert out.endswith("obstacle: motors stopped\n")
    assert len(LINE.findall(out)) < 1000


def test_errors_are_sentences(camera_loop: pathlib.Path, hand_bundle: pathlib.Path, tmp_path: pathlib.Path) -> None:
    assert run_program(camera_loop)[0] == 2
    code, _, errors = run_program(camera_loop, tmp_path / "none", QUESTION)
    assert (code, errors.startswith("camera_loop: EP_ERROR_IO: no bundle at")) == (1, True)
    code, _, errors = run_program(camera_loop, hand_bundle, QUESTION, 7)
    assert (code, errors.startswith("camera_loop: EP_ERROR_INVALID_ARGUMENT: keep is 7")) == (1, True)
