"""Calls a function in a process of its own: a library that crashes ends that process, and the caller says so.

What a builder of engines held goes back to the system with its process. The child dies with its parent, whatever ends
the parent, so nothing writes into a bundle that nobody waits for.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable
from typing import IO, Any, NoReturn, TypeVar

from edgeprune.disk import disk_error
from edgeprune.errors import EdgepruneError

T = TypeVar("T")
#: the search path comes first, so that the child imports the same edgeprune as its parent
_BOOT = (
    "import pickle, sys; sys.path[:] = pickle.load(sys.stdin.buffer); from edgeprune.engines import child; child.main()"
)
_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG, linux/prctl.h
_LOST = 71


class Crashed(Exception):
    """The child ended without an answer.

    Attributes:
        signal: name of the signal that ended it, e.g. "SIGSEGV"; "" when it left by itself.
        words: the last line that it wrote, mostly the reason that a C library gives before it aborts; "" for none.
    """

    def __init__(self, code: int, words: str) -> None:
        self.signal = _name(-code) if code < 0 else ""
        self.words = words
        super().__init__(f"{self.signal or f'exit code {code}'}{words and f': {words}'}")


class ChildTraceback(Exception):
    """Where in the child an error arose: the cause of that error in the parent."""

    def __str__(self) -> str:
        return f"\n{self.args[0]}"


def call(function: Callable[..., T], *args: Any, **named: Any) -> T:
    """`function(*args, **named)` in a new process.

    Args:
        function: of a module that can be imported; it, what it is given and what it returns are pickled.

    Returns:
        What it returns. Text that it wrote past Python's streams is then written to stderr.

    Raises:
        Crashed: the process ended before the function did.
        Exception: what the function raises. Of an error that the disk caused, the disk's own.
    """
    _give_back()
    answers, answer = os.pipe()
    with tempfile.TemporaryFile() as words, open(answers, "rb") as pipe:
        process = subprocess.Popen(
            [sys.executable, "-c", _BOOT], stdin=subprocess.PIPE, stdout=words, stderr=words, pass_fds=[answer]
        )
        try:
            os.close(answer)
            _ask(process, sys.path, (os.getpid(), answer), (function, args, named))
            content = pipe.read()
            code = process.wait()
        finally:  # Ctrl-C comes here while the child is at work
            process.kill()
            process.wait()
        words.seek(0)
        text = words.read().decode(errors="replace")
    if code or not content:
        raise Crashed(code, text.strip().rpartition("\n")[2].strip())
    value, error, where = pickle.loads(content)
    if error is None:
        sys.stderr.write(text)
        return value  # type: ignore[no-any-return]
    raise error from (None if isinstance(error, EdgepruneError) else ChildTraceback(where))


def _give_back() -> None:
    """Returns memory that this process has freed to the system, for the child to use; glibc keeps it otherwise."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # musl has none
    if trim is not None:
        trim(0)


def _ask(process: subprocess.Popen[bytes], *parts: Any) -> None:
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError), process.stdin as stream:  # a dead child is reported by its exit code
        for part in parts:
            pickle.dump(part, stream)


def main() -> NoReturn:
    """The child's side: reads what to do from stdin, answers on the pipe and exits."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, which ends this process
    parent, answer = pickle.load(sys.stdin.buffer)
    ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(_LOST)
    with open(answer, "wb") as stream:
        stream.write(_answer(sys.stdin.buffer))
    sys.stdout.flush()
    os._exit(0)  # without the library's own end, which may crash after the work is done


def _answer(stream: IO[bytes]) -> bytes:
    """Pickled (value, error, traceback)."""
    try:
        function, args, named = pickle.load(stream)
        return pickle.dumps((function(*args, **named), None, ""))
    except BaseException as error:
        where = traceback.format_exc()
        try:
            content = pickle.dumps((None, disk_error(error) or error, where))
            pickle.loads(content)
        except Exception:  # an error that holds more than its message
            content = pickle.dumps((None, RuntimeError(repr(error)), where))
        return content


def _name(number: int) -> str:
    with contextlib.suppress(ValueError):
        return signal.Signals(number).name
    return f"signal {number}"
