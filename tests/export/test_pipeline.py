"""Whole exports: the bundle's manifest, graphs and golden tensors; plans; what a failed export leaves."""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest

from edgeprune.bundle import Bundle
from edgeprune.errors import CheckFailed, PruningError, UserError
from edgeprune.export import job, parity, pipeline, writer
from edgeprune.keep import keep_count
from edgeprune.recipe import ExportRecipe
from edgeprune.tolerances import TOLERANCES
from tests.checkpoints import Shape, write_checkpoint

REPO = pathlib.Path(__file__).resolve().parents[2]

#: operators that TensorRT's parser refuses, or that are not in plain opset 20
REFUSED = {
    "NonZero", "Compress", "Unique", "SequenceAt", "SplitToSequence", "ConcatFromSequence", "Attention",
    "RotaryEmbedding", "RMSNormalization", "TensorScatter", "DynamicQuantizeLinear", "MatMulInteger",
}  # fmt: skip


def manifest_of(bundle: pathlib.Path) -> dict[str, Any]:
    return json.loads((bundle / "manifest.json").read_text())


def graph_files(bundle: pathlib.Path) -> list[pathlib.Path]:
    return sorted((bundle / "onnx").glob("*.onnx"))


def test_manifest_matches_its_schema_and_opens(tiny_bundle: pathlib.Path) -> None:
    import jsonschema

    manifest = manifest_of(tiny_bundle)
    jsonschema.validate(manifest, json.loads((REPO / "docs" / "manifest.schema.json").read_text()))
    opened = Bundle.open(tiny_bundle).manifest
    assert opened.methods.default == "fastervlm"
    assert set(opened.methods.each) == {"fastervlm", "none", "random", "stride", "received-attention"}
    assert (opened.visual_tokens, opened.grid, opened.source.sha256) == (16, (4, 4), None)
    none = opened.methods.each["none"]
    assert (none.dynamic_keep, none.static_keep, none.has_scores) == (False, 16, False)
    assert opened.methods.each["random"].parameters == {"seed": 1}


def test_parity_was_checked_at_every_stage(tiny_bundle: pathlib.Path) -> None:
    rows = manifest_of(tiny_bundle)["parity"]
    assert all(row["passed"] and row["value"] <= row["tolerance"] for row in rows)
    stages = {row["stage"] for row in rows}
    assert stages >= {"vision/fastervlm", "vision/none", "vision/stride", "embedding", "decoder"}
    assert sum(row["stage"] == "decoder" for row in rows) == 3


def test_graphs_hold_standard_ops_only_and_nothing_of_this_machine(tiny_bundle: pathlib.Path) -> None:
    assert len(graph_files(tiny_bundle)) == 7
    for path in graph_files(tiny_bundle):
        model = onnx.load(path, load_external_data=False)
        assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 20)]
        assert not {node.op_type for node in model.graph.node} & REFUSED
        assert not any(
            attribute.s for node in model.graph.node for attribute in node.attribute if "reduction" in attribute.name
        )
        assert not model.metadata_props
        assert not any(node.metadata_props or node.doc_string for node in model.graph.node)
        onnx.checker.check_model(str(path), full_check=True)
    for path in (p for p in tiny_bundle.rglob("*") if p.is_file()):
        content = path.read_bytes()
        assert str(REPO).encode() not in content, path
        assert b"site-packages" not in content, path


def test_initialisers_are_named_after_parameters_and_lie_in_shared_files(tiny_bundle: pathlib.Path) -> None:
    graphs = manifest_of(tiny_bundle)["graphs"]
    for key in graphs["vision"]:
        assert graphs["vision"][key][0]["data"] == ["onnx/vision.data"]
    assert graphs["embedding"]["data"] == ["onnx/embedding.data"]
    assert graphs["decoder"]["data"] == ["onnx/decoder.data", "onnx/embedding.data"]
    decoder = onnx.load(tiny_bundle / "onnx" / "decoder.onnx", load_external_data=False)
    external = {item.name for item in decoder.graph.initializer if item.data_location == onnx.TensorProto.EXTERNAL}
    assert "language_model.layers.1.mlp.down_proj.weight" in external
    assert "embed_tokens.weight" in external
    weights = [node.input[1] for node in decoder.graph.node if node.op_type == "MatMul" and node.input[1] in external]
    assert len(weights) == 7 * 2
    assert not any(node.op_type == "Transpose" and node.input[0] in external for node in decoder.graph.node)


def test_interface_is_what_the_manifest_says(tiny_bundle: pathlib.Path) -> None:
    manifest = manifest_of(tiny_bundle)
    graphs = [*(g for part in manifest["graphs"]["vision"].values() for g in part)]
    graphs += [manifest["graphs"]["embedding"], manifest["graphs"]["decoder"]]
    for graph in graphs:
        running = parity.session(tiny_bundle / graph["file"])
        for found, declared in ((running.get_inputs(), graph["inputs"]), (running.get_outputs(), graph["outputs"])):
            assert [item.name for item in found] == [item["name"] for item in declared]
            assert [item.shape for item in found] == [item["shape"] for item in declared]
    assert [item["name"] for item in manifest["graphs"]["decoder"]["inputs"][:5]] == [
        "inputs_embeds", "position_ids", "attention_mask", "past_key_values.0.key", "past_key_values.0.value",
    ]  # fmt: skip


def vision(bundle: pathlib.Path, method: str) -> Callable[..., dict[str, np.ndarray]]:
    running = parity.session(bundle / "onnx" / f"vision-{method}.onnx")

    def call(pixels: np.ndarray, keep: int | None) -> dict[str, np.ndarray]:
        feeds = {"pixel_values": pixels} | ({} if keep is None else {"keep_slots": np.zeros(keep, np.float32)})
        return dict(zip([item.name for item in running.get_outputs()], running.run(None, feeds), strict=True))

    return call


@pytest.mark.parametrize("method", ["fastervlm", "random", "stride", "received-attention"])
def test_any_keep_and_batch_gathers_from_the_unpruned_graph(tiny_bundle: pathlib.Path, method: str) -> None:
    pruned, whole = vision(tiny_bundle, method), vision(tiny_bundle, "none")
    pixels = np.random.default_rng(0).normal(size=(3, 3, 56, 56)).astype(np.float32)
    for batch in (1, 3):
        full = whole(pixels[:batch], None)["visual_embeds"]
        for keep in range(1, 17):
            made = pruned(pixels[:batch], keep)
            index = made["keep_idx"]
            assert index.shape == (batch, keep)
            assert (np.diff(index, axis=1) > 0).all()
            expected = np.take_along_axis(full, index[..., None], 1)
            assert np.abs(made["visual_embeds"] - expected).max() <= TOLERANCES["exact_saving"] * np.abs(full).max()
            if "scores" in made:
                order = np.sort(np.argsort(-made["scores"], axis=1)[:, :keep], axis=1)
                np.testing.assert_array_equal(index, order)


def test_golden_tensors_are_complete(tiny_bundle: pathlib.Path) -> None:
    inputs, outputs = Bundle.open(tiny_bundle).golden()
    assert inputs["image_rgb"].dtype == np.uint8
    assert outputs["pixels_rgb"].shape == (56, 56, 3)
    assert outputs["prompt_ids"].tolist().count(3) == 1
    kept = keep_count(16, float(inputs["keep"]))
    assert outputs["keep_idx/fastervlm"].shape == (kept,)
    assert outputs["keep_idx/none"].shape == (16,)
    assert outputs["visual_embeds/random"].shape == (kept, 64)
    assert outputs["scores/received-attention"].shape == (16,)
    assert not {"scores/none", "scores/stride"} & set(outputs)
    assert outputs["logits/stride"].shape == (384,)
    assert outputs["greedy_ids/none"].shape == (int(inputs["max_new_tokens"]),)


def test_plan_reads_no_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a plan must not open weights")

    monkeypatch.setattr("edgeprune.export.checkpoint.Checkpoint.source", refuse)
    monkeypatch.setattr("edgeprune.export.checkpoint.Checkpoint.sha256", refuse)
    plan = pipeline.plan(ExportRecipe(model="llava15", keep=0.1, prune=("fastervlm", "none"), random_weights=True))
    assert (plan.tokens_before, plan.tokens_after) == (576, 58)
    assert plan.graphs == ("vision-fastervlm.onnx", "vision-none.onnx", "embedding.onnx", "decoder.onnx")
    assert 26_000 < plan.disk_mib < 27_500
    assert any("random weights" in note for note in plan.notes)
    assert any("byte-level" in note for note in plan.notes)


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"prune": ("fastvlm",)}, "unknown pruning method"),
        ({"prune": ("fastervlm:layer=7",)}, "blocks 0 to 2"),
        ({"prune": ("random:seed=x",)}, "seed must be int"),
        ({"prune": ("random:seed=0", "random")}, "asked for twice"),
    ],
)
def test_bad_methods_are_refused_before_anything_is_written(
    fields: dict[str, Any], match: str, tmp_path: pathlib.Path
) -> None:
    with pytest.raises(PruningError, match=match):
        pipeline.export(ExportRecipe(model="tiny", **fields), tmp_path / "out.bundle")
    assert list(tmp_path.iterdir()) == []


def test_same_method_with_other_parameters_gets_a_key_of_its_own() -> None:
    plan = pipeline.plan(ExportRecipe(model="tiny", prune=("random:seed=1", "random:seed=2", "stride")))
    assert plan.graphs[:3] == ("vision-random-seed-1.onnx", "vision-random-seed-2.onnx", "vision-stride.onnx")


def test_failed_parity_leaves_nothing(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(*_: object) -> list[Any]:
        return [parity._row("decoder", "logits of prefill", 0.5, 1e-4)]

    monkeypatch.setattr(parity, "_decoder", wrong)
    with pytest.raises(CheckFailed, match=r"decoder failed: logits of prefill is 0\.5"):
        pipeline.export(ExportRecipe(model="tiny", prune=("stride",)), tmp_path / "out.bundle")
    assert list(tmp_path.iterdir()) == []


def test_without_room_for_the_reference_the_manifest_says_so(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job, "memory_bytes", lambda: (1 << 30, 1 << 20))
    monkeypatch.setattr(writer, "trace", lambda *_: onnx_stub())
    monkeypatch.setattr(writer, "attach", lambda *_: [])
    out = pipeline.export(ExportRecipe(model="tiny", prune=("none",)), tmp_path / "out.bundle")
    manifest = manifest_of(out)
    assert "MiB" in manifest["golden"]["reason"]
    assert manifest["parity"] == []


def onnx_stub() -> Any:
    import onnx_ir as ir

    return ir.Model(ir.Graph([], [], nodes=[], opset_imports={"": 20}), ir_version=10)


def test_existing_output_is_kept(tmp_path: pathlib.Path) -> None:
    (tmp_path / "out.bundle").mkdir()
    (tmp_path / "out.bundle" / "mine.txt").write_text("keep me")
    with pytest.raises(UserError, match="exists already"):
        pipeline.export(ExportRecipe(model="tiny"), tmp_path / "out.bundle")
    assert (tmp_path / "out.bundle" / "mine.txt").read_text() == "keep me"


@pytest.mark.slow
def test_export_is_deterministic(tmp_path: pathlib.Path) -> None:
    recipe = ExportRecipe(model="tiny-dinov2", prune=("fastervlm:layer=2", "random"), keep=0.5)
    first, second = (pipeline.export(recipe, tmp_path / f"{name}.bundle") for name in "ab")
    files = sorted(path.relative_to(first) for path in first.rglob("*") if path.is_file())
    for file in files:
        if file.name != "manifest.json":
            assert (first / file).read_bytes() == (second / file).read_bytes(), file
    one, two = manifest_of(first), manifest_of(second)
    assert {**one, "name": ""} == {**two, "name": ""}


@pytest.mark.slow
def test_static_keep_has_no_keep_slots(tmp_path: pathlib.Path) -> None:
    recipe = ExportRecipe(model="tiny-mha", keep=0.25, keep_range=(0.25, 0.25), static_keep=True)
    manifest = manifest_of(pipeline.export(recipe, tmp_path / "out.bundle"))
    method, graph = manifest["methods"]["each"]["fastervlm"], manifest["graphs"]["vision"]["fastervlm"][0]
    assert (method["dynamic_keep"], method["static_keep"]) == (False, 4)
    assert [item["role"] for item in graph["inputs"]] == ["pixel_values"]
    assert graph["outputs"][0]["shape"] == ["B", 4, 64]
    assert manifest["graphs"]["decoder"]["data"] == ["onnx/decoder.data"]


@pytest.mark.slow
def test_half_precision_is_within_its_tolerances(tmp_path: pathlib.Path) -> None:
    recipe = ExportRecipe(model="tiny", prune=("fastervlm", "none"), dtype="fp16")
    manifest = manifest_of(pipeline.export(recipe, tmp_path / "out.bundle"))
    graphs = manifest["graphs"]
    kinds = {item["role"]: item["dtype"] for item in graphs["vision"]["fastervlm"][0]["outputs"]}
    assert kinds == {"visual_embeds": "float16", "keep_idx": "int64", "scores": "float32"}
    assert graphs["decoder"]["kv"]["dtype"] == "float16"
    assert {row["tolerance"] for row in manifest["parity"]} <= {
        TOLERANCES["visual_embeds_fp16"], TOLERANCES["logits_fp16"],
    }  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("score_layer", [3, 5])
def test_deep_tower_of_a_real_checkpoint(score_layer: int, tmp_path: pathlib.Path) -> None:
    """Repeated blocks on both sides of special ones, weights read from files, an odd head count."""
    shape = Shape(vision="dinov2", vision_layers=7, vision_heads=3, vision_width=48, feature_layer=5, layers=5, heads=4)
    folder = write_checkpoint(tmp_path / "checkpoint", shape)
    recipe = ExportRecipe(
        model=str(folder), prune=(f"fastervlm:layer={score_layer}", "received-attention:layer=1"), keep=0.5
    )
    manifest = manifest_of(pipeline.export(recipe, tmp_path / "out.bundle"))
    assert manifest["source"]["sha256"]
    recorded = ExportRecipe.from_dict(manifest["recipe"])
    assert recorded == dataclasses.replace(recipe, model="checkpoint")
    assert len(manifest["graphs"]["decoder"]["inputs"]) == 3 + 2 * 5
