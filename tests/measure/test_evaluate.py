"""Which cases an evaluation runs, how often it encodes and decodes, and what its report compares."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edgeprune.bundle import Bundle
from edgeprune.cli.progress import bar, text
from edgeprune.errors import UserError
from edgeprune.manifest import Manifest
from edgeprune.measure import evaluate
from edgeprune.measure.dataset import Dataset, Item
from edgeprune.measure.eval_report import report, table_rows
from edgeprune.measure.eval_work import Asked, Block, WorkFile
from edgeprune.measure.grid import Case, plan
from edgeprune.runtime.session import Model, Session
from tests.runtime import tiny_graphs


@pytest.fixture(scope="module")
def hand(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    return tiny_graphs.write_bundle(tmp_path_factory.mktemp("evaluate") / "hand.bundle")


@pytest.fixture(scope="module")
def seeded(hand: pathlib.Path) -> Manifest:
    """The manifest of the hand-made bundle with five seeds of random."""
    manifest = Bundle.open(hand).manifest
    best = manifest.methods.each["best"]
    names = ["random", *(f"random-seed-{seed}" for seed in range(1, 5))]
    seeds = {
        name: dataclasses.replace(best, name=name, spec=name.replace("-seed-", ":seed=")) for name in names
    }  # fmt: skip
    methods = dataclasses.replace(manifest.methods, each={**manifest.methods.each, **seeds})
    vision = {**manifest.graphs.vision, **dict.fromkeys(seeds, manifest.graphs.vision["best"])}
    return dataclasses.replace(
        manifest, methods=methods, graphs=dataclasses.replace(manifest.graphs, vision=vision)
    )  # fmt: skip


def test_several_methods_bring_all_seeds_of_random(seeded: Manifest) -> None:
    grid = plan(seeded, ["best", "none"], [0.5, 0.25])
    names = [case.name for case in grid.cases]
    assert names[:3] == ["best@0.5", "best@0.25", "none@1"]
    assert len(names) == 3 + 2 * 5
    assert {case.group for case in grid.cases[3:]} == {"random"}
    assert {case.kept for case in grid.cases if case.keep == 0.25} == {4}
    assert grid.notes == ()
    assert [case.name for case in plan(seeded, None, None).cases] == [f"best@{seeded.keep.default:g}"]
    assert [case.name for case in plan(seeded, ["random-seed-2"], [0.5]).cases] == ["random-seed-2@0.5"]
    assert len(plan(seeded, ["random"], [0.5]).cases) == 5


def test_a_picture_is_encoded_once_per_case_and_equal_embeddings_are_decoded_once(
    hand: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    items = []
    for place in range(2):
        path = tmp_path / f"{place}.png"
        Image.fromarray(np.random.default_rng(place).integers(0, 256, (20, 30, 3), dtype=np.uint8)).save(path)
        items += [Item(f"{place}-{q}", "d", f"Q{q}?", ("x",), path) for q in range(3)]
    counts = {"add_image": 0, "generate": 0}

    def counted(name: str) -> Any:
        original = getattr(Session, name)

        def call(self: Session, *args: Any, **named: Any) -> Any:
            counts[name] += 1
            return original(self, *args, **named)

        return call

    for name in counts:
        monkeypatch.setattr(Session, name, counted(name))
    cases = plan(Bundle.open(hand).manifest, ["none", "best"], [1, 0.25], text_only=True).cases
    seen: list[tuple[int, int]] = []
    with Model.open(hand) as model:
        work = WorkFile(None, {})
        result = evaluate.run(model, Dataset("d", tuple(items)), cases, work, max_new_tokens=3,
                              progress=lambda *at: seen.append(at))  # fmt: skip
    assert [case.name for case in cases] == ["none@1", "best@1", "best@0.25", "text-only"]
    assert counts["add_image"] == 2 * 3
    # none@1 and best@0.25 for each of 6 questions; best@1 has none@1's embeddings; without pictures 3 prompts are left
    assert counts["generate"] == 6 + 6 + 3
    assert seen[-1] == (24, 24)
    none, best = (result.answers(case) for case in cases[:2])
    assert none == best


def scored(case: Case, scores: list[float]) -> dict[tuple[str, str], Block]:
    answers = tuple(Asked(str(place), "t", "t", score, "eos") for place, score in enumerate(scores))
    return {(case.name, ""): Block(case.name, "", "", case.kept, 16, answers)}


def test_report_pairs_items_and_takes_seeds_together() -> None:
    items = tuple(Item(str(place), "d", "Q?", ("x",), fields={"category": "ab"[place % 2]}) for place in range(8))
    full, first = Case("none", "none", 1.0, 16), Case("best", "best", 0.25, 4)
    seeds = [Case(f"random-seed-{seed}", "random", 0.25, 4) for seed in range(5)]
    given = {full: [1.0] * 8, first: [1.0] * 6 + [0.0] * 2, **{seed: [0.0] * 8 for seed in seeds}}
    given[seeds[0]] = [1.0] * 4 + [0.0] * 4
    result = evaluate.Evaluated(Dataset("d", items), list(given))
    for case, scores in given.items():
        result.blocks |= scored(case, scores)
    found = report(result, ["category", "size"])
    [entry] = found["random"]
    assert (entry["score"], entry["seeds"], entry["kept_tokens"]) == (pytest.approx(0.1), 5, 4)
    assert entry["interval"][0] == 0.0
    assert set(entry["by"]) == {"category"}
    [test] = found["tests"]
    assert (test["first"], test["second"], test["kept_tokens"]) == ("best", "random", 4)
    assert test["difference"] == pytest.approx(0.75 - 0.1)
    losses = {row["method"]: row for row in found["losses"]}
    assert (losses["best"]["loss"], losses["best"]["p"]) == (0.25, 0.5)
    assert losses["random"]["loss"] == pytest.approx(0.9)
    assert [row[:2] for row in table_rows(found)[1:]] == [["none", "1"], ["best", "0.25"], ["random, 5 seeds", "0.25"]]


def test_only_questions_that_every_case_answered_count() -> None:
    items = tuple(Item(str(place), "d", "Q?", ("x",)) for place in range(2))
    cases = [Case("a", "a", 1.0, 16), Case("b", "b", 0.25, 4)]
    result = evaluate.Evaluated(Dataset("d", items), cases, scored(cases[0], [1.0, 0.0]), partial=True)
    found = report(result, [])
    assert (found["answered"], found["cases"][0]["score"], found["tests"]) == (0, None, [])
    assert len(found["results"]) == 2


def test_the_bar(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert text("answers", 0, 0) == f"answers [{'-' * 30}] 0/0"
    assert text("answers", 10, 30) == f"answers [{'#' * 10}{'-' * 20}] 10/30"
    bar("answers")(1, 2)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    show = bar("answers")
    show(1, 2)
    assert "] 1/2" in capsys.readouterr().err
    show(2, 2)
    assert capsys.readouterr().err == "\r\x1b[K"


def test_two_runs_do_not_share_a_work_file(tmp_path: pathlib.Path) -> None:
    first = WorkFile(tmp_path / "w", {"data": "d"})
    with pytest.raises(UserError, match="another evaluation is writing"):
        WorkFile(tmp_path / "w", {"data": "d"})
    first.add(Block("a@1", "p", "e", 1, 2, (Asked("1", "t", "r", 1.0, "eos", (-1.0, -2.0)),)))
    first.close()
    again = WorkFile(tmp_path / "w", {"data": "d"})
    assert again.blocks == first.blocks
    again.close()
