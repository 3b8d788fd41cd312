"""What doctor says of the GPU and of what would use it: driver, CUDA, TensorRT, onnxruntime's providers.

Nothing is imported into this process: libraries are opened by name, and onnxruntime is asked in another process.
"""

from __future__ import annotations

import ctypes
import json
import subprocess
import sys
from typing import Any

from edgeprune import devices
from edgeprune.fingerprint import library_version

#: opens a session of one Identity node with each provider that was compiled in; used ones name themselves.
_ASK = """
import base64, json, onnxruntime
onnxruntime.set_default_logger_severity(4)
graph, found = base64.b64decode(MODEL), {}
for name in onnxruntime.get_available_providers():
    try:
        used = onnxruntime.InferenceSession(graph, providers=[name]).get_providers()
        found[name] = "" if name in used else "not used: onnxruntime fell back to " + ", ".join(used)
    except Exception as error:
        found[name] = str(error).splitlines()[0]
print(json.dumps(found))
"""
_MODEL = "CAg6NwoQCgF4EgF5IghJZGVudGl0eRIBZ1oPCgF4EgoKCAgBEgQKAggBYg8KAXkSCgoICAESBAoCCAFCBAoAEBE="
_TENSORRT = {
    "tensorrt": ("libnvinfer.so.10", "libnvinfer.so.11"),
    "tensorrt_rtx": ("libtensorrt_rtx.so.1",),
}
_REMEDIES = {
    "gpu": "engines can be built for TensorRT-RTX targets here, but not run; run them where nvidia-smi lists a GPU",
    "cuda": "install the NVIDIA driver: libcuda.so.1 comes with it",
    "tensorrt": "on Jetson install JetPack's libnvinfer, elsewhere pip install 'edgeprune[tensorrt]'",
    "tensorrt_rtx": "pip install 'edgeprune[rtx]'",
}


def examine() -> dict[str, dict[str, Any]]:
    """{"gpu", "cuda", "tensorrt", "tensorrt_rtx"}: works, what it is, problem and remedy."""
    found = {"gpu": _gpu(), "cuda": _cuda(), **{module: _tensorrt(module) for module in _TENSORRT}}
    return {
        name: {"works": not problem, "version": text, "problem": problem, "remedy": _REMEDIES[name] if problem else ""}
        for name, (text, problem) in found.items()
    }


def providers() -> list[dict[str, Any]]:
    """onnxruntime's execution providers: those compiled in, and whether each runs a graph on this machine."""
    code = _ASK.replace("MODEL", repr(_MODEL))
    try:
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
        found: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return []
    return [{"name": name, "works": not problem, "problem": problem} for name, problem in found.items()]


def _gpu() -> tuple[str, str]:
    facts = devices.facts()
    if facts["gpu"] is None:
        return "", "nvidia-smi lists no GPU, and this is no Jetson"
    parts = (facts["gpu"], f"compute capability {facts['compute_capability'] or 'unknown'}",
             f"driver {facts['driver'] or 'unknown'}", facts["jetpack"] or "")  # fmt: skip
    return ", ".join(part for part in parts if part), ""


def _cuda() -> tuple[str, str]:
    """The CUDA version that the driver serves."""
    version = ctypes.c_int()
    try:
        failed = ctypes.CDLL("libcuda.so.1").cuDriverGetVersion(ctypes.byref(version))
    except (OSError, AttributeError):
        return "", "libcuda.so.1 cannot be loaded"
    text = f"CUDA {version.value // 1000}.{version.value % 1000 // 10}"
    return (text, "") if not failed else ("", f"cuDriverGetVersion fails with {failed}")


def _tensorrt(module: str) -> tuple[str, str]:
    """The Python package, or for a machine without it the library."""
    version = library_version(module)
    if version is not None:
        return f"Python package {version}", ""
    for name in _TENSORRT[module]:
        try:
            ctypes.CDLL(name)
        except OSError:
            continue
        return f"{name}, but no Python package: `edgeprune build` cannot use it", ""
    return "", f"neither a Python package nor {' or '.join(_TENSORRT[module])}"
