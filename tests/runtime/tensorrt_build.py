"""The test doubles of the CUDA driver and of TensorRT (tests/runtime/tensorrt_double), compiled against the headers
that the back end was built with. They are no GPU and no TensorRT: what they prove is said in tensorrt.cpp."""

from __future__ import annotations

import os
import pathlib
import re
import subprocess

import pytest

from tests.conftest import native_dir
from tests.runtime.native_build import REPO

DOUBLE = pathlib.Path(__file__).resolve().parent / "tensorrt_double"
SOURCES = (
    "backend", "backend_ort", "ort_tensor", "ort_provider", "execution_provider", "attention_op", "attention_kernel",
    "library_search", "log", "float16", "abort",
)  # fmt: skip
CLASSES = ("Runtime", "CudaEngine", "ExecutionContext")
BACKEND = "libedgeprune_tensorrt.so"


def cached(name: str) -> str:
    """A variable of the build's CMake cache; "" where it is not set or was not found."""
    found = re.search(rf"^{name}:\w+=(.*)$", (native_dir() / "CMakeCache.txt").read_text(), re.MULTILINE)
    return "" if found is None or found[1].endswith("NOTFOUND") else found[1]


def backend() -> pathlib.Path:
    """libedgeprune_tensorrt.so; the test is skipped where this build has none."""
    path = native_dir() / BACKEND
    if not path.exists():
        pytest.skip("no libedgeprune_tensorrt.so: NvInferRuntime.h or cuda_runtime_api.h was not found when the "
                    "library was configured (EDGEPRUNE_TENSORRT_INCLUDE, EDGEPRUNE_CUDA_INCLUDE)")  # fmt: skip
    return path


def header_version() -> tuple[str, str]:
    """The module that the headers are of, and their version with four numbers."""
    text = (pathlib.Path(cached("NVINFER_INCLUDE")) / "NvInferVersion.h").read_text()
    defined = dict(re.findall(r"#define (\w+) (\w+)", text))
    numbers = []
    for part in ("MAJOR", "MINOR", "PATCH", "BUILD"):
        value = defined[f"NV_TENSORRT_{part}"]
        numbers.append(defined.get(value, value))
    return ("tensorrt_rtx" if int(numbers[0]) < 5 else "tensorrt"), ".".join(numbers)


def stubs(include: pathlib.Path) -> str:
    """A class per interface whose functions all end the program: the double has to know those that are called."""
    text = re.sub(r"//.*", "", (include / "NvInferImpl.h").read_text())
    out = ["#pragma once", "#include <cstdlib>", "namespace nvinfer1::apiv {"]
    for name in CLASSES:
        (body,) = re.findall(rf"^class V{name} : public VRoot\s*{{(.*?)^}};", text, re.MULTILINE | re.DOTALL)
        functions = re.findall(r"virtual\s+([^;]*?)\s*=\s*0\s*;", body)
        assert len(functions) > 15, f"V{name} was not read"
        out += [f"class Stub{name} : public V{name} {{", "public:"]
        out += [f"    {' '.join(function.split())} override {{ std::abort(); }}" for function in functions]
        out += ["};"]
    return "\n".join([*out, "}", ""])


def compile_doubles(folder: pathlib.Path) -> pathlib.Path:
    """Builds libcuda.so.1 and the library of the headers' own name into `folder`; the latter's path."""
    include = pathlib.Path(cached("NVINFER_INCLUDE"))
    (folder / "stubs.h").write_text(stubs(include))
    base = ["c++", "-std=c++17", "-O1", "-g", "-fPIC", "-shared", "-fvisibility=hidden", "-Wl,--no-undefined"]
    warn = ["-Wall", "-Wextra", "-Werror", "-Wno-unused-parameter"]  # stubs read none
    subprocess.run([*base, *warn, "-fvisibility=default", DOUBLE / "driver.cpp", "-o", folder / "libcuda.so.1"],
                   check=True)  # fmt: skip
    source = REPO / "runtime" / "src"
    path = folder / ("libtensorrt_rtx_double.so" if header_version()[0] == "tensorrt_rtx" else "libnvinfer_double.so")
    places = [f"-I{source}", f"-I{REPO / 'runtime' / 'include'}", f"-I{folder}", f"-I{DOUBLE}",
              "-isystem", include, "-isystem", cached("CUDA_RUNTIME_INCLUDE")]  # fmt: skip
    files = [DOUBLE / "tensorrt.cpp", *(source / f"{name}.cpp" for name in SOURCES)]
    subprocess.run([*base, *warn, "-fvisibility=default", *places, *files, "-ldl", "-pthread", "-o", path], check=True)
    return path


def environment(folder: pathlib.Path, library: pathlib.Path, **more: str) -> dict[str, str]:
    """Of a process that finds the doubles."""
    return {**os.environ, "LD_LIBRARY_PATH": str(folder), "EDGEPRUNE_TENSORRT_LIB": str(library),
            "EDGEPRUNE_TENSORRT_BACKEND": str(backend()), **more}  # fmt: skip
