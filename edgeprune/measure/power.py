"""What this machine draws and how it is set: NVIDIA's own tools, where they are on PATH.

`nvpmodel -q` tells a Jetson's power mode. `tegrastats` prints a line per interval, in which each rail stands as
`VDD_IN 4956mW/4890mW` (now / average since it began), on older releases without the unit: `POM_5V_IN 2532/2480`.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections import defaultdict
from types import TracebackType
from typing import IO, Any

INTERVAL_MS = 100
_RAIL = re.compile(r"\b([A-Z][A-Z0-9_]*) (\d+)(?:mW)?/\d+(?:mW)?(?= |$)")
#: figures of the same form that are no power.
_NO_RAILS = frozenset({"RAM", "SWAP", "IRAM"})
_MODE = re.compile(r"^NV Power Mode: *(\S.*)$", re.MULTILINE)


def power_mode() -> str | None:
    """The name of the mode, None where there is no nvpmodel or it does not say."""
    try:
        done = subprocess.run(("nvpmodel", "-q"), capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.SubprocessError):
        return None
    found = _MODE.search(done.stdout)
    return found and found[1].strip()


def rails(line: str) -> dict[str, int]:
    """Rail -> milliwatts now, of a line of tegrastats."""
    return {name: int(now) for name, now in _RAIL.findall(line) if name not in _NO_RAILS}


class Power:
    """Samples tegrastats while it is entered; without tegrastats it does nothing, and `summary` is None."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._lines: IO[bytes] | None = None

    def __enter__(self) -> Power:
        tool = shutil.which("tegrastats")
        if tool is not None:
            # a file takes any number of lines without anyone reading them meanwhile
            self._lines = tempfile.TemporaryFile()
            self._process = subprocess.Popen(
                (tool, "--interval", str(INTERVAL_MS)), stdout=self._lines, stderr=subprocess.DEVNULL
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(timeout=5)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def summary(self) -> dict[str, Any] | None:
        """{"interval_ms", "samples", "rails_mw": {rail: {"mean", "most"}}} after leaving; samples is 0, and rails_mw
        empty, when tegrastats printed no power."""
        if self._lines is None:
            return None
        self._lines.seek(0)
        found: dict[str, list[int]] = defaultdict(list)
        for line in self._lines.read().decode("utf-8", "replace").splitlines():
            for name, milliwatts in rails(line).items():
                found[name].append(milliwatts)
        means = {name: {"mean": sum(drawn) / len(drawn), "most": max(drawn)} for name, drawn in found.items()}
        return {"interval_ms": INTERVAL_MS, "samples": max(map(len, found.values()), default=0), "rails_mw": means}
