"""The tarball and the Debian package, used; and a build on a machine without the headers of libjpeg and libpng."""

from __future__ import annotations

import pathlib
import subprocess
import sys
import tarfile

import pytest

from edgeprune.runtime.session import Model
from tests.conftest import native_dir
from tests.runtime.native_build import REPO, cmake_tool
from tests.runtime.test_packaging import ABI, answers_like_python, call, library_folder

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("packages")
    call(cmake_tool("cpack"), "--config", native_dir() / "CPackConfig.cmake", "-B", folder)
    return folder


def use(prefix: pathlib.Path, model: Model, bundle: pathlib.Path, folder: pathlib.Path) -> None:
    """Compiles the example against an unpacked package and runs it."""
    libraries, include = library_folder(prefix), next(prefix.rglob("edgeprune.h")).parent
    program = folder / "robot_loop"
    source = REPO / "examples" / "c" / "robot_loop.c"
    flags = (f"-I{include}", f"-L{libraries}", "-ledgeprune", f"-Wl,-rpath,{libraries}")
    call("cc", source, *flags, "-o", program)
    answers_like_python(program, model, bundle, folder)
    exported = call("nm", "-D", "--defined-only", libraries / "libedgeprune.so").splitlines()
    assert sorted(line.split()[-1] for line in exported) == (ABI / "exported_symbols.txt").read_text().split()
    assert ".symtab" not in call("readelf", "-S", libraries / "libedgeprune.so")  # stripped


def test_tarball(packages: pathlib.Path, model: Model, hand_bundle: pathlib.Path, tmp_path: pathlib.Path) -> None:
    archive = next(packages.glob("edgeprune-*-linux-*.tar.gz"))
    with tarfile.open(archive) as file:
        file.extractall(tmp_path, filter="data")
    use(tmp_path / archive.name.removesuffix(".tar.gz"), model, hand_bundle, tmp_path)


def test_debian_package(
    packages: pathlib.Path, model: Model, hand_bundle: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    package = next(packages.glob("libedgeprune-dev_*.deb"))
    fields = call("dpkg-deb", "-f", package, "Depends", "Architecture")
    assert "libc6" in fields
    assert "libstdc++6" in fields
    assert call("dpkg", "--print-architecture").strip() in fields
    call("dpkg-deb", "-x", package, tmp_path / "root")
    use(tmp_path / "root" / "usr", model, hand_bundle, tmp_path)


FILES_ARE_REFUSED = """
import sys
import numpy as np
from edgeprune.errors import NativeError
from edgeprune.runtime.session import Model
with Model.open(sys.argv[1]) as model, model.new_session() as session:
    session.add_image(np.zeros((20, 30, 3), np.uint8))
    try:
        session.add_image(sys.argv[2])
    except NativeError as error:
        print(error.status, error)
"""


def test_built_without_image_headers(hand_bundle: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """Buffers work; a file is refused with the reason."""
    hidden = ("-DCMAKE_DISABLE_FIND_PACKAGE_JPEG=ON", "-DCMAKE_DISABLE_FIND_PACKAGE_PNG=ON")
    cmake = cmake_tool("cmake")
    call(cmake, "-S", REPO, "-B", tmp_path / "build", *hidden, "-DCMAKE_BUILD_TYPE=Release")
    call(cmake, "--build", tmp_path / "build", "--parallel", "2")
    picture = next((REPO / "tests" / "data" / "scenes").glob("*.png"))
    command = (sys.executable, "-c", FILES_ARE_REFUSED, str(hand_bundle), str(picture))
    text = call(*command, EDGEPRUNE_LIB=str(tmp_path / "build" / "libedgeprune.so"))
    status, message = text.split(maxsplit=1)
    assert status == "4"
    assert "PNG" in message
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == ""  # this library reads it
