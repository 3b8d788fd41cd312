"""The text encoder's graph against transformers' CLIP, and what `--text-encoder` refuses."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import shutil
from typing import Any

import numpy as np
import pytest
import torch

from edgeprune.errors import UserError
from edgeprune.export.models.text_encoder import TextEncoderSpec, TextGraph, canonical, text_interface
from edgeprune.export.pipeline import plan
from edgeprune.export.text_encoder import segments
from edgeprune.export.weights import SafetensorsSource, fill
from edgeprune.recipe import ExportRecipe
from edgeprune.tolerances import TOLERANCES
from tests.checkpoints import Shape, write_checkpoint
from tests.clip_checkpoints import ClipShape, write_clip

PAPER = ("cdpruner:preset=paper",)
#: end id named, and the mistake of the first configs; the real length, and one that short questions fill
SHAPES = {"end": ClipShape(), "old-end": ClipShape(old_end=True, layers=1, positions=16, seed=1)}


@pytest.fixture(scope="module", params=SHAPES, ids=str)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[pathlib.Path, Any]:
    """A CLIP directory, and the same as transformers runs it."""
    from transformers import CLIPModel

    folder = write_clip(tmp_path_factory.mktemp("clip") / "clip", SHAPES[request.param])
    return folder, CLIPModel.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()


def questions(reference: Any) -> list[list[int]]:
    """Ids of questions between begin and end: short, of one full segment, of several, and whose cut segments hold no
    end, or nothing but the id that fills."""
    text = reference.config.text_config
    begin, end, most = text.vocab_size - 5, text.vocab_size - 4, text.max_position_embeddings
    rng = np.random.default_rng(0)
    lengths = (1, 5, most - 2, most - 1, most, 2 * most - 1, 3 * most)
    made = [[begin, *rng.integers(0, begin, n).tolist(), end] for n in lengths]
    return [*made, [begin, *[0] * (2 * most), end], [*made[3][1:-1]]]


def by_the_paper(reference: Any, ids: list[int]) -> np.ndarray:
    """transformers on whole segments that are filled with 0 and masked, as the official code calls it."""
    most = reference.config.text_config.max_position_embeddings
    count = (len(ids) - 1) // most + 1
    filled, mask = (np.zeros(count * most, np.int64) for _ in range(2))
    filled[: len(ids)], mask[: len(ids)] = ids, 1
    given = [torch.from_numpy(values.reshape(count, most)) for values in (filled, mask)]
    with torch.inference_mode():
        pooled = reference.text_model(input_ids=given[0], attention_mask=given[1]).pooler_output
        return reference.text_projection(pooled).numpy()


def opened(folder: pathlib.Path, where: pathlib.Path) -> Any:
    """The traced graph with its weights in a data file, in ONNX Runtime."""
    import onnx_ir as ir
    import onnxruntime
    from transformers import CLIPConfig

    from edgeprune.export.passes.attach import attach
    from edgeprune.export.trace import trace
    from edgeprune.export.weights import parameters, plan_slots, write_data
    from edgeprune.export.writer import example

    spec = TextEncoderSpec.of(CLIPConfig.from_pretrained(folder))
    items = list(parameters(TextGraph(spec, whole=True)))
    slots = plan_slots(items, "text.data")
    write_data(where / "text.data", items, slots, SafetensorsSource(folder, canonical), lambda _: None)
    interface = text_interface(spec)
    model = trace(TextGraph(spec, whole=False), example(interface), interface)
    assert attach(model, slots, where) == ["text.data"]
    (where / "text.onnx").write_bytes(ir.to_proto(model).SerializeToString())
    names = [node.name for node in model.graph if node.op_type in ("MatMul", "Gemm")]
    assert all(name.startswith("pruning/") for name in names), "a profile counts it as the pruner's work"
    return onnxruntime.InferenceSession(where / "text.onnx", providers=["CPUExecutionProvider"])


def test_the_graph_equals_transformers_for_questions_of_any_length(
    pair: tuple[pathlib.Path, Any], tmp_path: pathlib.Path
) -> None:
    folder, reference = pair
    most = reference.config.text_config.max_position_embeddings
    session = opened(folder, tmp_path)
    for ids in questions(reference):
        wanted = by_the_paper(reference, ids)
        (found,) = session.run(None, {"input_ids": segments(ids, most)})
        assert found.shape == wanted.shape == (-(-len(ids) // most), 40)
        assert np.abs(found - wanted).max() <= TOLERANCES["text_embeds"] * np.abs(wanted).max(), len(ids)


def test_torch_module_equals_transformers(pair: tuple[pathlib.Path, Any]) -> None:
    folder, reference = pair
    spec = TextEncoderSpec.of(reference.config)
    graph = TextGraph(spec, whole=True).eval()
    fill(graph, SafetensorsSource(folder, canonical))
    for ids in questions(reference):
        with torch.inference_mode():
            found = graph(torch.from_numpy(segments(ids, spec.positions))).numpy()
        wanted = by_the_paper(reference, ids)
        np.testing.assert_allclose(found, wanted, atol=TOLERANCES["text_embeds"] * np.abs(wanted).max())


def test_segments_are_full_but_for_the_last() -> None:
    assert segments(range(1, 4), 8).tolist() == [[1, 2, 3]], "one segment is not filled"
    assert segments(range(1, 9), 8).shape == (1, 8)
    assert segments(range(1, 10), 8).tolist() == [[1, 2, 3, 4, 5, 6, 7, 8], [9, 0, 0, 0, 0, 0, 0, 0]]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[pathlib.Path, pathlib.Path]:
    """A LLaVA and the CLIP that fits it."""
    where = tmp_path_factory.mktemp("fitting")
    return write_checkpoint(where / "llava"), write_clip(where / "clip", ClipShape(layers=1))


def refused(model: pathlib.Path, clip: pathlib.Path | None, prune: tuple[str, ...] = PAPER) -> str:
    """The one sentence."""
    recipe = ExportRecipe(model=str(model), prune=prune, keep=0.25, text_encoder=None if clip is None else str(clip))
    with pytest.raises(UserError) as caught:
        plan(recipe)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_plan_names_the_graph_and_the_encoder(folders: tuple[pathlib.Path, pathlib.Path]) -> None:
    llava, clip = folders
    made = plan(ExportRecipe(model=str(llava), prune=PAPER, keep=0.25, text_encoder=str(clip)))
    assert made.graphs == ("vision-cdpruner-encode.onnx", "vision-cdpruner-select.onnx", "text.onnx",
                           "embedding.onnx", "decoder.onnx")  # fmt: skip
    assert any("read by the text encoder of clip" in note for note in made.notes)
    without = plan(ExportRecipe(model=str(llava), prune=("cdpruner",), keep=0.25))
    assert made.disk_mib > without.disk_mib
    assert made.memory_mib > without.memory_mib


def test_an_encoder_that_is_missing_or_that_nothing_reads(folders: tuple[pathlib.Path, pathlib.Path]) -> None:
    llava, clip = folders
    assert "preset=paper reads the question with CLIP's text encoder: name" in refused(llava, None)
    assert "--text-encoder belongs to --prune cdpruner:preset=paper" in refused(llava, clip, ("cdpruner",))
    assert "there is no such directory" in refused(llava, clip / "nowhere")
    assert "cannot follow background@RATIO" in refused(llava, clip, ("background@0.5+cdpruner:preset=paper",))


def test_towers_that_do_not_fit(folders: tuple[pathlib.Path, pathlib.Path], tmp_path: pathlib.Path) -> None:
    llava, clip = folders
    other = write_clip(tmp_path / "other", ClipShape(vision_width=32, layers=1))
    assert "reads tokens of width 32, but the vision tower makes them 64 wide" in refused(llava, other)
    dinov2 = write_checkpoint(tmp_path / "dinov2", Shape(vision="dinov2"))
    assert "needs a CLIP vision tower" in refused(dinov2, clip)


def test_checkpoints_that_are_no_whole_clip(folders: tuple[pathlib.Path, pathlib.Path], tmp_path: pathlib.Path) -> None:
    llava, clip = folders
    broken = pathlib.Path(shutil.copytree(clip, tmp_path / "broken"))
    config = json.loads((broken / "config.json").read_text())
    for kind, words in (
        ("clip_text_model", "the visual projection lies in the whole CLIP checkpoint"),
        ("siglip", "is a siglip checkpoint, but served is clip"),
    ):
        (broken / "config.json").write_text(json.dumps({**config, "model_type": kind}))
        assert words in refused(llava, broken)
    (broken / "config.json").write_text("{")
    assert "config.json cannot be read" in refused(llava, broken)
    (broken / "config.json").unlink()
    assert "has no config.json" in refused(llava, broken)
    (broken / "config.json").write_text(json.dumps(config))
    (broken / "tokenizer.json").unlink()
    (broken / "tokenizer_config.json").unlink()
    assert "has no tokenizer.json" in refused(llava, broken)
    (broken / "tokenizer.json").write_text("{}")
    assert "has no usable fast tokenizer" in refused(llava, broken)


def test_weights_that_are_missing_leave_nothing_behind(
    folders: tuple[pathlib.Path, pathlib.Path], tmp_path: pathlib.Path
) -> None:
    from safetensors.torch import load_file, save_file

    from edgeprune.export.pipeline import export

    llava, clip = folders
    broken = pathlib.Path(shutil.copytree(clip, tmp_path / "broken"))
    state = load_file(broken / "model.safetensors")
    del state["visual_projection.weight"]
    save_file(state, broken / "model.safetensors", metadata={"format": "pt"})
    recipe = ExportRecipe(model=str(llava), prune=PAPER, keep=0.25, text_encoder=str(broken))
    with pytest.raises(UserError, match=r"holds no tensor for text_space\.visual_projection"):
        export(recipe, tmp_path / "out.bundle")
    assert not (tmp_path / "out.bundle").exists()


def test_the_recipe_reads_back(folders: tuple[pathlib.Path, pathlib.Path]) -> None:
    recipe = ExportRecipe(model="tiny", prune=PAPER, text_encoder="/somewhere/clip")
    assert ExportRecipe.from_toml(recipe.to_toml()) == recipe
    with pytest.raises(UserError, match="text_encoder must name a CLIP checkpoint directory"):
        dataclasses.replace(recipe, text_encoder=" ")
