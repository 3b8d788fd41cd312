"""The time estimate before a build: its table is the measured one, and it grows with the work; its values are rough."""

from __future__ import annotations

import json
import pathlib

import pytest

from edgeprune.bundle import Bundle
from edgeprune.engines import build_time, preflight, targets

REPO = pathlib.Path(__file__).resolve().parents[2]


def test_the_table_is_what_was_measured() -> None:
    table = build_time.table()
    rows = json.loads((REPO / table["source"]).read_text())
    known = {
        (row["bundle"].removesuffix(".bundle"), row["precision"], engine["file"]): (
            len(row["profiles"][engine["file"]]),
            round(engine["bytes"] / 2**20, 1),
            engine["seconds"],
        )
        for row in rows
        for engine in row["engines"]
    }
    assert len(table["builds"]) >= 6
    for row in table["builds"]:
        found = known[row["bundle"], row["precision"], row["file"]]
        assert (row["profiles"], row["mib"], row["seconds"]) == found, row


def test_the_rates_fit_their_own_builds_to_an_order_of_magnitude() -> None:
    assert min(build_time.rates()) >= 0
    for work, seconds in build_time.measured():
        assert seconds / 10 <= build_time.seconds([work]) <= seconds * 10


def test_more_nodes_profiles_and_engines_take_longer() -> None:
    small = build_time.Work(100, 1, 10.0)
    once = build_time.seconds([small])
    assert build_time.seconds([small, small]) == pytest.approx(2 * once)
    assert build_time.seconds([build_time.Work(100, 2, 10.0)]) > once
    assert build_time.seconds([build_time.Work(1000, 1, 10.0)]) > once
    assert build_time.seconds([build_time.Work(100, 1, 1000.0)]) >= once


@pytest.mark.parametrize(
    ("value", "text"), [(0.2, "1 s"), (14.2, "10 s"), (59.0, "60 s"), (200, "3 min"), (7000, "2 h")]
)
def test_one_digit_is_shown(value: float, text: str) -> None:
    assert build_time.rounded(value) == text


def test_a_bundle_is_estimated_from_its_graphs(tiny_bundle: pathlib.Path) -> None:
    bundle, target = Bundle.open(tiny_bundle), targets.find("tensorrt-rtx:sm86")
    half = preflight.engine_needs(bundle, {"vision": "fp16", "decoder": "fp16"}, target)
    mixed = preflight.engine_needs(bundle, {"vision": "int8", "decoder": "int4"}, target)
    assert half.seconds is not None
    assert mixed.seconds is not None
    assert 0 < mixed.seconds <= half.seconds
    assert preflight.needs(bundle, {"vision": "int8", "decoder": "int8"}).seconds is None
