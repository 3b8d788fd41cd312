"""embedlens through the whole line: anchors found at export, recorded, rows of the embedding table in the graph."""

from __future__ import annotations

import json
import pathlib

import numpy as np
import pytest
import torch

from edgeprune.bundle import Bundle
from edgeprune.errors import PruningError
from edgeprune.export import calibrate, parity, pipeline
from edgeprune.measure import parity as replaying
from edgeprune.pruning.embedlens import EmbedLens
from edgeprune.pruning.registry import parse
from edgeprune.recipe import ExportRecipe
from tests.checkpoints import write_checkpoint
from tests.export.models import family_of, hf_model, llava_config


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("embedlens")
    checkpoint = write_checkpoint(folder / "checkpoint")
    recipe = ExportRecipe(model=str(checkpoint), prune=("embedlens", "none"), keep=0.25)
    return pipeline.export(recipe, folder / "lens.bundle")


def test_anchors_are_recorded_and_keep_is_free(bundle: pathlib.Path) -> None:
    manifest = json.loads((bundle / "manifest.json").read_text())
    entry = manifest["methods"]["each"]["embedlens"]
    anchors = entry["parameters"]["anchors"]
    assert entry["spec"] == f"embedlens:anchors={anchors}"
    assert entry["dynamic_keep"]
    assert "embedlens was calibrated on 8 made pictures" in manifest["notes"]
    scored = parity.session(bundle / "onnx" / "vision-embedlens.onnx")
    whole = parity.session(bundle / "onnx" / "vision-none.onnx")
    pixels = np.random.default_rng(0).normal(size=(2, 3, 56, 56)).astype(np.float32)
    full = whole.run(["visual_embeds"], {"pixel_values": pixels})[0]
    table = parity.session(bundle / "onnx" / "embedding.onnx")
    ids = np.array([[int(part) for part in anchors.split("-")]])
    rows = table.run(None, {"input_ids": ids})[0][0].astype(np.float64)
    unit = full / np.linalg.norm(full, axis=2, keepdims=True)
    far = -(unit @ (rows / np.linalg.norm(rows, axis=1, keepdims=True)).T).max(2)
    for keep in (1, 5, 16):
        feeds = {"pixel_values": pixels, "keep_slots": np.zeros(keep, np.float32)}
        index, scores = scored.run(["keep_idx", "scores"], feeds)
        assert np.abs(scores - far).max() < 1e-5
        np.testing.assert_array_equal(index, np.sort(np.argsort(-far, axis=1)[:, :keep], axis=1))


def test_the_runtime_answers_and_agrees_with_torch(bundle: pathlib.Path) -> None:
    from edgeprune.runtime.session import Model

    opened = Bundle.open(bundle)
    with Model.open(bundle) as model:
        rows = replaying.replay(opened, model)
        assert all(row.passed for row in rows), [row for row in rows if not row.passed]


def test_anchors_are_the_entries_nearest_to_most_tokens() -> None:
    """Against transformers' own projector and table, ids counted one by one."""
    model = hf_model(llava_config("clip", 4, feature_layer=-2))
    family, source = family_of(model)
    pictures = [np.random.default_rng(seed).normal(size=(1, 3, 16, 16)).astype(np.float32) for seed in range(5)]
    counts = np.zeros(128, int)
    table = model.get_input_embeddings().weight.detach().double().numpy()
    for picture in pictures:
        with torch.inference_mode():
            hidden = model.model.vision_tower(torch.from_numpy(picture), output_hidden_states=True).hidden_states[-2]
            tokens = model.model.multi_modal_projector(hidden[:, 1:])[0].double().numpy()
        for token in tokens:
            near = table @ token / np.linalg.norm(table, axis=1)
            counts[np.argsort(-near)[:3]] += 1
    method = calibrate.anchors_of(parse("embedlens"), family, source, pictures)
    found = [int(part) for part in method.parameters["anchors"].split("-")]
    assert [counts[index] for index in found] == sorted(counts, reverse=True)[: len(found)]
    assert min(counts[found]) >= 0.05 * 80


def test_a_model_without_sinks_and_an_id_outside_the_vocabulary_are_refused() -> None:
    spread = torch.arange(300).reshape(100, 3)
    with pytest.raises(PruningError, match="no vocabulary entry that 5%"):
        EmbedLens().calibrated(spread)
    spread[:40, 1] = 7
    assert EmbedLens().calibrated(spread) == EmbedLens(anchors="7")
    family, _ = family_of(hf_model(llava_config("clip", 4)))
    with pytest.raises(PruningError, match="anchor 128 is outside the vocabulary of 128"):
        family.vision(parse("embedlens:anchors=3-128"), None, torch.float32, whole=True)
    with pytest.raises(PruningError, match="token ids joined by -"):
        parse("embedlens:anchors=3/4")
