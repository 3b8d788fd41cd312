"""A variant of engines for the doubles of tests/runtime/tensorrt_build.py, and a conversation with it: run as a program
it holds the same conversation with the bundle's own graphs and with the variant, and prints both as JSON."""

from __future__ import annotations

import ctypes
import json
import pathlib
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import onnx

from edgeprune import devices
from edgeprune.bundle import Bundle
from edgeprune.engines import engine_plan, half
from edgeprune.runtime.session import Model, Session
from edgeprune.variant_writer import VariantWriter
from tests.runtime import tensorrt_build
from tests.runtime.conftest import picture

SLUG = "doubles"
TARGETS = {"tensorrt": "tensorrt:local", "tensorrt_rtx": "tensorrt-rtx:sm86"}
CHOICES = ("yes, it is", "no", "perhaps not")


def write_engines(root: pathlib.Path, decoder: str = "fp32", built_with: tuple[str, str] | None = None) -> None:
    """Adds the variant: what `edgeprune build` would make engines of, with the profiles that it would give them.
    built_with: module and version; None: those of the headers, for the doubles."""
    bundle = Bundle.open(root)
    module, version = built_with or tensorrt_build.header_version()
    facts = {**dict.fromkeys(devices.FACTS), "compute_capability": "8.6"}
    capabilities = [] if module == "tensorrt" else ["8.6"]
    engines = []
    with VariantWriter(root, SLUG, "0123") as writer:
        for plan in engine_plan.plans(bundle.manifest):
            graph = (writer.path / f"{plan.file}.onnx").resolve()
            model = onnx.load(bundle.file(plan.graph.file))
            if plan.stage == "decoder" and decoder == "fp16":
                tensors = (*plan.graph.inputs, *plan.graph.outputs)
                half.to_half(model, half_io=[t.name for t in tensors if t.role.startswith(("past", "present"))])
            onnx.save(model, graph)
            (writer.path / plan.file).write_text(engine_text(graph, plan))
            digests = {name: bundle.manifest.files[name].sha256 for name in (plan.graph.file, *plan.graph.data)}
            print_ = {"module": module, "versions": {module: version}, "compute_capabilities": capabilities}
            engines.append({"file": plan.file, "fingerprint": {**facts, **print_, "graph_sha256": digests}})
        (writer.path / "build.json").write_text(json.dumps({"engines": engines}))
        precision = {"vision": "fp32", "decoder": decoder}
        entry = {"target": TARGETS[module], "precision": precision, "build": writer.name("build.json"), "parity": []}
        writer.commit(entry)


def engine_text(graph: pathlib.Path, plan: engine_plan.EnginePlan) -> str:
    """What the double of TensorRT reads as an engine."""
    lines = ["double", str(graph)]
    for ranges in plan.profiles.values():
        lines.append("profile")
        lines += [f"{name} {','.join(map(str, r.min))} {','.join(map(str, r.max))}" for name, r in ranges.items()]
    return "\n".join(lines)


def said(session: Session, question: str, count: int) -> dict[str, Any]:
    answer = session.generate(question, max_new_tokens=count, ignore_eos=True)
    return {
        "text": answer.text,
        "ids": [int(token) for token in answer.token_ids],
        "logits": session.logits().tolist(),
        "prefill": session.prefill_logits().tolist(),
        "reused": answer.reused_tokens,
    }


def conversation(model: Model) -> list[Any]:
    """Two pictures by every method of the bundle, questions that share a beginning, a picture removed, a cache cut
    short, scores of given answers, and an answer long enough that the cache outgrows its first memory several times."""
    told: list[Any] = []
    for name in model.bundle.manifest.methods.each:
        with model.new_session() as session:
            first = session.add_image(picture(1), method=name)
            told.append(said(session, "Where is it?", 6))
            told.append(said(session, "Where is the box?", 4))
            second = session.add_image(picture(2), method=name)
            told.append(said(session, "Which of both?", 5))
            for image in (first, second):
                kept = session.kept_tokens(image)
                told.append([np.asarray(kept.keep_idx).tolist(), session.image_embeds(image).tolist()])
            session.remove_image(second)
            told.append(said(session, "Which of both?", 3))
            session.truncate(9)
            told.append(said(session, "And now?", 3))
            scores = session.score("And now?", CHOICES)
            told.append([float(choice.log_probability) for choice in scores.choices])
            told.append(said(session, "And now?", 90))
    return told


def memory() -> list[int]:
    """Blocks in use, bytes, most bytes, allocations of the double of the driver."""
    figures = (ctypes.c_size_t * 4)()
    ctypes.CDLL("libcuda.so.1").double_memory(figures)
    return list(figures)


def main(root: str) -> None:
    with Model.open(root) as model:
        own = conversation(model)
    with Model.open(root, variant=SLUG) as model:
        described = model.describe()
        model.warmup()
        engines = conversation(model)
        during = memory()
    print(json.dumps({"own": own, "engines": engines, "described": described, "during": during, "after": memory()}))


def on_threads(root: str, count: int) -> None:
    """The conversation on so many threads at once, of one model."""
    with Model.open(root, variant=SLUG) as model, ThreadPoolExecutor(count) as pool:
        print(json.dumps(list(pool.map(conversation, [model] * count))))


if __name__ == "__main__":
    main(sys.argv[1]) if len(sys.argv) == 2 else on_threads(sys.argv[1], int(sys.argv[2]))
