"""Greedy text of a bundle whose method reads the question, against transformers and the method's rule by hand."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest

import edgeprune
from tests.checkpoints import Shape, write_checkpoint
from tests.hf_reference import HfReference, Reference
from tests.pruning.oracles_text import cdpruner, relevance
from tests.test_text_parity import Tally, picture

NEW_TOKENS, WEIGHT = 24, 0.9
QUESTIONS = ("What is on the left?", "How many objects are there?", "Is there a cat in the image?")
SHAPES = {"clip": Shape(), "dinov2": Shape(vision="dinov2", vision_heads=3, vision_width=48, seed=2)}


class CDPrunerReference(HfReference):
    """CDPruner's rule on transformers' own features, with the decoder's embeddings of the question's text alone."""

    question = ""

    def vision(self, image, keep: float, score_block: int | None = None):
        """Kept projected features (K,D), indices (K,), relevance (N,)."""
        torch = self.torch
        tower = self.model.model.vision_tower
        features = tower(self.pixels(image), output_hidden_states=True).hidden_states
        tokens = self.model.model.multi_modal_projector(features[self.config.vision_feature_layer][:, 1:])[0]
        ids = self.tokenizer(self.question, add_special_tokens=False).input_ids
        words = self.model.get_input_embeddings()(torch.tensor(ids)).numpy()
        picks, margins = cdpruner(tokens.numpy(), words, max(1, math.floor(len(tokens) * keep + 0.5)), WEIGHT)
        assert min(margins) > 1e-5, "a near tie proves nothing"
        index = np.sort(picks)
        return tokens[torch.from_numpy(index)], index, relevance(tokens.numpy(), words, WEIGHT)

    def ask_about(self, images, question: str, keep: float) -> Reference:
        self.question = question
        return self.ask(images, question, keep, NEW_TOKENS)


@pytest.fixture(scope="module", params=SHAPES, ids=str)
def pair(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[edgeprune.Model, CDPrunerReference]]:
    """The same random checkpoint as a running bundle and as a transformers model."""
    from edgeprune.export.pipeline import export
    from edgeprune.recipe import ExportRecipe

    folder = write_checkpoint(tmp_path_factory.mktemp("checkpoint") / request.param, SHAPES[request.param])
    recipe = ExportRecipe(model=str(folder), prune=(f"cdpruner:weight={WEIGHT}",), keep=0.25)
    with edgeprune.load(export(recipe, folder.parent / "out.bundle")) as model:
        yield model, CDPrunerReference(folder)


@pytest.mark.parametrize("keep", [0.5, 0.25])
def test_text_and_kept_tokens_of_several_questions_in_one_session(
    pair: tuple[edgeprune.Model, CDPrunerReference], keep: float
) -> None:
    model, reference = pair
    tally, seen = Tally(), set()
    for seed, size in enumerate([(56, 56), (90, 70)]):
        image = picture(seed, *size)
        with model.new_session() as session:
            session.add_image(image, keep=keep)
            for question in QUESTIONS:
                answer = session.generate(question, max_new_tokens=NEW_TOKENS, ignore_eos=True)
                expected = reference.ask_about([image], question, keep)
                np.testing.assert_array_equal(answer.images[0].keep_idx, expected.keep_idx[0])
                np.testing.assert_allclose(answer.images[0].scores, expected.scores[0], rtol=1e-4)
                tally.compare(list(answer.token_ids), expected.ids, expected.gaps, question)
                seen.add((seed, tuple(answer.images[0].keep_idx)))
    assert tally.equal >= 4
    assert len(seen) > 2, "the question must matter in this test"
