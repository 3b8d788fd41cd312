"""Runs the command line from outside, as a user does, and states what its contract says about errors."""

from __future__ import annotations

import contextlib
import os
import pathlib
import shutil
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from edgeprune.bundle import Bundle

REPO = pathlib.Path(__file__).resolve().parents[2]
COMMAND = (sys.executable, "-c", "from edgeprune.cli.main import entry; entry()")
Done = subprocess.CompletedProcess[str]


def environment(**changes: str | None) -> dict[str, str]:
    """This process's environment with the repository importable; None removes a variable."""
    merged: dict[str, str | None] = {**os.environ, "PYTHONPATH": str(REPO), "PYTHONDONTWRITEBYTECODE": "1", **changes}
    return {name: text for name, text in merged.items() if text is not None}


def edgeprune(*argv: object, prefix: tuple[str, ...] = (), env: dict[str, str] | None = None, **settings: Any) -> Done:
    """`edgeprune ARGV...` in a process of its own; `prefix` is put in front, e.g. ("unshare", "-n")."""
    command = [*prefix, *COMMAND, *map(str, argv)]
    settings = {"cwd": "/", "timeout": 300, "capture_output": True, "text": True, **settings}
    return subprocess.run(command, env=env or environment(), check=False, **settings)


def start(*argv: object, **settings: Any) -> subprocess.Popen[str]:
    """The same without waiting for it."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([*COMMAND, *map(str, argv)], env=environment(), **{**pipes, "cwd": "/", **settings})


def assert_user_error(done: Done, *parts: str) -> None:
    """Exit code 2, one or two lines on stderr that hold `parts`, no traceback, nothing on stdout after a plan."""
    assert done.returncode == 2, f"exit code {done.returncode}: {done.stderr}"
    lines = done.stderr.splitlines()
    assert 1 <= len(lines) <= 2, done.stderr
    assert lines[0].startswith("edgeprune: ")
    assert "Traceback" not in done.stderr
    if len(lines) == 2:
        assert "--help" in lines[1]
    for part in parts:
        assert part in lines[0], f"{part!r} is not in {lines[0]!r}"


def tree(folder: pathlib.Path) -> dict[str, tuple[int, int]]:
    """Every path below a folder with its size and its time of change."""
    found = {str(path.relative_to(folder)): path.lstat() for path in sorted(folder.rglob("*"))}
    return {name: (info.st_size, info.st_mtime_ns) for name, info in found.items()}


def killed_during_build(bundle: pathlib.Path, slug: str, *ask: str) -> None:
    """kill -9 while `build --rebuild` writes a variant that is there: it stays, and the next writer clears the rest."""
    folder = bundle / "variants" / slug
    (before,) = folder.iterdir()
    manifest = (bundle / "manifest.json").read_bytes()
    with start("build", bundle, *ask, "--rebuild") as building:
        while not any(path.iterdir() for path in folder.iterdir() if path != before):
            assert building.poll() is None, building.communicate()
        building.kill()
    assert (bundle / "manifest.json").read_bytes() == manifest
    assert len(list(folder.iterdir())) == 2, "what the killed build had written"
    Bundle.open(bundle).variant(slug)
    done = edgeprune("build", bundle, *ask)
    assert (done.returncode, "there already" in done.stdout) == (0, True), done.stderr
    done = edgeprune("build", bundle, *ask, "--rebuild")
    assert (done.returncode, len(list(folder.iterdir()))) == (0, 1), done.stderr


@contextlib.contextmanager
def almost_full_disk(bundle: pathlib.Path, place: pathlib.Path, spare: int) -> Iterator[pathlib.Path]:
    """A copy of a bundle on a file system of its own, in memory, that has `spare` bytes left; skips without the right
    to mount one."""
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64m", "none", str(place)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False) if shutil.which("mount") else None
    if done is None or done.returncode:
        pytest.skip(f"no tmpfs can be mounted here: {done.stderr.strip() if done else 'there is no mount command'}")
    try:
        copy = shutil.copytree(bundle, place / "copy.bundle")
        room = os.statvfs(place)
        filler = place / "filler"
        with filler.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, room.f_bavail * room.f_frsize - spare)
        yield copy
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def assert_full_disk_changes_nothing(copy: pathlib.Path, *ask: str) -> None:
    """`build` meets a full disk: one sentence, files as they were, every variant opens, nothing half-written stays."""
    before = tree(copy)
    done = edgeprune("build", copy, *ask, "--rebuild", "--force")
    assert_user_error(done, "cannot write", "No space left on device", "the bundle is as it was before")
    now = tree(copy)
    files = {name for name in before if (copy / name).is_file()}
    assert {name: now[name] for name in files} == {name: before[name] for name in files}
    assert {name for name in now if (copy / name).is_file()} == files
    opened = Bundle.open(copy)
    for variant in opened.manifest.variants:
        opened.variant(variant.slug)
