"""Exit codes and error lines of the command line as a whole; no bundle, no model."""

from __future__ import annotations

import json
import pathlib
import signal
import subprocess
import time

import pytest

from edgeprune import __version__
from tests.cli.command import COMMAND, REPO, assert_user_error, edgeprune, environment, start

VERBS = ("export", "run", "profile", "check", "show", "list", "doctor")


def test_version_and_help() -> None:
    assert edgeprune("--version").stdout == f"edgeprune {__version__}\n"
    done = edgeprune("--help")
    assert done.returncode == 0
    assert all(f"\n    {verb} " in done.stdout for verb in VERBS)


def test_the_version_is_that_of_the_package() -> None:
    tomllib = pytest.importorskip("tomllib")
    assert tomllib.loads((REPO / "pyproject.toml").read_text())["project"]["version"] == __version__


@pytest.mark.parametrize(
    ("argv", "part"),
    [
        ([], "VERB"),
        (["fly"], "invalid choice: 'fly'"),
        (["--fly"], "VERB"),
        (["run", "x.bundle", "--prompt", "q", "--fly"], "unrecognized arguments: --fly"),
        (["run", "x.bundle", "--prompt", "q", "--max", "3"], "unrecognized arguments: --max"),
        (["run", "x.bundle", "--prompt", "q", "--beams", "4"], "unrecognized arguments: --beams"),
        (["run", "x.bundle", "--prompt", "q", "--max-new-tokens", "0"], "whole number from 1"),
        (["run", "x.bundle", "--prompt", "q", "--max-new-tokens", "1e9"], "whole number from 1"),
        (["run", "x.bundle", "--prompt", "q", "--max-new-tokens", "99999999999"], "whole number from 1"),
        (["run", "x.bundle"], "--prompt"),
        (["run", "x.bundle", "--prompt", b"\xff\xfe"], "prompt is not valid UTF-8"),
        (["run", "none.bundle", "--prompt", "q"], "none.bundle is not there"),
        (["check", "none.bundle"], "none.bundle is not there"),
        (["check", "/etc/hostname"], "/etc/hostname is not a directory"),
        (["check", "/etc"], "/etc/manifest.json is missing"),
        (["show", "none.bundle", "--image", "x.png", "-o", "x.gif"], "x.gif must end in .png or .jpg"),
        (["show", "none.bundle", "--image", "x.png", "--prune", "a,,b"], "names separated by commas"),
        (["list", "cats"], "invalid choice: 'cats'"),
        (["list"], "what"),
        (["list", "methods", "--json", "/nowhere/x.json"], "cannot write /nowhere/x.json: No such file"),
        (["export", "--model", "tiny"], "--keep"),
        (["export", "--model", "tiny", "--keep", "auto:max=0.9"], "write an automatic keep as auto:mass=0.9"),
        (["export", "--model", "tiny", "--keep", "auto:mass=0.9", "--static-keep"], "--static-keep bakes one K"),
        (["profile", "x.bundle", "--keep", "auto:mass=0.9,min=0.1"], "an automatic keep has no place here"),
        (["export", "--model", "tiny", "--keep", "0.1", "--keep-range", "0.5"], "LOW:HIGH"),
        (["export", "--model", "tiny", "--keep", "0.1", "--keep-range", "0.5:1"], "outside the keep range"),
        (["export", "--model", "tiny", "--keep", "0.1", "--keep-range", "1:0.01"], "is empty"),
        (["export", "--model=tiny", "--keep=0.1", "--keep-range=0.1:1", "--static-keep"], "leave out --keep-range"),
        (["export", "--model", "tiny", "--keep", "0.1", "--set", "layers"], "key=value"),
        (["export", "--model", "tiny", "--keep", "0.1", "--dtype", "fp8"], "invalid choice: 'fp8'"),
        (["export", "--model", "tiny", "--keep", "0.1", "--prune", "none", "--prune", "none"], "asked for twice"),
    ],
)  # fmt: skip
def test_a_wrong_command_line_is_one_sentence(argv: list, part: str) -> None:
    command = [*(item.encode() if isinstance(item, str) else item for item in [*COMMAND, *argv])]
    done = subprocess.run(command, capture_output=True, env=environment(), cwd="/", check=False)
    text = subprocess.CompletedProcess(argv, done.returncode, done.stdout.decode(), done.stderr.decode())
    assert_user_error(text, part)
    assert text.stdout == ""


@pytest.mark.parametrize(
    ("verb", "keep"),
    [("run", keep) for keep in ("0", "1.5", "nan", "-0.1", "inf", "ten", "", "1e400")]
    + [(verb, keep) for verb in ("export", "show") for keep in ("0", "1.5", "nan")],
)
def test_keep_must_be_a_ratio(verb: str, keep: str) -> None:
    needed = {"export": ["--model", "tiny"], "run": ["b", "--prompt", "q"], "show": ["b", "--image", "x.png"]}[verb]
    done = edgeprune(verb, *needed, f"--keep={keep}")
    assert_user_error(done, "argument --keep: keep must be a number above 0 and at most 1")


def test_list_methods_and_targets_agree_with_their_json(tmp_path: pathlib.Path) -> None:
    for what in ("methods", "targets", "models"):
        entries = json.loads(edgeprune("list", what, "--json").stdout)
        assert entries
        done = edgeprune("list", what, "--json", tmp_path / "list.json")
        assert json.loads((tmp_path / "list.json").read_text()) == entries
        names = [line.split()[0] for line in done.stdout.splitlines()[1:]]
        assert names == [entry["name"] for entry in entries]


def test_listed_methods_are_those_that_can_be_asked_for() -> None:
    from edgeprune.pruning import registry

    entries = json.loads(edgeprune("list", "methods", "--json").stdout)
    assert [entry["name"] for entry in entries] == list(registry.METHODS)
    for entry in entries:
        method = registry.parse(entry["name"])
        assert entry["parameters"] == method.parameters
        assert (entry["summary"], entry["source"]) == (method.summary, method.source)


def test_a_reader_that_goes_away_is_no_failure_of_ours() -> None:
    process = start("list", "methods")
    process.stdout.close()
    complaint = process.stderr.read()
    process.stderr.close()
    assert process.wait(60) == 141
    assert complaint == ""


def test_a_full_disk_behind_stdout_is_a_user_error() -> None:
    with open("/dev/full", "w") as full:
        done = edgeprune("list", "methods", capture_output=False, stdout=full, stderr=subprocess.PIPE)
    assert_user_error(done, "cannot write the output: No space left on device")


def test_closed_streams_are_survived() -> None:
    command = f"{subprocess.list2cmdline(COMMAND)} list targets >&- 2>&-"
    assert subprocess.run(["sh", "-c", command], env=environment(), cwd="/", check=False).returncode == 0


def list_that(statement: str) -> list[str]:
    """A command line whose verb `list` does something else."""
    lines = [
        "import time, edgeprune.cli.list as verb",
        "def run(args):",
        f"    {statement}",
        "verb.run = run",
        COMMAND[2],
    ]
    return [COMMAND[0], "-c", "\n".join(lines), "list", "targets"]


def test_a_bug_shows_its_traceback_and_exits_70() -> None:
    command = list_that("return 1 // 0")
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), check=False)
    assert done.returncode == 70
    assert "Traceback" in done.stderr
    assert "ZeroDivisionError" in done.stderr
    assert "this is a bug" in done.stderr.splitlines()[-1]


def test_a_failed_check_exits_1_and_a_long_error_is_one_line() -> None:
    command = list_that("from edgeprune.errors import CheckFailed; raise CheckFailed('first\\nsecond')")
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), check=False)
    assert (done.returncode, done.stderr) == (1, "edgeprune: first second\n")


def test_ctrl_c_exits_130() -> None:
    command = list_that("print('up', flush=True); time.sleep(60)")
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, text=True, env=environment(), **pipes) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        begun = time.monotonic()
        process.send_signal(signal.SIGINT)
        _, complaint = process.communicate(timeout=30)
    assert process.returncode == 130
    assert complaint == "edgeprune: interrupted\n"
    assert time.monotonic() - begun < 20
