"""The native SHA-256, with the processor's instructions and without, against hashlib."""

from __future__ import annotations

import hashlib
import pathlib
import random
import subprocess
from collections.abc import Callable

import pytest

EP_ERROR_IO = 2


@pytest.fixture(scope="module")
def digest_lines(native_program: Callable[[str], pathlib.Path]) -> Callable[[list[pathlib.Path]], list[str]]:
    def run(paths: list[pathlib.Path]) -> list[str]:
        text = "".join(f"{path}\n" for path in paths)
        done = subprocess.run([native_program("sha256_cli")], input=text, capture_output=True, text=True, check=True)
        return done.stdout.splitlines()

    return run


def test_digests_equal_hashlib(digest_lines: Callable[[list[pathlib.Path]], list[str]], tmp_path: pathlib.Path) -> None:
    """Every length around the ends of blocks, and around the 1 MiB pieces in which files are read."""
    mib = 1 << 20
    sizes = [*range(0, 200), 1000, 4095, 4096, 4097, mib - 1, mib, mib + 1, 3 * mib + 77]
    dice = random.Random(0)
    paths, expected = [], []
    for size in sizes:
        data = dice.randbytes(size)
        paths.append(tmp_path / str(size))
        paths[-1].write_bytes(data)
        expected.append(" ".join([hashlib.sha256(data).hexdigest()] * 2))
    assert digest_lines(paths) == expected


def test_known_digest(digest_lines: Callable[[list[pathlib.Path]], list[str]], tmp_path: pathlib.Path) -> None:
    """FIPS 180-4's example message."""
    path = tmp_path / "abc"
    path.write_bytes(b"abc")
    digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert digest_lines([path]) == [f"{digest} {digest}"]


def test_unreadable(digest_lines: Callable[[list[pathlib.Path]], list[str]], tmp_path: pathlib.Path) -> None:
    missing, folder = digest_lines([tmp_path / "missing", tmp_path])
    assert missing == f"error {EP_ERROR_IO} cannot read {tmp_path / 'missing'}: No such file or directory"
    assert folder == f"error {EP_ERROR_IO} cannot read {tmp_path}: Is a directory"
