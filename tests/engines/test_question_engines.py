"""Engines of methods that read the question: two graphs each, and a question as long as the context at most."""

from __future__ import annotations

import dataclasses
import json
import pathlib

import pytest

from edgeprune.bundle import Bundle
from edgeprune.engines import engine_plan, shapes
from edgeprune.manifest import TEXT_TOKENIZER, Graph, Manifest, Tensor, TextEncoder
from tests.checkpoints import write_checkpoint
from tests.cli.command import edgeprune
from tests.clip_checkpoints import ClipShape, write_clip
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


def with_text_encoder(manifest: Manifest) -> Manifest:
    """The sample's method reads the question through a text encoder of segments of 77 ids."""
    (encode,) = manifest.graphs.vision["fastervlm"]
    encode = dataclasses.replace(encode, stage="encode")
    text_input = Tensor("text_embeds", "text", "float32", ("B", "M", 6))
    select = Graph("select", "onnx/vision-fastervlm-select.onnx", (), (text_input,), ())
    ids, made = Tensor("input_ids", "ids", "int64", ("M", "L")), Tensor("text_embeds", "out", "float32", ("M", 6))
    text = Graph("text", "onnx/text.onnx", (), (ids,), (made,))
    graphs = dataclasses.replace(manifest.graphs, vision={"fastervlm": (encode, select)}, text=text)
    method = dataclasses.replace(manifest.methods.each["fastervlm"], text=True, text_encoder=True)
    entry = manifest.files[encode.file]
    return dataclasses.replace(
        manifest,
        graphs=graphs,
        methods=dataclasses.replace(manifest.methods, each={"fastervlm": method}),
        files={**manifest.files, select.file: entry, text.file: entry, TEXT_TOKENIZER: entry},
        text_encoder=TextEncoder("clip", None, 77, (1,), (2,)),
    )


def test_a_text_encoder_becomes_an_engine_of_segments(tmp_path: pathlib.Path) -> None:
    manifest = with_text_encoder(Bundle.open(write_bundle(tmp_path / "sample.bundle")).manifest)
    assert [graph.stage for graph in manifest.graphs] == ["encode", "select", "text", "embedding", "decoder"]
    plans = {plan.file: plan for plan in engine_plan.plans(manifest)}
    assert list(plans) == [
        "vision-fastervlm.engine", "vision-fastervlm-select.engine", "text.engine", "decoder.engine",
    ]  # fmt: skip
    usual = shapes.USUAL_QUESTION_TOKENS + 2
    most = -(-manifest.context_length // 77)
    assert ends(plans["text.engine"].profiles["text"]["ids"]) == [(1, 1), (1, usual), (most, 77)]
    select = plans["vision-fastervlm-select.engine"].profiles["vision"]["text"]
    assert ends(select) == [(1, 1, 6), (1, 1, 6), (1, most, 6)], "as many embeddings as segments"


def test_a_context_shorter_than_the_usual_question_is_no_contradiction(tmp_path: pathlib.Path) -> None:
    manifest = Bundle.open(write_bundle(tmp_path / "sample.bundle")).manifest
    assert shapes.spans(dataclasses.replace(manifest, context_length=9))["M"] == shapes.Span(1, 9, 9)


@needs_rtx
@pytest.mark.slow
def test_a_text_encoder_builds(tmp_path: pathlib.Path) -> None:
    llava, clip = write_checkpoint(tmp_path / "llava"), write_clip(tmp_path / "clip", ClipShape(layers=2))
    bundle, asked = tmp_path / "asking.bundle", ("--prune", "cdpruner:preset=paper", "--text-encoder", clip)
    done = edgeprune("export", "--model", llava, "--keep", 0.25, *asked, "-o", bundle, timeout=1500)
    assert done.returncode == 0, done.stderr
    done = edgeprune("build", bundle, "--target", "tensorrt-rtx:sm86", "--precision", "fp16", timeout=1500)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    (variant,) = Bundle.open(bundle).manifest.variants
    facts = json.loads((bundle / variant.build).read_text())
    made = {engine["file"]: engine for engine in facts["engines"]}
    assert list(made) == ["vision-cdpruner-encode.engine", "vision-cdpruner-select.engine", "text.engine",
                          "decoder.engine"]  # fmt: skip
    assert made["text.engine"]["bytes"] > 10_000


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
