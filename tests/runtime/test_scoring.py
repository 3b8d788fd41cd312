"""Log-probabilities of given answers, and many questions on one picture, against numpy and against transformers."""

from __future__ import annotations

import pathlib

import numpy as np
import pytest

import edgeprune
from edgeprune.errors import NativeError, UserError
from edgeprune.runtime.session import Model, Session
from edgeprune.tolerances import TOLERANCES
from tests.runtime import tiny_graphs
from tests.runtime.conftest import BundleWriter, picture

INVALID_ARGUMENT, CONTEXT_FULL, DEADLINE = 1, 8, 10
QUESTION = "Where is it?"
CHOICES = ["left", "right", "on the table", "é", "left"]


def log_softmax(logits: np.ndarray) -> np.ndarray:
    wide = logits.astype(np.float64)
    return wide - wide.max() - np.log(np.exp(wide - wide.max()).sum())


def expected_score(rows: np.ndarray, ids: list[int]) -> float:
    """Sum of ln p of `ids` behind the embeddings (T,D), every position computed anew."""
    total = 0.0
    for token in ids:
        total += float(log_softmax(tiny_graphs.next_logits(rows))[token])
        rows = np.concatenate([rows, tiny_graphs.weights()["table"][[token]]])
    return total


@pytest.mark.parametrize("with_eos", [False, True])
@pytest.mark.parametrize("pictures", [0, 2])
def test_scores_equal_numpy(session: Session, pictures: int, with_eos: bool) -> None:
    images = [session.add_image(picture(i), keep=0.5) for i in range(pictures)]
    rows = tiny_graphs.prompt_rows(QUESTION, [session.image_embeds(image) for image in images])
    scores = session.score(QUESTION, CHOICES, with_eos=with_eos)
    end = [tiny_graphs.EOS] if with_eos else []
    for choice, text in zip(scores.choices, CHOICES, strict=True):
        ids = [*text.encode(), *end]
        assert (choice.text, choice.tokens) == (text, len(ids))
        expected = expected_score(rows, ids)
        assert choice.log_probability == pytest.approx(expected, abs=TOLERANCES["log_probability"] * len(ids))
        assert choice.per_token == choice.log_probability / len(ids)
    assert scores.choices[0] == scores.choices[-1]
    assert scores.best == max(scores.choices, key=lambda choice: choice.log_probability)
    assert sum(scores.shares()) == pytest.approx(1)
    assert scores.kv_tokens == scores.prompt_tokens == len(rows)
    assert scores.visual_tokens_kept == 8 * pictures == sum(image.kept for image in scores.images)
    t = scores.timings
    assert (t.decode_steps, t.new_tokens) == (sum(len(c.encode()) + len(end) - 1 for c in CHOICES), 0)
    assert 0 < t.ttft_ms <= t.total_ms


def test_scoring_shares_the_cache_with_questions(model: Model, session: Session) -> None:
    session.add_image(picture(3))
    answer = session.generate(QUESTION, max_new_tokens=8, ignore_eos=True)
    scores = session.score(QUESTION, ["left", "right"])
    assert scores.reused_tokens == scores.prompt_tokens - 1  # the last one runs again for its logits
    assert scores.timings.vision_ms == 0
    again = session.generate(QUESTION, max_new_tokens=8, ignore_eos=True)
    assert (again.token_ids, again.reused_tokens) == (answer.token_ids, again.prompt_tokens - 1)
    with model.new_session() as fresh:
        fresh.add_image(picture(3))
        alone = fresh.score(QUESTION, ["right"])
    assert alone.choices[0].log_probability == pytest.approx(scores.choices[1].log_probability, abs=1e-5)


def test_greedy_answer_is_the_likeliest_of_its_first_token(session: Session) -> None:
    answer = session.generate(QUESTION, max_new_tokens=1, ignore_eos=True)
    letters = [bytes([byte]).decode() for byte in tiny_graphs.LIKELY if byte < 128]
    assert session.score(QUESTION, letters).best.text == answer.text


@pytest.mark.parametrize("choices", [[], "a string"])
def test_choices_must_be_a_list(session: Session, choices: list[str]) -> None:
    with pytest.raises(UserError, match="choices must be a list"):
        session.score(QUESTION, choices)


def test_what_cannot_be_scored(write_bundle: BundleWriter, session: Session) -> None:
    with pytest.raises(NativeError, match="a choice must not be empty") as caught:
        session.score(QUESTION, ["left", ""])
    assert caught.value.status == INVALID_ARGUMENT
    with pytest.raises(NativeError, match="image marker"):
        session.score(QUESTION, ["<image>"], allow_special=True)
    assert session.score(QUESTION, ["<image>"]).choices[0].tokens == len("<image>")
    with pytest.raises(NativeError, match="the longest choice 600, but the context holds 512") as caught:
        session.score(QUESTION, ["left", "x" * 600])
    assert caught.value.status == CONTEXT_FULL
    with (
        Model.open(write_bundle(change=lambda m: m["tokens"].update(eos=[]))) as endless,
        endless.new_session() as other,
        pytest.raises(NativeError, match="no end-of-sequence token"),
    ):
        other.score(QUESTION, ["left"], with_eos=True)


def test_deadline_of_a_score(write_bundle: BundleWriter) -> None:
    slow = tiny_graphs.Options(slow={"decoder": 10_000_000})
    with Model.open(write_bundle(slow)) as model, model.new_session() as session:
        with pytest.raises(NativeError, match="deadline") as caught:
            session.score(QUESTION, ["left"], deadline_ms=100)
        assert caught.value.status == DEADLINE
        session.truncate(0)  # usable, and nothing was kept


def test_scores_equal_transformers(tmp_path: pathlib.Path) -> None:
    """The random `tiny` shapes as a bundle and as a transformers model: one forward over prompt and choice."""
    torch = pytest.importorskip("torch")
    from edgeprune.export.pipeline import export
    from edgeprune.recipe import ExportRecipe
    from tests.checkpoints import Shape, write_checkpoint
    from tests.hf_reference import HfReference
    from tests.test_text_parity import picture as scene

    folder = write_checkpoint(tmp_path / "checkpoint", Shape())
    bundle = export(ExportRecipe(model=str(folder), prune=("fastervlm",), keep=0.25), tmp_path / "out.bundle")
    reference = HfReference(folder)
    image, texts = scene(1, 90, 70), ["red", " a blue cube", "Nothing at all, really.", " red"]
    with edgeprune.load(bundle) as model, model.new_session() as session:
        session.add_image(image)
        scores = session.score("What is on the left?", texts, with_eos=True)
        ids = [[*model.tokenize(text), model.bundle.manifest.tokens.eos[0]] for text in texts]
    with torch.inference_mode():
        table = reference.model.get_input_embeddings()
        visual = reference.vision(image, 0.25)[0]
        prompt = [
            visual if token == reference.marker else table(torch.tensor([token]))
            for token in reference.prompt_ids("What is on the left?", 1)
        ]
        for choice, tokens in zip(scores.choices, ids, strict=True):
            embeds = torch.cat([*prompt, table(torch.tensor(tokens))])[None]
            states = reference.model.model.language_model(inputs_embeds=embeds).last_hidden_state[0]
            rows = torch.log_softmax(reference.model.lm_head(states[-len(tokens) - 1 : -1]).double(), -1)
            expected = float(rows[range(len(tokens)), tokens].sum())
            assert choice.tokens == len(tokens)
            assert choice.log_probability == pytest.approx(expected, abs=TOLERANCES["log_probability"] * len(tokens))


def test_many_questions_on_one_picture(model: Model, session: Session) -> None:
    session.add_image(picture(4), keep=0.5)
    questions = ["Where is the cat?", "Where is the dog?", "How many?"]
    answers = session.ask_each(questions, max_new_tokens=6, ignore_eos=True)
    prefix = 1 + len("U: ") + 8 + 1  # bos, text, kept tokens, newline
    for question, answer in zip(questions, answers, strict=True):
        alone = model.ask(picture(4), question, keep=0.5, max_new_tokens=6, ignore_eos=True)
        assert (answer.token_ids, answer.kv_tokens) == (alone.token_ids, alone.kv_tokens)
        assert answer.timings.prefill_ms > 0
    assert [a.reused_tokens for a in answers] == [0, prefix + len("Where is the "), prefix]
    assert [a.timings.vision_ms > 0 for a in answers] == [True, False, False]
