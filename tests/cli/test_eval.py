"""`edgeprune eval` from outside: scores of a model whose answers are known, resuming, bad data, Ctrl-C."""

from __future__ import annotations

import json
import pathlib
import signal
import time
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edgeprune.runtime.session import Model
from tests.cli.bad_images import write_bad_image, write_picture
from tests.cli.command import assert_user_error, edgeprune, start
from tests.runtime import tiny_graphs

QUESTIONS = ("What?", "Where?", "How many?")


def noise(path: pathlib.Path, seed: int) -> pathlib.Path:
    """A picture that differs by its seed."""
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (20, 30, 3), dtype=np.uint8)).save(path)
    return path


@pytest.fixture(scope="module")
def hand(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    return tiny_graphs.write_bundle(tmp_path_factory.mktemp("eval") / "hand.bundle")


@pytest.fixture(scope="module")
def said(hand: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str, float], str]:
    """(picture, question, keep) -> what the model says, asked one at a time in sessions of their own; keep 0: blind."""
    folder = tmp_path_factory.mktemp("pictures")
    found: dict[tuple[str, str, float], str] = {}
    with Model.open(hand) as model:
        for place in range(2):
            picture = noise(folder / f"p{place}.png", place)
            for question in QUESTIONS:
                for keep in (1.0, 0.25):
                    answer = model.ask(picture, question, keep=keep, max_new_tokens=4)
                    found[str(picture), question, keep] = answer.text
                found[str(picture), question, 0.0] = model.ask(None, question, max_new_tokens=4).text
    return found


def lines(said: dict[tuple[str, str, float], str], keep: float = 0.25, **more: Any) -> list[dict[str, Any]]:
    """One item per picture and question whose right answer is what the model says at `keep`."""
    rows = [(picture, question) for picture, question, ratio in said if ratio == keep]
    return [
        {"image": picture, "question": question, "answer": said[picture, question, keep] or "-", "metric": "exact",
         "category": question, **more}
        for picture, question in rows
    ]  # fmt: skip


def write(path: pathlib.Path, rows: list[dict[str, Any]]) -> pathlib.Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def evaluated(bundle: pathlib.Path, data: pathlib.Path, *argv: object) -> dict[str, Any]:
    done = edgeprune("eval", bundle, data, "--max-new-tokens", 4, "--json", "-", *argv)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_scores_are_those_of_the_answers(hand: pathlib.Path, said: Any, tmp_path: pathlib.Path) -> None:
    report = evaluated(hand, write(tmp_path / "d.jsonl", lines(said)), "--keep", "1,0.25", "--text-only")
    full, pruned, blind = report["cases"]
    assert [case["case"] for case in report["cases"]] == ["best@1", "best@0.25", "text-only"]
    assert (pruned["score"], pruned["kept_tokens"], pruned["visual_tokens"], pruned["items"]) == (1.0, 4, 16, 6)
    assert (full["kept_tokens"], blind["kept_tokens"], blind["visual_tokens"]) == (16, 0, 0)
    for case, keep in ((full, 1.0), (pruned, 0.25), (blind, 0.0)):
        rows = [row for row in report["results"] if row["case"] == case["case"]]
        expected = [said[key[0], key[1], keep] for key in said if key[2] == keep]
        assert [row["text"] for row in rows] == expected
        assert case["score"] == pytest.approx(sum(row["score"] for row in rows) / 6)
    assert full["score"] < 1
    assert set(pruned["by"]["category"]) == set(QUESTIONS)
    assert pruned["by"]["category"]["What?"]["items"] == 2
    assert report["tests"] == []


def test_a_grid_names_what_is_missing(hand: pathlib.Path, said: Any, tmp_path: pathlib.Path) -> None:
    data = write(tmp_path / "d.jsonl", lines(said)[:2])
    done = edgeprune("eval", hand, data, "--methods", "best,four", "--keep", "0.5,0.25", "--json", tmp_path / "o.json")
    assert done.returncode == 0
    notes = json.loads((tmp_path / "o.json").read_text())["notes"]
    assert notes[0].startswith("the random baseline needs 5 seeds and the bundle has 0: export it again with --prune")
    assert "four@0.5 is left out: four always keeps 4 of 16 tokens" in notes[1]
    assert all(note in done.stderr for note in notes)
    report = json.loads((tmp_path / "o.json").read_text())
    [test] = report["tests"]
    assert (test["first"], test["second"], test["kept_tokens"]) == ("best", "four", 4)
    assert "95 % interval" in done.stdout
    assert not (tmp_path / "o.json.work").exists()


def test_an_interrupted_run_goes_on_to_the_same_result(said: Any, tmp_path: pathlib.Path) -> None:
    slow = tiny_graphs.write_bundle(tmp_path / "s.bundle", tiny_graphs.Options(slow={"decoder": 60_000}))
    rows = [{**row, "id": str(place)} for place, row in enumerate(lines(said) * 4)]
    for place, row in enumerate(rows):
        row["image"] = str(noise(tmp_path / f"{place}.png", place))
    data, out = write(tmp_path / "d.jsonl", rows), tmp_path / "o.json"
    command = ["eval", slow, data, "--keep", "1,0.25", "--max-new-tokens", 2, "--json", out]
    running = start(*command)
    work = tmp_path / "o.json.work"
    while not work.exists() or work.read_text().count("\n") < 6:
        assert running.poll() is None, running.communicate()
        time.sleep(0.05)
    running.send_signal(signal.SIGINT)
    text, errors = running.communicate(timeout=60)
    assert (running.returncode, "Traceback" in errors) == (130, False), errors
    assert f"the same command goes on from {work}" in text
    partial = json.loads(out.read_text())
    assert partial["partial"] is True
    assert 2 <= partial["answered"] < len(rows)
    kept = work.read_bytes()
    work.write_bytes(kept + b'{"case": "torn')
    assert edgeprune(*command).returncode == 0
    resumed = json.loads(out.read_text())
    assert not work.exists()
    assert edgeprune(*command[:-1], tmp_path / "again.json").returncode == 0
    assert resumed == json.loads((tmp_path / "again.json").read_text())
    assert resumed["answered"] == len(rows)


def test_another_state_of_data_or_bundle_is_refused(hand: pathlib.Path, said: Any, tmp_path: pathlib.Path) -> None:
    data, work = write(tmp_path / "d.jsonl", lines(said)[:1]), tmp_path / "w"
    before = evaluated(hand, data, "--resume", work)
    assert evaluated(hand, data, "--resume", work) == before
    assert work.read_text().count("\n") == 2
    refused = edgeprune("eval", hand, data, "--resume", work, "--max-new-tokens", 5)
    assert_user_error(refused, str(work), "the setting max_new_tokens", "remove it")
    write(data, lines(said, answer="other")[:1])
    argv = ["--resume", work, "--max-new-tokens", 4]
    assert_user_error(edgeprune("eval", hand, data, *argv), "another state of the data")
    write(data, lines(said)[:1])
    other = tiny_graphs.write_bundle(tmp_path / "o.bundle", tiny_graphs.Options(half=True))
    assert_user_error(edgeprune("eval", other, data, *argv), "another state of the bundle")
    work.write_text("{}\n")
    assert_user_error(edgeprune("eval", hand, data, *argv), "not the work file of an evaluation")


def test_likelihood_is_the_score_of_the_runtime(hand: pathlib.Path, said: Any, tmp_path: pathlib.Path) -> None:
    picture = next(iter(said))[0]
    choices = ["ab", "zz", "q"]
    with Model.open(hand) as model, model.new_session() as session:
        session.add_image(picture, keep=0.25)
        expected = session.score("What?", choices, with_eos=True)
    row = {"image": picture, "question": "What?", "choices": choices, "answer": 1, "metric": "likelihood"}
    [result] = evaluated(hand, write(tmp_path / "d.jsonl", [row]), "--keep", 0.25)["results"]
    assert result["log_probabilities"] == [choice.log_probability for choice in expected.choices]
    assert (result["text"], result["score"]) == (expected.best.text, float(expected.best.text == "zz"))


GOOD = '{"image": "p.png", "question": "What?", "answer": "x"}\n'


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (GOOD + "{broken\n", ("d.jsonl line 2 is not valid JSON",)),
        ("\n" + '["list"]\n', ("d.jsonl line 2 must be a JSON object, not list",)),
        ("", ("d.jsonl holds no questions",)),
        ('{"image": "no.png", "question": "Q", "answer": "x"}', ("line 1: the image", "no.png does not exist")),
        ('{"id": "a", "question": "Q", "answer": "x"}\n' * 2, ("line 2: the id 'a' was used before, in", "line 1")),
        ('{"question": "Q", "answer": "x", "metric": "bleu"}', ("line 1: the metric 'bleu' is unknown; known: exact",)),
        ('{"question": "Q"}', ("line 1: give either 'answer' or 'answers'",)),
        ('{"answer": "x"}', ("line 1: 'question' must be text, but it is missing",)),
        ('{"question": "Q", "answers": []}', ("line 1: 'answers' must be a list of texts",)),
        ('{"question": "Q", "choices": ["a", "b"], "answer": 2}', ("'answer' is 2, but there are 2 choices",)),
        ('{"question": "Q", "answer": NaN}', ("line 1 is not valid JSON",)),
        ('{"image": "bad.png", "question": "Q", "answer": "x"}', ("d.jsonl line 1: ", "bad.png")),
    ],
)
def test_bad_data(hand: pathlib.Path, tmp_path: pathlib.Path, text: str, words: tuple[str, ...]) -> None:
    write_picture(tmp_path / "p.png")
    write_bad_image(tmp_path, "truncated.png").rename(tmp_path / "bad.png")
    data = tmp_path / "d.jsonl"
    data.write_text(text)
    assert_user_error(edgeprune("eval", hand, data), *words)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--metric", "bleu"], ("the metric 'bleu' is unknown",)),
        (["--methods", "nope"], ("no method 'nope'", "best, four, none")),
        (["--methods", "random"], ("no method 'random'",)),
        (["--methods", "four", "--keep", 0.5], ("four@0.5 cannot be evaluated: four always keeps 4 of 16",)),
        (["--keep", 2], ("--keep",)),
        (["--variant", "cpu-int8"], ("no variant 'cpu-int8'",)),
        (["--resume", "/nowhere/w"], ("cannot use the work file /nowhere/w",)),
    ],
)
def test_bad_options(hand: pathlib.Path, tmp_path: pathlib.Path, options: list[object], words: tuple[str, ...]) -> None:
    write_picture(tmp_path / "p.png")
    (tmp_path / "d.jsonl").write_text(GOOD)
    assert_user_error(edgeprune("eval", hand, tmp_path / "d.jsonl", *options), *words)
    assert_user_error(edgeprune("eval", hand, tmp_path / "none.jsonl"), "cannot read", "none.jsonl")


def test_a_benchmark_directory(hand: pathlib.Path, tmp_path: pathlib.Path) -> None:
    row = {"question_id": 1, "image": "a.png", "text": "Is there a dog in the image?", "label": "yes"}
    (tmp_path / "coco_pope_random.json").write_text(json.dumps(row) + "\n")
    noise(tmp_path / "a.png", 1)
    report = evaluated(hand, tmp_path, "--format", "pope", "--keep", "1,0.25")
    assert (report["data"], report["suffix"].split()[0]) == ("pope", "Answer")
    for case in report["cases"]:
        assert case["yes_no"]["yes_share"] in (0.0, 1.0)
        assert case["by"]["category"]["random"]["items"] == 1
    assert_user_error(edgeprune("eval", hand, tmp_path, "--format", "nope"), "the format 'nope' is unknown")
    assert_user_error(edgeprune("eval", hand, tmp_path / "d", "--split", "val"), "give --format, too")
    refused = edgeprune("eval", hand, tmp_path, "--format", "pope", "--metric", "choice")
    assert_user_error(refused, "line 1: from 2 to 26 choices are needed")
