"""Methods that read the question in the runtime: which graphs run when, what stays valid, and what is refused."""

from __future__ import annotations

import json
import pathlib
import shutil
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edgeprune.errors import EdgepruneError
from edgeprune.pruning.registry import method_class, method_names
from edgeprune.runtime.session import Model, Session, describe_bundle
from tests.checkpoints import write_checkpoint
from tests.test_text_parity import picture

LEFT, COUNT = "What is on the left?", "How many objects are there?"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    from edgeprune.export.pipeline import export
    from edgeprune.recipe import ExportRecipe

    folder = write_checkpoint(tmp_path_factory.mktemp("text") / "checkpoint")
    recipe = ExportRecipe(model=str(folder), prune=("cdpruner:weight=0.95", "fastervlm"), keep=0.25)
    return export(recipe, folder.parent / "text.bundle")


@pytest.fixture(scope="module")
def model(bundle: pathlib.Path) -> Iterator[Model]:
    with Model.open(bundle) as opened:
        yield opened


TEXT_METHODS = [name for name in method_names() if method_class(name).text]


@pytest.mark.parametrize("name", TEXT_METHODS)
def test_every_method_that_reads_the_question_answers(name: str, tmp_path: pathlib.Path) -> None:
    """Two graphs, compared with torch by the export, that give the count asked for and other tokens to other words."""
    from edgeprune.export.pipeline import export
    from edgeprune.recipe import ExportRecipe

    folder = write_checkpoint(tmp_path / "checkpoint")
    recipe = ExportRecipe(model=str(folder), prune=(name,), keep=0.25)
    manifest = json.loads((export(recipe, tmp_path / "one.bundle") / "manifest.json").read_text())
    assert [graph["stage"] for graph in manifest["graphs"]["vision"][name]] == ["encode", "select"]
    assert all(row["passed"] for row in manifest["parity"])
    with Model.open(tmp_path / "one.bundle") as opened, opened.new_session() as made:
        made.add_image(picture(3, 90, 70))
        kept = [ask(made, question).images[0] for question in (LEFT, COUNT)]
        assert [image.kept for image in kept] == [4, 4]


@pytest.fixture
def session(model: Model) -> Iterator[Session]:
    with model.new_session() as made:
        yield made


def ask(session: Session, question: str, **options: Any) -> Any:
    return session.generate(question, max_new_tokens=5, ignore_eos=True, **options)


def alone(model: Model, image: Image.Image, question: str) -> Any:
    return model.ask(image, question, max_new_tokens=5, ignore_eos=True)


def prefix(model: Model) -> int:
    """Tokens of the prompt before the picture."""
    first = model.bundle.manifest.prompt.segments[0]
    assert first.text is not None
    return len(model.tokenize(first.text)) + len(model.bundle.manifest.tokens.prefix)


def test_a_new_question_runs_the_select_graph_and_no_other_vision(model: Model, session: Session) -> None:
    image = picture(3, 90, 70)
    session.add_image(image)
    first = ask(session, LEFT)
    assert first.timings.vision_ms > 0
    assert first.timings.select_ms > 0
    assert first.timings.ttft_ms >= sum(
        getattr(first.timings, f"{stage}_ms") for stage in ("preprocess", "vision", "select", "embed", "prefill")
    )
    second = ask(session, COUNT)
    assert second.timings.vision_ms == 0
    assert second.timings.select_ms > 0
    assert second.images[0].keep_idx.tolist() != first.images[0].keep_idx.tolist(), "the questions must differ for this"
    for answer, question in ((first, LEFT), (second, COUNT)):
        fresh = alone(model, image, question)
        assert answer.token_ids == fresh.token_ids
        assert answer.kv_tokens == fresh.kv_tokens
        np.testing.assert_array_equal(answer.images[0].keep_idx, fresh.images[0].keep_idx)


def test_keys_and_values_from_the_picture_on_are_dropped_when_it_keeps_other_tokens(
    model: Model, session: Session
) -> None:
    session.add_image(picture(3, 90, 70))
    ask(session, LEFT)
    assert ask(session, COUNT).reused_tokens == prefix(model)
    again = ask(session, COUNT)
    assert again.timings.select_ms == 0, "the same question asks for the same tokens"
    assert again.reused_tokens == again.prompt_tokens - 1


def test_keys_and_values_stay_where_another_question_keeps_the_same_tokens(model: Model) -> None:
    """All tokens are kept, so the embeddings are the same whatever the question is."""
    with model.new_session() as session:
        session.add_image(picture(3, 90, 70), keep=1.0)
        ask(session, LEFT)
        again = ask(session, "What is on the right?")
    assert again.timings.select_ms > 0
    assert again.reused_tokens > prefix(model) + 16


def test_kept_tokens_are_those_of_the_last_question(session: Session) -> None:
    image = session.add_image(picture(3, 90, 70))
    for call in (session.kept_tokens, session.image_embeds):
        with pytest.raises(
            EdgepruneError, match='image 0 has no kept tokens yet: method "cdpruner" reads the question'
        ):
            call(image)
    with pytest.raises(EdgepruneError, match="no kept tokens yet"):
        session.set_image_embeds(image, np.zeros((4, 64), np.float32))
    for question in (LEFT, COUNT):
        answer = ask(session, question)
        kept = session.kept_tokens(image)
        assert kept.kept == 4
        assert kept.scores is not None
        assert kept.scores.shape == (16,)
        np.testing.assert_array_equal(kept.keep_idx, answer.images[0].keep_idx)


def test_several_pictures_and_methods_in_one_question(model: Model, session: Session) -> None:
    images = [picture(3, 90, 70), picture(4, 56, 56), picture(5, 70, 90)]
    for image, method in zip(images, ("fastervlm", "cdpruner", "cdpruner"), strict=True):
        session.add_image(image, method=method)
    first, second = ask(session, LEFT), ask(session, COUNT)
    assert second.reused_tokens > prefix(model) + 4, "the first picture does not depend on the question"
    with model.new_session() as fresh:
        for image, method in zip(images, ("fastervlm", "cdpruner", "cdpruner"), strict=True):
            fresh.add_image(image, method=method)
        assert ask(fresh, COUNT).token_ids == second.token_ids
    for index, image in enumerate(images[1:], 1):
        for answer, question in ((first, LEFT), (second, COUNT)):
            wanted = alone(model, image, question).images[0]
            np.testing.assert_array_equal(answer.images[index].keep_idx, wanted.keep_idx)


def test_a_picture_that_is_not_asked_about_is_not_selected_for(session: Session) -> None:
    session.add_image(picture(3, 90, 70))
    other = session.add_image(picture(4, 90, 70))
    ask(session, LEFT, images=[other])
    session.kept_tokens(other)
    with pytest.raises(EdgepruneError, match="image 0 has no kept tokens yet"):
        session.kept_tokens(0)


def test_edited_embeddings_last_until_another_question(session: Session) -> None:
    image = session.add_image(picture(3, 90, 70))
    ask(session, LEFT)
    embeds, logits = session.image_embeds(image), session.prefill_logits()
    session.set_image_embeds(image, embeds * 0.5)
    ask(session, LEFT)
    assert np.abs(session.prefill_logits() - logits).max() > 0
    ask(session, COUNT)
    ask(session, LEFT)
    np.testing.assert_array_equal(session.image_embeds(image), embeds)
    np.testing.assert_allclose(session.prefill_logits(), logits, rtol=1e-4, atol=1e-4)


def test_scoring_reads_the_question_too(model: Model, session: Session) -> None:
    session.add_image(picture(3, 90, 70))
    for question in (LEFT, COUNT):
        scores = session.score(question, [" red", " blue"])
        assert scores.timings.select_ms > 0
        wanted = alone(model, picture(3, 90, 70), question).images[0]
        np.testing.assert_array_equal(scores.images[0].keep_idx, wanted.keep_idx)


def test_without_a_question_there_is_one_clear_sentence(session: Session) -> None:
    session.add_image(picture(3, 90, 70))
    with pytest.raises(EdgepruneError, match='method "cdpruner" chooses visual tokens by the question, which is empty'):
        ask(session, "")
    assert ask(session, LEFT).token_ids, "the session goes on"
    session.add_image(picture(3, 90, 70), method="fastervlm")
    assert ask(session, "", images=[1]).token_ids, "other methods need none"


def test_the_question_is_the_users_text_alone(model: Model, bundle: pathlib.Path) -> None:
    """The encode and select graphs fed by hand with the embeddings of `tokenize(question)`."""
    from edgeprune.export.parity import run_vision
    from edgeprune.export.parity import session as opened

    image = np.asarray(picture(3, 56, 56).convert("RGB"))
    preprocess = model.bundle.manifest.preprocess
    values = (model.preprocess(image) * preprocess.rescale - np.array(preprocess.mean)) / np.array(preprocess.std)
    onnx = bundle / "onnx"
    ids = np.array([model.tokenize(LEFT)])
    embeds = opened(onnx / "embedding.onnx").run(None, {"input_ids": ids})[0]
    feeds = {
        "pixel_values": values.transpose(2, 0, 1)[None].astype(np.float32),
        "keep_slots": np.zeros(4, np.float32),
        "text_embeds": embeds,
        "text_mask": np.ones(ids.shape, np.float32),
    }
    made = run_vision([onnx / f"vision-cdpruner-{stage}.onnx" for stage in ("encode", "select")], feeds)
    kept = alone(model, Image.fromarray(image), LEFT).images[0]
    np.testing.assert_array_equal(kept.keep_idx, made["keep_idx"][0])
    np.testing.assert_allclose(kept.scores, made["scores"][0], rtol=1e-5)


def test_padding_of_the_question_changes_nothing_in_the_graph(bundle: pathlib.Path) -> None:
    from edgeprune.export.parity import run_vision

    rng = np.random.default_rng(0)
    words = rng.normal(size=(1, 5, 64)).astype(np.float32)
    paths = [bundle / "onnx" / f"vision-cdpruner-{stage}.onnx" for stage in ("encode", "select")]
    found = []
    for length in (5, 6, 40):
        text = np.full((1, length, 64), 1e6, np.float32)
        text[:, :5] = words
        feeds = {
            "pixel_values": np.random.default_rng(1).normal(size=(1, 3, 56, 56)).astype(np.float32),
            "keep_slots": np.zeros(6, np.float32),
            "text_embeds": text,
            "text_mask": (np.arange(length) < 5)[None].astype(np.float32),
        }
        found.append(run_vision(paths, feeds))
    for made in found[1:]:
        np.testing.assert_array_equal(made["keep_idx"], found[0]["keep_idx"])
        np.testing.assert_allclose(made["scores"], found[0]["scores"], rtol=1e-5)


def edited(bundle: pathlib.Path, folder: pathlib.Path, change: Any) -> pathlib.Path:
    copy = shutil.copytree(bundle, folder / "edited.bundle")
    manifest = json.loads((copy / "manifest.json").read_text())
    change(manifest["graphs"]["vision"]["cdpruner"], manifest)
    (copy / "manifest.json").write_text(json.dumps(manifest))
    return copy


def open_natively(bundle: pathlib.Path) -> None:
    """The library's own reading of the manifest, then all of it."""
    describe_bundle(bundle)
    Model.open(bundle).close()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda stages, m: stages.reverse(), "must hold one of the stage encode and one of the stage select"),
        (lambda stages, m: stages.pop(), "must hold one of the stage encode and one of the stage select"),
        (lambda stages, m: stages[1]["inputs"].pop(-1), "no tensor of the role text_mask"),
        (lambda stages, m: stages[1]["inputs"][0]["shape"].__setitem__(2, 65), "tokens.*does not make in this form"),
        (lambda stages, m: stages[0]["outputs"][0].__setitem__("role", "signal.0"), "no tensor of the role tokens"),
    ],
)
def test_stages_that_do_not_fit_are_refused_by_the_library(
    bundle: pathlib.Path, tmp_path: pathlib.Path, change: Any, words: str
) -> None:
    copy = edited(bundle, tmp_path, change)
    with pytest.raises(EdgepruneError, match=words):
        open_natively(copy)


def test_warm_up_runs_both_graphs(model: Model) -> None:
    model.warmup()
