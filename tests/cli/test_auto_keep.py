"""K from each picture's scores: export, manifest, answer, refusals; the rule by hand on the scores that come back."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import edgeprune
from edgeprune.cli.main import main
from edgeprune.errors import EdgepruneError, PruningError, UserError
from edgeprune.keep import AutoKeep, auto_count
from edgeprune.tolerances import TOLERANCES
from tests.checkpoints import Shape, write_checkpoint
from tests.test_text_parity import picture

PICTURE = str(pathlib.Path(__file__).resolve().parents[1] / "data" / "scenes" / "test-000.png")
QUESTION = "What is on the left?"
SIDE = 6
#: a plain top-k, one with few counts, one that reads two signals, one that merges, one that rounds lists
METHODS = ("fastervlm", "fopru:mode=row", "hiprune", "prumerge", "scope")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("auto")
    checkpoint = write_checkpoint(folder / "checkpoint", Shape(image_px=SIDE * 14, seed=5))
    pruned = [part for spec in (*METHODS, "none") for part in ("--prune", spec)]
    out = folder / "out.bundle"
    argv = ["--keep", "auto:mass=0.6,min=0.02,max=0.5", *pruned, "-o", str(out)]
    assert main(["export", "--model", str(checkpoint), *argv]) == 0
    return str(out)


@pytest.fixture(scope="module")
def model(bundle: str) -> Iterator[edgeprune.Model]:
    with edgeprune.load(bundle) as opened:
        yield opened


def test_manifest_says_so(bundle: str) -> None:
    import jsonschema

    schema = pathlib.Path(__file__).resolve().parents[2] / "docs" / "manifest.schema.json"
    manifest = json.loads((pathlib.Path(bundle) / "manifest.json").read_text())
    jsonschema.validate(manifest, json.loads(schema.read_text()))
    assert manifest["keep"] == {
        "default": 0.5, "min": 0.01, "max": 1.0, "auto": {"mass": 0.6, "min": 0.02, "max": 0.5}
    }  # fmt: skip
    vision = manifest["graphs"]["vision"]
    assert {name: [graph["stage"] for graph in graphs] for name, graphs in vision.items()} == {
        **{spec.partition(":")[0]: ["encode", "select"] for spec in METHODS},
        "none": ["vision"],
    }
    passed = {name: [tensor["role"] for tensor in graphs[0]["outputs"]] for name, graphs in vision.items()}
    assert passed["fastervlm"] == ["tokens", "scores"], "its signal is its scores, which go only once"
    assert passed["hiprune"] == ["tokens", "signal.0", "scores"]
    assert all(row["passed"] for row in manifest["parity"])


@pytest.mark.parametrize("spec", METHODS)
@pytest.mark.parametrize("asked", [None, "auto:mass=0.95,min=0.02,max=1.0", "auto:mass=0.3"])
def test_k_is_what_the_rule_makes_of_the_scores(model: edgeprune.Model, spec: str, asked: str | None) -> None:
    name = spec.partition(":")[0]
    runs = model.bundle.manifest.methods.each[name].keep_counts
    served = None if runs is None else [k for run in runs for k in range(run.first, run.last + 1, run.step)]
    auto = {None: AutoKeep(0.6, 0.02, 0.5), "auto:mass=0.3": AutoKeep(0.3, 0.01, 1.0)}.get(asked)
    auto = auto or AutoKeep(0.95, 0.02, 1.0)
    counts = set()
    for seed in range(4):
        answer = model.ask(picture(seed, 90, 70), QUESTION, keep=asked, method=name, max_new_tokens=2)
        kept = answer.images[0]
        assert kept.scores is not None
        assert kept.kept == len(kept.keep_idx) == auto_count(kept.scores.tolist(), auto, served)
        assert kept.auto_keep == auto
        assert kept.keep == pytest.approx(kept.kept / SIDE**2)
        assert answer.visual_tokens_kept == kept.kept
        assert answer.timings.select_ms > 0
        counts.add(kept.kept)
    assert len(counts) > 1 or served is not None or asked is not None, "K must depend on the picture in this test"


def test_the_same_k_asked_for_by_number_gives_the_same_tokens(model: edgeprune.Model) -> None:
    for spec in METHODS:
        name = spec.partition(":")[0]
        with model.new_session() as session:
            auto = session.add_image(PICTURE, method=name)
            kept = session.kept_tokens(auto)
            fixed = session.add_image(PICTURE, method=name, keep=kept.kept / SIDE**2)
            np.testing.assert_array_equal(session.kept_tokens(fixed).keep_idx, kept.keep_idx)
            np.testing.assert_array_equal(session.image_embeds(fixed), session.image_embeds(auto))
            assert session.kept_tokens(fixed).auto_keep is None


def test_tokens_equal_those_of_a_bundle_of_one_graph(model: edgeprune.Model, bundle: str) -> None:
    """The top-k of the scores that came back, gathered from the unpruned embeddings."""
    with model.new_session() as session:
        auto, whole = session.add_image(PICTURE), session.add_image(PICTURE, method="none")
        kept = session.kept_tokens(auto)
        assert kept.scores is not None
        wanted = np.sort(np.argsort(-kept.scores, kind="stable")[: kept.kept])
        np.testing.assert_array_equal(kept.keep_idx, wanted)
        full = session.image_embeds(whole)
        found = session.image_embeds(auto)
        assert np.abs(found - full[wanted]).max() <= TOLERANCES["visual_embeds"] * np.abs(full).max()


def test_command_line_reports_k(bundle: str, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = tmp_path / "report.json"
    argv = ["run", bundle, "--image", PICTURE, "--prompt", QUESTION, "--max-new-tokens", "2", "--json", str(report)]
    assert main([*argv, "--keep", "auto:mass=0.8,min=0.1,max=0.9"]) == 0
    made = json.loads(report.read_text())
    assert made["images"][0]["auto_keep"] == str(AutoKeep(0.8, 0.1, 0.9))
    assert made["kept_tokens"] == round(made["keep"] * SIDE**2)
    assert f"keep {made['keep']:g} by auto:mass=0.8" in capsys.readouterr().out
    assert main([*argv, "--keep", "0.25"]) == 0
    made = json.loads(report.read_text())
    assert (made["keep"], made["kept_tokens"], made["images"][0]["auto_keep"]) == (0.25, 9, None)
    assert main(["check", bundle, "--parity"]) == 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"method": "none", "keep": "auto:mass=0.9"}, 'method "none" of this bundle cannot choose K from its scores'),
        ({"keep": "auto:mass=0.9,min=0.001"}, "from 0.001 to 1 is asked for, but this bundle serves 0.01 to 1"),
        ({"method": "fopru", "keep": "auto:mass=0.9,min=0.2,max=0.3"}, "serves no count from 7 to 11; widen"),
        ({"keep": "auto:mass=0"}, "mass of an automatic keep is 0"),
        ({"keep": "auto"}, "write an automatic keep as auto:mass"),
    ],
)
def test_what_is_refused_when_asking(model: edgeprune.Model, options: Any, words: str) -> None:
    with model.new_session() as session, pytest.raises(EdgepruneError, match=words):
        session.add_image(PICTURE, **options)


def test_a_ratio_and_an_automatic_keep_at_once_are_refused_in_c(model: edgeprune.Model) -> None:
    import ctypes

    from edgeprune.runtime import _abi
    from edgeprune.runtime.answers import initialised

    with model.new_session() as session:
        image = ctypes.c_int32()
        for fields, words in (
            ({"keep": 0.5, "auto_mass": 0.5}, "keep is 0.5 and an automatic keep is asked for too"),
            ({"auto_min": 0.5}, "mass of an automatic keep is 0"),
            ({"auto_mass": float("nan")}, "mass of an automatic keep is"),
        ):
            options = initialised(_abi.ImageOptions, **fields)
            tail = (ctypes.byref(options), ctypes.byref(image))
            with pytest.raises(EdgepruneError, match=words):
                session._handle.call("ep_session_add_image_file", PICTURE.encode(), *tail)


@pytest.mark.parametrize(
    ("fields", "kind", "words"),
    [
        ({"prune": ("divprune",)}, PruningError, "divprune has no scores whose mass could choose K"),
        ({"prune": ("fastervlm", "random")}, PruningError, "random has no scores whose mass"),
        ({"prune": ("cdpruner",)}, PruningError, "cdpruner has no scores whose mass"),
        ({"static_keep": True}, UserError, "static_keep bakes one K"),
        ({"keep_range": (0.2, 1.0)}, UserError, "outside the keep range 0.2:1"),
    ],
)
def test_what_is_refused_at_export(fields: Any, kind: type[Exception], words: str) -> None:
    from edgeprune.export.pipeline import plan
    from edgeprune.recipe import ExportRecipe

    with pytest.raises(kind, match=words):
        plan(ExportRecipe(**{"model": "tiny", "keep": 0.5, "auto_keep": "auto:mass=0.9,min=0.1,max=0.5", **fields}))
