"""Warnings about lost accuracy: when they come, and that the shipped figures are those of the raw answers."""

from __future__ import annotations

import json
import pathlib

import numpy as np
import pytest

from edgeprune.retention import Measured, measured, warnings

REPO = pathlib.Path(__file__).resolve().parents[2]


def row(method: str, keep: float, loss: float, low: float = 0.02) -> Measured:
    return Measured("llava", "demo", method, keep, 0.9 - loss, 0.9, loss, (low, loss + 0.1), 80, "results.json")


ROWS = [row("random", 0.1, 0.25), row("random", 0.05, 0.4), row("random", 0.5, 0.02), row("fastervlm", 0.1, 0.03),
        row("stride", 0.1, 0.12, -0.01), row("vispruner", 0.1, 0.1)]  # fmt: skip


@pytest.mark.parametrize(
    ("family", "spec", "keep", "expected"),
    [
        ("llava", "random", 0.1, "random at keep 0.1 lost 25 points of accuracy (2 to 35) on 80 questions"),
        ("llava", "random:seed=3", 0.05, "random at keep 0.05 lost 40 points"),
        ("llava", "random", 0.07, "random at keep 0.1, which is more than 0.07, lost 25 points"),
        ("llava", "random", 0.02, "random at keep 0.05, which is more than 0.02, lost 40 points"),
        ("llava", "random", 0.25, ""),
        ("llava", "fastervlm", 0.1, ""),
        ("llava", "stride", 0.1, ""),
        ("llava", "vispruner", 0.1, ""),
        ("qwen2_vl", "random", 0.1, ""),
    ],
)
def test_when_it_warns(family: str, spec: str, keep: float, expected: str) -> None:
    found = warnings(family, [spec], keep, 256, ROWS)
    assert len(found) == bool(expected)
    if expected:
        assert found[0].startswith(expected)
        assert "0.650 instead of 0.900, results.json" in found[0] or keep < 0.07


def test_one_sentence_per_method() -> None:
    assert len(warnings("llava", ["random:seed=0", "random:seed=1", "fastervlm"], 0.1, 256, ROWS)) == 1


def test_shipped_figures_are_those_of_the_raw_answers() -> None:
    for entry in measured():
        raw = json.loads((REPO / entry.source).read_text())
        by_case = {case["case"]: case for case in raw["cases"]}
        names = [
            name for name, case in by_case.items()
            if case["keep"] == entry.keep and case["method"] is not None
            and (case["method"] == entry.method or case["method"].startswith(f"{entry.method}-seed-"))
        ]  # fmt: skip
        assert names, entry
        mean = np.mean([by_case[name]["scores"] for name in names])
        full = np.mean(by_case["none@1"]["scores"])
        assert (entry.score, entry.unpruned) == (pytest.approx(mean, abs=6e-5), pytest.approx(full, abs=6e-5))
        assert entry.loss == pytest.approx(full - mean, abs=1.2e-4)
        assert entry.questions == len(raw["ids"])
