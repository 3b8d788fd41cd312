"""Pruned tokens are really gone: counted in the KV cache, and without influence on the logits."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator

import numpy as np
import pytest

import edgeprune

QUESTION = "What is on the left?"


@pytest.fixture(scope="module")
def model(tiny_bundle: pathlib.Path) -> Iterator[edgeprune.Model]:
    with edgeprune.load(tiny_bundle) as opened:
        yield opened


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return np.random.default_rng(3).integers(0, 255, (60, 80, 3), dtype=np.uint8)


def text_tokens(model: edgeprune.Model, pictures: int) -> int:
    """Tokens of the prompt without its image markers, by Hugging Face tokenizers on the bundle's own file."""
    from tokenizers import Tokenizer

    manifest = model.bundle.manifest
    text = ""
    for segment in manifest.prompt.segments:
        if segment.images is not None:
            text += (segment.images.before + manifest.tokens.image_marker + segment.images.after) * pictures
        else:
            text += QUESTION if segment.question else segment.text or ""
    tokenizer = Tokenizer.from_file(str(model.bundle.path / "tokenizer" / "tokenizer.json"))
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    assert ids.count(manifest.tokens.image) == pictures
    return len(manifest.tokens.prefix) + len(ids) + len(manifest.tokens.suffix) - pictures


@pytest.mark.parametrize("pictures", [1, 2])
@pytest.mark.parametrize("keep", [1.0, 0.5, 0.25, 0.07])
def test_kv_length_is_prompt_minus_markers_plus_kept(
    model: edgeprune.Model, image: np.ndarray, keep: float, pictures: int
) -> None:
    answer = model.ask([image] * pictures, QUESTION, keep=keep, max_new_tokens=1, ignore_eos=True)
    n = model.bundle.manifest.visual_tokens
    kept = max(1, int(n * keep + 0.5))
    assert [k.kept for k in answer.images] == [kept] * pictures
    assert all(k.applied == (kept < n) for k in answer.images)
    assert answer.kv_tokens == text_tokens(model, pictures) + pictures * kept


def logits_with(model: edgeprune.Model, image: np.ndarray, embeds: np.ndarray | None) -> np.ndarray:
    with model.new_session() as session:
        session.add_image(image, keep=0.25)
        if embeds is not None:
            session.set_image_embeds(0, embeds)
        session.generate(QUESTION, max_new_tokens=1, ignore_eos=True)
        return session.prefill_logits()


def test_a_dropped_patch_has_no_influence(model: edgeprune.Model, image: np.ndarray) -> None:
    with model.new_session() as session:
        session.add_image(image, method="none")
        session.add_image(image, keep=0.25)
        every, kept = session.image_embeds(0).copy(), session.image_embeds(1).copy()
        index = session.kept_tokens(1).keep_idx
    np.testing.assert_allclose(every[index], kept, rtol=0, atol=1e-4 * np.abs(every).max())

    dropped = np.setdiff1d(np.arange(len(every)), index)
    changed = every.copy()
    changed[dropped] += 100.0
    np.testing.assert_array_equal(logits_with(model, image, changed[index]), logits_with(model, image, every[index]))

    changed[index[0]] += 1.0
    assert np.abs(logits_with(model, image, changed[index]) - logits_with(model, image, every[index])).max() > 1e-3
    assert np.abs(logits_with(model, image, None) - logits_with(model, image, every[index])).max() < 1e-3
