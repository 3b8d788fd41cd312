"""`edgeprune profile` from outside: the structure of its report, its sentences, Ctrl-C. Never milliseconds."""

from __future__ import annotations

import json
import pathlib
import signal
import time
from typing import Any

import pytest

from tests.cli.bad_images import write_picture
from tests.cli.command import assert_user_error, edgeprune, start
from tests.runtime import tiny_graphs

CASE_FIELDS = [
    "variant", "method", "keep", "visual_tokens", "kept_tokens", "applied", "reason", "prompt_tokens", "new_tokens",
    "kv_tokens", "kv_bytes", "flops", "pruner", "layers", "stages_ms", "trials",
]  # fmt: skip
STAGES = ["decode_image", "preprocess", "vision", "select", "embed", "prefill", "decode", "ttft", "tpot", "total"]
STAGES += ["resize", "graph", "own", "decode_graph"]
SPREAD = ["p50", "p90", "p99", "stdev", "least", "most", "trials"]


@pytest.fixture(scope="module")
def hand(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    return tiny_graphs.write_bundle(tmp_path_factory.mktemp("profile") / "hand.bundle")


def profiled(bundle: pathlib.Path, *argv: object) -> dict[str, Any]:
    done = edgeprune("profile", bundle, "--max-new-tokens", 3, "--json", "-", *argv)
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)


def test_every_stage_of_every_keep(hand: pathlib.Path) -> None:
    report = profiled(hand, "--trials", 3)
    assert (report["partial"], report["target"], report["image"]) == (False, [], "generated")
    assert {"cpu_flags", "governor", "processor", "cores", "memory_mib"} <= set(report["machine"])
    assert report["peak_rss_bytes"] > 2**20
    cases = report["cases"]
    assert [(case["keep"], case["kept_tokens"], case["applied"]) for case in cases] == [
        (1.0, 16, False), (0.5, 8, True), (0.25, 4, True), (0.1, 2, True),
    ]  # fmt: skip
    for case in cases:
        assert list(case) == CASE_FIELDS
        assert list(case["stages_ms"]) == STAGES
        assert all(list(spread) == SPREAD for spread in case["stages_ms"].values())
        assert (case["variant"], case["method"], case["visual_tokens"], case["new_tokens"]) == (None, "best", 16, 3)
        assert bool(case["reason"]) != case["applied"]
        # "<s>U: ", the picture, "\n", the question, " A:"
        assert case["prompt_tokens"] == 4 + case["kept_tokens"] + 1 + len("What is in the image?") + 3
        assert case["kv_tokens"] == case["prompt_tokens"] + 2
        assert case["kv_bytes"] == case["kv_tokens"] * 2 * 2 * 2 * 4 * 4
        assert [trial["round"] for trial in case["trials"]] == [0, 1, 2]
        times = [trial["ttft_ms"] for trial in case["trials"]]
        spread = case["stages_ms"]["ttft"]
        assert (spread["least"], spread["p50"], spread["most"]) == tuple(sorted(times))
    for turn in range(3):
        assert sorted(case["trials"][turn]["place"] for case in cases) == [0, 1, 2, 3]
    assert len({trial["place"] for trial in cases[0]["trials"]}) == 3


def test_methods_and_the_unpruned_baseline(hand: pathlib.Path) -> None:
    report = profiled(hand, "--trials", 1, "--method", "best,none", "--keep", "0.5,0.25")
    found = [(case["method"], case["keep"]) for case in report["cases"]]
    assert found == [("best", 0.5), ("best", 0.25), ("none", 1.0)]
    [entry] = report["break_even"]
    assert entry["baseline"] == {"variant": None, "method": "none", "keep": 1.0}
    assert [(row["kept_tokens"], row["rounds"], row["verdict"]) for row in entry["compared"]] == [
        (4, 1, "undecided"), (8, 1, "undecided"),
    ]  # fmt: skip
    assert entry["keep"] is None
    assert entry["statement"].endswith(
        "does not pay for certain at any keep that was measured, in 1 rounds; 6 are the least that can tell."
    )


def test_the_table_and_a_picture_file(hand: pathlib.Path, tmp_path: pathlib.Path) -> None:
    picture, out = write_picture(tmp_path / "picture.png"), tmp_path / "out.json"
    command = ["profile", hand, "--image", picture, "--trials", 1, "--keep", "0.5", "--json", out]
    done = edgeprune(*command)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(out.read_text())["image"] == str(picture)
    for text in ("8/16", "prefill", "tpot", "p99", "peak RSS", "no unpruned case was measured"):
        assert text in done.stdout


def test_target(hand: pathlib.Path) -> None:
    easy, hard = (profiled(hand, "--trials", 1, "--keep", 1, "--target-ms", x)["target"][0] for x in (1e9, 1e-9))
    assert (easy["keep"], easy["kept_tokens"]) == (1.0, 16)
    assert "the largest that meets" in easy["statement"]
    assert (hard["keep"], hard["kept_tokens"]) == (None, None)
    assert [probe["kept_tokens"] for probe in hard["probes"]] == [16, 2]
    assert "no keep meets" in hard["statement"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--trials", 0], ("--trials", "from 1")),
        (["--warmup", 0], ("--warmup", "from 1")),
        (["--trials", -3], ("--trials",)),
        (["--keep", 0.05], ("keep 0.05", "from 0.1 to 1")),
        (["--keep", "0.5,,1"], ("--keep", "commas")),
        (["--keep", 1.5], ("--keep",)),
        (["--method", "four", "--keep", 0.5], ("four always keeps 4 of 16",)),
        (["--method", "nope"], ("no method 'nope'", "best, four, none")),
        (["--variant", "cpu-int8"], ("no variant 'cpu-int8'",)),
        (["--image", "/nope.png"], ("/nope.png",)),
        (["--target-ms", 0], ("--target-ms", "above 0")),
    ],
)
def test_bad_input(hand: pathlib.Path, options: list[object], words: tuple[str, ...]) -> None:
    assert_user_error(edgeprune("profile", hand, *options), *words)


def test_an_interrupted_run_writes_what_it_has(tmp_path: pathlib.Path) -> None:
    slow = tiny_graphs.write_bundle(tmp_path / "s.bundle", tiny_graphs.Options(slow={"vision": 30_000}))
    out = tmp_path / "out.json"
    running = start("profile", slow, "--trials", 100_000, "--keep", "1,0.5", "--json", out)
    maps = pathlib.Path(f"/proc/{running.pid}/maps")
    while "libonnxruntime" not in maps.read_text():
        time.sleep(0.1)
    time.sleep(2)
    running.send_signal(signal.SIGINT)
    text, errors = running.communicate(timeout=60)
    assert (running.returncode, "Traceback" in errors) == (130, False), errors
    assert "interrupted: these results are partial" in text
    report = json.loads(out.read_text())
    assert report["partial"] is True
    counts = [len(case["trials"]) for case in report["cases"]]
    assert max(counts) - min(counts) <= 1
    assert max(counts) < 100_000
