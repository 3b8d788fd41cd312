"""Letter-box padding: every registered method keeps it last and lets it change nothing, or is refused by name."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from edgeprune.errors import PruningError
from edgeprune.export.models.llava import Llava
from edgeprune.pruning.base import PruningMethod, VisualFeatures
from edgeprune.pruning.registry import METHODS, parse
from tests.export.models import llava_config

ROWS, COLUMNS, WIDTH, HEADS, HEAD_WIDTH = 8, 8, 12, 3, 5
COUNT = ROWS * COLUMNS
#: patches of a wide picture and of a tall one, one picture each
WIDE = [r * COLUMNS + c for r in range(2, 6) for c in range(COLUMNS)]
TALL = [r * COLUMNS + c for r in range(ROWS) for c in range(1, 7)]
SHAPES = {
    "keys": (HEADS, COUNT, HEAD_WIDTH),
    "hidden": (COUNT, WIDTH),
    "cls_hidden": (1, WIDTH),
    "attention": (HEADS, COUNT + 1, COUNT + 1),
    "anchor_embeddings": (3, WIDTH),
}
#: the others are refused (the last test); stride has no order among patches beyond those of the picture
SPECS = [name for name in METHODS if name != "none" and parse(name).honours_padding]
MORE = [
    "todre:objective=k-center",
    "todre:pivot=random",
    "mmr:balance=0.1",
    "scope:importance=cls",
    "zoo:sensitivity=norm",
    "embedlens:weight=0.4",
    "hiprune:alpha=1.0",
]


def drawn(method: PruningMethod, seed: int) -> VisualFeatures:
    """Random features of two pictures, the first wide, the second tall; padding attracts more than the pictures do."""
    rng = np.random.default_rng(seed)
    pad = np.ones((2, COUNT), bool)
    pad[0, WIDE] = pad[1, TALL] = False

    def signal(kind: str) -> torch.Tensor:
        if kind in SHAPES:
            return torch.from_numpy(rng.uniform(0.1, 1.0, (2, *SHAPES[kind])).astype(np.float32))
        return torch.from_numpy((rng.uniform(0.1, 1.0, (2, COUNT)) + pad).astype(np.float32))

    tokens = torch.from_numpy(rng.normal(size=(2, COUNT, WIDTH)).astype(np.float32))
    text = (torch.randn(2, 5, WIDTH), torch.ones(2, 5)) if method.text else (None, None)
    return VisualFeatures(
        tokens,
        {need: signal(need.kind) for need in method.needs},
        (ROWS, COLUMNS),
        method.constants(COUNT),
        tokens,
        torch.from_numpy(pad),
        *text,
    )


def run(method: PruningMethod, features: VisualFeatures, keep: int) -> tuple[np.ndarray, np.ndarray]:
    """keep_idx (B,K), tokens (B,K,C)."""
    assert features.tokens is not None
    with torch.inference_mode():
        index = method.select(method.signal(features), torch.zeros(keep), features)
        return index.numpy(), method.recycle(features.tokens, index, features).numpy()


@pytest.mark.parametrize("spec", [*SPECS, *MORE])
def test_padding_is_kept_only_after_every_patch_of_the_picture(spec: str) -> None:
    method = parse(spec)
    for seed in range(5):
        features = drawn(method, seed)
        pad = features.pad_mask.numpy()
        for keep in (1, 2, 9, 20, len(WIDE)):
            if keep not in method.valid_k(COUNT):
                continue
            for row, index in enumerate(run(method, features, keep)[0]):
                kept = index[index >= 0]
                assert len(set(kept.tolist())) == len(kept)
                assert not pad[row, kept].any(), f"seed {seed}, keep {keep}: {kept}"


@pytest.mark.parametrize("spec", [s for s in [*SPECS, *MORE] if parse(s).gathers and s != "stride"])
def test_beyond_the_picture_all_of_it_is_kept(spec: str) -> None:
    """The runtime caps K at the patches of the picture; a batch that does not still drops none of them."""
    method = parse(spec)
    features = drawn(method, 0)
    index = run(method, features, len(TALL) + 3)[0]
    assert set(WIDE) <= set(index[0].tolist())
    assert set(TALL) <= set(index[1].tolist())


@pytest.mark.parametrize("spec", [*SPECS, *MORE])
def test_what_lies_in_the_padding_changes_nothing(spec: str) -> None:
    """Tokens, keys and scores per token of the padding, replaced by others: the same patches, the same tokens."""
    method = parse(spec)
    one, other = drawn(method, 3), drawn(method, 4)
    pad = one.pad_mask
    tokens = torch.where(pad.unsqueeze(2), other.tokens, one.tokens)
    signals = {}
    for need, value in one.signals.items():
        mask = {"keys": pad[:, None, :, None], "hidden": pad[:, :, None]}.get(need.kind, pad)
        whole = need.kind in ("attention", "cls_hidden", "anchor_embeddings")  # a row of the map is no single patch's
        signals[need] = value if whole else torch.where(mask, other.signals[need] * 3, value)
    changed = dataclasses.replace(one, tokens=tokens, signals=signals)
    for keep in (1, 9, 20, len(WIDE)):
        if keep in method.valid_k(COUNT):
            for found, expected in zip(run(method, changed, keep), run(method, one, keep), strict=True):
                np.testing.assert_allclose(found, expected, atol=1e-6, err_msg=f"keep {keep}")


def alone(features: VisualFeatures, method: PruningMethod, row: int, patches: list[int]) -> VisualFeatures:
    """One picture without its padding."""
    return VisualFeatures(
        features.tokens[row : row + 1, patches],
        {need: value[row : row + 1, patches] for need, value in features.signals.items()},
        (1, len(patches)),
        method.constants(len(patches)),
        features.tokens[:1],
    )


@pytest.mark.parametrize(
    "spec",
    [
        "fastervlm",
        "stride",
        "vispruner",
        "divprune",
        "todre",
        "todre:objective=k-center",
        "mmr",
        "scope",
        "zoo",
        "mmtok-vv",
    ],
)
def test_a_padded_picture_keeps_what_it_keeps_without_its_padding(spec: str) -> None:
    """Methods whose rule knows no grid: the mask equals leaving the padding out."""
    method = parse(spec)
    for seed in range(5):
        features = drawn(method, seed)
        for row, patches in enumerate((WIDE, TALL)):
            for keep in (1, 9, 20, 32):
                found = run(method, features, keep)[0][row]
                expected = run(method, alone(features, method, row, patches), keep)[0][0]
                assert found.tolist() == [patches[i] for i in expected], f"seed {seed}, keep {keep}"


def test_a_method_that_cannot_honour_padding_is_refused_in_one_sentence() -> None:
    family = Llava(llava_config(side=8), 32, letterbox=True)
    refused = parse("fopru:mode=row")
    with pytest.raises(PruningError, match=r"fopru:mode=row cannot keep padding last; leave out --letterbox") as caught:
        family.require(refused)
    assert "\n" not in str(caught.value)
    Llava(llava_config(side=8), 32).require(refused)
    for name in ("tome", "flowcut"):
        with pytest.raises(PruningError, match=f"{name} cannot keep padding last"):
            family.require(parse(name))
    for name in METHODS:
        if parse(name).honours_padding and not parse(name).text:
            family.require(parse(name))
