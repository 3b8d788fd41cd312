"""Build TensorRT-RTX engines of bundles on this machine, no GPU needed, and write times, sizes and peak memory as JSON.

    python -m benchmarks.engine_builds OUT.json BUNDLE=PRECISION[,decoder=int4]... [--gpus sm86,sm89,sm120]
    python -m benchmarks.engine_builds OUT.json --write-docs

For example `demo.bundle=fp16 llava.bundle=fp16`. Without bundles, those of BUILDS are exported first and removed again,
one after the other: the demo; a LLaVA-1.5-shaped one of real widths (the whole ViT-L/14-336, two decoder layers, random
weights); and the same encoder with all of its 24 blocks in use before a small decoder; for fastervlm and divprune. Each
build is a process of its own, and so is each engine of it: the peak is that of all of them together. `--write-docs`
makes the table of docs/targets.md.
Takes an hour on two cores, 9 GB of memory and 10 GB of disk. `--missing` keeps the rows that OUT.json has and adds the
others: a build at a time, where a machine is shared.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import Any

from benchmarks import docs_tables

REPO = pathlib.Path(__file__).resolve().parent.parent
COMMAND = (sys.executable, "-c", "from edgeprune.cli.main import entry; entry()")
_BOTH = ("--prune", "fastervlm", "--prune", "divprune")
_LLAVA = ("--model", "llava15", "--random-weights", "--set", "text.num_hidden_layers=2", *_BOTH)
_SMALL_DECODER = {"num_hidden_layers": 1, "hidden_size": 512, "intermediate_size": 1024, "num_attention_heads": 8,
                  "num_key_value_heads": 8}  # fmt: skip
EXPORTS: dict[str, tuple[str, ...]] = {
    "demo": ("--model", "demo", *_BOTH),
    "llava15-2-layers": (*_LLAVA, "--dtype", "fp16"),
    "llava15-2-layers-fp32": _LLAVA,
    "vit-l-24-blocks": (
        "--model", "llava15", "--random-weights", "--dtype", "fp16", "--set", "vision_feature_layer=-1",
        *(word for key, value in _SMALL_DECODER.items() for word in ("--set", f"text.{key}={value}")), *_BOTH,
    ),
}  # fmt: skip
BUILDS = (
    ("demo", "fp16"),
    ("demo", "vision=fp16,decoder=int4"),
    ("demo", "int8"),
    ("llava15-2-layers", "fp16"),
    ("vit-l-24-blocks", "fp16"),
    ("llava15-2-layers-fp32", "vision=int8,decoder=int4"),
)
#: seconds between two looks at the memory of a build
_LOOK_S = 0.05
NAME = "engine-builds"
PAGE = REPO / "docs" / "targets.md"
_HEADER = ("bundle", "precision", "engine", "seconds", "MiB", "peak MiB of the whole build")


def edgeprune(*argv: object) -> tuple[int, float, str]:
    """Peak resident memory in bytes, seconds, and what a command printed; SystemExit where it fails."""
    started = time.monotonic()
    with tempfile.TemporaryFile("w+") as out:
        process = subprocess.Popen([*COMMAND, *map(str, argv)], stdout=out, stderr=subprocess.STDOUT)
        peak, process.returncode = waited(process.pid)
        out.seek(0)
        text = out.read()
    if process.returncode:
        raise SystemExit(f"edgeprune {' '.join(map(str, argv))}: exit code {process.returncode}\n{text}")
    return peak, time.monotonic() - started, text


def waited(pid: int) -> tuple[int, int]:
    """Waits for a child of this process: peak resident bytes of it and its descendants together, and its exit code.

    A builder's process counts with its own peak, on top of what its parent, which waits, holds meanwhile. Not what
    `wait4` reports: that begins with the size of the process that started the child. What a process takes after the
    last look at it, at most `_LOOK_S` before its end, is not seen.
    """
    peak, ended = 0, 0
    while not ended:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if not ended:
            together = _status(pid, "VmRSS") + sum(_status(one, "VmHWM") for one in descendants(pid))
            peak = max(peak, _status(pid, "VmHWM"), together)
            time.sleep(_LOOK_S)
    return peak, os.waitstatus_to_exitcode(status)


def descendants(pid: int) -> list[int]:
    """Children of every thread, and theirs; a process that ends meanwhile has none."""
    found = []
    for file in pathlib.Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for child in map(int, file.read_text(encoding="ascii").split()):
                found += [child, *descendants(child)]
    return found


def _status(pid: int, name: str) -> int:
    """VmRSS or VmHWM of a process in bytes, 0 for one that has ended."""
    with contextlib.suppress(OSError):
        for line in pathlib.Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines():
            if line.startswith(f"{name}:"):
                return 1024 * int(line.split()[1])
    return 0


def exported(folder: pathlib.Path, name: str) -> pathlib.Path:
    """A bundle of EXPORTS, keep range 0.05 to 1."""
    bundle = folder / f"{name}.bundle"
    if not bundle.exists():
        edgeprune("export", *EXPORTS[name], "--keep", 0.1, "--keep-range", "0.05:1.0", "-o", bundle)
    return bundle


def build(bundle: pathlib.Path, precision: str, gpus: str) -> dict[str, Any]:
    """One variant, and what its build.json says of each engine."""
    words = ("--target", f"tensorrt-rtx:{gpus}", "--precision", precision, "--rebuild", "--no-verify")
    peak, seconds, text = edgeprune("build", bundle, *words)
    manifest = json.loads((bundle / "manifest.json").read_text(encoding="utf-8"))
    variant = manifest["variants"][-1]
    facts = json.loads((bundle / variant["build"]).read_text(encoding="utf-8"))
    keep, count = manifest["keep"], manifest["visual_tokens"]
    return {
        "bundle": bundle.name,
        "precision": precision,
        "gpus": gpus,
        "day": datetime.date.today().isoformat(),
        "keep": keep,
        "visual_tokens": count,
        "seconds": round(seconds, 1),
        "peak_mib": peak >> 20,
        "estimate": next(line for line in text.splitlines() if line.startswith("needs about")),
        "engines": [_engine(bundle, e) for e in facts["engines"]],
        "profiles": {e["file"]: e["fingerprint"]["options"]["profiles"] for e in facts["engines"]},
        "versions": facts["engines"][0]["fingerprint"]["versions"],
    }


def _engine(bundle: pathlib.Path, facts: dict[str, Any]) -> dict[str, Any]:
    """What is kept of one engine of build.json, and how large its graph is."""
    from edgeprune.engines.graph_view import GraphView, load

    name = facts["file"].replace(".engine", ".onnx")
    kept = {key: facts[key] for key in ("file", "seconds", "bytes")}
    kept |= {f"products_in_{word}": len(facts[word]) for word in ("fp16", "int8", "fp8") if word in facts}
    return {**kept, "nodes": sum(1 for _ in GraphView(name, load(bundle / "onnx" / name)).walk())}


def table(rows: list[dict[str, Any]]) -> str:
    """The Markdown table of docs/targets.md."""
    lines = []
    for row in rows:
        for index, engine in enumerate(row["engines"]):
            first = index == 0
            name, peak = (row["bundle"].removesuffix(".bundle"), f"{row['peak_mib']:,}") if first else ("", "")
            size = f"{engine['bytes'] / 2**20:,.0f}"
            lines.append((name, row["precision"] if first else "", engine["file"].removesuffix(".engine"),
                          f"{engine['seconds']:.0f}", size, peak))  # fmt: skip
    return docs_tables.markdown(_HEADER, lines)


def missing(builds: Sequence[tuple[str, str]], rows: Sequence[dict[str, Any]]) -> list[tuple[str, str]]:
    """The builds that have no row yet."""
    known = {(row["bundle"].removesuffix(".bundle"), row["precision"]) for row in rows}
    return [build for build in builds if build not in known]


def measure(
    builds: Sequence[tuple[str, str]], gpus: str, out: pathlib.Path, folder: pathlib.Path | None,
    rows: Sequence[dict[str, Any]] = (),
) -> None:  # fmt: skip
    """Builds one after the other and writes OUT after each, behind `rows`; a bundle of EXPORTS is removed once it is
    not needed."""
    rows = list(rows)
    for index, (name, precision) in enumerate(builds):
        bundle = pathlib.Path(name) if folder is None else exported(folder, name)
        rows.append(build(bundle, precision, gpus))
        out.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
        for engine in rows[-1]["engines"]:
            print(bundle.name, precision, engine["file"], engine["seconds"], "s", engine["bytes"] >> 20, "MiB")
        print(f"{bundle.name} {precision}: {rows[-1]['seconds']} s, peak {rows[-1]['peak_mib']} MiB", flush=True)
        if folder is not None and name not in {later for later, _ in builds[index + 1 :]}:
            shutil.rmtree(bundle)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("builds", nargs="*", metavar="BUNDLE=PRECISION")
    parser.add_argument("--gpus", default="sm86,sm89,sm120")
    parser.add_argument("--missing", action="store_true", help="only the builds that OUT does not have")
    parser.add_argument("--write-docs", action="store_true")
    args = parser.parse_args()
    args.out.parent.mkdir(parents=True, exist_ok=True)
    pairs = [tuple(text.partition("=")[::2]) for text in args.builds] or list(BUILDS)
    rows = json.loads(args.out.read_text(encoding="utf-8")) if args.missing and args.out.exists() else []
    pairs = missing(pairs, rows)
    folder = None
    if not args.builds:
        (REPO / "build").mkdir(exist_ok=True)
        folder = pathlib.Path(tempfile.mkdtemp(prefix="engine-builds-", dir=REPO / "build"))
    try:
        measure(pairs, args.gpus, args.out, folder, rows)
    finally:
        if folder is not None:
            shutil.rmtree(folder)
    if args.write_docs:
        docs_tables.replace(PAGE, NAME, table(json.loads(args.out.read_text(encoding="utf-8"))))


if __name__ == "__main__":
    main()
