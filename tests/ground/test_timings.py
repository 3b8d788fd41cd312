"""Stage times and their summaries."""

from __future__ import annotations

import dataclasses
import json

import pytest

from edgeprune.timings import StageTimings, summarize, summarize_stages


def timings(factor: float) -> StageTimings:
    names = [field.name for field in dataclasses.fields(StageTimings)]
    return StageTimings(**{name: factor * (place + 1) for place, name in enumerate(names)})


def test_every_stage_is_written_by_name() -> None:
    written = json.loads(json.dumps(timings(1).to_dict()))
    assert written == {field.name: place + 1 for place, field in enumerate(dataclasses.fields(StageTimings))}


def test_summary() -> None:
    summary = summarize([3, 1, 2, 5, 4])
    assert (summary.trials, summary.median, summary.least, summary.most) == (5, 3, 1, 5)
    assert (summary.p10, summary.p90, summary.p99) == pytest.approx((1.4, 4.6, 4.96))
    assert summary.stdev == pytest.approx(2.5**0.5)
    assert summarize([7]).stdev == 0
    with pytest.raises(ValueError, match="nothing"):
        summarize([])


def test_summary_of_stages() -> None:
    summaries = summarize_stages([timings(factor) for factor in (1, 2, 3)])
    assert set(summaries) == set(timings(1).to_dict())
    assert (summaries["preprocess_ms"].median, summaries["preprocess_ms"].most) == (4, 6)
