"""Pruning before the encoder from checkpoint to answer: command line, bundle, lint, C library."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import numpy as np
import onnx
import pytest

import edgeprune
from edgeprune.bundle import Bundle
from edgeprune.cli.main import main
from edgeprune.engines import lint, one_by_one, quantise, targets
from edgeprune.errors import NativeError
from edgeprune.export import parity
from edgeprune.export.models.background import ScorerSpec
from tests.checkpoints import Shape, write_checkpoint
from tests.cli.command import assert_user_error
from tests.cli.command import edgeprune as command
from tests.pruning import oracles
from tests.scorers import write_scorer

PICTURE = pathlib.Path(__file__).resolve().parents[1] / "data" / "scenes" / "test-000.png"
SIDE, KEEP = 6, 0.25
COUNT, ENTERING, KEPT = 36, 18, 9
STAGED, ALONE = "background@0.5+fastervlm", "background@0.5"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A checkpoint of 36 visual tokens, a scorer for its grid, and a bundle of two composed methods."""
    made = tmp_path_factory.mktemp("background")
    write_checkpoint(made / "checkpoint", Shape(image_px=SIDE * 14, seed=5))
    spec = ScorerSpec((SIDE, SIDE), 14, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25), width=32, heads=2, mlp_width=64)
    write_scorer(made / "scorer.safetensors", spec)
    assert main([str(part) for part in export_of(made, STAGED, ALONE, keep=KEEP)]) == 0
    return made


def export_of(folder: pathlib.Path, *specs: str, keep: float, weights: bool = True, out: str = "out") -> list[Any]:
    pruned = [part for spec in specs for part in ("--prune", spec)]
    given = ["--background-weights", folder / "scorer.safetensors"] if weights else []
    return ["export", "--model", folder / "checkpoint", "--keep", keep, *pruned, *given, "-o", folder / f"{out}.bundle"]


@pytest.fixture(scope="module")
def bundle(folder: pathlib.Path) -> Bundle:
    return Bundle.open(folder / "out.bundle")


def test_manifest_states_the_stages_and_the_cap(bundle: Bundle) -> None:
    import jsonschema

    schema = pathlib.Path(__file__).resolve().parents[2] / "docs" / "manifest.schema.json"
    raw = json.loads((bundle.path / "manifest.json").read_text())
    jsonschema.validate(raw, json.loads(schema.read_text()))
    manifest = bundle.manifest
    assert (manifest.keep.default, manifest.keep.max, manifest.methods.default) == (KEEP, 0.5, STAGED)
    staged, alone = (manifest.methods.each[name] for name in (STAGED, ALONE))
    assert (staged.stages, alone.stages) == (("background@0.5", "fastervlm"), ("background@0.5",))
    assert (staged.where, alone.where) == ("before_projector", "before_encoder")
    assert [(run.first, run.last) for run in staged.keep_counts or ()] == [(1, ENTERING)]
    assert raw["recipe"]["background_weights"] == "scorer.safetensors"
    assert any("scorer.safetensors, sha256" in note for note in manifest.notes)
    rows = {(row.stage, row.measure) for row in manifest.parity if row.passed}
    assert {(f"vision/{name}", what) for name in (STAGED, ALONE) for what in ("scores", "visual_embeds")} <= rows


def test_logits_and_the_composed_selection_of_the_graph_equal_the_oracle(folder: pathlib.Path) -> None:
    """The graph alone, any keep, batch 2: survivors by the logit, kept ones by what the second stage scores."""
    staged, alone = (
        parity.session(folder / "out.bundle" / "onnx" / f"vision-{name}.onnx")
        for name in ("background-0.5-fastervlm", "background-0.5")
    )
    pixels = np.random.default_rng(0).normal(size=(2, 3, SIDE * 14, SIDE * 14)).astype(np.float32)
    for keep in range(1, ENTERING + 1):
        feeds = {"pixel_values": pixels, "keep_slots": np.zeros(keep, np.float32)}
        by_logit, logits = alone.run(["keep_idx", "scores"], feeds)
        embeds, index, scores = staged.run(["visual_embeds", "keep_idx", "scores"], feeds)
        assert embeds.shape[:2] == index.shape == (2, keep)
        for row in range(2):
            places = oracles.highest_in_raster_order(logits[row], ENTERING)
            assert by_logit[row].tolist() == oracles.highest_in_raster_order(logits[row], keep)
            among = oracles.highest_in_raster_order(scores[row][places], keep)
            assert index[row].tolist() == [places[i] for i in among]
            outside = np.delete(scores[row], places)
            assert (outside == scores[row][places].min()).all()


def test_the_encoder_of_the_graph_has_the_rows_of_the_survivors(bundle: Bundle) -> None:
    path = bundle.file(bundle.manifest.graphs.vision[STAGED][0].file)
    model = onnx.shape_inference.infer_shapes(onnx.load(path, load_external_data=False), data_prop=True)
    shapes = {info.name: [d.dim_value or d.dim_param for d in info.type.tensor_type.shape.dim]
              for info in model.graph.value_info}  # fmt: skip
    rows = {
        node.input[1]: shapes[node.input[0]][1]
        for node in model.graph.node
        if node.op_type == "MatMul" and node.input[1].startswith("vision_tower.blocks.")
    }
    keys = [count for name, count in rows.items() if ".k_proj." in name]
    assert keys == [ENTERING + 1] * 3
    assert {count for name, count in rows.items() if ".0.fc" in name} == {ENTERING + 1}


def test_tensorrt_lint_finds_nothing(bundle: Bundle) -> None:
    for name in ("tensorrt:orin-nano", "tensorrt:thor", "tensorrt-rtx:sm86"):
        assert lint.check_bundle(bundle, targets.find(name)) == [], name


def test_the_scorer_stays_fp32_in_int8_variants(bundle: Bundle, scratch: pathlib.Path) -> None:
    path = bundle.file(bundle.manifest.graphs.vision[STAGED][0].file)
    fixed = quantise.choosing(path)
    assert len(fixed) == 2 * 6 + 1
    made = one_by_one.Products(path, path.parent, scratch, quantise.integer).model(fixed)
    kinds = {tensor.name: tensor.data_type for tensor in made.graph.initializer}
    scorer = [name for name in kinds if name.startswith("background.scorer.blocks.") and name.endswith("weight")]
    assert {kinds[name] for name in scorer} == {onnx.TensorProto.FLOAT}
    assert kinds["vision_tower.blocks.0.fc1.weight_quantized"] == onnx.TensorProto.INT8


def test_an_int8_variant_is_built_and_runs(bundle: Bundle) -> None:
    """Measured with as many tokens as a capped method keeps, not with all."""
    # random weights may lose more to int8 than a build lets pass
    assert main(["build", str(bundle.path), "--target", "cpu", "--precision", "int8", "--force"]) == 0
    with edgeprune.load(bundle.path, variant="cpu-int8") as model:
        answer = model.ask(PICTURE, "What is it?", method=STAGED, max_new_tokens=2, ignore_eos=True)
        assert answer.images[0].kept == KEPT


def test_answer_parity_and_cap_through_the_c_library(bundle: Bundle) -> None:
    assert main(["check", str(bundle.path), "--parity"]) == 0
    with edgeprune.load(bundle.path) as model:
        for name in (STAGED, ALONE):
            answer = model.ask(PICTURE, "What is it?", method=name, max_new_tokens=2, ignore_eos=True)
            seen = answer.images[0]
            assert (seen.method, seen.kept, seen.visual_tokens, seen.applied) == (name, KEPT, COUNT, True)
            assert seen.keep_idx.max() < COUNT
        with pytest.raises(NativeError, match=r"0\.5"):
            model.ask(PICTURE, "What is it?", keep=0.6, max_new_tokens=1)


def test_show_draws_a_composed_method(bundle: Bundle, tmp_path: pathlib.Path, capsys: Any) -> None:
    out = tmp_path / "o.png"
    drawn = ["show", bundle.path, "--image", PICTURE, "--prune", f"{STAGED},{ALONE}", "-o", out]
    assert main([str(part) for part in drawn]) == 0
    assert out.stat().st_size > 1000
    assert f"{KEPT}/{COUNT}" in capsys.readouterr().out


def test_show_outlines_what_the_scorer_calls_foreground(bundle: Bundle, tmp_path: pathlib.Path, capsys: Any) -> None:
    out = tmp_path / "o.png"
    drawn = ["show", bundle.path, "--image", PICTURE, "--labels", "-o", out, "--prune"]
    assert main([str(part) for part in (*drawn, f"{ALONE},{STAGED}")]) == 0
    assert out.exists()
    out.unlink()
    assert_user_error(command(*drawn, STAGED), "no labels of background", f"show {ALONE} beside it")
    assert not out.exists()


def test_what_cannot_be_served_is_one_sentence(folder: pathlib.Path) -> None:
    assert_user_error(
        command(*export_of(folder, STAGED, keep=0.6, out="a")), "lets 18 of 36", "cannot keep 22", "keep 0.5"
    )
    assert_user_error(
        command(*export_of(folder, STAGED, keep=0.2, weights=False, out="b")),
        "6 x 6 patches of 14 px",
        "--background-weights",
    )
