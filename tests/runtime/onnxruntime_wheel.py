"""libonnxruntime of releases and machines other than the installed one, out of the wheels of the package index."""

from __future__ import annotations

import pathlib
import subprocess
import sys
import zipfile

OLDEST = "1.23.2"  # the least that pyproject.toml allows


def download(version: str, folder: pathlib.Path, *options: str) -> pathlib.Path:
    """Path of libonnxruntime.so; `options` go to `pip download`."""
    command = [sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check", "--no-deps", "-d", folder]
    command += ["--only-binary=:all:", *options, f"onnxruntime=={version}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [n for n in archive.namelist() if n.startswith("onnxruntime/capi/libonnxruntime.so.")]
        return pathlib.Path(archive.extract(name, folder))
