"""libedgeprune for aarch64: built with Debian's cross compiler, its C and C++ programs run under qemu-user.

The library of onnxruntime is the aarch64 wheel's of the oldest release allowed: 1.31's crashes under qemu 7.2 while it
reads the machine's caches, before any code of ours. No real board is involved.
"""

from __future__ import annotations

import os
import pathlib
import re
import shutil
import subprocess
import sys

import pytest

from edgeprune.runtime.session import Model
from tests.runtime.conftest import picture
from tests.runtime.native_build import INCLUDE, REPO, STRICT, cmake_tool, run_program
from tests.runtime.onnxruntime_wheel import OLDEST, download
from tests.runtime.test_abi import FIRST, answer_of
from tests.runtime.test_camera_loop import check_answers
from tests.runtime.test_packaging import ABI, MOST_BYTES, NEEDED, answers_like_python, call

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        shutil.which("aarch64-linux-gnu-g++") is None or shutil.which("qemu-aarch64") is None,
        reason="needs g++-aarch64-linux-gnu and qemu-user: tools/setup_system.sh --aarch64",
    ),
]

SYSROOT = "/usr/aarch64-linux-gnu"
TOOLCHAIN = REPO / "runtime" / "cmake" / "aarch64-linux-gnu.cmake"
PLATFORMS = ("--platform=manylinux_2_28_aarch64", "--python-version=3.11")
#: onnxruntime does not know the machine that it seems to run on, and says so.
NOISE = "cpuid_info warning"
#: Tests that drive one native program each.
PROGRAM_TESTS = (
    "tests/runtime/test_sha256.py",
    "tests/runtime/test_float16.py",
    "tests/runtime/test_encoder_kernels.py",
    "tests/runtime/test_int8_kernels.py",
    "tests/runtime/test_product_kernel.py",
    "tests/ground/test_keep_count.py",
    "tests/runtime/test_frames.py",
    "tests/runtime/test_image.py",
    "tests/runtime/test_tokenizer.py",
)
#: The emulator's memory is no measure of ours, its speed none of a board's; the last runs no program.
OF_THE_MACHINE = (
    "tests/runtime/test_frames.py::test_a_frame_is_not_copied_whole",
    "tests/runtime/test_tokenizer.py::test_time_grows_with_the_text_only",
    "tests/runtime/test_tokenizer.py::test_generated_tables_are_up_to_date",
)


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("aarch64")
    options = ("-DEDGEPRUNE_IMAGES=OFF", "-DEDGEPRUNE_TESTS=ON", "-DEDGEPRUNE_EXAMPLES=ON")
    call(cmake_tool("cmake"), "-S", REPO, "-B", folder, f"-DCMAKE_TOOLCHAIN_FILE={TOOLCHAIN}", *options)
    call(cmake_tool("cmake"), "--build", folder, "--parallel", "2")
    return folder


@pytest.fixture(scope="module")
def onnxruntime(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    return download(OLDEST, tmp_path_factory.mktemp("onnxruntime"), *PLATFORMS)


def emulated(program: pathlib.Path, onnxruntime: pathlib.Path) -> pathlib.Path:
    """A script that runs the program under qemu and passes on what it says, but for onnxruntime's noise."""
    script = program.with_name(f"{program.name}.sh")
    script.write_text(
        "#!/bin/sh\n"
        f"export EDGEPRUNE_ORT_LIB={onnxruntime}\n"
        f'qemu-aarch64 -L {SYSROOT} {program} "$@" 2>"$0.err"\n'
        "code=$?\n"
        f"grep -v '{NOISE}' \"$0.err\" >&2\n"
        "exit $code\n"
    )
    script.chmod(0o755)
    return script


def cross_compile(
    source: pathlib.Path, build: pathlib.Path, folder: pathlib.Path, include: pathlib.Path
) -> pathlib.Path:
    compiler, standard = ("gcc", "-std=c99") if source.suffix == ".c" else ("g++", "-std=c++17")
    program = folder / source.stem
    linking = (f"-L{build}", "-ledgeprune", f"-Wl,-rpath,{build}", "-pthread", "-o", program)
    call(f"aarch64-linux-gnu-{compiler}", standard, *STRICT, f"-I{include}", source, *linking)
    return program


def test_library(build: pathlib.Path, tmp_path: pathlib.Path) -> None:
    built = build / "libedgeprune.so"
    header = call("aarch64-linux-gnu-readelf", "-h", built)
    assert "AArch64" in header
    dynamic = call("aarch64-linux-gnu-readelf", "-d", built)
    needed = [line.split("[")[1].rstrip("]") for line in dynamic.splitlines() if "(NEEDED)" in line]
    assert "libc.so.6" in needed
    assert [name for name in needed if not NEEDED.fullmatch(name)] == []
    symbols = call("aarch64-linux-gnu-nm", "-D", "--defined-only", built).splitlines()
    assert sorted(line.split()[-1] for line in symbols) == (ABI / "exported_symbols.txt").read_text().split()
    call("aarch64-linux-gnu-strip", "-o", tmp_path / "stripped.so", built)
    assert (tmp_path / "stripped.so").stat().st_size < MOST_BYTES


@pytest.mark.parametrize("include", [FIRST, INCLUDE], ids=["first header", "this header"])
def test_c_program(
    build: pathlib.Path,
    onnxruntime: pathlib.Path,
    include: pathlib.Path,
    model: Model,
    hand_bundle: pathlib.Path,
    tmp_path: pathlib.Path,
) -> None:
    program = cross_compile(ABI / "caller.c", build, tmp_path, include)
    assert answer_of(emulated(program, onnxruntime), model, hand_bundle) == []


def test_cpp_wrapper(
    build: pathlib.Path, onnxruntime: pathlib.Path, hand_bundle: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    program = emulated(cross_compile(ABI / "wrapper.cpp", build, tmp_path, INCLUDE), onnxruntime)
    pixels = picture(6)
    code, out, errors = run_program(program, hand_bundle, pixels.shape[1], pixels.shape[0], data=pixels.tobytes())
    assert (code, errors) == (0, ""), out


def test_examples(
    build: pathlib.Path,
    onnxruntime: pathlib.Path,
    model: Model,
    hand_bundle: pathlib.Path,
    tiny_bundle: pathlib.Path,
    tmp_path: pathlib.Path,
) -> None:
    answers_like_python(emulated(build / "robot_loop", onnxruntime), model, hand_bundle, tmp_path)
    for bundle in (hand_bundle, tiny_bundle):
        check_answers(emulated(build / "camera_loop", onnxruntime), bundle)


def test_native_programs(build: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """Resize, colour conversion, tokenizer, hashes, float16, keep_count: the tests of x86_64, byte for byte."""
    for source in (REPO / "tests" / "runtime" / "native").glob("*.cpp"):
        script = tmp_path / source.stem
        script.write_text(f'#!/bin/sh\nexec qemu-aarch64 -L {SYSROOT} {build / source.stem} "$@"\n')
        script.chmod(0o755)
    command = [sys.executable, "-m", "pytest", "-q", "-m", "not slow", "-p", "no:cacheprovider", *PROGRAM_TESTS]
    command += [f"--deselect={name}" for name in OF_THE_MACHINE]
    env = {**os.environ, "EDGEPRUNE_NATIVE_DIR": str(tmp_path)}
    done = subprocess.run(command, cwd=REPO, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-5000:]
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed is not None
    assert int(passed[1]) > 200
