"""Compiling small C and C++ programs against the library under test, and running them."""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess
import sys

from edgeprune.runtime import library

REPO = pathlib.Path(__file__).resolve().parents[2]
INCLUDE = REPO / "runtime" / "include"
STRICT = ("-Wall", "-Wextra", "-pedantic", "-Werror", "-O1")


def linked_library(folder: pathlib.Path) -> tuple[str, ...]:
    """Linker arguments for the library that the tests use, reached through links in `folder`."""
    shared = folder / "libedgeprune.so"
    if not shared.exists():
        shared.symlink_to(library.load().path.resolve())
        # The loader looks for the name that is written inside the library.
        (folder / "libedgeprune.so.0").symlink_to(shared)
    return (f"-L{folder}", "-ledgeprune", f"-Wl,-rpath,{folder}")


def compile_program(
    source: pathlib.Path, folder: pathlib.Path, *flags: str, include: pathlib.Path = INCLUDE, name: str = ""
) -> pathlib.Path:
    """`source` (.c as C99, .cpp as C++17) linked with the library; warnings are errors."""
    compiler, standard = ("cc", "-std=c99") if source.suffix == ".c" else ("c++", "-std=c++17")
    program = folder / (name or source.stem)
    command = [compiler, standard, *STRICT, *flags, f"-I{include}", source, *linked_library(folder), "-o", program]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return program


def environment(**more: str) -> dict[str, str]:
    onnxruntime = os.environ.get("EDGEPRUNE_ORT_LIB") or str(library.wheel_onnxruntime())
    return {"PATH": os.environ["PATH"], "EDGEPRUNE_ORT_LIB": onnxruntime, **more}


def run_program(program: pathlib.Path, *arguments: object, data: bytes = b"", **env: str) -> tuple[int, str, str]:
    """Exit code, standard output, standard error."""
    command = [str(part) for part in (program, *arguments)]
    done = subprocess.run(command, env=environment(**env), input=data, capture_output=True, check=False)
    return done.returncode, done.stdout.decode("utf-8", "replace"), done.stderr.decode("utf-8", "replace")


def cmake_tool(name: str) -> str:
    """cmake or cpack: beside the running Python when they were installed there, else the one on the path."""
    found = shutil.which(name, path=f"{pathlib.Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    assert found is not None, f"{name} is not installed: run `make native`"
    return found
