"""Finding libedgeprune and libonnxruntime, and calling the former."""

from __future__ import annotations

import ctypes
import functools
import importlib.metadata
import importlib.util
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeprune.errors import DependencyError, NativeError
from edgeprune.runtime import _abi

LIBRARY_VARIABLE = "EDGEPRUNE_LIB"
ONNXRUNTIME_VARIABLE = "EDGEPRUNE_ORT_LIB"
TENSORRT_VARIABLE = "EDGEPRUNE_TENSORRT_LIB"
_LOADER_NAMES = ("libonnxruntime.so.1", "libonnxruntime.so")
_INSTALL_ONNXRUNTIME = "install one with `pip install edgeprune[cpu]` or `pip install edgeprune[gpu]`"


@dataclass(frozen=True)
class Library:
    """A loaded libedgeprune.

    Args:
        path: the file it was loaded from.
        version: as the library states it.
        calls: the library itself, signatures declared.
    """

    path: Path
    version: str
    calls: ctypes.CDLL

    def check(self, status: int) -> None:
        """Raises what belongs to a status of this thread's last call; EP_OK raises nothing.

        Raises:
            DependencyError: no usable libonnxruntime, or no back end for engines.
            RuntimeError: a bug of the library.
            NativeError: every other status.
        """
        if status == _abi.OK:
            return
        text = self.calls.ep_last_error().decode("utf-8", "replace")
        if status == _abi.RUNTIME_MISSING:
            what = f"; {_INSTALL_ONNXRUNTIME}" if "onnxruntime library" in text else ""
            raise DependencyError(f"{text}{what}.")
        if status == _abi.INTERNAL:
            raise RuntimeError(f"libedgeprune failed: {text}")
        raise NativeError(status, text)

    def call(self, name: str, *arguments: Any) -> None:
        """Calls a function that returns ep_status, and checks it. The interpreter's lock is released meanwhile."""
        self.check(getattr(self.calls, name)(*arguments))


class Handle:
    """An object of the library, freed once."""

    def __init__(self, native: Library, address: int, free: str) -> None:
        self._native = native
        self._address: int | None = address
        self._free = free

    @property
    def address(self) -> int:
        if self._address is None:
            raise ValueError("this model or session is closed")
        return self._address

    def call(self, name: str, *arguments: Any) -> None:
        self._native.call(name, self.address, *arguments)

    def close(self) -> None:
        address, self._address = self._address, None
        if address is not None:
            getattr(self._native.calls, self._free)(address)


@functools.cache
def load() -> Library:
    """The process's libedgeprune. DependencyError names every place tried."""
    tried = []
    for path in _library_places():
        if not path.is_file():
            tried.append(f"{path} (not there)")
            continue
        return _open(path)
    raise DependencyError(f"libedgeprune.so was not found: tried {', '.join(tried)}; run `make native`, "
                          f"reinstall edgeprune, or point {LIBRARY_VARIABLE} at the file.")  # fmt: skip


def _open(path: Path) -> Library:
    try:
        calls = ctypes.CDLL(str(path))
        _abi.declare(calls)
    except (OSError, AttributeError) as error:
        raise DependencyError(f"{path} is no usable libedgeprune: {error}.") from error
    version = calls.ep_abi_version()
    if version != _abi.ABI_VERSION:
        raise DependencyError(f"{path} has ABI {version}, but this package needs {_abi.ABI_VERSION}: install both from "
                              "one version of edgeprune.")  # fmt: skip
    return Library(path, calls.ep_version().decode(), calls)


def _library_places() -> Iterator[Path]:
    """A place that was named is the only one; else the installed package, else the build folder of a source tree."""
    named = os.environ.get(LIBRARY_VARIABLE)
    if named:
        yield Path(named)
        return
    try:
        distribution = importlib.metadata.distribution("edgeprune")
    except importlib.metadata.PackageNotFoundError:
        pass
    else:
        yield Path(str(distribution.locate_file("edgeprune/lib/libedgeprune.so")))
    yield Path(__file__).resolve().parents[1] / "build" / "native" / "libedgeprune.so"


def onnxruntime_candidates() -> list[str]:
    """Paths and loader names of libonnxruntime in the order in which `Model.open` tries them."""
    named = os.environ.get(ONNXRUNTIME_VARIABLE)
    if named:
        return [named]
    wheel = wheel_onnxruntime()
    return [str(wheel)] if wheel is not None else list(_LOADER_NAMES)


def wheel_onnxruntime() -> Path | None:
    """The shared library inside an installed onnxruntime wheel, found without importing the package."""
    spec = importlib.util.find_spec("onnxruntime")
    for folder in (spec.submodule_search_locations or []) if spec is not None else []:
        for path in sorted(Path(folder, "capi").glob("libonnxruntime.so*")):
            return path
    return None


def load_tensorrt_rtx() -> None:
    """Loads the library of an installed TensorRT-RTX wheel, which the loader does not find: it then serves by name.
    Nothing happens where it is not installed or another one is named. DependencyError: it is, and cannot be loaded."""
    if os.environ.get(TENSORRT_VARIABLE):
        return
    spec = importlib.util.find_spec("tensorrt_rtx_libs")
    for folder in (spec.submodule_search_locations or []) if spec is not None else []:
        for path in Path(folder).glob("libtensorrt_rtx.so*"):
            try:
                ctypes.CDLL(str(path))
            except OSError as error:
                raise DependencyError(f"{path} cannot be loaded: {error}.") from error
