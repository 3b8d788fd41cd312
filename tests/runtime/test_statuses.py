"""Every status of the header is provoked, each by its own causes, and comes with one sentence."""

from __future__ import annotations

import ctypes
import os
import pathlib
import re
import resource
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from edgeprune.runtime import _abi, library
from edgeprune.runtime.answers import initialised
from edgeprune.runtime.session import Model
from tests.runtime import tiny_graphs
from tests.runtime.conftest import picture
from tests.runtime.native_build import INCLUDE, REPO, environment
from tests.runtime.test_opening import rehash, set_path

STATUSES = {
    name: int(value)
    for name, value in re.findall(r"^    EP_ERROR_(\w+) = (\d+)", (INCLUDE / "edgeprune.h").read_text(), re.MULTILINE)
}


@dataclass
class Place:
    """Where a cause is set up: a folder of its own, the open model, and the library's calls."""

    folder: pathlib.Path
    model: Model
    calls: ctypes.CDLL

    def bundle(self, options: tiny_graphs.Options | None = None, **named: Any) -> pathlib.Path:
        return tiny_graphs.write_bundle(self.folder / "cause.bundle", options, **named)

    def open(self, path: pathlib.Path, **options: Any) -> int:
        options.setdefault("onnxruntime_library", os.fsencode(library.wheel_onnxruntime() or ""))
        out = ctypes.c_void_p()
        given = initialised(_abi.ModelOptions, **options)
        status: int = self.calls.ep_model_open(os.fsencode(path), ctypes.byref(given), ctypes.byref(out))
        self.calls.ep_model_free(out)
        return status

    def ask(self, model: Model, meanwhile: Callable[[Any], Any] | None = None, **options: Any) -> int:
        """Status of one question; `meanwhile` gets the session a moment later, on another thread."""
        with model.new_session() as session:
            timer = threading.Timer(0.15, lambda: meanwhile and meanwhile(session))
            timer.start()
            given = initialised(_abi.GenerateOptions, prompt=b"Where is it?", **options)
            status: int = self.calls.ep_session_generate(session._handle.address, ctypes.byref(given), None)
            timer.join()
            return status

    def frame(self, data: Any, width_px: int, height_px: int) -> int:
        with self.model.new_session() as session:
            frame = initialised(_abi.Frame, data=data, width_px=width_px, height_px=height_px)
            image = ctypes.c_int32()
            address = session._handle.address
            return int(self.calls.ep_session_add_image(address, ctypes.byref(frame), None, ctypes.byref(image)))

    def picture_file(self, path: pathlib.Path) -> int:
        with self.model.new_session() as session:
            image = ctypes.c_int32()
            path_bytes = os.fsencode(path)
            address = session._handle.address
            return int(self.calls.ep_session_add_image_file(address, path_bytes, None, ctypes.byref(image)))


def a_file_that_leads_nowhere(place: Place) -> int:
    path = place.bundle()
    decoder = path / "onnx" / "decoder.onnx"
    decoder.unlink()
    decoder.symlink_to(decoder.name)
    return place.open(path)


def a_truncated_file(place: Place) -> int:
    path = place.bundle()
    os.truncate(path / "onnx" / "decoder.onnx", 100)
    return place.open(path)


def a_truncated_file_with_verify_sizes(place: Place) -> int:
    path = place.bundle()
    os.truncate(path / "onnx" / "decoder.onnx", 100)
    return place.open(path, verify=_abi.VERIFY_SIZES)


def a_missing_file(place: Place) -> int:
    path = place.bundle()
    (path / "onnx" / "embedding.onnx").unlink()
    return place.open(path)


def a_graph_that_is_none(place: Place) -> int:
    path = place.bundle()
    (path / "onnx" / "decoder.onnx").write_bytes(b"no graph")
    rehash(path)
    return place.open(path)


def a_picture_that_is_none(place: Place) -> int:
    (place.folder / "text.png").write_text("a text")
    return place.picture_file(place.folder / "text.png")


def another_min_onnxruntime(place: Place, version: str) -> int:
    return place.open(place.bundle(change=lambda manifest: set_path(manifest, "min_onnxruntime", version)))


def a_question_to(place: Place, **named: Any) -> int:
    """To a model whose decoder takes seconds."""
    with Model.open(place.bundle(tiny_graphs.Options(slow={"decoder": 10_000_000}))) as model:
        return place.ask(model, **named)


def a_busy_session(place: Place) -> int:
    statuses = []

    def disturb(session: Any) -> None:
        statuses.append(place.calls.ep_session_truncate(session._handle.address, 0))
        texts.append(place.calls.ep_last_error().decode())
        session.abort()

    texts: list[str] = []
    assert a_question_to(place, meanwhile=disturb) == STATUSES["ABORTED"]
    assert "in use" in texts[0]
    return int(statuses[0])


CAUSES: dict[str, tuple[str, Callable[[Place], int]]] = {
    "an unknown image": ("INVALID_ARGUMENT", lambda p: p.ask(p.model, images=(ctypes.c_int32 * 1)(7), image_count=1)),
    "a variant that is not there": ("INVALID_ARGUMENT", lambda p: p.open(p.bundle(), variant=b"cpu-int8")),
    "a frame without data": ("INVALID_ARGUMENT", lambda p: p.frame(None, 4, 4)),
    "no bundle": ("IO", lambda p: p.open(p.folder / "nothing")),
    "no picture": ("IO", lambda p: p.picture_file(p.folder / "nothing.png")),
    "a file that leads nowhere": ("IO", a_file_that_leads_nowhere),
    "a truncated file": ("BUNDLE", a_truncated_file),
    "a truncated file, sizes only": ("BUNDLE", a_truncated_file_with_verify_sizes),
    "a missing file": ("BUNDLE", a_missing_file),
    "a version that is none": ("BUNDLE", lambda p: another_min_onnxruntime(p, "new")),
    "other positions": (
        "UNSUPPORTED",
        lambda p: p.open(p.bundle(change=lambda manifest: set_path(manifest, "positions", "mrope"))),
    ),
    "no onnxruntime": ("RUNTIME_MISSING", lambda p: p.open(p.bundle(), onnxruntime_library=b"/none/libonnxruntime.so")),
    "an older onnxruntime": ("RUNTIME_MISSING", lambda p: another_min_onnxruntime(p, "1.99")),
    "a graph that is none": ("BACKEND", a_graph_that_is_none),
    "a frame without pixels": ("IMAGE", lambda p: p.frame(picture(1).ctypes.data, 0, 4)),
    "a file that is no picture": ("IMAGE", a_picture_that_is_none),
    "too many tokens": ("CONTEXT_FULL", lambda p: p.ask(p.model, max_new_tokens=513)),
    "abort": ("ABORTED", lambda p: a_question_to(p, meanwhile=lambda session: session.abort())),
    "deadline": ("DEADLINE", lambda p: a_question_to(p, deadline_ms=100.0)),
    "a memory limit": ("OUT_OF_MEMORY", lambda p: p.open(p.bundle(), memory_limit_bytes=1000)),
    "two threads": ("BUSY", a_busy_session),
    "a provider that is not there": ("PROVIDER", lambda p: p.open(p.bundle(), provider=b"cuda")),
}
#: whose causes need a process of their own; the tests below.
ELSEWHERE = {"INTERNAL"}


def test_every_status_has_a_cause() -> None:
    assert {status for status, _ in CAUSES.values()} | ELSEWHERE == set(STATUSES)


@pytest.mark.parametrize("cause", CAUSES)
def test_a_cause_has_its_status(cause: str, model: Model, tmp_path: pathlib.Path) -> None:
    name, provoke = CAUSES[cause]
    calls = library.load().calls
    assert provoke(Place(tmp_path, model, calls)) == STATUSES[name], calls.ep_last_error()
    if cause != "two threads":  # its text belongs to the other thread
        text = calls.ep_last_error().decode()
        assert text
        assert "\n" not in text
    assert model.ask(None, "Where is it?", max_new_tokens=3, ignore_eos=True).token_ids  # the model serves on


def test_exceptions_that_nobody_should_throw(
    native_program: Callable[[str], pathlib.Path], hand_bundle: pathlib.Path
) -> None:
    """A bug's, one that is no std::exception, and one of the caller's own callback; the session serves on."""
    runtime = str(library.wheel_onnxruntime())
    command = [native_program("guarded_cli"), hand_bundle, runtime]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    bug = STATUSES["INTERNAL"]
    lines = [f"{bug} a bug", f"{bug} an exception of an unknown kind", f"{bug} from the callback", "0"]
    assert done.stdout.splitlines() == lines


NO_THREAD = """
import ctypes, pathlib, resource, sys
from edgeprune.runtime import _abi, library
from edgeprune.runtime.answers import initialised
from edgeprune.runtime.session import Model
model = Model.open(sys.argv[1], threads=1)
session, calls = model.new_session(), library.load().calls
def ask(**options):
    given = initialised(_abi.GenerateOptions, prompt=b"Where is it?", max_new_tokens=2, **options)
    return calls.ep_session_generate(session._handle.address, ctypes.byref(given), None)
assert ask() == 0
pages = int(pathlib.Path("/proc/self/statm").read_text().split()[0])
resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + (256 << 20),) * 2)
print(ask(deadline_ms=1000.0), calls.ep_last_error().decode())
print(ask())
"""


def test_a_deadline_without_a_thread_for_it(hand_bundle: pathlib.Path) -> None:
    """Threads have stacks of 1 GiB here, and the process may grow by 256 MiB: enough for everything else."""
    _, hard = resource.getrlimit(resource.RLIMIT_STACK)
    if hard not in (resource.RLIM_INFINITY,) and hard < 1 << 30:
        pytest.skip("the limit of stacks cannot be raised to 1 GiB here")
    code = f"ulimit -s {1 << 20} && exec {sys.executable} -c '{NO_THREAD}' {hand_bundle}"
    env = environment(PYTHONPATH=str(REPO), EDGEPRUNE_LIB=str(library.load().path))
    done = subprocess.run(["sh", "-c", code], env=env, capture_output=True, text=True, check=True)
    refused, served = done.stdout.splitlines()
    assert refused.startswith(f"{STATUSES['OUT_OF_MEMORY']} no thread could be started for the deadline: ")
    assert served == "0"


def test_a_bundle_may_be_replaced_while_it_is_open(hand_bundle: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """By renaming or deleting it, as export and build do; methods that were not used before then say what is gone."""
    path = shutil.copytree(hand_bundle, tmp_path / "open.bundle")
    with Model.open(path) as model:
        before = model.ask(picture(2), "Where is it?", max_new_tokens=6, ignore_eos=True)
        path.rename(tmp_path / "old.bundle")
        shutil.rmtree(tmp_path / "old.bundle")
        after = model.ask(picture(2), "Where is it?", max_new_tokens=6, ignore_eos=True)
        assert after.token_ids == before.token_ids
        began = time.monotonic()
        with model.new_session() as session, pytest.raises(Exception, match="is missing; export the bundle again"):
            session.add_image(picture(2), method="four")
        assert time.monotonic() - began < 5
