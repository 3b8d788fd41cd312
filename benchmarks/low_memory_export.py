"""Export a sharded fp16 checkpoint of the LLaVA-1.5 7B shape under a memory limit, and compare sampled tensors with it.

    python -m benchmarks.low_memory_export [--work DIR] [--decoder-layers N] [--vision-layers N] [--limit-gib 6]
The whole 7B shape needs 27 GiB of disk below DIR, which is freed at the end, and about 10 minutes. The limit is that of
a memory cgroup where one can be made (root), else the process is ended when its anonymous memory passes it; the result
says which.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from benchmarks import sharded_checkpoint

REPO = pathlib.Path(__file__).resolve().parent.parent
CGROUPS = pathlib.Path("/sys/fs/cgroup")
COMMAND = (sys.executable, "-c", "from edgeprune.cli.main import entry; entry()")
SAMPLES = 24
POLL_S = 0.05


class MemoryGroup:
    """A memory cgroup, version 1 or 2, with a limit; page cache counts, too, and is reclaimed."""

    def __init__(self, limit: int) -> None:
        v1 = (CGROUPS / "memory").is_dir()
        self.folder = (CGROUPS / "memory" if v1 else CGROUPS) / f"edgeprune-export-{os.getpid()}"
        self.peak_file = "memory.max_usage_in_bytes" if v1 else "memory.peak"
        self.folder.mkdir()
        (self.folder / ("memory.limit_in_bytes" if v1 else "memory.max")).write_text(str(limit))

    def enter(self) -> None:
        """Called in the child before it starts the export."""
        (self.folder / "cgroup.procs").write_text(str(os.getpid()))

    def peak(self) -> int:
        """Bytes, page cache included."""
        return int((self.folder / self.peak_file).read_text())


@contextlib.contextmanager
def memory_group(limit: int) -> Iterator[MemoryGroup | None]:
    """A cgroup, or None where this user cannot make one."""
    try:
        group = MemoryGroup(limit)
    except OSError:
        yield None
        return
    try:
        yield group
    finally:
        group.folder.rmdir()


def run_limited(command: list[str], limit: int, work: pathlib.Path) -> dict[str, Any]:
    """Runs a command; its peak anonymous memory and the most disk below `work`, both polled, and the group's own peak.

    Raises:
        SystemExit: it failed, or went over the limit.
    """
    with memory_group(limit) as group:
        begun = time.monotonic()
        process = subprocess.Popen(command, preexec_fn=group.enter if group else None)
        peak = disk = 0
        while process.poll() is None:
            peak = max(peak, anonymous_bytes(process.pid))
            disk = max(disk, disk_bytes(work))
            if peak > limit:
                process.send_signal(signal.SIGKILL)
            time.sleep(POLL_S)
        took = time.monotonic() - begun
        measured = {
            "limit_bytes": limit,
            "limited_by": "cgroup" if group else "polling RssAnon",
            "seconds": round(took, 1),
            "peak_anonymous_bytes": peak,
            "cgroup_peak_bytes": group.peak() if group else None,
            "peak_disk_bytes": max(disk, disk_bytes(work)),
        }
    if process.returncode:
        raise SystemExit(f"the export ended with {process.returncode} after {took:.0f} s, peak {peak / 2**30:.2f} GiB")
    return measured


def anonymous_bytes(pid: int) -> int:
    """RssAnon of a process, 0 once it is gone."""
    try:
        status = pathlib.Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    found = [line.split()[1] for line in status.splitlines() if line.startswith("RssAnon:")]
    return int(found[0]) << 10 if found else 0


def disk_bytes(folder: pathlib.Path) -> int:
    """Disk that the files below a folder take, unfinished and hidden ones too; holes take none."""
    taken = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):  # renamed or removed meanwhile
                taken += 512 * os.lstat(os.path.join(place, name)).st_blocks
    return taken


def sampled(made: dict[str, Any], count: int) -> list[str]:
    """Names of weight matrices that a bundle holds unchanged: of the decoder, its ends, and used vision blocks."""
    used = made["vision_config"]["num_hidden_layers"] - 1
    names = [
        name
        for name, shape in sharded_checkpoint.shapes(made).items()
        if len(shape) == 2 and "position" not in name and not any(f"layers.{i}." in name for i in _dead(name, used))
    ]
    ends = [name for name in names if "embed_tokens" in name or "lm_head" in name]
    return ends + random.Random(0).sample([name for name in names if name not in ends], count - len(ends))


def _dead(name: str, used: int) -> range:
    """Vision blocks behind the feature block are not exported; the decoder has no such."""
    return range(used, used + 1) if "vision_tower" in name else range(0)


def compare(bundle: pathlib.Path, made: dict[str, Any], count: int = SAMPLES) -> int:
    """How many sampled tensors lie in the bundle's data files, bit by bit, as they are or transposed.

    Raises:
        SystemExit: one does not.
    """
    wanted = {
        name: sharded_checkpoint.values(name, sharded_checkpoint.shapes(made)[name]) for name in sampled(made, count)
    }
    found = _digests(bundle, {value.nbytes for value in wanted.values()})
    for name, value in wanted.items():
        if not {_digest(value), _digest(np.ascontiguousarray(value.T))} & found:
            raise SystemExit(f"{name} is not in {bundle.name}")
    return len(wanted)


def _digests(bundle: pathlib.Path, sizes: set[int]) -> set[str]:
    """SHA-256 of every external tensor of one of these sizes."""
    import onnx
    from onnx.external_data_helper import ExternalDataInfo, uses_external_data

    made = set()
    for graph in sorted((bundle / "onnx").glob("*.onnx")):
        for tensor in onnx.load(graph, load_external_data=False).graph.initializer:
            if not uses_external_data(tensor):
                continue
            where = ExternalDataInfo(tensor)
            if where.length in sizes:
                mapped = np.memmap(graph.parent / where.location, np.uint8, "r", where.offset, (where.length,))
                made.add(hashlib.sha256(mapped.data).hexdigest())
    return made


def _digest(value: np.ndarray[Any, Any]) -> str:
    return hashlib.sha256(value.reshape(-1).view(np.uint8).data).hexdigest()


def measure(work: pathlib.Path, decoder_layers: int | None, vision_layers: int | None, limit: int) -> dict[str, Any]:
    """Makes the checkpoint, exports it under the limit, compares; leaves both below `work`."""
    made = sharded_checkpoint.config("llava15", decoder_layers, vision_layers)
    source, bundle = work / "checkpoint", work / "checkpoint-keep0.1.bundle"
    weights = sharded_checkpoint.write(source, made, "llava15")
    options = ["--model", str(source), "--keep", "0.1", "--dtype", "fp16", "-o", str(bundle)]
    run = run_limited([*COMMAND, "export", *options], limit, work)
    manifest = json.loads((bundle / "manifest.json").read_text(encoding="utf-8"))
    return {
        "decoder_layers": made["text_config"]["num_hidden_layers"],
        "vision_layers": made["vision_config"]["num_hidden_layers"],
        "dtype": "fp16",
        "checkpoint_bytes": weights,
        "shards": len(list(source.glob("*.safetensors"))),
        "bundle_bytes": sum(file.stat().st_size for file in bundle.rglob("*") if file.is_file()),
        **run,
        "tensors_compared": compare(bundle, made),
        "parity_rows": manifest["parity"],
        "no_parity_because": manifest["golden"].get("reason"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--work", type=pathlib.Path, help="where the checkpoint and the bundle go (a temporary directory)"
    )
    parser.add_argument("--decoder-layers", type=int)
    parser.add_argument("--vision-layers", type=int)
    parser.add_argument("--limit-gib", type=float, default=6.0)
    args = parser.parse_args()
    folder = pathlib.Path(tempfile.mkdtemp(prefix="edgeprune-", dir=args.work))
    try:
        found = measure(folder, args.decoder_layers, args.vision_layers, int(args.limit_gib * 2**30))
    finally:
        shutil.rmtree(folder)
    print(json.dumps(found, indent=1))
    if args.decoder_layers is None and args.vision_layers is None:
        target = REPO / "benchmarks" / "results" / f"{time.strftime('%Y-%m-%d')}-low-memory-export.json"
        target.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        print(f"kept in {target.relative_to(REPO)}")


if __name__ == "__main__":
    main()
