"""Metrics and normalisation against values worked out by hand."""

from __future__ import annotations

import pytest

from edgeprune.errors import UserError
from edgeprune.measure import normalise
from edgeprune.measure.dataset import Item, make_item
from edgeprune.measure.metrics import METRICS, prompt, soft_accuracy


def item(answers: list[str], metric: str | None = None, choices: list[str] | None = None) -> Item:
    return make_item("d line 1", "1", "What?", answers, metric=metric, choices=choices or ())


def worth(text: str, asked: Item) -> float:
    metric = METRICS[asked.metric]
    return metric.worth(metric.read(text, asked), asked)


@pytest.mark.parametrize(
    ("given", "expected"),
    [("  A Dog. ", "a dog"), ("two\n cats", "two cats"), ("ＣＡＦÉ!", "café"), ("U.S.", "u.s"), ("...", "")],
)
def test_plain_normalisation(given: str, expected: str) -> None:
    assert normalise.plain(given) == expected


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("The two dogs", "2 dogs"),
        ("none", "0"),
        ("1,000", "1000"),
        ("3.5 m.", "3.5 m"),
        ("black/white", "black white"),
        ("black / white", "black white"),
        ("yes, it is", "yes it is"),
        ("dont know", "don't know"),
        ("couldntve", "couldntve"),
        ("couldn'tve", "couldn't've"),
        ("he'dve\tgone\nhome", "he'd've gone home"),
        ("Somebody'd", "somebodyd"),
        ("a an the", ""),
        ("well-known", "well known"),
    ],
)
def test_vqa_normalisation(given: str, expected: str) -> None:
    assert normalise.vqa(given) == expected


@pytest.mark.parametrize(("same", "expected"), [(0, 0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1), (10, 1)])
def test_soft_accuracy_of_ten_annotators(same: int, expected: float) -> None:
    """With s who agree: s annotators see s - 1 others, 10 - s see s; a third per agreement, at most 1."""
    assert soft_accuracy("cat", ["cat"] * same + ["dog"] * (10 - same)) == pytest.approx(expected)


def test_vqa_score_normalises_both_sides() -> None:
    asked = item(["The Cat"] * 2 + ["cat."] + ["dog"] * 7)
    assert asked.metric == "vqa"
    assert worth("a cat", asked) == pytest.approx(0.9)


def test_exact() -> None:
    assert worth(" Chicken.", item(["chicken"])) == 1
    assert worth("chicken wing", item(["chicken"])) == 0
    assert worth("B", item(["a", "b"], "exact")) == 1


@pytest.mark.parametrize(
    ("text", "mme", "pope"),
    [("Yes, it is", 1, 1), ("No", 0, 0), ("There is not one.", 0, 0), ("a dog", 0, 1), ("Yes. No.", 1, 1)],
)
def test_yes_and_no(text: str, mme: int, pope: int) -> None:
    assert worth(text, item(["yes"], "yes_no")) == mme
    assert worth(text, item(["Yes"], "pope")) == pope


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("B", "blue"), ("b.", "blue"), ("(B)", "blue"), ("B. blue", "blue"), ("The answer is B", "blue"),
        ("Blue.", "blue"), ("it is blue", "blue"), ("blue or red", ""), ("E", ""), ("A blue one", "blue"),
        ("bluebird", ""), ("A", "red"), ("dark green!", "dark green"), ("Answer: C", "dark green"),
    ],
)  # fmt: skip
def test_option_by_text(text: str, expected: str) -> None:
    asked = item(["blue"], choices=["red", "blue", "dark green"])
    assert METRICS["choice"].read(text, asked) == expected


def test_an_option_that_is_a_letter_comes_before_the_letter_of_an_option() -> None:
    asked = item(["b"], choices=["b", "a"])
    assert worth("B", asked) == 1
    assert prompt(asked, "ignored").split("\n")[1:3] == ["A. b", "B. a"]


def test_the_suffix_is_a_line_of_its_own() -> None:
    assert prompt(item(["x"]), "One word.") == "What?\nOne word."


@pytest.mark.parametrize(
    ("answers", "metric", "choices", "words"),
    [
        (["x"], "bleu", None, "the metric 'bleu' is unknown; known: exact"),
        (["maybe"], "pope", None, "yes or no"),
        (["x"], "choice", ["x"], "from 2 to 26 choices"),
        (["x"], None, ["y", "z"], "'x' is none of the choices"),
        (["x"], None, ["x", "X."], "two of the choices are equal"),
        (["x"], "likelihood", None, "from 2 to 26 choices"),
        ([], "exact", None, "no answer"),
    ],
)
def test_items_that_do_not_fit_their_metric(answers, metric, choices, words) -> None:
    with pytest.raises(UserError, match="d line 1: ") as caught:
        item(answers, metric, choices)
    assert words in str(caught.value)
