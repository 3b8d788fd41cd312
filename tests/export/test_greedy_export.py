"""Greedy methods through the whole line: checkpoint, bundle, answer; and picks that rounding decides, on record."""

from __future__ import annotations

import dataclasses
import json
import pathlib

import numpy as np
import pytest
import torch

from edgeprune.bundle import Bundle
from edgeprune.export import parity, pipeline
from edgeprune.export.reference import VisionReference, changed_by_noise
from edgeprune.measure import parity as replaying
from edgeprune.pruning.base import VisualFeatures
from edgeprune.pruning.registry import method_class, parse
from edgeprune.recipe import ExportRecipe
from edgeprune.tolerances import TOLERANCES
from tests.checkpoints import write_checkpoint
from tests.pruning.greedy_cases import draw

SPECS = ("divprune", "todre", "mmr", "scope", "zoo", "mmtok-vv")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("greedy")
    checkpoint = write_checkpoint(folder / "checkpoint")
    recipe = ExportRecipe(model=str(checkpoint), prune=(*SPECS, "none"), keep=0.25)
    return pipeline.export(recipe, folder / "greedy.bundle")


def test_manifest_says_where_and_parity_says_how_firm_the_picks_are(bundle: pathlib.Path) -> None:
    import jsonschema

    manifest = json.loads((bundle / "manifest.json").read_text())
    schema = pathlib.Path(__file__).parents[2] / "docs" / "manifest.schema.json"
    jsonschema.validate(manifest, json.loads(schema.read_text()))
    each = Bundle.open(bundle).manifest.methods.each
    for spec in SPECS:
        assert each[spec].where == method_class(spec).where
        assert each[spec].dynamic_keep
        rows = {row["measure"]: row for row in manifest["parity"] if row["stage"] == f"vision/{spec}"}
        noise = rows["kept tokens that torch changes under 1e-05 relative noise"]
        assert rows[parity.DIFFERENT]["tolerance"] == noise["value"] <= noise["tolerance"] == 4


@pytest.mark.parametrize("spec", SPECS)
def test_any_keep_and_batch_gathers_from_the_unpruned_graph(bundle: pathlib.Path, spec: str) -> None:
    whole = parity.session(bundle / "onnx" / "vision-none.onnx")
    pruned = parity.session(bundle / "onnx" / f"vision-{spec}.onnx")
    pixels = np.random.default_rng(0).normal(size=(3, 3, 56, 56)).astype(np.float32)
    full = whole.run(["visual_embeds"], {"pixel_values": pixels})[0]
    for keep in range(1, 17):
        feeds = {"pixel_values": pixels, "keep_slots": np.zeros(keep, np.float32)}
        embeds, index = pruned.run(["visual_embeds", "keep_idx"], feeds)
        assert index.shape == (3, keep)
        assert (np.diff(index, axis=1) > 0).all()
        expected = np.take_along_axis(full, index[..., None], 1)
        assert np.abs(embeds - expected).max() <= TOLERANCES["exact_saving"] * np.abs(full).max()


def test_the_runtime_answers_and_agrees_with_torch(bundle: pathlib.Path) -> None:
    from edgeprune.runtime.session import Model

    opened = Bundle.open(bundle)
    image = opened.golden()[0]["image_rgb"]
    with Model.open(bundle) as model:
        for spec in SPECS:
            with model.new_session() as session:
                number = session.add_image(image, keep=0.5, method=spec)
                answer = session.generate("What is in the image?", max_new_tokens=4, ignore_eos=True)
                assert len(session.kept_tokens(number).keep_idx) == 8
                assert len(answer.token_ids) == 4
        assert all(row.passed for row in replaying.replay(opened, model))


def test_a_plan_says_that_all_tokens_are_projected() -> None:
    notes = pipeline.plan(ExportRecipe(model="tiny", prune=("divprune", "mmtok-vv"), keep=0.25)).notes
    assert [note for note in notes if "project" in note] == [
        "divprune selects on projected tokens, so the projector runs on all 16, not on 4"
    ]


def features_of(tokens: np.ndarray) -> VisualFeatures:
    made = torch.from_numpy(tokens)[None]
    return VisualFeatures(made, {}, (1, len(tokens)), parse("divprune").constants(len(tokens)), batch=made)


def test_noise_finds_picks_that_rounding_decides() -> None:
    """Distinct tokens stand firm; near copies of each other change places."""
    tokens, _ = draw(2, 24)
    method = parse("divprune")
    for pair, lowest, highest in ((tokens, 0, 0), (np.repeat(tokens[:12], 2, axis=0), 1, 12)):
        features = features_of(pair)
        index = method.select(None, torch.zeros(6), features)[0].numpy()
        assert lowest <= changed_by_noise(method, features, index) <= highest


def test_more_changes_than_noise_makes_fail() -> None:
    expected = VisionReference(np.array([0, 1, 2, 3]), None, lambda index: np.zeros((len(index), 2)), unsteady=1)
    steady = dataclasses.replace(expected, unsteady=0)
    one, two = np.array([0, 1, 2, 8]), np.array([0, 1, 7, 8])
    assert [row["passed"] for row in parity._picks("vision/x", one, expected, "")] == [True, True]
    assert not parity._picks("vision/x", two, expected, "")[0]["passed"]
    assert not parity._picks("vision/x", one, steady, "")[0]["passed"]
    assert [row["value"] for row in parity._picks("vision/x", two, expected, "")] == [2.0, 1.0]


def test_replay_tolerates_as_many_changes_as_were_recorded_and_says_so(bundle: pathlib.Path) -> None:
    from edgeprune.runtime.session import Model

    opened = Bundle.open(bundle)
    inputs, outputs = opened.golden()
    key = "keep_idx/divprune"
    other = min(set(range(16)) - set(outputs[key].tolist()))
    changed = {**outputs, key: np.sort([other, *outputs[key][1:]])}
    with Model.open(bundle) as model:
        tolerated = list(replaying._replay_method(model, "divprune", 0.25, inputs, changed, "", 1.0))
        refused = list(replaying._replay_method(model, "divprune", 0.25, inputs, changed, "", 0.0))
    assert [(row.value, row.tolerance, row.passed) for row in tolerated] == [(1.0, 1.0, True)]
    assert "later stages not compared" in tolerated[0].measure
    assert not refused[0].passed
