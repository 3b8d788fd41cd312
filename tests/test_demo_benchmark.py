"""The demo benchmark: its splits, the order of its tables, and the figures that it hands on."""

from __future__ import annotations

import importlib
import json
import pathlib
import sys
from typing import Any

import pytest

from edgeprune.measure.dataset import read_jsonl
from edgeprune.measure.eval_work import Asked, Block, WorkFile
from edgeprune.pruning.registry import method_names

REPO = pathlib.Path(__file__).resolve().parent.parent


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Imports a program of the benchmark as it is run: its own folder first on the path."""
    monkeypatch.syspath_prepend(str(REPO / "examples" / "demo_benchmark"))
    monkeypatch.syspath_prepend(str(REPO / "examples" / "demo_model"))
    before = set(sys.modules)
    yield importlib.import_module
    for name in set(sys.modules) - before:
        if name in (
            "make_data",
            "scenes",
            "backgrounds",
            "losses",
            "wording",
            "photographs",
            "retention",
            "bundles",
            "joined",
            "shares",
            "retention_table",
        ):
            del sys.modules[name]


def test_splits_are_read_disjoint_and_repeatable(load: Any, tmp_path: pathlib.Path) -> None:
    make_data = load("make_data")
    missing = make_data.scenes.missing_sources()
    if missing:
        pytest.skip(missing)
    found = {split: make_data.write_split(tmp_path, split, 6) for split in make_data.SPLITS}
    make_data.require_disjoint(found)
    with pytest.raises(SystemExit, match="val and test share placements"):
        make_data.require_disjoint({**found, "test": found["val"]})
    data = read_jsonl(tmp_path / "test.jsonl")
    assert len(data.by_picture()) == 6
    assert {item.fields["size"] for item in data.items} <= set(make_data.SIZES)
    assert {item.fields["category"] for item in data.items} >= {"what", "count", "exist"}
    make_data.write_split(tmp_path / "again", "test", 6)
    again = read_jsonl(tmp_path / "again" / "test.jsonl")
    assert (again.sha256(), again.items[3].answers) == (data.sha256(), data.items[3].answers)


def test_photographs_are_balanced_and_read(load: Any, tmp_path: pathlib.Path, monkeypatch: Any) -> None:
    for module in ("skimage", "sklearn"):
        pytest.importorskip(module)
    photographs = load("photographs")
    monkeypatch.setattr(sys, "argv", ["x", str(tmp_path)])
    photographs.main()
    data = read_jsonl(tmp_path / "photographs.jsonl")
    words = [item.answers[0] for item in data.items if item.metric == "pope"]
    assert words.count("yes") == words.count("no") == len(data.by_picture()) == 9


def report() -> dict[str, Any]:
    """20 questions: all tokens 18 right, `good` 18, `bad` 0, two seeds of random 10 each; at keep 0.1, K = 26."""
    right = {"none@1": 18, "good@0.1": 18, "bad@0.1": 0, "random@0.1": 10, "random-seed-1@0.1": 10}
    cases = []
    for name, count in right.items():
        method, _, keep = name.partition("@")
        part = {"score": count / 20, "items": 20}
        cases.append({
            "case": name, "method": method, "keep": float(keep), "kept_tokens": 256 if keep == "1" else 26,
            "visual_tokens": 256, "score": count / 20, "interval": [0.0, 0.2], "items": 20,
            "by": {"category": {"what": part}, "size": {"small": part}},
        })  # fmt: skip
    spread = {"seeds": 2, "score": 0.5, "interval": [0.5, 0.5]}
    rows = [
        {"case": name, "id": f"test-{place:05d}-0", "score": float(place < count), "text": "x"}
        for name, count in right.items() for place in range(20)
    ]  # fmt: skip
    tests = [
        {"kept_tokens": 26, "first": first, "second": "random", "difference": gap, "p": p}
        for first, gap, p in (("good", 0.4, 0.001), ("bad", -0.5, 0.03))
    ]
    return {
        "bundle": "b", "variant": None, "onnxruntime": "1.2", "partial": True, "answered": 20,
        "notes": ["x@1 is left out"], "cases": cases, "tests": tests,
        "random": [{"keep": 0.1, **spread, "by": {"category": {"what": spread}, "size": {"small": spread}}}],
        "results": rows,
        "losses": [{"method": "random", "keep": 0.1, "unpruned": "none@1", "loss": 0.4, "interval": [0.2, 0.6]}],
    }  # fmt: skip


def test_tables_say_what_the_report_says(load: Any) -> None:
    text = load("wording").page(report(), "raw.json")
    assert "20 questions about 20 pictures" in text
    assert "ended before all pictures" in text
    assert "| `good` |  |  |  | 0.900 + |  |" in text
    assert "| `bad` |  |  |  | 0.000 - |  |" in text
    assert "| `random` |  |  |  | 0.500 |  |" in text
    assert "- keep 0.1, all questions (0.500): bad" in text
    assert "- x@1 is left out." in text
    assert "- keep 0.1, category what (0.500): bad 0.000" in text


def test_holm_stops_at_the_first_that_is_not_significant(load: Any) -> None:
    given = report()
    given["tests"][0]["p"] = 0.03
    marks = load("wording").significant(given, {case["case"]: case for case in given["cases"]}, 0.1)
    assert marks == {}


def test_losses_are_those_of_the_report(load: Any) -> None:
    rows = {row["method"]: row for row in load("losses").retained(report(), "raw.json")["measured"]}
    assert (rows["random"]["loss"], rows["random"]["score"], rows["random"]["unpruned"]) == (0.4, 0.5, 0.9)
    assert (rows["random"]["interval"], rows["random"]["questions"]) == ([0.2, 0.6], 20)


def test_raw_answers_and_page_are_written(load: Any, tmp_path: pathlib.Path, monkeypatch: Any) -> None:
    module = load("retention_table")
    (tmp_path / "docs").mkdir()
    (tmp_path / "edgeprune" / "assets").mkdir(parents=True)
    (tmp_path / "docs" / "pruning.md").write_text(f"before\n{module.BEGIN}\nSTALE\n{module.END}\nafter\n")
    (tmp_path / "report.json").write_text(json.dumps(report()))
    monkeypatch.setattr(sys, "argv", ["x", str(tmp_path / "report.json"), "--root", str(tmp_path)])
    module.main()
    page = (tmp_path / "docs" / "pruning.md").read_text()
    assert page.startswith("before\n")
    assert page.endswith(f"{module.END}\nafter\n")
    assert "STALE" not in page
    [raw] = (tmp_path / "benchmarks" / "results").glob("*.json")
    content = json.loads(raw.read_text())
    assert [sum(case["scores"]) for case in content["cases"]] == [18, 18, 0, 10, 10]
    assert len(content["ids"]) == 20


def half(name: str, cases: dict[str, list[float]]) -> dict[str, Any]:
    """A report of `eval` whose cases answered questions 0, 1, ... about one picture with these scores."""
    rows = [
        {"case": f"{method}@0.1", "method": method, "keep": 0.1, "kept_tokens": 26, "visual_tokens": 256}
        for method in cases
    ]
    results = [
        {
            "case": f"{method}@0.1",
            "id": str(place + 1),
            "text": "x",
            "read": "x",
            "score": score,
            "finish_reason": "eos",
        }
        for method, scores in cases.items()
        for place, score in enumerate(scores)
    ]
    notes = ["tome@0.1 is left out: it always keeps 64 of 256 tokens", "aim-merge@0.1 is left out: 26 of 256"]
    return {
        "bundle": name, "bundle_sha256": name * 2, "variant": "v", "onnxruntime": "1.2", "max_new_tokens": 12,
        "work_file": None, "partial": False, "answered": 3, "notes": notes, "cases": rows, "random": [],
        "losses": [], "tests": [], "results": results,
    }  # fmt: skip


@pytest.fixture
def three_questions(tmp_path: pathlib.Path) -> Any:
    (tmp_path / "a.png").touch()
    lines = [json.dumps({"question": "what?", "answer": "x", "image": "a.png"}) for _ in range(3)]
    (tmp_path / "data.jsonl").write_text("\n".join(lines))
    return read_jsonl(tmp_path / "data.jsonl")


def test_reports_of_several_bundles_become_one(load: Any, three_questions: Any) -> None:
    first = half("a", {"fastervlm": [1, 1, 0], "random": [0, 0, 0]})
    second = half("b", {"tome": [0, 1, 1]})
    found = load("joined").joined([first, second], three_questions, ["category"])
    assert (found["answered"], found["partial"], found["bundles"]) == (3, False, {"a": "aa", "b": "bb"})
    assert {case["case"]: case["score"] for case in found["cases"]} == {
        "fastervlm@0.1": pytest.approx(2 / 3), "random@0.1": 0, "tome@0.1": pytest.approx(2 / 3),
    }  # fmt: skip
    # methods of different bundles are compared question by question
    pairs = {(row["first"], row["second"]): row["difference"] for row in found["tests"]}
    assert pairs[("fastervlm", "tome")] == 0
    assert pairs[("random", "tome")] == pytest.approx(-2 / 3)
    # what another bundle served is not missing
    assert found["notes"] == ["aim-merge@0.1 is left out: 26 of 256"]


def test_shares_of_an_evaluation_begin_with_what_is_answered_and_become_one(load: Any, tmp_path: pathlib.Path) -> None:
    """Three pictures for two processes; picture a is answered already, the shares answer b and c."""
    questions = [
        {"id": f"{name}{n}", "question": "what?", "answer": "x", "image": f"{name}.png"} for name in "abc" for n in "12"
    ]
    for name in "abc":
        (tmp_path / f"{name}.png").write_bytes(name.encode())
    data, answered = tmp_path / "data.jsonl", tmp_path / "one.work"
    data.write_text("".join(json.dumps(row) + "\n" for row in questions))
    settings = {"bundle": "b", "variant": None, "max_new_tokens": 12}

    def work_file(path: pathlib.Path, questions: pathlib.Path) -> WorkFile:
        return WorkFile(path, {**settings, "data": read_jsonl(questions).sha256()})

    def block(name: str) -> Block:
        answers = tuple(Asked(f"{name}{n}", "x", "x", 1.0, "stop") for n in "12")
        return Block("none@1", str(tmp_path / f"{name}.png"), "e", 4, 4, answers)

    first = work_file(answered, data)
    first.add(block("a"))
    first.close()
    shares = load("shares").divide(data, answered, 2)
    assert [[item.id for item in read_jsonl(share.data).items] for share in shares] == [
        ["a1", "a2", "c1", "c2"],
        ["b1", "b2"],
    ]
    for share, name in zip(shares, "cb", strict=True):
        answering = work_file(share.work, share.data)
        assert {key[1][-5] for key in answering.blocks} == ({"a"} if name == "c" else set())
        answering.add(block(name))
        answering.close()
    load("shares").collect(data, answered, shares)
    whole = work_file(answered, data)
    assert {key[1][-5]: found.answers[1].id for key, found in whole.blocks.items()} == {"a": "a2", "b": "b2", "c": "c2"}
    whole.close()


def test_reports_of_different_runs_are_not_joined(load: Any, three_questions: Any) -> None:
    first, second = (half(name, {name: [1, 1, 1]}) for name in "ab")
    with pytest.raises(SystemExit, match="different runs"):
        load("joined").joined([first, {**second, "max_new_tokens": 16}], three_questions, ["category"])


def test_every_method_is_asked_at_every_keep_it_serves(load: Any) -> None:
    module = load("bundles")
    shared, *others = module.parts()
    asked = set(shared.methods.split(","))
    assert asked == set(method_names())
    fixed = {part.keep: set(part.methods.split(",")) for part in others if part.name.startswith("fixed")}
    assert set(fixed) == set(module.KEEPS) - {1, shared.keep}
    assert all(methods == {"tome", "flowcut"} for methods in fixed.values())
    assert len(set(shared.specs)) == len(shared.specs) == len(method_names()) - 1 + 5
