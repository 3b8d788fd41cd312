"""edgeprune: `python edgeprune_worker.py BUNDLE VARIANT`, VARIANT `own` for the bundle's own graphs.

With `--memory` it asks one question and prints its peak RSS beside the bytes of weights and KV cache.
"""

from __future__ import annotations

import json
import pathlib
import sys
from typing import Any

import protocol

import edgeprune
from edgeprune import machine
from edgeprune.bundle import Bundle
from edgeprune.runtime.session import Model

LONG_TOKENS = 2000
BACKGROUND = "background"


def open_model(bundle: str, variant: str) -> Model:
    return Model.open(bundle, variant=None if variant == "own" else variant, verify="sizes", threads=protocol.THREADS)


def answers(model: Model) -> dict[str, float]:
    """A picture and a question, then another question about it, each in milliseconds."""
    with model.new_session() as session:
        session.add_image(protocol.picture(), keep=protocol.KEEP)
        asked: dict[str, Any] = {"max_new_tokens": protocol.NEW_TOKENS, "ignore_eos": True}
        first = session.generate(protocol.QUESTION, **asked)
        second = session.generate("is there a car? " + protocol.QUESTION, **asked)
    times = first.timings
    outside = times.ttft_ms - times.graph_ms - times.resize_ms
    return {
        "edgeprune_ttft": times.ttft_ms,
        "edgeprune_ttft_second": second.timings.ttft_ms,
        "edgeprune_vision": times.vision_ms,
        "edgeprune_prefill": times.prefill_ms,
        "edgeprune_decode_100": times.tpot_ms,
        "edgeprune_outside_graphs": outside,
    }


class LongCache:
    """A session whose prompt is about LONG_TOKENS long; asked again, it decodes behind the cached prompt."""

    def __init__(self, model: Model) -> None:
        self.session = model.new_session()
        self.session.add_image(protocol.picture(), keep=protocol.KEEP)
        words = (protocol.QUESTION + " ") * LONG_TOKENS
        ids = model.tokenize(words)[: LONG_TOKENS - 100]
        self.question = model.detokenize(ids)

    def decode(self) -> dict[str, float]:
        answer = self.session.generate(self.question, max_new_tokens=protocol.NEW_TOKENS, ignore_eos=True)
        return {"edgeprune_decode_2000": answer.timings.tpot_ms, "edgeprune_long_tokens": float(answer.kv_tokens)}


def background(model: Model, method: str) -> dict[str, float]:
    """Half of the patches left out before the encoder, scorer included; then the same keep, method and question."""
    times = model.ask(
        protocol.picture(), protocol.QUESTION, keep=protocol.KEEP, method=method, max_new_tokens=1, ignore_eos=True
    ).timings
    return {"edgeprune_vision_background": times.vision_ms, "edgeprune_ttft_background": times.ttft_ms}


def background_method(model: Model) -> str | None:
    """The bundle's method with that stage, None: it has none."""
    return next((name for name in model.describe()["methods"] if name.startswith(BACKGROUND)), None)


def described_notes(folder: str) -> list[str]:
    """What the export said about the bundle, such as that a scorer's weights are random."""
    return list(Bundle.open(folder, verify="sizes").manifest.notes)


def memory(folder: str, variant: str) -> dict[str, float]:
    """Peak RSS of this process after one answer, and what it had to hold."""
    bundle = Bundle.open(folder, verify="sizes")
    place = bundle.path / ("onnx" if variant == "own" else f"variants/{variant}")
    weights = sum(file.stat().st_size for file in place.rglob("*") if file.is_file())
    with open_model(folder, variant) as model:
        answer = model.ask(
            protocol.picture(),
            protocol.QUESTION,
            keep=protocol.KEEP,
            max_new_tokens=protocol.NEW_TOKENS,
            ignore_eos=True,
        )
    peak = machine.peak_rss_bytes()
    assert peak is not None
    return {"peak_rss_bytes": peak, "weights_bytes": weights, "kv_bytes": answer.timings.kv_bytes}


def main() -> None:
    folder, variant = sys.argv[1:3]
    if "--memory" in sys.argv:
        print(json.dumps(memory(folder, variant)))
        return
    with open_model(folder, variant) as model:
        long = LongCache(model)
        cases: protocol.Cases = {"answers": lambda: answers(model), "long": long.decode}
        staged = background_method(model)
        if staged is not None:
            cases["background"] = lambda: background(model, staged)
        described = model.describe()
        facts = {
            "edgeprune": edgeprune.__version__,
            "onnxruntime": described["onnxruntime"]["version"],
            "variant": variant,
            "bundle": pathlib.Path(folder).name,
            "method": described["default_method"],
            "background_method": staged,
            "notes": described_notes(folder),
        }
        protocol.serve(facts, cases)


if __name__ == "__main__":
    main()
