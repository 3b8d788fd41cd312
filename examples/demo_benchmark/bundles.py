"""The bundles of the retention table: every pruning method of the demo model, each at every keep ratio it can serve.

A method that keeps as many tokens as it was exported for needs a bundle per keep ratio; all others share one.
"""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgeprune.pruning.registry import method_class, method_names

KEEPS = (1.0, 0.5, 0.25, 0.1, 0.05)
#: of the bundle of most methods: the smallest that aim-merge serves is 0.0625, and K of 256 has to be a power of two
SHARED_KEEP = 0.25
SEEDS = range(5)
TWO_STAGES = "background@0.5+fastervlm"
#: kept tokens are those of fp32; only what reads them is quantised, for time
PRECISION = "vision=fp32,decoder=int8"
VARIANT = "cpu-vision.fp32-decoder.int8"
#: the console script, taking Ctrl-C even when started in the background
COMMAND = (
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    "from edgeprune.cli.main import entry; entry()"
)
INTERRUPTED = 130


@dataclass(frozen=True)
class Part:
    """A bundle to export.

    Attributes:
        keep: it is exported for; what methods of a fixed count keep.
        specs: of `--prune`; `none` is added, and stands first: the variant's decoder is fitted to what it hands on.
    """

    name: str
    keep: float
    specs: tuple[str, ...]

    @property
    def methods(self) -> str:
        """For `eval --methods`."""
        return ",".join(dict.fromkeys("random" if spec.startswith("random") else spec for spec in self.specs))


def parts() -> Iterator[Part]:
    """The shared bundle first: it alone holds `none` and `random`, and fixed counts for its own keep ratio."""
    names = [name for name in method_names() if name != "random"]
    yield Part("shared", SHARED_KEEP, (*names, *(f"random:seed={seed}" for seed in SEEDS)))
    yield Part("two-stages", SHARED_KEEP, (TWO_STAGES,))
    fixed = tuple(name for name in names if name != "none" and not method_class(name).dynamic_keep)
    for keep in KEEPS:
        if keep < 1 and keep != SHARED_KEEP:
            yield Part(f"fixed-{keep:g}", keep, fixed)


def export(part: Part, work: Path) -> Path:
    """The bundle with its variant, made once."""
    bundle = work / f"{part.name}.bundle"
    if not (bundle / "variants" / VARIANT).exists():
        if not bundle.exists():
            specs = (f"--prune={spec}" for spec in dict.fromkeys(("none", *part.specs)))
            edgeprune(["export", "--model", "demo", "--keep", part.keep, *specs, "-o", bundle])
        edgeprune(["build", bundle, "--target", "cpu", "--precision", PRECISION])
    return bundle


def edgeprune(*commands: Sequence[object], minutes: float | None = None) -> bool:
    """Runs command lines beside each other; after `minutes` they are interrupted. SystemExit when one fails.

    Returns:
        Whether all ended by themselves.
    """
    running = [subprocess.Popen([sys.executable, "-c", COMMAND, *map(str, argv)]) for argv in commands]
    end = None if minutes is None else time.monotonic() + max(minutes, 0.1) * 60
    for process in running:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(None if end is None else max(end - time.monotonic(), 0))
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
    codes = [process.wait() for process in running]
    if set(codes) - {0, INTERRUPTED}:
        raise SystemExit(next(code for code in codes if code not in (0, INTERRUPTED)))
    return INTERRUPTED not in codes
