"""Methods that prune inside the encoder through the whole line: checkpoint, bundle, answer, parity."""

from __future__ import annotations

import dataclasses
import json
import pathlib

import numpy as np
import pytest

from edgeprune.bundle import Bundle
from edgeprune.errors import CheckpointError, EdgepruneError, PruningError
from edgeprune.export import calibrate, parity, pipeline
from edgeprune.measure import parity as replaying
from edgeprune.recipe import ExportRecipe
from tests.checkpoints import Shape, write_checkpoint

SPECS = ("tome", "flowcut")


@pytest.fixture(scope="module", params=["clip", "dinov2"])
def bundle(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("in_encoder")
    checkpoint = write_checkpoint(folder / "checkpoint", Shape(vision=request.param))
    recipe = ExportRecipe(model=str(checkpoint), prune=(*SPECS, "none"), keep=0.5)
    return pipeline.export(recipe, folder / "thin.bundle")


def test_manifest_says_that_keep_is_fixed(bundle: pathlib.Path) -> None:
    import jsonschema

    manifest = json.loads((bundle / "manifest.json").read_text())
    schema = pathlib.Path(__file__).parents[2] / "docs" / "manifest.schema.json"
    jsonschema.validate(manifest, json.loads(schema.read_text()))
    each = Bundle.open(bundle).manifest.methods.each
    for spec in SPECS:
        assert each[spec].where == "in_encoder"
        assert (each[spec].dynamic_keep, each[spec].static_keep) == (False, 8)
        graph = manifest["graphs"]["vision"][spec][0]
        assert [axis["role"] for axis in graph["inputs"]] == ["pixel_values"]
        measures = [row["measure"] for row in manifest["parity"] if row["stage"] == f"vision/{spec}"]
        assert measures == ["visual_embeds", parity.DIFFERENT]


def test_the_runtime_answers_and_agrees_with_torch(bundle: pathlib.Path) -> None:
    from edgeprune.runtime.session import Model

    opened = Bundle.open(bundle)
    image = opened.golden()[0]["image_rgb"]
    with Model.open(bundle) as model:
        for spec in SPECS:
            with model.new_session() as session:
                number = session.add_image(image, method=spec)
                answer = session.generate("What is in the image?", max_new_tokens=4, ignore_eos=True)
                index = session.kept_tokens(number).keep_idx
                assert len(index) == 8
                assert len(answer.token_ids) == 4
                alone = np.asarray(index)[np.asarray(index) >= 0]
                assert (np.diff(alone) > 0).all()
            with model.new_session() as session, pytest.raises(EdgepruneError, match="8"):
                session.add_image(image, keep=0.25, method=spec)
        rows = replaying.replay(opened, model)
        assert all(row.passed for row in rows), [row for row in rows if not row.passed]


def test_what_flowcut_measured_is_in_the_manifest(bundle: pathlib.Path) -> None:
    manifest = json.loads((bundle / "manifest.json").read_text())
    entry = manifest["methods"]["each"]["flowcut"]
    counts = entry["parameters"]["counts"]
    assert entry["spec"] == f"flowcut:counts={counts}"
    assert counts.endswith("8")
    assert "flowcut was calibrated on 8 made pictures" in manifest["notes"]


def test_calibration_reads_a_folder_of_pictures(tmp_path: pathlib.Path) -> None:
    from PIL import Image

    for seed, image in enumerate(calibrate.made_pictures()[:2]):
        Image.fromarray(image[::-1]).save(tmp_path / f"{seed}.png")
    recipe = ExportRecipe(model="tiny", prune=("flowcut",), keep=0.5, overrides=(("calibration", str(tmp_path)),))
    assert not [note for note in pipeline.plan(recipe).notes if "calibrat" in note]
    made = pipeline._calibrated(pipeline.prepare(recipe, tmp_path), lambda step, done, total: None)
    method = made.methods["flowcut"][0]
    assert method.parameters["counts"]
    assert made.notes == ("flowcut was calibrated on 2 pictures of the folder given",)
    assert pipeline._recorded(recipe, made.checkpoint)["overrides"] == {"calibration": tmp_path.name}
    empty = tmp_path / "empty"
    empty.mkdir()
    for folder, words in ((empty, "holds no picture"), (tmp_path / "absent", "no such directory")):
        wrong = dataclasses.replace(recipe, overrides=(("calibration", str(folder)),))
        with pytest.raises(CheckpointError, match=words):
            pipeline._calibrated(pipeline.prepare(wrong, tmp_path), lambda step, done, total: None)


def test_a_plan_says_what_will_be_measured() -> None:
    notes = pipeline.plan(ExportRecipe(model="tiny", prune=("flowcut", "tome"), keep=0.5)).notes
    assert [note for note in notes if "calibrated" in note] == [
        "flowcut is calibrated on 8 made pictures; --set calibration=DIR takes real ones"
    ]


def test_a_count_out_of_reach_is_refused_before_tracing(tmp_path: pathlib.Path) -> None:
    checkpoint = write_checkpoint(tmp_path / "checkpoint")
    with pytest.raises(PruningError, match=r"tome cannot keep 1 of 16 .* halves"):
        pipeline.plan(ExportRecipe(model=str(checkpoint), prune=("tome",), keep=0.01))
