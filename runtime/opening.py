"""How a bundle is opened, and what it needs before it is."""

from __future__ import annotations

import ctypes
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from edgeprune.errors import UserError
from edgeprune.runtime import _abi
from edgeprune.runtime.answers import initialised
from edgeprune.runtime.library import ONNXRUNTIME_VARIABLE, load_cuda_packages, wheel_onnxruntime
from edgeprune.runtime.library import load as load_library
from edgeprune.runtime.request import path_bytes, utf8

_MOST_INT64 = 2**63 - 1


@dataclass(frozen=True)
class Resources:
    """What a model may take of the machine.

    Args:
        threads: inside one graph run; 0: onnxruntime's own choice, or one per core named.
        cores: core of each thread; the first is the calling thread, which is not pinned here.
        spinning: idle threads wait busily within a graph's run; False: they sleep at once.
        map_weights: onnxruntime works on the bundle's files as they lie in memory, without repacked copies; runs may be
            slower, with `decoder=int4` steps 70 times. The files must not be written to while the model is open.
        memory_limit_bytes: a bundle that needs more (`describe_bundle`) is refused before anything is loaded; no cap
            while it runs.
        context_tokens: a smaller context than the bundle's, to need less memory.
        profile_prefix: onnxruntime times every node, and when the model is closed its trace of each graph is written to
            a file whose path begins so, followed by the graph's name. Runs are slower.
        provider: of onnxruntime: "cpu", "cuda" or "tensorrt"; None: "cuda" for a variant that was built for the target
            cuda, else "cpu". One that cannot run here is an error (`NativeError`, status `_abi.PROVIDER`).
        device_id: which GPU.
        engine_cache_dir: tensorrt: where it keeps the engines that it builds, which takes minutes; None: nowhere.
        engine_fp16: tensorrt: it may compute float32 graphs in float16.
    """

    threads: int = 0
    cores: Sequence[int] = ()
    spinning: bool = True
    map_weights: bool = False
    memory_limit_bytes: int | None = None
    context_tokens: int | None = None
    profile_prefix: str | os.PathLike[str] | None = None
    provider: str | None = None
    device_id: int = 0
    engine_cache_dir: str | os.PathLike[str] | None = None
    engine_fp16: bool = False

    def __post_init__(self) -> None:
        for name in ("memory_limit_bytes", "context_tokens"):
            value = getattr(self, name)
            if value is not None and not 1 <= value <= _MOST_INT64:
                raise UserError(f"{name} is {value}, but must be at least 1.")
        if not 0 <= self.device_id < 2**31:
            raise UserError(f"device_id is {self.device_id}, but must be from 0 to {2**31 - 1}.")

    def options(self, variant: str | None, onnxruntime_library: str | os.PathLike[str] | None) -> _abi.ModelOptions:
        if self.provider in ("cuda", "tensorrt") or variant is not None:
            load_cuda_packages()
        runtime = onnxruntime_library or (None if os.environ.get(ONNXRUNTIME_VARIABLE) else wheel_onnxruntime())
        cores = ",".join(str(core) for core in self.cores)
        options: _abi.ModelOptions = initialised(
            _abi.ModelOptions,
            onnxruntime_library=None if runtime is None else path_bytes(runtime),
            variant=None if variant is None else utf8(variant, "variant"),
            threads=self.threads,
            verify=_abi.VERIFY_SIZES,  # Python compares the hashes itself, faster
            memory_limit_bytes=self.memory_limit_bytes or 0,
            context_tokens=self.context_tokens or 0,
            cores=cores.encode() or None,
            no_spinning=not self.spinning,
            map_weights=self.map_weights,
            profile_prefix=None if self.profile_prefix is None else path_bytes(self.profile_prefix),
            provider=None if self.provider is None else utf8(self.provider, "provider"),
            engine_cache_dir=None if self.engine_cache_dir is None else path_bytes(self.engine_cache_dir),
            device_id=self.device_id,
            engine_fp16=self.engine_fp16,
        )
        return options


def describe_bundle(bundle: str | os.PathLike[str], *, context_tokens: int | None = None) -> dict[str, Any]:
    """What a bundle is and needs, from its manifest alone; nothing is loaded.

    Args:
        bundle: the directory.
        context_tokens: a smaller context than the bundle's.

    Returns:
        The keys of `Model.describe` except provider, variant and onnxruntime. "memory" holds "total_bytes" for one
        session and its parts; "estimated" names those parts that are no exact sums.

    Raises:
        NativeError: the library refuses the bundle.
    """
    native = load_library()
    options = initialised(
        _abi.ModelOptions, context_tokens=Resources(context_tokens=context_tokens).context_tokens or 0
    )
    path, size = path_bytes(bundle), ctypes.c_size_t()
    native.call("ep_bundle_describe", path, ctypes.byref(options), None, ctypes.byref(size))
    text = ctypes.create_string_buffer(size.value)
    native.call("ep_bundle_describe", path, ctypes.byref(options), text, ctypes.byref(size))
    facts: dict[str, Any] = json.loads(text.raw)
    return facts
