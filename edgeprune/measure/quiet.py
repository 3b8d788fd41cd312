"""Latency is measured on a quiet machine: while it is, no other sweep of this user works on the same machine.

A lock file in the directory for temporary files, held alone while latency is measured and together by whoever answers
questions. The kernel frees it when its holder ends, however that happens. Other programs know nothing of it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from edgeprune.errors import UserError


def lock_path() -> Path:
    """The lock file of this user on this machine."""
    return Path(tempfile.gettempdir()) / f"edgeprune-latency-{os.getuid()}.lock"


@contextlib.contextmanager
def measuring() -> Iterator[None]:
    """While latency is measured. UserError when another sweep is at work on this machine."""
    with _held(fcntl.LOCK_EX, "another sweep is at work on this machine, so its latency cannot be measured now"):
        yield


@contextlib.contextmanager
def answering() -> Iterator[None]:
    """While questions are answered. UserError when another sweep measures latency on this machine."""
    with _held(fcntl.LOCK_SH, "another sweep is measuring latency on this machine"):
        yield


@contextlib.contextmanager
def _held(kind: int, problem: str) -> Iterator[None]:
    path = lock_path()
    try:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise UserError(f"cannot use the lock file {path}: {error.strerror}.") from error
    try:
        try:
            fcntl.flock(file, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"{problem}; wait until it has ended.") from None
        yield
    finally:
        os.close(file)
