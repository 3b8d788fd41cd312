"""Which cases a sweep plans, its front, its intervals, and what is read back of its rounds."""

from __future__ import annotations

import dataclasses
import itertools
import pathlib

import numpy as np
import pytest

from edgeprune.bundle import Bundle
from edgeprune.errors import UserError
from edgeprune.manifest import Manifest
from edgeprune.measure.profile import Case, Measured, Question, generated_picture
from edgeprune.measure.profile_report import report
from edgeprune.measure.sweep import front, median_interval, plan, points
from edgeprune.measure.sweep_latency import Rounds, measure_rounds
from edgeprune.runtime.session import Model
from tests.runtime import tiny_graphs

pytestmark = pytest.mark.usefixtures("quiet_machine")


@pytest.fixture(scope="module")
def hand(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    return tiny_graphs.write_bundle(tmp_path_factory.mktemp("sweep-maths") / "hand.bundle")


@pytest.fixture(scope="module")
def seeded(hand: pathlib.Path) -> Manifest:
    """The manifest of the hand-made bundle with two seeds of random."""
    manifest = Bundle.open(hand).manifest
    best = manifest.methods.each["best"]
    seeds = {
        name: dataclasses.replace(best, name=name, spec=f"random:seed={seed}")
        for seed, name in enumerate(("random", "random-seed-1"))
    }
    methods = dataclasses.replace(manifest.methods, each={**manifest.methods.each, **seeds})
    vision = {**manifest.graphs.vision, **dict.fromkeys(seeds, manifest.graphs.vision["best"])}
    return dataclasses.replace(manifest, methods=methods, graphs=dataclasses.replace(manifest.graphs, vision=vision))


def test_the_front_is_what_nothing_dominates() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        pairs = [(float(cost), float(worth)) for cost, worth in rng.integers(0, 6, (8, 2))]
        expected = [True] * 8
        for (i, (cost, worth)), (other_cost, other_worth) in itertools.product(enumerate(pairs), pairs):
            if (other_cost, -other_worth) != (cost, -worth) and other_cost <= cost and other_worth >= worth:
                expected[i] = False
        assert front(pairs) == expected
    assert front([(1, 0.5), (1, 0.5), (2, 0.5), (2, 0.6)]) == [True, True, False, True]


def test_the_interval_of_a_median() -> None:
    assert median_interval([3.0]) is None
    values = list(np.random.default_rng(1).exponential(10, 200))
    interval = median_interval(values)
    assert interval is not None
    ordered = np.sort(values)
    # the exact interval by order statistics, from the binomial distribution with n = 200
    assert interval[0] == pytest.approx(ordered[86], rel=0.1)
    assert interval[1] == pytest.approx(ordered[113], rel=0.1)


def test_the_plan_times_one_seed_and_asks_all(seeded: Manifest) -> None:
    planned = plan(seeded, [None, "cpu-int8", None], ["best", "none"], [0.5, 0.25])
    assert [case.name for case in planned.asked.cases] == [
        "best@0.5", "best@0.25", "none@1", "random@0.5", "random@0.25", "random-seed-1@0.5", "random-seed-1@0.25",
    ]  # fmt: skip
    once = [("best", 0.5), ("best", 0.25), ("none", 1.0), ("random", 0.5), ("random", 0.25)]
    assert planned.timed == tuple(Case(variant, *case) for variant in (None, "cpu-int8") for case in once)
    every = plan(seeded, [None], None, None)
    assert {case.method for case in every.asked.cases} == set(seeded.methods.each)
    assert ("four", 0.25) in [(case.method, case.keep) for case in every.timed]
    assert not [note for note in every.asked.notes if "left out" in note], "nobody asked for those ratios"
    assert any("four@0.5 is left out" in note for note in plan(seeded, [None], ["best", "four"], [0.5]).asked.notes)
    with pytest.raises(UserError, match="no method 'nope'"):
        plan(seeded, [None], ["nope"], None)


def test_rounds_are_read_back_and_taken_up(hand: pathlib.Path, tmp_path: pathlib.Path) -> None:
    planned = plan(Bundle.open(hand).manifest, [None], ["best"], [1, 0.5, 0.25])
    question, settings = Question(generated_picture(), "What?", 2), {"the machine": "a", "the cases": (1, 2)}
    path = tmp_path / "latency.jsonl"
    with Model.open(hand) as model:
        first = Rounds(path, settings)
        before = measure_rounds({None: model}, planned.timed, question, first, trials=2, warmup=1)
        again = Rounds(path, settings)
        after = measure_rounds({None: model}, planned.timed, question, again, trials=4, warmup=1)
        calls = measure_rounds({}, planned.timed, question, Rounds(path, settings), trials=4, warmup=1)
    assert (first.runs, again.runs) == ([1, 1], [1, 1, 2, 2])
    for case in planned.timed:
        old, new, read = (found.trials[case] for found in (before, after, calls))
        assert [trial.answer.timings for trial in new[:2]] == [trial.answer.timings for trial in old]
        assert [trial.answer.timings for trial in read] == [trial.answer.timings for trial in new]
        assert [trial.round for trial in new] == [0, 1, 2, 3]
        kept = {round(16 * case.keep)}
        assert {trial.answer.images[0].kept for trial in (*old, *new, *read)} == kept
    for turn in range(4):
        places = {trial.place for case in planned.timed for trial in after.trials[case] if trial.round == turn}
        assert places == {0, 1, 2}
    assert report(calls)["cases"] == report(after)["cases"]
    with pytest.raises(UserError, match="another state of the cases; remove it"):
        Rounds(path, {**settings, "the cases": (1,)})
    path.write_text("[]\n")
    with pytest.raises(UserError, match="is not the work file of a sweep's latency"):
        Rounds(path, settings)


def test_a_case_without_trials_has_no_numbers(hand: pathlib.Path) -> None:
    planned = plan(Bundle.open(hand).manifest, [None], ["best"], [0.5])
    measured = Measured(planned.timed)
    [entry] = points(planned, report(measured)["cases"], {})
    assert (entry["ttft_ms"], entry["ttft_interval_ms"], entry["score"], entry["pareto"]) == (None, None, None, None)
