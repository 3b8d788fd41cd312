"""A bundle whose method reads the question through CLIP's text encoder, against transformers and the paper's rule."""

from __future__ import annotations

import math
import pathlib
from collections.abc import Iterator

import numpy as np
import pytest

import edgeprune
from tests.checkpoints import write_checkpoint
from tests.clip_checkpoints import ClipShape, write_clip
from tests.hf_reference import HfReference, Reference
from tests.pruning.oracles_text import cdpruner_of_the_paper, relevance_of_the_paper
from tests.test_text_parity import Tally, picture

NEW_TOKENS = 16
LONG = "How many objects are there, and what colour is each one of them, from the left to the right? "
#: short, others, in capitals that CLIP does not read, and of several segments
QUESTIONS = ("What is on the left?", "How many objects are there?", "Is there a cat in the image?", LONG * 6)
SHAPES = {"77": ClipShape(), "12-old-end": ClipShape(positions=12, old_end=True, layers=1, seed=3)}


class PaperReference(HfReference):
    """CDPruner's rule as in the paper's code, on transformers' LLaVA and CLIP."""

    question = ""

    def __init__(self, folder: pathlib.Path, clip: pathlib.Path) -> None:
        from transformers import AutoTokenizer, CLIPModel

        super().__init__(folder)
        self.clip = CLIPModel.from_pretrained(clip, dtype=self.torch.float32, attn_implementation="eager").eval()
        self.reader = AutoTokenizer.from_pretrained(clip)

    def segments(self) -> np.ndarray:
        """(M,E): the ids of the whole question with begin and end, filled with zeros to whole segments."""
        torch, most = self.torch, self.clip.config.text_config.max_position_embeddings
        inputs = self.reader(self.question, return_tensors="pt")
        fill = -inputs.input_ids.shape[1] % most
        ids, mask = (
            torch.nn.functional.pad(inputs[name], (0, fill)).reshape(-1, most)
            for name in ("input_ids", "attention_mask")
        )
        with torch.inference_mode():
            return self.clip.text_projection(self.clip.text_model(ids, attention_mask=mask).pooler_output).numpy()

    def vision(self, image, keep: float, score_block: int | None = None):
        """Kept projected features (K,D), indices (K,), relevance (N,)."""
        torch, tower = self.torch, self.model.model.vision_tower
        hidden = tower(self.pixels(image), output_hidden_states=True).hidden_states
        features = hidden[self.config.vision_feature_layer][:, 1:]
        tokens = self.model.model.multi_modal_projector(features)[0]
        norm = getattr(tower, "vision_model", tower).post_layernorm
        space = self.clip.visual_projection(norm(features))[0].numpy()
        segments = self.segments()
        count = max(1, math.floor(len(tokens) * keep + 0.5))
        picks, margins = cdpruner_of_the_paper(space, tokens.numpy(), segments, count)
        assert min(margins) > 1e-5, "a near tie proves nothing"
        index = np.sort(picks)
        return tokens[torch.from_numpy(index)], index, relevance_of_the_paper(space, segments)

    def ask_about(self, images, question: str, keep: float) -> Reference:
        self.question = question
        return self.ask(images, question, keep, NEW_TOKENS)


@pytest.fixture(scope="module", params=SHAPES, ids=str)
def pair(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[edgeprune.Model, PaperReference]]:
    """The same random checkpoints as a running bundle and as transformers models."""
    from edgeprune.export.pipeline import export
    from edgeprune.recipe import ExportRecipe

    where = tmp_path_factory.mktemp("checkpoint")
    folder, clip = write_checkpoint(where / "llava"), write_clip(where / "clip", SHAPES[request.param])
    recipe = ExportRecipe(model=str(folder), prune=("cdpruner:preset=paper",), keep=0.25, text_encoder=str(clip))
    with edgeprune.load(export(recipe, where / "out.bundle")) as model:
        yield model, PaperReference(folder, clip)


@pytest.mark.parametrize("keep", [0.5, 0.25])
def test_text_and_kept_tokens_of_several_questions_in_one_session(
    pair: tuple[edgeprune.Model, PaperReference], keep: float
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
                np.testing.assert_allclose(answer.images[0].scores, expected.scores[0], atol=1e-4)
                tally.compare(list(answer.token_ids), expected.ids, expected.gaps, question)
                seen.add((seed, tuple(answer.images[0].keep_idx)))
                assert answer.timings.select_ms > 0
                assert answer.timings.vision_ms == 0 or question == QUESTIONS[0], "one picture, seen once"
    assert tally.equal >= 6
    assert len(seen) > 2, "the question must matter in this test"


def test_the_question_fills_several_segments(pair: tuple[edgeprune.Model, PaperReference]) -> None:
    """Otherwise the last question above would prove nothing about them."""
    reference = pair[1]
    counts = []
    for reference.question in QUESTIONS:
        counts.append(len(reference.segments()))
    assert counts[-1] >= 2
    assert counts[0] <= 2
