"""The table of engines in docs/targets.md is that of the newest result, and the command can make every row it names."""

from __future__ import annotations

import pytest

from benchmarks import docs_tables, engine_builds
from edgeprune.cli import main
from edgeprune.engines import precisions, targets


def test_docs_hold_the_newest_result() -> None:
    rows = docs_tables.newest(engine_builds.NAME)
    assert docs_tables.part(engine_builds.PAGE, engine_builds.NAME) == engine_builds.table(rows) + "\n"


@pytest.mark.parametrize(("name", "precision"), engine_builds.BUILDS)
def test_every_build_has_its_export_and_a_precision_that_is_built(name: str, precision: str) -> None:
    assert name in engine_builds.EXPORTS
    target = targets.find("tensorrt-rtx:sm86,sm89,sm120")
    half = "fp16" in engine_builds.EXPORTS[name]
    for word in precisions.parse(precision).values():
        target.require_build(word)
        assert word == "fp16" or not half, "an fp16 bundle serves fp16 only"


def test_only_what_is_missing_is_built_again() -> None:
    rows = [{"bundle": "demo.bundle", "precision": "fp16"}, {"bundle": "llava15-2-layers.bundle", "precision": "fp16"}]
    left = engine_builds.missing(engine_builds.BUILDS, rows)
    assert set(engine_builds.BUILDS) - set(left) == {("demo", "fp16"), ("llava15-2-layers", "fp16")}


@pytest.mark.parametrize("name", [name for name in engine_builds.EXPORTS if name != "demo"])
def test_every_export_is_one(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Planned, not done: a wrong setting is refused before anything is written."""
    assert main.main(["export", *engine_builds.EXPORTS[name], "--keep", "0.1", "--dry-run"]) == 0
    assert "576 -> 58" in capsys.readouterr().out
