"""What a C or C++ program gets: symbols, needed libraries, size; the installed tree through CMake and pkg-config."""

from __future__ import annotations

import os
import pathlib
import re
import subprocess

import pytest

from edgeprune.runtime import library
from edgeprune.runtime.session import Model
from tests.conftest import native_dir
from tests.runtime.conftest import picture
from tests.runtime.native_build import REPO, cmake_tool, run_program

ABI = pathlib.Path(__file__).resolve().parent / "abi"
MOST_BYTES = 2_000_000
#: ld-linux is the loader itself, a part of libc.
NEEDED = re.compile(r"lib(c|m|stdc\+\+|gcc_s)\.so\.\d+|ld-linux[\w-]*\.so\.\d")


def call(*command: str | pathlib.Path, **env: str) -> str:
    done = subprocess.run(command, env={**os.environ, **env}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def dynamic_section(kind: str) -> list[str]:
    text = call("readelf", "-d", library.load().path)
    return re.findall(rf"\({kind}\).*\[(.*)\]", text)


def test_exported_symbols() -> None:
    """A function that is added belongs into the list; none ever leaves it."""
    symbols = call("nm", "-D", "--defined-only", library.load().path)
    assert sorted(line.split()[-1] for line in symbols.splitlines()) == (
        (ABI / "exported_symbols.txt").read_text().split()
    )


def test_needed_libraries_and_soname() -> None:
    needed = dynamic_section("NEEDED")
    assert [name for name in needed if not NEEDED.fullmatch(name)] == []
    assert "libc.so.6" in needed
    major = library.load().calls.ep_version().decode().split(".")[0]
    assert dynamic_section("SONAME") == [f"libedgeprune.so.{major}"]


def test_stripped_size(tmp_path: pathlib.Path) -> None:
    stripped = tmp_path / "libedgeprune.so"
    call("strip", "-o", stripped, library.load().path)
    assert stripped.stat().st_size < MOST_BYTES


@pytest.fixture(scope="module")
def prefix(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The installed tree, moved after it was installed: nothing in it may know where it was built."""
    folder = tmp_path_factory.mktemp("prefix")
    call(cmake_tool("cmake"), "--install", native_dir(), "--prefix", folder / "first")
    return (folder / "first").rename(folder / "moved")


def library_folder(prefix: pathlib.Path) -> pathlib.Path:
    return next(prefix.rglob("libedgeprune.so")).parent


def answers_like_python(program: pathlib.Path, model: Model, bundle: pathlib.Path, folder: pathlib.Path) -> None:
    pixels = picture(8)
    file = folder / "scene.ppm"
    file.write_bytes(b"P6\n%d %d\n255\n" % (pixels.shape[1], pixels.shape[0]) + pixels.tobytes())
    code, out, errors = run_program(program, bundle, "Where is it?", 0.5, 1, file)
    assert (code, errors) == (0, "")
    assert f"frame 0: {model.ask(pixels, 'Where is it?', keep=0.5, max_new_tokens=48).text}\n" in out


CONSUMER = """
cmake_minimum_required(VERSION 3.22)
project(consumer LANGUAGES C CXX)
find_package(edgeprune {version} REQUIRED)
add_executable(robot_loop robot_loop.c)
add_executable(wrapper wrapper.cpp)
set_property(TARGET wrapper PROPERTY CXX_STANDARD 17)
foreach(name robot_loop wrapper)
  target_link_libraries(${{name}} PRIVATE edgeprune::edgeprune)
endforeach()
"""


def write_consumer(folder: pathlib.Path, version: str) -> None:
    (folder / "CMakeLists.txt").write_text(CONSUMER.format(version=version))
    (folder / "robot_loop.c").write_bytes((REPO / "examples" / "c" / "robot_loop.c").read_bytes())
    (folder / "wrapper.cpp").write_bytes((ABI / "wrapper.cpp").read_bytes())


def test_find_package(prefix: pathlib.Path, model: Model, hand_bundle: pathlib.Path, tmp_path: pathlib.Path) -> None:
    write_consumer(tmp_path, "0.1")
    cmake, build = cmake_tool("cmake"), tmp_path / "build"
    call(cmake, "-S", tmp_path, "-B", build, f"-DCMAKE_PREFIX_PATH={prefix}")
    call(cmake, "--build", build)
    answers_like_python(build / "robot_loop", model, hand_bundle, tmp_path)
    pixels = picture(8)
    arguments = (hand_bundle, pixels.shape[1], pixels.shape[0])
    assert run_program(build / "wrapper", *arguments, data=pixels.tobytes())[0] == 0


def test_find_package_refuses_another_major_version(prefix: pathlib.Path, tmp_path: pathlib.Path) -> None:
    write_consumer(tmp_path, "9.0")
    command = (cmake_tool("cmake"), "-S", tmp_path, "-B", tmp_path / "build", f"-DCMAKE_PREFIX_PATH={prefix}")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert 'compatible with requested version "9.0"' in done.stderr


def test_pkg_config(prefix: pathlib.Path, model: Model, hand_bundle: pathlib.Path, tmp_path: pathlib.Path) -> None:
    folder = library_folder(prefix)
    path = {"PKG_CONFIG_PATH": str(folder / "pkgconfig")}
    assert call("pkg-config", "--modversion", "edgeprune", **path).strip() == library.load().calls.ep_version().decode()
    flags = call("pkg-config", "--cflags", "--libs", "edgeprune", **path).split()
    program = tmp_path / "robot_loop"
    source = REPO / "examples" / "c" / "robot_loop.c"
    call("cc", source, *flags, f"-Wl,-rpath,{folder}", "-o", program)
    answers_like_python(program, model, hand_bundle, tmp_path)


def test_installed_files(prefix: pathlib.Path) -> None:
    version = library.load().calls.ep_version().decode()
    names = {path.name for path in prefix.rglob("*") if not path.is_dir()}
    backend = {"libedgeprune_tensorrt.so"}  # where TensorRT's headers are
    assert (backend <= names) == (native_dir() / "libedgeprune_tensorrt.so").exists()
    assert names - backend == {
        "edgeprune.h",
        "edgeprune.hpp",
        "libedgeprune.so",
        f"libedgeprune.so.{version.split('.')[0]}",
        f"libedgeprune.so.{version}",
        "edgeprune.pc",
        "edgeprune-config.cmake",
        "edgeprune-config-version.cmake",
        "edgeprune-targets.cmake",
        "edgeprune-targets-release.cmake",
        "LICENSE",
    }
