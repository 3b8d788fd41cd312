"""Engines of methods that read the question: two graphs each, and a question as long as the context at most."""

from __future__ import annotations

import dataclasses
import json
import pathlib

import pytest

from edgeprune.bundle import Bundle
from edgeprune.engines import engine_plan, shapes
from edgeprune.manifest import Graph, Tensor
from tests.cli.command import edgeprune
from tests.engines.test_engine_variant import ends, needs_rtx
from tests.ground.sample import write_bundle

METHODS = ("mmtok", "cdpruner", "recoverable")


def test_a_question_is_bounded_by_the_context(tmp_path: pathlib.Path) -> None:
    """16 visual tokens, only 4, 8, 12, 16 served; 512 positions."""
    manifest = Bundle.open(write_bundle(tmp_path / "sample.bundle")).manifest
    (encode,) = manifest.graphs.vision["fastervlm"]
    inputs = (
        Tensor("tokens", "tokens", "float32", ("B", 16, 8)),
        Tensor("keep_slots", "slots", "float32", ("K",)),
        Tensor("text_embeds", "text", "float32", ("B", "M", 8)),
        Tensor("text_mask", "mask", "float32", ("B", "M")),
    )
    encode = dataclasses.replace(encode, stage="encode")
    select = Graph("select", "onnx/vision-fastervlm-select.onnx", (), inputs, ())
    graphs = dataclasses.replace(manifest.graphs, vision={"fastervlm": (encode, select)})
    files = {**manifest.files, select.file: manifest.files[encode.file]}
    plans = engine_plan.plans(dataclasses.replace(manifest, graphs=graphs, files=files))
    assert [plan.file for plan in plans] == [
        "vision-fastervlm.engine", "vision-fastervlm-select.engine", "decoder.engine",
    ]  # fmt: skip
    profile = plans[1].profiles["vision"]
    usual = shapes.USUAL_QUESTION_TOKENS
    assert ends(profile["text"]) == [(1, 1, 8), (1, usual, 8), (1, 512, 8)]
    assert ends(profile["mask"]) == [(1, 1), (1, usual), (1, 512)]
    assert ends(profile["tokens"]) == [(1, 16, 8)] * 3
    assert ends(profile["slots"]) == [(4,), (4,), (16,)]


def test_a_context_shorter_than_the_usual_question_is_no_contradiction(tmp_path: pathlib.Path) -> None:
    manifest = Bundle.open(write_bundle(tmp_path / "sample.bundle")).manifest
    assert shapes.spans(dataclasses.replace(manifest, context_length=9))["M"] == shapes.Span(1, 9, 9)


@needs_rtx
@pytest.mark.slow
def test_both_graphs_of_each_method_become_engines(tmp_path: pathlib.Path) -> None:
    bundle = tmp_path / "asking.bundle"
    asked = [word for name in METHODS for word in ("--prune", name)]
    done = edgeprune("export", "--model", "tiny", "--keep", 0.25, *asked, "-o", bundle, timeout=1500)
    assert done.returncode == 0, done.stderr
    done = edgeprune("build", bundle, "--target", "tensorrt-rtx:sm86", "--precision", "fp32", timeout=1500)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    manifest = Bundle.open(bundle).manifest
    (variant,) = manifest.variants
    facts = json.loads((bundle / variant.build).read_text())
    wanted = [f"vision-{name}-{part}.engine" for name in METHODS for part in ("encode", "select")]
    assert [engine["file"] for engine in facts["engines"]] == [*wanted, "decoder.engine"]
    for name, engine in zip(METHODS, facts["engines"][1::2], strict=False):
        (profile,) = engine["fingerprint"]["options"]["profiles"]
        (text,) = [tensor.name for tensor in manifest.graphs.vision[name][1].inputs if tensor.role == "text_embeds"]
        sizes = profile["inputs"][text]
        assert (sizes["min"][1], sizes["max"][1]) == (1, manifest.context_length), name
        content = ((bundle / variant.build).parent / engine["file"]).read_bytes()
        assert int.from_bytes(content[16:24], "little") == len(content) == engine["bytes"]
