"""The table of engines in docs/targets.md is that of the newest result, and the command can make every row it names."""

from __future__ import annotations

import importlib.util
import json
import pathlib

import pytest

from benchmarks import docs_tables, engine_builds
from edgeprune.cli import main
from edgeprune.engines import precisions, targets
from edgeprune.engines.shapes import USUAL_TEXT_TOKENS


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


#: bundle -> visual tokens, K of the profiles (0.05, 0.1 and 1 of them, halves up), width of the decoder
SIZES = {
    "demo": (256, [13, 26, 256], 576),
    "llava15-2-layers": (576, [29, 58, 576], 4096),
    "llava15-2-layers-fp32": (576, [29, 58, 576], 4096),
    "vit-l-24-blocks": (576, [29, 58, 576], 512),
}


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("tensorrt_rtx") is None, reason="tensorrt_rtx is not installed")
@pytest.mark.parametrize(("name", "precision"), engine_builds.BUILDS)
def test_every_row_is_built_for_three_gpus(name: str, precision: str, tmp_path: pathlib.Path) -> None:
    """Real engines; the names of their profiles and min/opt/max of what varies. Up to 9 GB of memory."""
    tokens, kept, width = SIZES[name]
    bundle = engine_builds.exported(tmp_path, name)
    row = engine_builds.build(bundle, precision, "sm86,sm89,sm120")
    assert (row["visual_tokens"], row["gpus"]) == (tokens, "sm86,sm89,sm120")
    assert row["peak_mib"] <= int(row["estimate"].split()[2]), "needs about N MiB of memory"
    files = ["vision-fastervlm.engine", "vision-divprune.engine", "decoder.engine"]
    assert [engine["file"] for engine in row["engines"]] == files
    manifest = json.loads((bundle / "manifest.json").read_text())
    (folder,) = {(bundle / file).parent for file in manifest["variants"][-1]["files"]}
    for engine in row["engines"]:
        content = (folder / engine["file"]).read_bytes()
        assert (content.find(b"vtrt") < 32, int.from_bytes(content[16:24], "little")) == (True, len(content))
    for file in files[:2]:
        (profile,) = row["profiles"][file]
        slots = profile["inputs"]["keep_slots"]
        assert (profile["name"], [slots[end][0] for end in ("min", "opt", "max")]) == ("vision", kept)
    prefill, decode = row["profiles"]["decoder.engine"]
    longest, usual = manifest["context_length"], kept[1] + USUAL_TEXT_TOKENS
    for profile, phase, new in ((prefill, "prefill", (1, usual, longest)), (decode, "decode", (1, 1, 1))):
        embeds = profile["inputs"]["inputs_embeds"]
        assert profile["name"] == phase
        assert [embeds[end] for end in ("min", "opt", "max")] == [[1, count, width] for count in new]


@pytest.mark.parametrize("name", [name for name in engine_builds.EXPORTS if name != "demo"])
def test_every_export_is_one(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Planned, not done: a wrong setting is refused before anything is written."""
    assert main.main(["export", *engine_builds.EXPORTS[name], "--keep", "0.1", "--dry-run"]) == 0
    assert "576 -> 58" in capsys.readouterr().out
