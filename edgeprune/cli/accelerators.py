"""What doctor says of the GPU and of what would use it: driver, CUDA, TensorRT, onnxruntime's providers.

Nothing is imported into this process: libraries are opened by name, and onnxruntime is asked in another process.
"""

from __future__ import annotations

import ctypes
import json
import re
import subprocess
import sys
from typing import Any

from edgeprune import devices
from edgeprune.cli import engine_backend
from edgeprune.fingerprint import library_version

#: opens a session of one Identity node with each provider that was compiled in, and marks on stderr, where onnxruntime
#: logs, which one it is at; NAME, "" or why not.
_ASK = """
import base64, json, sys, onnxruntime
from edgeprune.runtime import library
library.load_cuda_packages()
onnxruntime.set_default_logger_severity(3)
graph, found = base64.b64decode(MODEL), {}
for name in onnxruntime.get_available_providers():
    print("MARK" + name, file=sys.stderr, flush=True)
    try:
        used = onnxruntime.InferenceSession(graph, providers=[name]).get_providers()
        found[name] = "" if name in used else "onnxruntime falls back to " + ", ".join(used)
    except Exception as error:
        found[name] = str(error)
print(json.dumps(found))
"""
_MARK = "provider-that-is-tried: "
_CUDA = "CUDAExecutionProvider"
#: what the loader or CUDA itself says, inside what onnxruntime says.
_REASONS = (r"with error: (.+)", r"(CUDA failure \d+: [^;\n]+)")
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
    "libedgeprune_tensorrt": engine_backend.REMEDY,
}


def examine() -> dict[str, dict[str, Any]]:
    """{"gpu", "cuda", "tensorrt", "tensorrt_rtx", "libedgeprune_tensorrt"}: works, what it is, problem and remedy."""
    found = {"gpu": _gpu(), "cuda": _cuda(), **{module: _tensorrt(module) for module in _TENSORRT}}
    found["libedgeprune_tensorrt"] = engine_backend.examine()
    return {
        name: {"works": not problem, "version": text, "problem": problem, "remedy": _REMEDIES[name] if problem else ""}
        for name, (text, problem) in found.items()
    }


def providers() -> list[dict[str, Any]]:
    """onnxruntime's execution providers: those compiled in, and whether each runs a graph on this machine.

    {"name", "works", "problem", "remedy"}; CUDA's is a row where there is a GPU, compiled in or not.
    """
    code = _ASK.replace("MODEL", repr(_MODEL)).replace("MARK", _MARK)
    try:
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
        found: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return []
    logs = dict(part.partition("\n")[::2] for part in done.stderr.split(_MARK)[1:])
    rows = [_provider(name, text and reason(f"{text}\n{logs.get(name, '')}")) for name, text in found.items()]
    if _CUDA not in found and devices.facts()["gpu"] is not None:
        rows.append(_provider(_CUDA, "not compiled in"))
    return rows


def reason(text: str) -> str:
    """The cause inside what onnxruntime says or logs about a provider; else its first line."""
    for pattern in _REASONS:
        match = re.search(pattern, text)
        if match is not None:
            return match[1].strip()
    return (text.strip().splitlines() or [""])[0]


def _provider(name: str, problem: str) -> dict[str, Any]:
    return {"name": name, "works": not problem, "problem": problem, "remedy": provider_remedy(problem)}


def provider_remedy(problem: str) -> str:
    """What to do about a provider that does not work; "" where nothing is known."""
    known = {
        "not compiled in": "pip uninstall onnxruntime, then pip install 'edgeprune[gpu]'",
        "libcuda.so": _REMEDIES["cuda"],
        "libnv": "install the TensorRT that this onnxruntime is made for, or use the provider cuda",
        "cannot open shared object": "pip install 'onnxruntime-gpu[cuda,cudnn]', or install the CUDA and cuDNN that "
        "this onnxruntime is made for where the loader finds them",
        "CUDA failure": "check that nvidia-smi lists the GPU, and that the driver is new enough for this onnxruntime",
    }
    return next((remedy for part, remedy in known.items() if part in problem), "")


def _gpu() -> tuple[str, str]:
    facts = devices.facts()
    if facts["gpu"] is None:
        return "", "nvidia-smi lists no GPU, and this is no Jetson"
    parts = (facts["gpu"], f"compute capability {facts['compute_capability'] or 'unknown'}",
             f"driver {facts['driver'] or 'unknown'}", facts["jetpack"] or "")  # fmt: skip
    return ", ".join(part for part in parts if part), ""


def _cuda() -> tuple[str, str]:
    """The CUDA version that the driver serves."""
    version = devices.cuda_version()
    return ("", "libcuda.so.1 cannot be loaded, or fails") if version is None else (f"CUDA {version}", "")


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
