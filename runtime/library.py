"""Finding libedgeprune and libonnxruntime, and calling the former."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import importlib.util
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeprune import native_library
from edgeprune.errors import DependencyError, NativeError
from edgeprune.runtime import _abi

ONNXRUNTIME_VARIABLE = "EDGEPRUNE_ORT_LIB"
_LOADER_NAMES = ("libonnxruntime.so.1", "libonnxruntime.so")
#: what onnxruntime's CUDA and TensorRT providers load, each behind what it needs itself.
_CUDA_LIBRARIES = (
    "libcudart", "libnvJitLink", "libnvrtc", "libcublasLt", "libcublas", "libcurand", "libcufft", "libcudnn",
)  # fmt: skip
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
            DependencyError: no usable libonnxruntime.
            RuntimeError: a bug of the library.
            NativeError: every other status.
        """
        if status == _abi.OK:
            return
        text = self.calls.ep_last_error().decode("utf-8", "replace")
        if status == _abi.RUNTIME_MISSING:
            raise DependencyError(f"{text}; {_INSTALL_ONNXRUNTIME}.")
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
    return _open(native_library.path())


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


@functools.cache
def load_cuda_packages() -> None:
    """Loads the libraries of CUDA and cuDNN out of NVIDIA's Python packages, where those are installed: the loader does
    not search there, and finds for onnxruntime's providers what is loaded already. The system's come first."""
    spec = importlib.util.find_spec("nvidia")
    folders = [Path(folder) for folder in (spec.submodule_search_locations or [])] if spec is not None else []
    for name in _CUDA_LIBRARIES:
        for path in [path for folder in folders for path in sorted(folder.glob(f"*/lib/{name}.so.*"))]:
            with contextlib.suppress(OSError):  # onnxruntime names what it lacks
                ctypes.CDLL(path.name)
                break
            with contextlib.suppress(OSError):
                ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL)
