"""Attention and key based methods from checkpoint to answer: command line, bundle, C library, command line."""

from __future__ import annotations

import json
import pathlib

import numpy as np
import pytest

import edgeprune
from edgeprune.bundle import Bundle
from edgeprune.cli.main import main
from edgeprune.errors import NativeError
from tests.checkpoints import Shape, write_checkpoint

PICTURE = pathlib.Path(__file__).resolve().parents[1] / "data" / "scenes" / "test-000.png"
SIDE, KEEP = 6, 0.5
COUNT = SIDE * SIDE // 2
#: methods of the fast test, and what they keep instead of patches: tokens that stand for none
FAST = {"hiprune": 0, "fopru:mode=row": 0, "visionzip": 1 + int(COUNT * 0.15625), "vispruner": 0, "prumerge": 1}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A random checkpoint of 36 visual tokens exported with every method of FAST by the command line."""
    folder = tmp_path_factory.mktemp("attention")
    checkpoint = write_checkpoint(folder / "checkpoint", Shape(image_px=SIDE * 14, seed=5))
    pruned = [part for spec in FAST for part in ("--prune", spec)]
    out = folder / "out.bundle"
    assert main(["export", "--model", str(checkpoint), "--keep", str(KEEP), *pruned, "-o", str(out)]) == 0
    return out


def test_manifest_states_the_counts_that_each_method_serves(bundle: pathlib.Path) -> None:
    import jsonschema

    schema = pathlib.Path(__file__).resolve().parents[2] / "docs" / "manifest.schema.json"
    jsonschema.validate(json.loads((bundle / "manifest.json").read_text()), json.loads(schema.read_text()))
    manifest = Bundle.open(bundle).manifest
    runs = {name: method.keep_counts for name, method in manifest.methods.each.items()}
    assert runs["hiprune"] is None
    assert [(run.first, run.last, run.step) for run in runs["fopru"] or ()] == [(6, 36, 6)]
    assert [(run.first, run.last, run.step) for run in runs["visionzip"] or ()] == [(1, 35, 1)]
    assert any("vispruner" in note for note in manifest.notes)
    assert all(row.passed for row in manifest.parity)
    assert not any("vispruner" in name for name in Bundle.open(bundle).golden()[1])


@pytest.mark.parametrize("spec", FAST)
def test_answer_through_the_c_library(bundle: pathlib.Path, spec: str) -> None:
    method = spec.partition(":")[0]
    with edgeprune.load(bundle) as model:
        answer = model.ask(PICTURE, "What is on the left?", method=method, max_new_tokens=4, ignore_eos=True)
        seen = answer.images[0]
        assert (seen.method, seen.kept, seen.visual_tokens, seen.applied) == (method, COUNT, SIDE * SIDE, True)
        assert int((seen.keep_idx < 0).sum()) == FAST[spec]
        patches = seen.keep_idx[seen.keep_idx >= 0]
        assert len(np.unique(patches)) == len(patches)
        assert len(answer.token_ids) == 4
        if method != "prumerge":
            assert (np.diff(patches) > 0).all()


def test_counts_that_a_method_cannot_serve_are_refused(bundle: pathlib.Path) -> None:
    with edgeprune.load(bundle) as model:
        with pytest.raises(NativeError, match=r'"fopru" cannot keep 16 of 36 .* is 18 \(keep 0.5\)'):
            model.ask(PICTURE, "x", method="fopru", keep=16 / 36)
        with pytest.raises(NativeError, match=r'"visionzip" cannot keep 36 of 36 .* is 35'):
            model.ask(PICTURE, "x", method="visionzip", keep=1.0)
        assert model.ask(PICTURE, "x", method="hiprune", keep=1.0, max_new_tokens=1).images[0].kept == 36


def test_bundle_replays_its_golden_tensors(bundle: pathlib.Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(bundle), "--parity"]) == 0
    assert "visionzip" in capfd.readouterr().out


def test_an_export_at_a_count_that_is_not_served_is_refused(tmp_path: pathlib.Path, capfd) -> None:
    argv = ["export", "--model", "tiny", "--keep", "0.4", "--prune", "fopru:mode=row", "-o", str(tmp_path / "x.bundle")]
    assert main(argv) == 2
    assert "cannot keep 6 of 16 visual tokens; the nearest count it can is 4 (keep 0.25)" in capfd.readouterr().err
    assert not list(tmp_path.iterdir())
