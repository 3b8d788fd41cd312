"""What this machine's NVIDIA GPU, driver and JetPack are, read without any library of theirs."""

from __future__ import annotations

import pathlib
import subprocess

_MODEL = pathlib.Path("/proc/device-tree/model")
_JETPACK = pathlib.Path("/etc/nv_tegra_release")
_QUERY = ("nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader")


def facts() -> dict[str, str | None]:
    """{"gpu", "driver", "jetpack"}; None where there is none, or where the machine does not say."""
    name, driver = _desktop()
    jetson = _first_line(_JETPACK)
    return {"gpu": name or (_first_line(_MODEL) if jetson else None), "driver": driver, "jetpack": jetson}


def _desktop() -> tuple[str | None, str | None]:
    """Name and driver of the first GPU that nvidia-smi lists."""
    try:
        done = subprocess.run(_QUERY, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return None, None
    name, _, driver = (done.stdout.splitlines() or [""])[0].rpartition(",")
    return name.strip() or None, driver.strip() or None


def _first_line(path: pathlib.Path) -> str | None:
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    return text.replace("\0", "").partition("\n")[0].strip() or None
