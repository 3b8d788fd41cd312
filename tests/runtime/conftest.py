"""The hand-made bundle, open in the real library on the real onnxruntime."""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from edgeprune.runtime.session import Model, Session
from tests.runtime import tiny_graphs

BundleWriter = Callable[..., pathlib.Path]
Pixels = np.ndarray[Any, np.dtype[np.uint8]]


def picture(seed: int, width_px: int = 30, height_px: int = 20) -> Pixels:
    """Noise (height_px, width_px, 3)."""
    return np.random.default_rng(seed).integers(0, 256, (height_px, width_px, 3), dtype=np.uint8)


def features_of(model: Model, pixels: Pixels) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """(N,D) features and (N,) scores of a picture by numpy."""
    chw = model.preprocess(pixels).transpose(2, 0, 1).astype(np.float32)
    return tiny_graphs.embed_picture((chw / 255 - 0.5) / 0.5)


def best(scores: np.ndarray[Any, Any], count: int) -> np.ndarray[Any, Any]:
    """Indices of the best scores in raster order."""
    return np.sort(np.argsort(-scores)[:count])


def writes_in_place(model: Model) -> bool:
    """A cache that is written in place counts once in the need of memory, and one of its 2 x layers tensors twice."""
    facts = model.describe()
    once = facts["memory"]["context_tokens"] * facts["kv_bytes_per_token"]
    counted = facts["memory"]["kv_bytes"] / once
    assert counted in (2, 1 + 1 / (2 * tiny_graphs.LAYERS))
    return bool(counted < 2)


def places(model: Model, tokens: int) -> int:
    """Tokens for which the KV cache holds memory: steps of 64 where it is written in place."""
    return -(-tokens // 64) * 64 if writes_in_place(model) else tokens


@pytest.fixture
def write_bundle(tmp_path: pathlib.Path) -> BundleWriter:
    """Writes a variation of the hand-made bundle; see tiny_graphs.write_bundle."""
    return lambda *args, **named: tiny_graphs.write_bundle(tmp_path / "hand.bundle", *args, **named)


@pytest.fixture(scope="session", params=["growing", "fixed"])
def hand_bundle(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """With either kind of KV cache: whatever a session does has to come out the same."""
    options = tiny_graphs.Options(cache=request.param)
    return tiny_graphs.write_bundle(tmp_path_factory.mktemp("hand") / "hand.bundle", options)


@pytest.fixture(scope="session")
def model(hand_bundle: pathlib.Path) -> Iterator[Model]:
    with Model.open(hand_bundle) as opened:
        yield opened


@pytest.fixture
def session(model: Model) -> Iterator[Session]:
    with model.new_session() as opened:
        yield opened
