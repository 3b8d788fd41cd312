"""What the library answers, against numpy: tokens, kept sets, KV cache, second questions."""

from __future__ import annotations

import numpy as np
import pytest

from edgeprune.errors import NativeError, UserError
from edgeprune.runtime.session import Model, Session
from tests.runtime import tiny_graphs
from tests.runtime.conftest import BundleWriter, best, features_of, picture, places

INVALID_ARGUMENT, CONTEXT_FULL = 1, 8
QUESTION = "Where is it?"


@pytest.mark.parametrize(("keep", "kept"), [(0.1, 2), (0.25, 4), (0.5, 8), (1.0, 16)])
def test_answer_equals_numpy(model: Model, keep: float, kept: int) -> None:
    pixels = picture(1)
    answer = model.ask(pixels, QUESTION, keep=keep, max_new_tokens=24, ignore_eos=True)
    features, scores = features_of(model, pixels)
    tokens = answer.images[0]
    np.testing.assert_array_equal(tokens.keep_idx, best(scores, kept))
    np.testing.assert_allclose(tokens.scores, scores, atol=1e-5)
    rows = tiny_graphs.prompt_rows(QUESTION, [features[tokens.keep_idx]])
    assert list(answer.token_ids) == tiny_graphs.greedy(rows, 24)
    assert answer.text == bytes(answer.token_ids).decode("utf-8", "replace")
    assert (tokens.kept, tokens.visual_tokens, tokens.keep) == (kept, 16, keep)
    assert (tokens.grid_rows, tokens.grid_cols, tokens.width_px, tokens.height_px) == (4, 4, 30, 20)
    assert answer.prompt_tokens == len(rows)
    assert answer.visual_tokens_kept == kept
    assert answer.kv_tokens == len(rows) + 23  # the last token made has not been run


def test_applied_and_reason(session: Session) -> None:
    pruned = session.kept_tokens(session.add_image(picture(1)))
    assert (pruned.applied, pruned.reason, pruned.keep, pruned.method) == (True, "", 0.25, "best")
    full = session.kept_tokens(session.add_image(picture(1), keep=1.0))
    assert (full.applied, full.reason) == (False, "keep 1 keeps every token")
    nothing = session.kept_tokens(session.add_image(picture(1), method="none"))
    assert (nothing.applied, nothing.reason, nothing.keep) == (False, "method none keeps every token", 1.0)
    assert nothing.scores is None
    np.testing.assert_array_equal(nothing.keep_idx, np.arange(16))
    fixed = session.kept_tokens(session.add_image(picture(1), method="four", keep=0.25))
    assert (fixed.kept, fixed.applied, fixed.method) == (4, True, "four")


@pytest.mark.parametrize(
    ("keep", "method", "text"),
    [
        (0.05, None, "serves 0.1 to 1"),
        (0.5, "four", "keeps exactly 4 of 16"),
        (0.5, "none", "keeps exactly 16 of 16"),
        (None, "fastest", "it has: best, four, none"),
    ],
)
def test_what_the_bundle_does_not_serve(session: Session, keep: float | None, method: str | None, text: str) -> None:
    with pytest.raises(NativeError, match=text) as caught:
        session.add_image(picture(1), keep=keep, method=method)
    assert caught.value.status == INVALID_ARGUMENT
    assert session.add_image(picture(1)) == 0


@pytest.mark.parametrize("keep", [0.0, -0.1, 1.5, float("nan")])
def test_keep_must_be_a_ratio(session: Session, keep: float) -> None:
    with pytest.raises(UserError, match="must be above 0 and at most 1"):
        session.add_image(picture(1), keep=keep)


def test_several_pictures_in_the_order_asked_for(model: Model, session: Session) -> None:
    pixels = [picture(3), picture(4, 17, 50)]
    ids = [session.add_image(p, keep=0.5) for p in pixels]
    features = []
    for image, p in zip(ids, pixels, strict=True):
        rows, _ = features_of(model, p)
        features.append(rows[session.kept_tokens(image).keep_idx])
    forwards = session.generate(QUESTION, max_new_tokens=10, ignore_eos=True)
    backwards = session.generate(QUESTION, images=ids[::-1], max_new_tokens=10, ignore_eos=True)
    without = session.generate(QUESTION, images=[], max_new_tokens=10, ignore_eos=True)
    assert list(forwards.token_ids) == tiny_graphs.greedy(tiny_graphs.prompt_rows(QUESTION, features), 10)
    assert list(backwards.token_ids) == tiny_graphs.greedy(tiny_graphs.prompt_rows(QUESTION, features[::-1]), 10)
    assert list(without.token_ids) == tiny_graphs.greedy(tiny_graphs.prompt_rows(QUESTION, []), 10)
    assert [kept.image for kept in backwards.images] == [1, 0]
    with pytest.raises(NativeError, match="no image 7"):
        session.generate(QUESTION, images=[7])


def test_second_question_reuses_the_cache(model: Model, session: Session) -> None:
    pixels = picture(5)
    session.add_image(pixels, keep=0.5)
    first = session.generate("Where is the cat?", max_new_tokens=6, ignore_eos=True)
    second = session.generate("Where is the dog?", max_new_tokens=6, ignore_eos=True)
    alone = model.ask(pixels, "Where is the dog?", keep=0.5, max_new_tokens=6, ignore_eos=True)
    prefix = 1 + len("U: ") + 8 + len("\nWhere is the ")
    assert (first.reused_tokens, second.reused_tokens, alone.reused_tokens) == (0, prefix, 0)
    assert second.token_ids == alone.token_ids
    assert second.kv_tokens == alone.kv_tokens
    assert first.timings.vision_ms > 0
    assert second.timings.vision_ms == 0
    again = session.generate("Where is the dog?", max_new_tokens=6, ignore_eos=True)
    assert again.reused_tokens == again.prompt_tokens - 1
    assert again.token_ids == second.token_ids


def test_truncate_reset_and_removal_keep_the_cache_honest(model: Model, session: Session) -> None:
    first, second = session.add_image(picture(6)), session.add_image(picture(7))
    whole = session.generate(QUESTION, max_new_tokens=5, ignore_eos=True)
    session.truncate(3)
    assert session.generate(QUESTION, max_new_tokens=5, ignore_eos=True).reused_tokens == 3
    with pytest.raises(NativeError, match="the KV cache has"):
        session.truncate(10_000)
    session.remove_image(first)
    rest = session.generate(QUESTION, max_new_tokens=5, ignore_eos=True)
    assert rest.reused_tokens == 1 + len("U: ")  # what stood before the picture that went
    assert rest.token_ids == model.ask(picture(7), QUESTION, max_new_tokens=5, ignore_eos=True).token_ids
    with pytest.raises(NativeError, match="no image 0"):
        session.kept_tokens(first)
    assert session.add_image(picture(6)) == second + 1
    session.reset()
    assert [session.add_image(picture(6)), session.add_image(picture(7))] == [0, 1]
    anew = session.generate(QUESTION, max_new_tokens=5, ignore_eos=True)
    assert (anew.reused_tokens, anew.token_ids) == (0, whole.token_ids)


def test_embeddings_can_be_read_and_replaced(model: Model, session: Session) -> None:
    image = session.add_image(picture(8), keep=0.5)
    features, _ = features_of(model, picture(8))
    embeds = session.image_embeds(image)
    np.testing.assert_allclose(embeds, features[session.kept_tokens(image).keep_idx], atol=1e-5)
    before = session.generate(QUESTION, max_new_tokens=8, ignore_eos=True)
    logits = session.prefill_logits()
    session.set_image_embeds(image, embeds[::-1] * 2)
    after = session.generate(QUESTION, max_new_tokens=8, ignore_eos=True)
    assert after.reused_tokens == 1 + len("U: ")
    assert list(after.token_ids) == tiny_graphs.greedy(tiny_graphs.prompt_rows(QUESTION, [embeds[::-1] * 2]), 8)
    assert np.abs(session.prefill_logits() - logits).max() > 0
    session.set_image_embeds(image, embeds)
    assert session.generate(QUESTION, max_new_tokens=8, ignore_eos=True).token_ids == before.token_ids
    np.testing.assert_array_equal(session.prefill_logits(), logits)
    with pytest.raises(NativeError, match=r"shape \(8, 8\), not \(4, 8\)"):
        session.set_image_embeds(image, embeds[:4])


def test_logits_of_the_prefill_and_of_the_last_position(session: Session) -> None:
    with pytest.raises(NativeError, match="no logits yet"):
        session.logits()
    answer = session.generate(QUESTION, max_new_tokens=5, ignore_eos=True)
    rows = tiny_graphs.prompt_rows(QUESTION, [])
    np.testing.assert_allclose(session.prefill_logits(), tiny_graphs.next_logits(rows), rtol=1e-5, atol=1e-4)
    table = tiny_graphs.weights()["table"]
    rows = np.concatenate([rows, table[list(answer.token_ids[:-1])]])
    np.testing.assert_allclose(session.logits(), tiny_graphs.next_logits(rows), rtol=1e-5, atol=1e-4)
    assert session.logits().argmax() == answer.token_ids[-1]


def test_context_length(write_bundle: BundleWriter) -> None:
    prompt = 1 + len("U: ") + len(QUESTION) + len(" A:")
    with Model.open(write_bundle(tiny_graphs.Options(context_length=40))) as model:
        with pytest.raises(
            NativeError, match=rf"{prompt} tokens and {41 - prompt} new .* the context holds 40"
        ) as caught:
            model.ask(None, QUESTION, max_new_tokens=41 - prompt)
        assert caught.value.status == CONTEXT_FULL
        for count in (None, 40 - prompt):
            answer = model.ask(None, QUESTION, max_new_tokens=count, ignore_eos=True)
            assert (len(answer.token_ids), answer.finish_reason) == (40 - prompt, "length")
        with pytest.raises(NativeError, match="the prompt has 72 tokens, but the context holds 40"):
            model.ask(None, "x" * 65)


def test_default_length_is_128(model: Model) -> None:
    assert len(model.ask(None, QUESTION, ignore_eos=True).token_ids) == 128


def test_prompt_text_is_no_special_token_unless_allowed(model: Model) -> None:
    assert model.ask(None, "<image></s>", max_new_tokens=1).prompt_tokens == 1 + len("U: <image></s> A:")
    allowed = model.ask(None, "</s>", max_new_tokens=1, allow_special=True)
    assert allowed.prompt_tokens == 1 + len("U:  A:") + 1
    with pytest.raises(NativeError, match="1 places for images, but 0 images"):
        model.ask(None, "<image>", max_new_tokens=1, allow_special=True)


@pytest.mark.parametrize(
    "options",
    [
        tiny_graphs.Options(half=True),
        tiny_graphs.Options(half=True, cache="fixed"),
        tiny_graphs.Options(half_cache=True, cache="fixed"),
    ],
    ids=["all of a growing cache", "all of a cache in place", "the cache in place alone"],
)
def test_half_precision_stays_inside(write_bundle: BundleWriter, model: Model, options: tiny_graphs.Options) -> None:
    pixels = picture(9)
    with Model.open(write_bundle(options)) as half:
        assert half.describe()["kv_bytes_per_token"] * 2 == model.describe()["kv_bytes_per_token"]
        with half.new_session() as session:
            session.add_image(pixels, keep=0.5)
            answer = session.generate(QUESTION, max_new_tokens=4, ignore_eos=True)
            embeds, logits = session.image_embeds(0), session.prefill_logits()
        kept = places(half, answer.kv_tokens)
    with model.new_session() as session:
        session.add_image(pixels, keep=0.5)
        session.generate(QUESTION, max_new_tokens=4, ignore_eos=True)
        exact = session.image_embeds(0)
        wanted = exact.astype(np.float16).astype(np.float32) if options.half else exact
        np.testing.assert_array_equal(embeds, wanted)
        np.testing.assert_allclose(logits, session.prefill_logits(), atol=2e-2 * np.abs(logits).max())
    assert answer.timings.kv_bytes == kept * 64


def test_a_value_that_a_half_cache_cannot_hold_is_an_error(write_bundle: BundleWriter) -> None:
    """Values up to 1e6: the standard operators of the first layer would make Inf of them; ours says what to do."""
    bundle = write_bundle(tiny_graphs.Options(half_cache=True, cache="fixed", stored=1e6))
    with (
        Model.open(bundle) as half,
        pytest.raises(NativeError, match=r"does not fit a cache in float16.*--kv-cache fp32"),
    ):
        half.ask(None, QUESTION, max_new_tokens=1)


def test_timings_add_up(session: Session, model: Model) -> None:
    session.add_image(picture(1))
    answer = session.generate(QUESTION, max_new_tokens=9, ignore_eos=True)
    t = answer.timings
    assert (t.new_tokens, t.decode_steps, t.kv_bytes) == (9, 8, places(model, answer.kv_tokens) * 128)
    assert t.tpot_ms == pytest.approx(t.decode_ms / 8)
    assert min(t.preprocess_ms, t.vision_ms, t.embed_ms, t.prefill_ms, t.decode_ms) > 0
    assert t.preprocess_ms + t.vision_ms + t.embed_ms + t.prefill_ms <= t.ttft_ms <= t.total_ms - t.decode_ms
    assert t.decode_image_ms == 0
    assert 0 < t.resize_ms < t.preprocess_ms
    assert 0 < t.graph_ms < t.vision_ms + t.embed_ms + t.prefill_ms
    assert 0 < t.decode_graph_ms < t.decode_ms
    assert t.own_ms == t.ttft_ms - t.graph_ms - t.resize_ms > 0
    assert session.stats() == t
    again = session.generate(QUESTION, max_new_tokens=1, ignore_eos=True).timings
    assert (again.resize_ms, again.decode_graph_ms) == (0, 0)  # the picture is there already
    assert 0 < again.graph_ms < again.ttft_ms
    assert set(t.to_dict()) == set(t.__dataclass_fields__)
