"""What this machine's NVIDIA GPU, driver, CUDA and JetPack are, read without any library but the driver's."""

from __future__ import annotations

import ctypes
import pathlib
import subprocess

_MODEL = pathlib.Path("/proc/device-tree/model")
_JETPACK = pathlib.Path("/etc/nv_tegra_release")
#: the keys of `facts`.
FACTS = ("gpu", "driver", "jetpack", "compute_capability")
_FIELDS = ("name", "driver_version", "compute_cap")
_QUERY = ("nvidia-smi", f"--query-gpu={','.join(_FIELDS)}", "--format=csv,noheader")


def facts() -> dict[str, str | None]:
    """{"gpu", "driver", "jetpack", "compute_capability"}; None where there is none, or the machine does not say."""
    name, driver, capability = _desktop()
    jetson = _first_line(_JETPACK)
    gpu = name or (_first_line(_MODEL) if jetson else None)
    return dict(zip(FACTS, (gpu, driver, jetson, capability), strict=True))


def cuda_version() -> str | None:
    """The CUDA version that the driver serves, e.g. "13.0"; None without a driver, or where it fails."""
    version = ctypes.c_int()
    try:
        failed = ctypes.CDLL("libcuda.so.1").cuDriverGetVersion(ctypes.byref(version))
    except (OSError, AttributeError):
        return None
    return None if failed else f"{version.value // 1000}.{version.value % 1000 // 10}"


def _desktop() -> tuple[str | None, str | None, str | None]:
    """Name, driver and compute capability of the first GPU that nvidia-smi lists."""
    try:
        done = subprocess.run(_QUERY, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return None, None, None
    found = [word.strip() or None for word in (done.stdout.splitlines() or [""])[0].rsplit(",", len(_FIELDS) - 1)]
    return (found[0], found[1], found[2]) if len(found) == len(_FIELDS) else (None, None, None)


def _first_line(path: pathlib.Path) -> str | None:
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    return text.replace("\0", "").partition("\n")[0].strip() or None
