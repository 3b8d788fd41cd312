"""Build TensorRT-RTX engines of bundles on this machine, no GPU needed, and write times, sizes and peak memory as JSON.

    python -m benchmarks.engine_builds OUT.json BUNDLE=PRECISION[,decoder=int4]... [--gpus sm86,sm89,sm120]

For example `demo.bundle=fp16 llava.bundle=fp16`. Without bundles, those of docs/targets.md are exported first: the
demo, and a LLaVA-1.5-shaped one of real widths, the whole ViT-L/14-336, two decoder layers and random weights, for
fastervlm and divprune. Each build is a process of its own: its peak is what `wait4` reports. Takes minutes and about
20 GB of disk.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time
from typing import Any

REPO = pathlib.Path(__file__).resolve().parent.parent
COMMAND = (sys.executable, "-c", "from edgeprune.cli.main import entry; entry()")
EXPORTS = {
    "demo": ("--model", "demo", "--prune", "fastervlm", "--prune", "divprune"),
    "llava15-2-layers": (
        "--model", "llava15", "--random-weights", "--set", "text.num_hidden_layers=2", "--dtype", "fp16",
        "--prune", "fastervlm", "--prune", "divprune",
    ),
}  # fmt: skip
BUILDS = (("demo", "fp16"), ("demo", "vision=fp16,decoder=int4"), ("llava15-2-layers", "fp16"))


def edgeprune(*argv: object) -> tuple[int, float, str]:
    """Peak resident memory in bytes, seconds, and what a command printed; SystemExit where it fails."""
    started = time.monotonic()
    with tempfile.TemporaryFile("w+") as out:
        process = subprocess.Popen([*COMMAND, *map(str, argv)], stdout=out, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        text = out.read()
    if process.returncode:
        raise SystemExit(f"edgeprune {' '.join(map(str, argv))}: exit code {process.returncode}\n{text}")
    return usage.ru_maxrss * 1024, time.monotonic() - started, text


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
        "keep": keep,
        "visual_tokens": count,
        "seconds": round(seconds, 1),
        "peak_mib": peak >> 20,
        "estimate": next(line for line in text.splitlines() if line.startswith("needs about")),
        "engines": [{key: e[key] for key in ("file", "seconds", "bytes")} for e in facts["engines"]],
        "profiles": {e["file"]: e["fingerprint"]["options"]["profiles"] for e in facts["engines"]},
        "versions": facts["engines"][0]["fingerprint"]["versions"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("builds", nargs="*", metavar="BUNDLE=PRECISION")
    parser.add_argument("--gpus", default="sm86,sm89,sm120")
    args = parser.parse_args()
    folder = pathlib.Path(tempfile.mkdtemp(prefix="engine-builds-", dir=REPO / "build")) if not args.builds else None
    rows = []
    try:
        for text in args.builds or ["=".join(pair) for pair in BUILDS]:
            name, _, precision = text.partition("=")
            bundle = pathlib.Path(name) if folder is None else exported(folder, name)
            rows.append(build(bundle, precision, args.gpus))
            args.out.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
            for engine in rows[-1]["engines"]:
                print(bundle.name, precision, engine["file"], engine["seconds"], "s", engine["bytes"] >> 20, "MiB")
            print(f"{bundle.name} {precision}: {rows[-1]['seconds']} s, peak {rows[-1]['peak_mib']} MiB", flush=True)
    finally:
        if folder is not None:
            shutil.rmtree(folder)


if __name__ == "__main__":
    main()
