"""Facts about this machine: processor, memory, disk. Linux, read from /proc and /sys."""

from __future__ import annotations

import os
import platform
import shutil
from pathlib import Path
from typing import Any

#: the flags that decide which kernels onnxruntime can use, x86-64 and aarch64.
_FLAGS = (
    "fma", "f16c", "avx", "avx2", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16",
    "asimd", "asimddp", "fphp", "asimdhp", "i8mm", "bf16", "sve", "sve2",
)  # fmt: skip
_NO_LIMIT_BYTES = 1 << 60


def facts() -> dict[str, Any]:
    """{"system", "machine", "processor", "cores", "cpu_flags", "memory_mib", "memory_free_mib", "disk_free_mib"}.

    Memory is the smaller of the machine's and the control group's; the disk is that of the current directory.
    """
    total, free = memory_bytes()
    return {
        "system": f"{platform.system()} {platform.release()}",
        "machine": platform.machine(),
        "processor": _cpuinfo("model name") or _cpuinfo("CPU part") or platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "cpu_flags": cpu_flags(),
        "memory_mib": round(total / 2**20),
        "memory_free_mib": round(free / 2**20),
        "disk_free_mib": round(shutil.disk_usage(".").free / 2**20),
    }


def cpu_flags() -> list[str]:
    """The instruction sets of the first core that matter here."""
    present = set((_cpuinfo("flags") or _cpuinfo("Features")).split())
    return [flag for flag in _FLAGS if flag in present]


def governor() -> str | None:
    """The frequency governors of this process's cores, comma-separated; None where the kernel shows none."""
    cores = sorted(os.sched_getaffinity(0))
    found = {_read(f"/sys/devices/system/cpu/cpu{core}/cpufreq/scaling_governor").strip() for core in cores}
    return ", ".join(sorted(found - {""})) or None


def peak_rss_bytes() -> int | None:
    """The most memory that this process has held at any time since it began, None where the kernel does not tell."""
    for line in _read("/proc/self/status").splitlines():
        if line.startswith("VmHWM:"):
            return 1024 * int(line.split()[1])
    return None


def memory_bytes() -> tuple[int, int]:
    """(total, available) memory in bytes that this process may use."""
    lines = dict(line.split(":", 1) for line in _read("/proc/meminfo").splitlines() if ":" in line)
    total, free = (1024 * int(lines.get(key, "0 kB").split()[0]) for key in ("MemTotal", "MemAvailable"))
    limit, used = (_number(_read(f"/sys/fs/cgroup/memory.{name}")) for name in ("max", "current"))
    if limit is not None and used is not None and limit < min(total, _NO_LIMIT_BYTES):
        return limit, min(free, max(0, limit - used))
    return total, free


def _cpuinfo(key: str) -> str:
    """The first value of a key of /proc/cpuinfo, "" when it has none."""
    for line in _read("/proc/cpuinfo").splitlines():
        name, colon, content = line.partition(":")
        if colon and name.strip() == key:
            return content.strip()
    return ""


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _number(text: str) -> int | None:
    return int(text) if text.strip().isdigit() else None
