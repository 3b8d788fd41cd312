"""`edgeprune sweep` from outside: report and JSON, what is read again, Ctrl-C, bad input. Never milliseconds."""

from __future__ import annotations

import html.parser
import json
import pathlib
import re
import signal
import time
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edgeprune.measure.quiet import answering, measuring
from tests.cli.bad_images import write_picture
from tests.cli.command import assert_user_error, edgeprune, environment, start
from tests.runtime import tiny_graphs

pytest.importorskip("plotly")

SEEDS = ["random", *(f"random-seed-{seed}" for seed in range(1, 5))]
FEW = ["--trials", 3, "--max-new-tokens", 3]


def with_random(manifest: dict[str, Any]) -> None:
    """Five seeds of random that select as `best` does."""
    for name in SEEDS:
        spec = {**manifest["methods"]["each"]["best"], "name": name, "spec": name.replace("-seed-", ":seed=")}
        manifest["methods"]["each"][name] = spec
        manifest["graphs"]["vision"][name] = manifest["graphs"]["vision"]["best"]


@pytest.fixture(scope="module")
def hand(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    return tiny_graphs.write_bundle(tmp_path_factory.mktemp("sweep") / "hand.bundle", change=with_random)


def write_data(folder: pathlib.Path, pictures: int = 2) -> pathlib.Path:
    rows = []
    for seed in range(pictures):
        pixels = np.random.default_rng(seed).integers(0, 256, (20, 30, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{seed}.png")
        rows += [{"image": f"{seed}.png", "question": f"</script>{q}?", "answer": "x"} for q in ("What", "Where")]
    path = folder / "d.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


class Page(html.parser.HTMLParser):
    """What a browser would load, the embedded data, the text of headings and the rows of the table."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.ids: set[str] = set()
        self.rows = 0
        self.pictures = 0
        self.data = ""
        self._inside = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.loads += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "action", "poster")]
        self.ids.add(found.get("id") or "")
        self.rows += tag == "tr"
        self.pictures += tag == "img"
        self._inside = found.get("id") or ""

    def handle_data(self, data: str) -> None:
        if self._inside == "sweep-data":
            self.data += data
            self._inside = ""


@pytest.fixture(scope="module")
def swept(hand: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], str]:
    """(JSON, page) of methods x keeps with questions."""
    folder = tmp_path_factory.mktemp("swept")
    argv = ["--methods", "none,best,four", "--keep", "1,0.5,0.25", "-o", folder / "r.html", "--json", folder / "r.json"]
    done = edgeprune("sweep", hand, write_data(folder), *FEW, *argv)
    assert done.returncode == 0, done.stderr
    assert "front" in done.stdout
    return json.loads((folder / "r.json").read_text()), (folder / "r.html").read_text()


def test_points_join_latency_and_accuracy(swept: tuple[dict[str, Any], str]) -> None:
    report, _ = swept
    cases = [(p["method"], p["keep"], p["kept_tokens"]) for p in report["points"]]
    assert cases == [
        ("none", 1.0, 16), ("best", 1.0, 16), ("best", 0.5, 8), ("best", 0.25, 4), ("four", 0.25, 4),
        ("random", 1.0, 16), ("random", 0.5, 8), ("random", 0.25, 4),
    ]  # fmt: skip
    assert {case["method"] for case in report["latency"]["cases"]} == {"none", "best", "four", "random"}
    assert all(len(case["trials"]) == 3 for case in report["latency"]["cases"])
    asked = {case["case"]: case for case in report["accuracy"]["own"]["cases"]}
    assert len(asked) == 5 + 5 * 3
    for point in report["points"]:
        low, high = point["ttft_interval_ms"]
        assert low <= point["ttft_ms"] <= high
        assert point["baseline"] == (point["method"] == "random")
        if not point["baseline"]:
            assert point["score"] == asked[f"{point['method']}@{point['keep']:g}"]["score"]
    assert [point["seeds"] for point in report["points"]] == [None] * 5 + [5] * 3
    assert any(point["pareto"] for point in report["points"])
    assert (report["partial"], report["data"]["items"], report["data"]["answered"]) == (False, 4, 4)


def test_the_page_loads_nothing_and_holds_its_data(swept: tuple[dict[str, Any], str]) -> None:
    report, text = swept
    page = Page(text)
    assert json.loads(page.data) == report
    assert page.rows == 1 + len(report["points"])
    assert page.pictures == 2 * 3  # random, best and four on two pictures
    assert all(url.startswith("data:image/jpeg;base64,") for url in page.loads)
    assert len(page.loads) == page.pictures
    assert {"figure-accuracy", "figure-stages", "save"} <= page.ids
    assert "partial" not in page.ids
    policy = re.search(r'http-equiv="Content-Security-Policy"\s+content="([^"]*)"', text)
    assert policy is not None
    assert policy[1].startswith("default-src 'none'")
    assert "http" not in policy[1]


def test_without_questions_it_measures_latency(hand: pathlib.Path, tmp_path: pathlib.Path) -> None:
    write_picture(tmp_path / "p.png")
    argv = ["-o", tmp_path / "r.html", "--image", tmp_path / "p.png", "--methods", "best", "--json", "-"]
    done = edgeprune("sweep", hand, *FEW, *argv)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert (report["data"], report["accuracy"]) == (None, {})
    assert [(point["keep"], point["score"], point["pareto"]) for point in report["points"]] == [
        (keep, None, None) for keep in (1.0, 0.5, 0.25, 0.1)
    ]
    page = Page((tmp_path / "r.html").read_text())
    assert {"no-accuracy", "figure-latency"} <= page.ids
    assert page.pictures == 1


def test_an_interrupted_sweep_goes_on(tmp_path: pathlib.Path) -> None:
    slow = tiny_graphs.write_bundle(tmp_path / "s.bundle", tiny_graphs.Options(slow={"decoder": 60_000}))
    work, out = tmp_path / "work", tmp_path / "r.html"
    command = ["sweep", slow, write_data(tmp_path, 4), "--methods", "best", "--keep", "1,0.25", "--trials", 6]
    command += ["--max-new-tokens", 2, "-o", out, "--json", tmp_path / "r.json", "--resume", work]
    running = start(*command)
    latency = work / "latency.jsonl"
    while not latency.exists() or latency.read_text().count("\n") < 3:
        assert running.poll() is None, running.communicate()
        time.sleep(0.05)
    running.send_signal(signal.SIGINT)
    text, errors = running.communicate(timeout=120)
    assert (running.returncode, "Traceback" in errors) == (130, False), errors
    assert f"the same command goes on from {work}" in text
    partial = json.loads((tmp_path / "r.json").read_text())
    assert partial["partial"] is True
    assert "partial" in Page(out.read_text()).ids
    before = latency.read_text().splitlines()
    with latency.open("a") as file:
        file.write('{"run": 1, "tri')
    done = edgeprune(*command)
    assert done.returncode == 0, done.stderr
    assert latency.read_text().splitlines()[: len(before)] == before
    whole = json.loads((tmp_path / "r.json").read_text())
    assert (whole["partial"], whole["latency"]["trials"]) == (False, 6)
    assert set(whole["latency"]["runs"]) == {1, 2}
    assert "latency was measured in 2 runs, one after the other" in whole["notes"]
    assert whole["data"]["answered"] == 8
    assert edgeprune(*command).returncode == 0
    again = json.loads((tmp_path / "r.json").read_text())
    assert again["points"] == whole["points"]
    assert again["accuracy"] == whole["accuracy"]
    assert_user_error(edgeprune(*command, "--prompt", "Else?"), "measured with another state of --prompt; remove it")


def test_latency_is_not_measured_beside_another_sweep(hand: pathlib.Path, tmp_path: pathlib.Path) -> None:
    argv = ["sweep", hand, *FEW, "--keep", 0.25, "-o", tmp_path / "r.html"]
    with answering(), answering():
        assert_user_error(edgeprune(*argv), "another sweep is at work on this machine", "wait until it has ended")
    with measuring():
        assert_user_error(edgeprune(*argv), "another sweep is at work on this machine")
    assert not (tmp_path / "r.html").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--methods", "nope"], ("no method 'nope'",)),
        (["--variant", "cpu-int8"], ("no variant 'cpu-int8'",)),
        (["--keep", 2], ("--keep",)),
        (["--methods", "four", "--keep", 0.5], ("four@0.5 cannot be evaluated: four always keeps 4 of 16",)),
        (["--trials", 0], ("--trials", "give a whole number from 1")),
        (["-o", "/nowhere/r.html"], ("cannot write /nowhere/r.html: there is no directory /nowhere",)),
        (["--json", "/"], ("cannot write /: it is a directory",)),
        (["--resume", "/nowhere/w"], ("cannot use the directory /nowhere/w",)),
        (["--image", "/nowhere.png"], ("cannot read /nowhere.png",)),
        (["--on", "ray"], ("--on ray are about questions: give DATA, too",)),
        (["--workers", 2], ("--workers counts the processes of --on ray",)),
    ],
)
def test_bad_options(hand: pathlib.Path, tmp_path: pathlib.Path, options: list[object], words: tuple[str, ...]) -> None:
    assert_user_error(edgeprune("sweep", hand, "-o", tmp_path / "r.html", *options), *words)
    assert not (tmp_path / "r.html").exists()


def test_missing_packages_and_questions_are_one_sentence(hand: pathlib.Path, tmp_path: pathlib.Path) -> None:
    data = write_data(tmp_path)
    out = ["-o", tmp_path / "r.html"]
    for package, extra, more in (("plotly", "sweep", ()), ("ray", "ray", ("--on", "ray"))):
        blocked = tmp_path / package
        (blocked / package).mkdir(parents=True)
        name = f"No module named {package!r}"
        (blocked / package / "__init__.py").write_text(f"raise ModuleNotFoundError({name!r}, name={package!r})\n")
        path = f"{blocked}:{environment()['PYTHONPATH']}"
        done = edgeprune("sweep", hand, data, *out, *more, env=environment(PYTHONPATH=path))
        assert_user_error(done, f"needs {package}, which is not installed: run `pip install 'edgeprune[{extra}]'`")
    (tmp_path / "empty.jsonl").write_text("")
    assert_user_error(edgeprune("sweep", hand, tmp_path / "empty.jsonl", *out), "empty.jsonl holds no questions")
