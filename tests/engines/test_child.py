"""Functions in a process of their own, and builds whose process really dies: one sentence, and the bundle as it was."""

from __future__ import annotations

import errno
import importlib.util
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time
from typing import Any, NoReturn

import numpy as np
import pytest

from benchmarks import engine_builds
from edgeprune.bundle import Bundle
from edgeprune.engines import child, engine_variant, targets, tensorrt
from edgeprune.errors import CheckFailed, UserError
from tests.cli.command import assert_user_error, edgeprune, environment, start, tree

has_rtx = importlib.util.find_spec("tensorrt_rtx") is not None
needs_rtx = pytest.mark.skipif(not has_rtx, reason="tensorrt_rtx is not installed (make test installs it)")
TARGET, PRECISION = "tensorrt-rtx:sm86", {"vision": "fp32", "decoder": "fp32"}
ASK = ("--target", TARGET, "--precision", "fp32")


def where(*numbers: int, name: str) -> tuple[int, int, str]:
    return os.getpid(), sum(numbers), name


def stop(number: int, words: str = "") -> NoReturn:
    os.write(2, words.encode())
    os.kill(os.getpid(), number)
    time.sleep(60)
    raise AssertionError("still alive")


def leave(code: int) -> NoReturn:
    os._exit(code)


def fail(error: Exception) -> NoReturn:
    raise error


def fail_stubbornly() -> NoReturn:
    raise Stubborn(1, 2)


def fail_of_a_full_disk() -> NoReturn:
    try:
        raise OSError(errno.ENOSPC, "No space left on device", "decoder.engine")
    except OSError as error:
        raise ValueError("cannot be saved") from error


class Stubborn(Exception):
    """Cannot be made again from its message."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__(f"{one} and {two}")


def crash_while_it_writes(graph: pathlib.Path, profiles: list[Any], engine: pathlib.Path, **how: Any) -> float:
    """A builder that dies where a real one would, half of its engine written."""
    assert graph.is_file()
    engine.write_bytes(b"half")
    stop(signal.SIGSEGV, "the last words\n")


def test_another_process_does_it() -> None:
    pid, total, name = child.call(where, 1, 2, name="x")
    assert (total, name) == (3, "x")
    assert pid != os.getpid()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGABRT, signal.SIGKILL])
def test_a_crash_is_named_with_the_last_words(number: signal.Signals) -> None:
    with pytest.raises(child.Crashed, match=f"^{number.name}: terminate called$") as found:
        child.call(stop, number, "first\nterminate called\n")
    assert (found.value.signal, found.value.words) == (number.name, "terminate called")


def test_leaving_without_an_answer_is_a_crash() -> None:
    with pytest.raises(child.Crashed, match=r"^exit code 3$") as found:
        child.call(leave, 3)
    assert found.value.signal == ""
    with pytest.raises(child.Crashed, match=r"^exit code 0$"):
        child.call(leave, 0)


@pytest.mark.parametrize("error", [UserError("say so"), CheckFailed("too far"), MemoryError()])
def test_errors_come_back_as_they_are(error: Exception) -> None:
    with pytest.raises(type(error)) as found:
        child.call(fail, error)
    assert str(found.value) == str(error)


def test_a_bug_shows_where_it_was() -> None:
    with pytest.raises(ZeroDivisionError) as found:
        child.call(divmod, 1, 0)
    assert "in _answer" in str(found.value.__cause__)
    with pytest.raises(RuntimeError, match="1 and 2"):
        child.call(fail_stubbornly)


def test_a_full_disk_is_told_as_such() -> None:
    with pytest.raises(OSError, match="No space left") as found:
        child.call(fail_of_a_full_disk)
    assert (found.value.errno, found.value.filename) == (errno.ENOSPC, "decoder.engine")


def test_what_a_library_writes_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert child.call(os.write, 2, b"a warning\n") == 10
    assert capsys.readouterr().err == "a warning\n"


@pytest.fixture
def bundle(tiny_bundle: pathlib.Path, tmp_path: pathlib.Path) -> pathlib.Path:
    return shutil.copytree(tiny_bundle, tmp_path / "tiny.bundle")


@needs_rtx
def test_a_crash_of_the_builder_leaves_the_variant_before(
    bundle: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = targets.find(TARGET)
    slug, built = engine_variant.build(Bundle.open(bundle), target, PRECISION)
    before = tree(bundle)
    with monkeypatch.context() as patch:
        patch.setattr(tensorrt, "write_engine", crash_while_it_writes)
        with pytest.raises(UserError) as found:
            engine_variant.build(Bundle.open(bundle), target, PRECISION, rebuild=True)
    version = tensorrt.versions("tensorrt_rtx")["tensorrt_rtx"]
    said = (
        f"tensorrt_rtx {version} crashed (SIGSEGV: the last words) while it built vision-fastervlm.engine; the bundle "
        "is as it was before: build it with another --precision for vision than fp32, "
    )
    assert str(found.value).startswith(said)
    now = tree(bundle)
    files = {name for name in before if (bundle / name).is_file()}
    assert ({name for name in now if (bundle / name).is_file()}, built) == (files, True)
    assert {name: now[name] for name in files} == {name: before[name] for name in files}
    Bundle.open(bundle).variant(slug)
    assert engine_variant.build(Bundle.open(bundle), target, PRECISION, rebuild=True) == (slug, True)


def the_builder(building: subprocess.Popen[str]) -> int:
    """Process id of the child that a running command builds an engine in."""
    while True:
        assert building.poll() is None, building.communicate()
        for pid in engine_builds.descendants(building.pid):
            if b"edgeprune.engines" in pathlib.Path(f"/proc/{pid}/cmdline").read_bytes():
                return pid
        time.sleep(0.005)


def ended(pid: int) -> bool:
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def wait_for_the_end(pid: int) -> None:
    deadline = time.monotonic() + 20
    while not ended(pid):
        assert time.monotonic() < deadline, "the builder outlives its command"
        time.sleep(0.01)


@needs_rtx
@pytest.mark.parametrize(
    ("number", "remedy"), [(signal.SIGSEGV, "another --precision for"), (signal.SIGKILL, "memory")]
)
def test_a_dying_builder_is_one_sentence(bundle: pathlib.Path, number: signal.Signals, remedy: str) -> None:
    before = (bundle / "manifest.json").read_bytes()
    with start("build", bundle, *ASK) as building:
        os.kill(the_builder(building), number)
        out, err = building.communicate(timeout=120)
    done = subprocess.CompletedProcess([], building.returncode, out, err)
    assert_user_error(done, f"crashed ({number.name}) while it built vision-fastervlm.engine", remedy)
    assert (bundle / "manifest.json").read_bytes() == before
    assert not list((bundle / "variants").glob("*/*/*"))
    done = edgeprune("build", bundle, *ASK)
    assert (done.returncode, done.stderr) == (0, ""), "the next build is not held up"


@needs_rtx
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_the_builder_ends_with_its_command(bundle: pathlib.Path, number: signal.Signals) -> None:
    with start("build", bundle, *ASK) as building:
        pid = the_builder(building)
        building.send_signal(number)
        _, err = building.communicate(timeout=120)
    wait_for_the_end(pid)
    if number == signal.SIGINT:
        assert (building.returncode, err) == (130, "edgeprune: interrupted\n")
        assert not list((bundle / "variants").glob("*/*/*"))
    done = edgeprune("build", bundle, *ASK)
    assert (done.returncode, done.stderr) == (0, ""), "the next build is not held up"


def fill(mib: int) -> int:
    """Touches that much memory in a process of its own, while this one waits with as much."""
    mine = np.ones(mib << 20, np.uint8)
    return int(mine[0]) + child.call(hold, mib)


def hold(mib: int) -> int:
    """Long enough to be looked at."""
    filled = np.ones(mib << 20, np.uint8)
    time.sleep(1)
    return int(filled[-1])


def peak_mib(filled: int) -> int:
    code = f"from tests.engines import test_child; raise SystemExit(test_child.fill({filled}) + 3)"
    process = subprocess.Popen([sys.executable, "-c", code], env=environment())
    peak, process.returncode = engine_builds.waited(process.pid)
    assert process.returncode == 5
    return peak >> 20


def test_the_peak_of_a_build_is_that_of_all_its_processes() -> None:
    """Two processes with 300 MiB each at the same time, whatever else they hold."""
    assert 500 < peak_mib(300) - peak_mib(1) < 700
