"""Calls into the library that can be interrupted, and text as it is made."""

from __future__ import annotations

import contextlib
import ctypes
import queue
import threading
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, Generic, TypeVar

from edgeprune.runtime import _abi
from edgeprune.runtime.answers import Answer

_Result = TypeVar("_Result")


class _Outcome(Generic[_Result]):
    """What a worker thread returned or raised.

    `done` is what others wait for: up to Python 3.12 a thread whose join() was interrupted counts as ended although it
    still runs, and what it works on would be freed under it.
    """

    def __init__(self) -> None:
        self.value: _Result | None = None
        self.error: BaseException | None = None
        self.done = threading.Event()

    def run(self, work: Callable[[], _Result]) -> None:
        try:
            self.value = work()
        except BaseException as error:
            self.error = error
        finally:
            self.done.set()

    def stop(self, abort: Callable[[], None]) -> None:
        """Returns once the work has ended, however often Ctrl-C comes meanwhile."""
        while not self.done.is_set():
            # A request counts only while the library works, and the thread may not have got there yet.
            with contextlib.suppress(KeyboardInterrupt):
                abort()
                self.done.wait(0.005)

    def get(self) -> _Result:
        if self.error is not None:
            raise self.error
        return self.value  # type: ignore[return-value]


def interruptible(work: Callable[[], _Result], abort: Callable[[], None]) -> _Result:
    """Runs `work`, a long call into the library, so that Ctrl-C stops it.

    Python handles signals between bytecodes of the main thread only, so the call itself runs on another one.
    """
    if threading.current_thread() is not threading.main_thread():
        return work()
    outcome: _Outcome[_Result] = _Outcome()
    thread = threading.Thread(target=outcome.run, args=(work,), name="edgeprune-call", daemon=True)
    try:
        thread.start()
        outcome.done.wait()
    except RuntimeError:  # no thread could be started
        raise
    except BaseException:
        outcome.stop(abort)
        raise
    return outcome.get()


class Stream(Iterator[str]):
    """Pieces of an answer as they become final; closing it early stops the generation.

    Args:
        generate: runs the generation with the callback it is given, and returns the answer.
        abort: stops the generation from another thread.
    """

    def __init__(self, generate: Callable[[Any], Answer], abort: Callable[[], None]) -> None:
        self._abort = abort
        self._pieces: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._closed = True  # until the thread runs: there is nothing to stop
        self._outcome: _Outcome[Answer] = _Outcome()
        # The queue and the outcome are all that the thread holds: a forgotten stream can be collected and so closed.
        arguments = (generate, self._pieces, self._outcome)
        threading.Thread(target=_produce, args=arguments, name="edgeprune-stream", daemon=True).start()
        self._closed = False

    def __next__(self) -> str:
        piece = None if self._closed else self._pieces.get()
        if piece is not None:
            return piece
        already_closed, self._closed = self._closed, True
        self._outcome.done.wait()
        if not already_closed:
            self._outcome.get()
        raise StopIteration

    @property
    def answer(self) -> Answer:
        """The whole answer, once the stream has ended or was closed.

        Raises:
            RuntimeError: the stream has not ended.
            NativeError: the generation failed.
        """
        if not self._closed:
            raise RuntimeError("the stream has not ended; read it to its end or close it first")
        return self._outcome.get()

    def close(self) -> None:
        """Stops the generation; pieces not yet read are dropped. May be called again."""
        if self._closed:
            return
        self._closed = True
        self._outcome.stop(self._abort)

    def __enter__(self) -> Stream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if hasattr(self, "_outcome"):
            self.close()


def _produce(
    generate: Callable[[Any], Answer], pieces: queue.SimpleQueue[str | None], outcome: _Outcome[Answer]
) -> None:
    def on_text(text: int, size: int, token_id: int, user_data: int | None) -> int:
        pieces.put(ctypes.string_at(text, size).decode("utf-8", "replace"))
        return 0

    outcome.run(lambda: generate(_abi.TextFunction(on_text)))
    pieces.put(None)
