"""Greedy text of libedgeprune against transformers: the whole line, picture and question in, token ids out."""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Iterator

import numpy as np
import pytest
from PIL import Image

import edgeprune
from edgeprune.tolerances import TOLERANCES
from tests.checkpoints import Shape, write_checkpoint
from tests.hf_reference import HfReference

REPO = pathlib.Path(__file__).resolve().parent.parent
NEW_TOKENS = 32
SHAPES = {
    "clip-gqa": Shape(),
    "clip-mha-odd-heads": Shape(vision_heads=5, vision_width=80, heads=5, kv_heads=5, width=80, seed=1),
    "dinov2-gqa-odd-heads": Shape(
        vision="dinov2", vision_heads=3, vision_width=48, heads=3, kv_heads=1, width=48, seed=2
    ),
    "dinov2-mha-first-layers": Shape(vision="dinov2", feature_layer=2, kv_heads=4, seed=3),
}


@dataclasses.dataclass
class Tally:
    """Counts of compared, equal and excused answers."""

    compared: int = 0
    equal: int = 0
    excused: int = 0

    def compare(self, ours: list[int], reference: list[int], gaps: list[float], what: str) -> None:
        """Equal, or first different where the reference itself is within the tolerated gap of a tie."""
        self.compared += 1
        if ours == reference:
            self.equal += 1
            return
        first = next(i for i, (a, b) in enumerate(zip(ours, reference, strict=True)) if a != b)
        assert gaps[first] < TOLERANCES["greedy_gap"], f"{what}: token {first} differs at a gap of {gaps[first]}"
        self.excused += 1


def picture(seed: int, width: int, height: int) -> Image.Image:
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 255, (5, 5, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


@pytest.fixture(scope="module", params=SHAPES, ids=str)
def pair(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[edgeprune.Model, HfReference]]:
    """The same random checkpoint as a running bundle and as a transformers model."""
    from edgeprune.export.pipeline import export
    from edgeprune.recipe import ExportRecipe

    folder = write_checkpoint(tmp_path_factory.mktemp("checkpoint") / request.param, SHAPES[request.param])
    recipe = ExportRecipe(model=str(folder), prune=("fastervlm", "none"), keep=0.25)
    bundle = export(recipe, folder.parent / "out.bundle")
    with edgeprune.load(bundle) as model:
        yield model, HfReference(folder)


@pytest.mark.parametrize("keep", [1.0, 0.25, 0.1])
def test_tiny_text_equals_reference(pair: tuple[edgeprune.Model, HfReference], keep: float) -> None:
    model, reference = pair
    tally = Tally()
    for i, (w, h) in enumerate([(56, 56), (90, 70), (40, 120)]):
        image = picture(i, w, h)
        answer = model.ask(image, "What is on the left?", keep=keep, max_new_tokens=NEW_TOKENS, ignore_eos=True)
        expected = reference.ask([image], "What is on the left?", keep, NEW_TOKENS)
        np.testing.assert_array_equal(answer.images[0].keep_idx, expected.keep_idx[0])
        tally.compare(list(answer.token_ids), expected.ids, expected.gaps, f"picture {i}")
        if keep == 1.0:
            assert expected.ids == reference.generate(image, "What is on the left?", NEW_TOKENS)
    assert tally.equal >= 1


def test_tiny_several_pictures_and_a_second_question(pair: tuple[edgeprune.Model, HfReference]) -> None:
    model, reference = pair
    images = [picture(7, 64, 64), picture(8, 100, 50)]
    tally = Tally()
    with model.new_session() as session:
        for image in images:
            session.add_image(image, keep=0.25)
        for question in ("What is on the left?", "What is on the right?", "How many objects are there?"):
            answer = session.generate(question, max_new_tokens=NEW_TOKENS, ignore_eos=True)
            expected = reference.ask(images, question, 0.25, NEW_TOKENS)
            tally.compare(list(answer.token_ids), expected.ids, expected.gaps, question)
    assert tally.compared == 3
    assert answer.reused_tokens > sum(k.kept for k in answer.images)


def scene_pairs() -> list[tuple[pathlib.Path, str]]:
    folder = REPO / "tests" / "data" / "scenes"
    rows = json.loads((folder / "pairs.json").read_text(encoding="utf-8"))
    return [(folder / row["image"], row["question"]) for row in rows]


def demo_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    from edgeprune.export.demo import assemble_demo

    return assemble_demo(tmp_path_factory.mktemp("demo-checkpoint"))


def check_demo(
    bundle: pathlib.Path, checkpoint: pathlib.Path, pairs: list[tuple[pathlib.Path, str]], keep: float
) -> Tally:
    reference = HfReference(checkpoint)
    tally = Tally()
    with edgeprune.load(bundle) as model:
        for path, question in pairs:
            image = Image.open(path).convert("RGB")
            answer = model.ask(path, question, keep=keep, max_new_tokens=NEW_TOKENS, ignore_eos=True)
            ours = list(answer.token_ids)
            expected = reference.generate(image, question, NEW_TOKENS) if keep == 1.0 else None
            if ours == expected:
                tally.compare(ours, ours, [], question)
                continue
            step = reference.ask([image], question, keep, NEW_TOKENS)
            tally.compare(ours, expected or step.ids, step.gaps, f"{path.name}: {question}")
    print(f"keep {keep}: {tally}")
    return tally


@pytest.mark.parametrize("keep", [1.0, 0.1])
def test_demo_text_equals_reference_on_a_few(
    demo_bundle: pathlib.Path, tmp_path_factory: pytest.TempPathFactory, keep: float
) -> None:
    tally = check_demo(demo_bundle, demo_checkpoint(tmp_path_factory), scene_pairs()[::12], keep)
    assert tally.compared >= 4


@pytest.mark.slow
@pytest.mark.parametrize("keep", [1.0, 0.25, 0.1])
def test_demo_text_equals_reference(
    demo_bundle: pathlib.Path, tmp_path_factory: pytest.TempPathFactory, keep: float
) -> None:
    tally = check_demo(demo_bundle, demo_checkpoint(tmp_path_factory), scene_pairs(), keep)
    assert tally.compared >= 50
