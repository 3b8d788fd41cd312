"""How bundles and variants are written: locks of directories, syncing, errors of the disk."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def locked_directory(path: Path) -> Iterator[None]:
    """Holds off other writers below `path` for the moments in which names are looked up and changed."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        # Some network file systems know no locks; the renames are atomic there too, only the message would differ.
        with contextlib.suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def lock(path: Path) -> int:
    """An open handle that holds the lock of a directory, -1 when another process holds it."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        return -1
    except OSError:
        # No locks on this file system: the handle alone has to do.
        return handle
    return handle


def disk_error(error: BaseException | None) -> OSError | None:
    """The error among `error` and its causes that says the disk took no more."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS):
            return error
        error = error.__cause__ or error.__context__
    return None


def sync_tree(root: Path) -> None:
    """Waits until every file and folder below `root` is on the disk."""
    for folder, _, names in os.walk(root):
        for name in names:
            sync(Path(folder, name))
        sync(Path(folder))


def sync(path: Path) -> None:
    """Waits until one file or folder is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
