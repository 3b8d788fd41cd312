"""Letter-boxed pictures with the two graphs: padding is kept last, has no mass, and bounds K."""

from __future__ import annotations

import pathlib

import numpy as np
import pytest

import edgeprune
from edgeprune.export.pipeline import export
from edgeprune.keep import AutoKeep, auto_count
from edgeprune.measure.parity import replay
from edgeprune.recipe import ExportRecipe
from tests.checkpoints import Shape, write_checkpoint
from tests.test_text_parity import picture

WIDE = picture(3, 168, 56)  # a third of the square is picture
SIDE = 6


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    return write_checkpoint(tmp_path_factory.mktemp("letterbox") / "checkpoint", Shape(image_px=SIDE * 14, seed=5))


def test_a_method_that_reads_the_question_keeps_padding_last(checkpoint: pathlib.Path) -> None:
    recipe = ExportRecipe(model=str(checkpoint), prune=("cdpruner",), keep=0.25, letterbox=True)
    bundle = export(recipe, checkpoint.parent / "text.bundle")
    with edgeprune.load(bundle) as model:
        assert all(row.passed for row in replay(model.bundle, model))
        model.warmup()
        for keep, count in ((0.25, 9), (1.0, 12)):
            seen = model.ask(WIDE, "What is on the left?", keep=keep, max_new_tokens=2).images[0]
            assert seen.pad_mask is not None
            assert seen.pad_mask.sum() == 24
            assert seen.kept == count
            assert not seen.pad_mask[seen.keep_idx].any()
            assert ("24 of 36 patches are padding" in seen.reason) == (keep == 1.0)


def test_padding_has_no_mass(checkpoint: pathlib.Path) -> None:
    auto = "auto:mass=0.7,min=0.02,max=1.0"
    recipe = ExportRecipe(
        model=str(checkpoint), prune=("received-attention",), keep=0.5, auto_keep=auto, letterbox=True
    )
    bundle = export(recipe, checkpoint.parent / "auto.bundle")
    with edgeprune.load(bundle) as model:
        for mass in (0.3, 0.7, 1.0):
            asked = AutoKeep(mass, 0.02, 1.0)
            seen = model.ask(WIDE, "What is on the left?", keep=str(asked), max_new_tokens=2).images[0]
            assert seen.pad_mask is not None
            assert seen.scores is not None
            counted = np.where(seen.pad_mask, 0, seen.scores)
            assert seen.kept == min(12, auto_count(counted.tolist(), asked))
            assert not seen.pad_mask[seen.keep_idx].any()
