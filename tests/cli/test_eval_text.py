"""`edgeprune eval` with methods that read the question: every answer is that of the question asked alone."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import pytest

from edgeprune.cli.main import main
from edgeprune.measure.metrics import INSTRUCTION
from edgeprune.runtime.session import Model
from tests.checkpoints import write_checkpoint
from tests.cli.command import assert_user_error, edgeprune
from tests.test_text_parity import picture

METHODS, KEEPS = ("mmtok", "cdpruner"), (1.0, 0.25)
QUESTIONS = ("What is on the left?", "How many objects are there?", "Is there a cat in the image?")
CHOICES = ("yes", "no")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("eval-text")
    out = folder / "out.bundle"
    specs = ("mmtok", "cdpruner:weight=0.9", "fastervlm")
    argv = [part for spec in specs for part in ("--prune", spec)]
    checkpoint = write_checkpoint(folder / "checkpoint")
    assert main(["export", "--model", str(checkpoint), "--keep", "0.25", *argv, "-o", str(out)]) == 0
    return out


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Two pictures, each with three free questions, one by likelihood and one with options."""
    folder = tmp_path_factory.mktemp("eval-text-data")
    rows: list[dict[str, Any]] = []
    for seed, size in enumerate([(56, 56), (90, 70)]):
        name = f"{seed}.png"
        picture(seed, *size).save(folder / name)
        rows += [{"image": name, "question": question, "answer": "x"} for question in QUESTIONS]
        given = {"image": name, "question": QUESTIONS[2], "choices": CHOICES, "answer": "no"}
        rows += [{**given, "metric": "likelihood"}, {**given, "metric": "choice"}]
    rows.append({"question": QUESTIONS[0], "answer": "x"})
    path = folder / "d.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def asked_alone(model: Model, row: dict[str, Any], folder: pathlib.Path, method: str, keep: float) -> Any:
    """(text, ln p of the choices or None, kept indices), the item asked in a session of its own."""
    with model.new_session() as session:
        shown = [session.add_image(folder / row["image"], keep=keep, method=method)] if "image" in row else []
        if row.get("metric") == "likelihood":
            scores = session.score(row["question"], row["choices"], with_eos=True)
            text, values = scores.best.text, [choice.log_probability for choice in scores.choices]
        else:
            options = "\nA. yes\nB. no\n" + INSTRUCTION if "choices" in row else ""
            text, values = session.generate(row["question"] + options, max_new_tokens=6).text, None
        return text, values, tuple(session.kept_tokens(shown[0]).keep_idx) if shown else ()


def test_answers_are_those_of_questions_asked_alone(bundle: pathlib.Path, data: pathlib.Path) -> None:
    argv = ["--methods", ",".join(METHODS), "--keep", "1,0.25", "--max-new-tokens", 6, "--json", "-"]
    done = edgeprune("eval", bundle, data, *argv)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert [case["case"] for case in report["cases"]] == ["mmtok@1", "mmtok@0.25", "cdpruner@1", "cdpruner@0.25"]
    assert [(case["kept_tokens"], case["visual_tokens"]) for case in report["cases"]] == [(16, 16), (4, 16)] * 2
    rows = [json.loads(line) for line in data.read_text().splitlines()]
    found = {(result["case"], int(result["id"])): result for result in report["results"]}
    selections: dict[str, set[tuple[int, ...]]] = {method: set() for method in METHODS}
    with Model.open(bundle) as model:
        for method in METHODS:
            for keep in KEEPS:
                for line, row in enumerate(rows, 1):
                    text, values, kept = asked_alone(model, row, data.parent, method, keep)
                    result = found[f"{method}@{keep:g}", line]
                    assert result["text"] == text, (method, keep, row)
                    assert result.get("log_probabilities") == (values if values is None else pytest.approx(values))
                    if keep < 1 and row.get("image") == "0.png":
                        selections[method].add(kept)
    assert all(len(kept) > 1 for kept in selections.values()), "the question must matter in this test"


def test_an_interrupted_run_is_taken_up(bundle: pathlib.Path, data: pathlib.Path, tmp_path: pathlib.Path) -> None:
    argv = ["--methods", "mmtok", "--keep", "0.5,0.25", "--max-new-tokens", 6]
    work, out = tmp_path / "w", tmp_path / "o.json"
    assert edgeprune("eval", bundle, data, *argv, "--resume", work, "--json", out).returncode == 0
    whole = json.loads(out.read_text())
    kept = work.read_text().splitlines(keepends=True)
    assert len(kept) == 1 + 2 * 3
    work.write_text("".join(kept[:3]))
    assert edgeprune("eval", bundle, data, *argv, "--resume", work, "--json", out).returncode == 0
    assert json.loads(out.read_text()) == whole


def test_a_question_that_cannot_be_asked_is_named_by_its_line(bundle: pathlib.Path, tmp_path: pathlib.Path) -> None:
    picture(0, 56, 56).save(tmp_path / "p.png")
    path = tmp_path / "d.jsonl"
    rows = ({"image": "p.png", "question": "Is there a cat? " * 400, "answer": "x"},)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert_user_error(edgeprune("eval", bundle, path, "--methods", "mmtok", "--keep", 0.25), f"{path} line 1: ")
