"""examples/c/robot_loop.c: clean C99, the same text as Python, no network, nothing written."""

from __future__ import annotations

import pathlib
import re
import signal
import subprocess
import time
from collections.abc import Callable

import pytest

from edgeprune.runtime.session import Model
from tests.runtime import tiny_graphs
from tests.runtime.conftest import BundleWriter, picture
from tests.runtime.native_build import REPO, compile_program, environment

QUESTION = "Where is it?"


@pytest.fixture(scope="module")
def robot_loop(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The program, built against the library that the tests use, with every warning an error."""
    return compile_program(REPO / "examples" / "c" / "robot_loop.c", tmp_path_factory.mktemp("robot"))


def run(program: pathlib.Path, *arguments: object, **env: str) -> subprocess.CompletedProcess[str]:
    command = [str(part) for part in (program, *arguments)]
    return subprocess.run(command, env=environment(**env), capture_output=True, text=True, check=False)


def write_ppm(path: pathlib.Path, seed: int) -> pathlib.Path:
    pixels = picture(seed)
    path.write_bytes(b"P6\n%d %d\n255\n" % (pixels.shape[1], pixels.shape[0]) + pixels.tobytes())
    return path


@pytest.mark.parametrize("keep", [0.25, 1.0])
def test_same_text_as_python(
    robot_loop: pathlib.Path, model: Model, hand_bundle: pathlib.Path, tmp_path: pathlib.Path, keep: float
) -> None:
    file = write_ppm(tmp_path / "scene.ppm", 11)
    expected = model.ask(picture(11), QUESTION, keep=keep, max_new_tokens=48)
    done = run(robot_loop, hand_bundle, QUESTION, keep, 2, file)
    assert (done.returncode, done.stderr) == (0, "")
    texts = re.findall(r"^frame \d: (.*)$", done.stdout, re.MULTILINE)
    assert texts == [expected.text] * 2
    assert len(expected.text) == 48
    kept = expected.images[0]
    figures = f"K/N {kept.kept}/16 by best" + ("" if kept.applied else f", not pruned: {kept.reason}")
    assert done.stdout.count(figures + "\n") == 2
    assert len(re.findall(r"TTFT [\d.]+ ms, TPOT [\d.]+ ms, 48 tokens", done.stdout)) == 2


def test_painted_frames_differ(robot_loop: pathlib.Path, hand_bundle: pathlib.Path) -> None:
    done = run(robot_loop, hand_bundle, QUESTION, 0, 3)
    texts = re.findall(r"^frame \d: (.*)$", done.stdout, re.MULTILINE)
    assert (done.returncode, len(texts)) == (0, 3)
    assert len(set(texts)) > 1


def test_errors_are_sentences(robot_loop: pathlib.Path, hand_bundle: pathlib.Path, tmp_path: pathlib.Path) -> None:
    assert run(robot_loop).returncode == 2
    missing = run(robot_loop, tmp_path / "none", QUESTION)
    assert missing.returncode == 1
    assert "EP_ERROR_IO: no bundle at" in missing.stderr
    assert "EP_ERROR_INVALID_ARGUMENT: keep is 7" in run(robot_loop, hand_bundle, QUESTION, 7).stderr
    nowhere = run(robot_loop, hand_bundle, QUESTION, EDGEPRUNE_ORT_LIB="/nowhere.so")
    assert "EP_ERROR_RUNTIME_MISSING" in nowhere.stderr
    assert "/nowhere.so (EDGEPRUNE_ORT_LIB: " in nowhere.stderr


def test_interrupt_ends_the_loop(robot_loop: pathlib.Path, write_bundle: BundleWriter) -> None:
    bundle = write_bundle(tiny_graphs.Options(slow={"decoder": 20_000}))
    command = [str(part) for part in (robot_loop, bundle, QUESTION, 0, 1000)]
    with subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0


SHIM = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <unistd.h>
static void tell(const char *what, const char *path) { dprintf(2, "SHIM %s %s\n", what, path); }
#define OPEN(name) \
    int name(const char *path, int flags, ...) { \
        va_list list; va_start(list, flags); const int mode = va_arg(list, int); va_end(list); \
        if (flags & (O_WRONLY | O_RDWR | O_CREAT)) tell("write", path); else tell("read", path); \
        return ((int (*)(const char *, int, ...))dlsym(RTLD_NEXT, #name))(path, flags, mode); \
    }
OPEN(open) OPEN(open64)
#define FOPEN(name) \
    FILE *name(const char *path, const char *mode) { \
        tell(strpbrk(mode, "wa+") ? "write" : "read", path); \
        return ((FILE * (*)(const char *, const char *))dlsym(RTLD_NEXT, #name))(path, mode); \
    }
FOPEN(fopen) FOPEN(fopen64)
int mkdir(const char *path, mode_t mode) { (void)mode; tell("write", path); return -1; }
int socket(int domain, int type, int protocol) {
    (void)domain; (void)type; (void)protocol;
    tell("network", "socket");
    return -1;
}
"""


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., list[list[str]]]:
    """Runs a program under a preloaded library that reports every file and socket it opens."""
    folder = tmp_path_factory.mktemp("shim")
    (folder / "shim.c").write_text(SHIM)
    built = folder / "shim.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", folder / "shim.c", "-o", built, "-ldl"], check=True)

    def observe(program: pathlib.Path, *arguments: object) -> list[list[str]]:
        done = run(program, *arguments, LD_PRELOAD=str(built))
        assert done.returncode == 0, done.stderr
        return [line.split(maxsplit=2)[1:] for line in done.stderr.splitlines() if line.startswith("SHIM ")]

    return observe


def test_no_network_and_nothing_written(
    robot_loop: pathlib.Path, hand_bundle: pathlib.Path, tmp_path: pathlib.Path, shim: Callable[..., list[list[str]]]
) -> None:
    file = write_ppm(tmp_path / "scene.ppm", 1)
    before = {p: p.stat().st_mtime_ns for p in hand_bundle.rglob("*")}
    seen = shim(robot_loop, hand_bundle, QUESTION, 0.5, 2, file)
    assert ["read", str(file)] in seen  # the shim sees what the program opens
    assert [path for what, path in seen if what == "read" and path.endswith("decoder.onnx")]
    assert [entry for entry in seen if entry[0] != "read"] == []
    assert {p: p.stat().st_mtime_ns for p in hand_bundle.rglob("*")} == before


def test_a_bundle_and_folder_that_cannot_be_written(robot_loop: pathlib.Path, write_bundle: BundleWriter) -> None:
    """Root writes anywhere, so the folders' modes alone prove little there; the shim above is the stronger test."""
    bundle = write_bundle()
    for path in (bundle, bundle / "onnx", bundle / "tokenizer"):
        path.chmod(0o555)
    try:
        assert run(robot_loop, bundle, QUESTION, 0, 1, HOME="/nonexistent", TMPDIR="/nonexistent").returncode == 0
    finally:
        for path in (bundle, bundle / "onnx", bundle / "tokenizer"):
            path.chmod(0o755)
