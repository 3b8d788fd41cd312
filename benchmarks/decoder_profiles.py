"""Size and build time of a decoder's engine by its profiles: each alone, and both in one. No GPU is needed or used.

    python -m benchmarks.decoder_profiles OUT.json BUNDLE [--gpu 8.6]

BUNDLE holds an fp32 decoder; it is built in fp16 in the dialect of TensorRT-RTX, without the measuring that
`edgeprune build` does before. One build each, processor time beside the clock's.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import onnx

from edgeprune.bundle import Bundle
from edgeprune.engines import half, quantise, tensorrt
from edgeprune.engines.engine_plan import EnginePlan, plans
from edgeprune.engines.passes import forms
from edgeprune.engines.weights import WeightFile

CHOICES = (("prefill",), ("decode",), ("prefill", "decode"))


def write(bundle: Bundle, plan: EnginePlan, folder: Path) -> Path:
    """The decoder in fp16, as TensorRT-RTX gets it."""
    form, sides = forms.FORMS["trt"], (*plan.graph.inputs, *plan.graph.outputs)
    model: onnx.ModelProto = quantise.load(bundle.file(plan.graph.file))
    forms.apply(form.before, model)
    half.to_half(model, [], [tensor.name for tensor in sides if tensor.role.startswith(("past", "present"))])
    forms.apply(form.after, model)
    WeightFile(folder / "decoder.data").save(model, folder / "decoder.onnx")
    return folder / "decoder.onnx"


def build(graph: Path, plan: EnginePlan, names: tuple[str, ...], gpu: tuple[int, int]) -> dict[str, Any]:
    started, worked = time.monotonic(), time.process_time()
    profiles = [plan.profiles[name] for name in names]
    size = len(tensorrt.build_engine_bytes(graph, profiles, compute_capabilities=[gpu]))
    seconds = {"processor_s": time.process_time() - worked, "clock_s": time.monotonic() - started}
    return {"profiles": names, "mib": round(size / 2**20, 1), **{key: round(s, 1) for key, s in seconds.items()}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--gpu", default="8.6", help="compute capability")
    args = parser.parse_args()
    bundle = Bundle.open(args.bundle, verify="sizes")
    major, _, minor = args.gpu.partition(".")
    plan = plans(bundle.manifest)[-1]
    rows = []
    with tempfile.TemporaryDirectory(dir=args.bundle.parent) as folder:
        graph = write(bundle, plan, Path(folder))
        for names in CHOICES:
            rows.append(build(graph, plan, names, (int(major), int(minor))))
            print(rows[-1], flush=True)
    facts = {"bundle": args.bundle.name, "compute_capabilities": [args.gpu], **tensorrt.versions("tensorrt_rtx")}
    args.out.write_text(json.dumps({**facts, "rows": rows}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
