"""`export --letterbox` through the whole line: bundle, golden tensors, kept tokens and what the answer says."""

from __future__ import annotations

import json
import pathlib

import numpy as np
import pytest
from PIL import Image

from edgeprune.bundle import Bundle
from edgeprune.engines import lint, targets, tensorrt
from edgeprune.engines.shapes import Span, shape_range, spans
from edgeprune.errors import CheckpointError, NativeError, UserError
from edgeprune.export import pipeline
from edgeprune.export.models.llava import Llava
from edgeprune.measure.parity import replay
from edgeprune.recipe import ExportRecipe
from edgeprune.runtime.session import Model
from tests.checkpoints import Shape, write_checkpoint
from tests.cli.command import assert_user_error, edgeprune
from tests.engines.test_tensorrt import assert_engine, needs_rtx
from tests.export.models import llava_config

SPECS = ("fastervlm", "divprune", "visionzip", "stride", "none")
#: 4 x 4 patches: the first and the last row of them are padding
FLAT = (40, 80)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("letterbox")
    checkpoint = write_checkpoint(folder / "checkpoint", Shape())
    recipe = ExportRecipe(model=str(checkpoint), prune=SPECS, keep=0.75, letterbox=True)
    return pipeline.export(recipe, folder / "out.bundle")


def flat(height: int = FLAT[0], width: int = FLAT[1]) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_manifest_says_so_and_graphs_read_the_mask(bundle: pathlib.Path) -> None:
    import jsonschema

    raw = json.loads((bundle / "manifest.json").read_text())
    schema = pathlib.Path(__file__).parents[2] / "docs" / "manifest.schema.json"
    jsonschema.validate(raw, json.loads(schema.read_text()))
    manifest = Bundle.open(bundle).manifest
    assert manifest.preprocess.pad_square is not None
    assert manifest.preprocess.pad_square.color == (122, 116, 104)
    assert manifest.preprocess.pad_mask is not None
    assert manifest.preprocess.pad_mask.patch_px == 14
    assert manifest.recipe["letterbox"] is True
    for spec in SPECS:
        [graph] = manifest.graphs.vision[spec]
        inputs = {tensor.role: tensor.shape for tensor in graph.inputs}
        assert inputs.get("pad_mask") == (None if spec == "none" else ("B", 16))
    assert all(row.passed for row in manifest.parity)


@pytest.mark.parametrize("target", ["tensorrt:orin-nano", "tensorrt:local", "tensorrt-rtx:sm86"])
def test_graphs_with_a_mask_hold_nothing_that_tensorrt_refuses(bundle: pathlib.Path, target: str) -> None:
    assert lint.check_bundle(Bundle.open(bundle), targets.find(target)) == []


@needs_rtx
@pytest.mark.slow
@pytest.mark.parametrize("spec", SPECS)
def test_graphs_with_a_mask_build_for_sm86(bundle: pathlib.Path, spec: str) -> None:
    manifest = Bundle.open(bundle).manifest
    [graph] = manifest.graphs.vision[spec]
    known = {**spans(manifest), "K": Span(1, 8, 15 if spec == "visionzip" else 16)}
    profile = {tensor.name: shape_range(tensor.shape, known) for tensor in graph.inputs}
    engine = tensorrt.build_engine_bytes(bundle / graph.file, [profile], compute_capabilities=[(8, 6)])
    assert_engine(engine, spec)


def test_golden_tensors_are_those_of_a_capped_picture(bundle: pathlib.Path) -> None:
    opened = Bundle.open(bundle)
    inputs, outputs = opened.golden()
    assert inputs["image_rgb"].shape == (80, 200, 3)
    assert outputs["keep_idx/fastervlm"].tolist() == list(range(4, 12)), "12 were asked for, 8 patches are no padding"
    with Model.open(bundle) as model:
        rows = list(replay(opened, model))
    assert len(rows) > 4 * len(SPECS)
    assert all(row.passed for row in rows), [row for row in rows if not row.passed]


@pytest.mark.parametrize("spec", SPECS)
def test_kept_tokens_are_patches_of_the_picture_and_k_is_capped(bundle: pathlib.Path, spec: str) -> None:
    with Model.open(bundle) as model, model.new_session() as session:
        for picture, rows in ((flat(), [0, 1, 1, 0]), (flat(60, 60), [1] * 4), (flat(80, 40), None)):
            shown = np.zeros((4, 4), bool)
            shown[:] = np.array([0, 1, 1, 0])[None] if rows is None else np.array(rows)[:, None]
            kept = session.kept_tokens(session.add_image(picture, method=spec, keep=None))
            assert kept.pad_mask is not None
            np.testing.assert_array_equal(kept.pad_mask, ~shown.ravel())
            patches = int(shown.sum())
            assert kept.kept == (16 if spec == "none" else min(12, patches))
            if spec != "none":
                assert shown.ravel()[kept.keep_idx[kept.keep_idx >= 0]].all()
                assert (kept.reason == "8 of 16 patches are padding, so 8 are kept, not 12") == (patches < 12)


def test_what_lies_outside_the_mask_is_not_capped(bundle: pathlib.Path) -> None:
    with Model.open(bundle) as model, model.new_session() as session:
        kept = session.kept_tokens(session.add_image(flat(), keep=0.25))
        assert (kept.kept, kept.reason, kept.applied) == (4, "", True)
        model.warmup()


def test_a_picture_that_is_almost_all_padding_is_refused(bundle: pathlib.Path) -> None:
    with Model.open(bundle) as model, model.new_session() as session:
        with pytest.raises(NativeError, match=r"200 x 2 px: 16 of 16 patches are padding"):
            session.add_image(flat(2, 200))
        assert session.kept_tokens(session.add_image(flat(2, 200), method="none")).kept == 16


def test_run_reports_padding(bundle: pathlib.Path, tmp_path: pathlib.Path) -> None:
    picture = tmp_path / "picture.png"
    Image.fromarray(flat()).save(picture)
    command = ["run", bundle, "--image", picture, "--prompt", "What?", "--max-new-tokens", 2]
    done = edgeprune(*command, "--json", "-")
    assert (done.returncode, done.stderr) == (0, "")
    report = json.loads(done.stdout)
    [image] = report["images"]
    assert (image["padded_tokens"], image["kept_tokens"], report["kept_tokens"], image["applied"]) == (8, 8, 8, True)
    assert report["reason"] == image["reason"] == "8 of 16 patches are padding, so 8 are kept, not 12"
    assert f"applied: {image['reason']}" in edgeprune(*command).stdout


def test_dumped_tokens_tell_padding_and_merged_tokens(bundle: pathlib.Path, tmp_path: pathlib.Path) -> None:
    picture, target = tmp_path / "picture.png", tmp_path / "tokens.npz"
    Image.fromarray(flat()).save(picture)
    command = ["run", bundle, "--image", picture, "--prompt", "What?", "--max-new-tokens", 2, "--prune", "visionzip"]
    assert edgeprune(*command, "--dump-tokens", target).returncode == 0
    with np.load(target) as file:
        assert file["pad_mask/0"].tolist() == [row in (0, 3) for row in range(4) for _ in range(4)]
        assert file["kinds/0"].tolist() == ["other", *["patch"] * 6, "other"], "[CLS], 6 patches, 1 contextual token"
        assert (file["keep_idx/0"] >= 0).tolist() == [kind == "patch" for kind in file["kinds/0"]]
        assert file["size_px/0"].tolist() == list(FLAT)


def test_what_cannot_be_letterboxed_is_refused(tmp_path: pathlib.Path) -> None:
    export = ["export", "--model", "tiny", "--keep", 0.25, "-o", tmp_path / "out.bundle", "--letterbox"]
    assert_user_error(edgeprune(*export, "--prune", "fopru:mode=row"), "fopru:mode=row cannot keep padding last")
    assert_user_error(edgeprune(*export, "--static-keep"), "letterbox lowers K")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(UserError, match="static-keep"):
        ExportRecipe(model="tiny", keep=0.5, keep_range=(0.5, 0.5), static_keep=True, letterbox=True)
    config = llava_config(side=8)
    config.vision_feature_select_strategy = "full"
    with pytest.raises(CheckpointError, match="letterbox"):
        Llava(config, 32, letterbox=True)
