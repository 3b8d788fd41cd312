"""Public benchmarks: hand-made samples of their files, read back, and scored with given answers."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import pytest

from edgeprune.errors import UserError
from edgeprune.measure import formats
from edgeprune.measure.dataset import Dataset
from edgeprune.measure.eval_scores import breakdown, summary
from edgeprune.measure.eval_work import Asked
from edgeprune.measure.metrics import METRICS, prompt


def put(path: pathlib.Path, content: Any = b"picture") -> pathlib.Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return path


def scored(dataset: Dataset, *texts: str) -> list[Any]:
    """(item, answer) for one text per item."""
    rows = []
    for item, text in zip(dataset.items, texts, strict=True):
        read = METRICS[item.metric].read(text, item)
        rows.append((item, Asked(item.id, text, read, METRICS[item.metric].worth(read, item), "eos")))
    return rows


@pytest.fixture
def pope(tmp_path: pathlib.Path) -> pathlib.Path:
    asked = [("dog", "yes"), ("car", "no"), ("cat", "yes"), ("bus", "no")]
    image = "COCO_val2014_000000000001.jpg"
    rows = [
        {"question_id": number, "image": image, "text": f"Is there a {thing} in the image?", "label": label}
        for number, (thing, label) in enumerate(asked, 1)
    ]
    for name in ("random", "adversarial"):
        put(tmp_path / f"coco_pope_{name}.json", "\n".join(map(json.dumps, rows)).encode())
    put(tmp_path / "val2014" / "COCO_val2014_000000000001.jpg")
    return tmp_path


def test_pope(pope: pathlib.Path) -> None:
    data = formats.read("pope", pope, "random")
    assert [item.id for item in data.items] == [f"random-{number}" for number in (1, 2, 3, 4)]
    assert prompt(data.items[0], data.suffix).split("\n") == [
        "Is there a dog in the image?", "Answer the question using a single word or phrase.",
    ]  # fmt: skip
    found = summary(scored(data, "Yes", "A car is there.", "No, there is none.", "no"))["yes_no"]
    assert (found["accuracy"], found["precision"], found["recall"], found["f1"]) == (0.5, 0.5, 0.5, 0.5)
    assert (found["yes_share"], found["neither"], found["accuracy_plus"]) == (0.5, 0, 0.0)
    both = formats.read("pope", pope)
    assert set(breakdown(scored(both, *["yes"] * 8), ["category"])["category"]) == {"random", "adversarial"}


def test_textvqa(tmp_path: pathlib.Path) -> None:
    answers = ["nokia"] * 3 + ["Nokia."] * 1 + ["samsung"] * 6
    row = {"question_id": 34602, "question": "what brand is it?", "image_id": "003a8ae2ef43b901", "answers": answers,
           "image_classes": ["Phone"], "set_name": "val"}  # fmt: skip
    put(tmp_path / "TextVQA_0.5.1_val.json", {"dataset_type": "val", "data": [row, {**row, "question_id": 34603}]})
    put(tmp_path / "train_val_images" / "train_images" / "003a8ae2ef43b901.jpg")
    data = formats.read("textvqa", tmp_path)
    assert summary(scored(data, "the Nokia", "motorola"))["score"] == pytest.approx(0.5)
    assert summary(scored(data, "nokia", "nokia"))["interval_kind"] == "bootstrap"


def test_gqa(tmp_path: pathlib.Path) -> None:
    rows = {
        "201307251": {"imageId": "n161313", "question": "Is it overcast?", "answer": "no", "isBalanced": True,
                      "types": {"structural": "verify", "semantic": "global", "detailed": "weatherVerify"}},
        "201307252": {"imageId": "n161313", "question": "What is on the table?", "answer": "hot dog",
                      "types": {"structural": "query", "semantic": "rel", "detailed": "relO"}},
    }  # fmt: skip
    put(tmp_path / "testdev_balanced_questions.json", rows)
    put(tmp_path / "images" / "n161313.jpg")
    found = scored(formats.read("gqa", tmp_path), "No.", "dog")
    assert summary(found)["score"] == 0.5
    by = breakdown(found, ["category", "semantic"])
    assert (by["category"]["verify"]["score"], by["category"]["query"]["score"]) == (1.0, 0.0)
    assert by["semantic"]["rel"]["items"] == 1


def test_mme(tmp_path: pathlib.Path) -> None:
    root = tmp_path / "MME_Benchmark_release_version"
    for place in (1, 2):
        text = "Is it {}? Please answer yes or no.\tYes\nIs it not? Please answer yes or no.\tNo\n"
        put(root / "existence" / f"00000{place}.txt", text.encode())
        put(root / "existence" / f"00000{place}.jpg")
        put(root / "posters" / "questions_answers_YN" / f"tt{place}.txt", text.encode())
        put(root / "posters" / "images" / f"tt{place}.png")
    put(root / "code_reasoning" / "0001.txt", b"A?\tYes\r\nB?\tNo\r\n")
    put(root / "code_reasoning" / "0001.png")
    data = formats.read("mme", tmp_path)
    assert [item.fields["category"] for item in data.items] == ["existence"] * 4 + ["posters"] * 4 + [
        "code_reasoning"
    ] * 2
    rows = scored(data, "Yes", "No", "Yes", "Yes", "yes it is", "Maybe", "no", "No", "Yes.", "No.")
    assert data.totals is not None
    totals = data.totals(breakdown(rows, ["category"]))
    assert totals["tasks"] == {"existence": 125.0, "posters": 50.0, "code_reasoning": 200.0}
    assert (totals["perception"], totals["cognition"]) == (175.0, 200.0)
    assert formats.read("mme", tmp_path, "posters").items[0].answers == ("Yes",)


def test_scienceqa(tmp_path: pathlib.Path) -> None:
    base = {"choices": ["West Virginia", "Louisiana", "Oklahoma"], "subject": "social science", "split": "test"}
    problems = {
        "4": {**base, "question": "Which is farthest north?", "answer": 0, "image": "image.png", "hint": ""},
        "5": {**base, "question": "Which is it?", "answer": 2, "image": None, "hint": "It has oil."},
        "6": {**base, "question": "Unused?", "answer": 1, "image": None, "hint": ""},
    }
    put(tmp_path / "data" / "scienceqa" / "problems.json", problems)
    put(tmp_path / "data" / "scienceqa" / "pid_splits.json", {"train": ["6"], "test": ["4", "5"]})
    put(tmp_path / "images" / "test" / "4" / "image.png")
    data = formats.read("scienceqa", tmp_path)
    assert prompt(data.items[1]) == (
        "Context: It has oil.\nWhich is it?\nA. West Virginia\nB. Louisiana\nC. Oklahoma\n"
        "Answer with the option's letter from the given choices directly."
    )
    rows = scored(data, "A", "The answer is B.")
    assert summary(rows)["score"] == 0.5
    by = breakdown(rows, ["picture"])["picture"]
    assert (by["yes"]["score"], by["no"]["score"]) == (1.0, 0.0)


def test_what_is_wrong_is_one_sentence(pope: pathlib.Path, tmp_path: pathlib.Path) -> None:
    def refused(name: str, folder: pathlib.Path, split: str | None = None) -> str:
        with pytest.raises(UserError) as caught:
            formats.read(name, folder, split)
        return str(caught.value)

    empty = tmp_path / "empty"
    empty.mkdir()
    assert "unknown; known: pope, textvqa" in refused("vqav2", tmp_path)
    assert "is not a directory" in refused("gqa", tmp_path / "nowhere")
    assert "holds none of: TextVQA_0.5.1_val.json" in refused("textvqa", empty)
    assert "holds none of: coco_pope_popular.json" in refused("pope", pope, "popular")
    assert "no folder of an MME task" in refused("mme", empty)
    assert "no split 'dev'" in refused("pope", pope, "dev")
    put(pope / "coco_pope_random.json", b'{"question_id": 1, "image": "no.jpg", "text": "Q", "label": "yes"}\n')
    assert "coco_pope_random.json line 1: the image" in refused("pope", pope, "random")
    put(pope / "coco_pope_random.json", b'{"question_id": 1, "image": "no.jpg", "text": "Q", "label": "perhaps"}\n')
    assert "line 1: the answer must be yes or no" in refused("pope", pope, "random")
    put(empty / "TextVQA_0.5.1_val.json", {"data": [{"question_id": 1}]})
    assert "TextVQA_0.5.1_val.json entry 0: 'question' must be text, but it is missing" in refused("textvqa", empty)
    put(empty / "testdev_balanced_questions.json", b"[")
    assert "is not valid JSON" in refused("gqa", empty)
    put(empty / "existence" / "1.txt", b"no tab\n")
    assert "1.txt line 1 must be a question, a tab" in refused("mme", empty)
