"""What an answer is worth: one metric per item, by name.

| name | prompt | score of an answer |
|---|---|---|
| exact | the question | 1 when it equals an accepted answer after `normalise.plain` |
| vqa | the question | mean over the annotators of min(1, others who gave this answer / 3), after `normalise.vqa` |
| yes_no | the question | 1 when its first four letters hold the right one of yes and no (the rule of MME) |
| pope | the question | 1 when right; without no or not among the words of its first sentence it is yes (POPE's rule) |
| choice | the question, the lettered options, and to answer with a letter | 1 when letter or text of the right option |
| likelihood | the question alone | 1 when the right option has the largest ln p, end of sequence included |
"""

from __future__ import annotations

import re
import string
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from edgeprune.measure import normalise

if TYPE_CHECKING:
    from edgeprune.measure.dataset import Item

LETTERS: Final = string.ascii_uppercase
INSTRUCTION: Final = "Answer with the option's letter from the given choices directly."


@dataclass(frozen=True)
class Metric:
    """A metric.

    Attributes:
        read: (answer text, item) -> what it says: a normalised text, yes or no, or an option; "" when nothing.
        worth: (what `read` gave, item) -> 0..1.
        problem: (answers, choices) -> why they do not fit the metric, "" when they do.
        binary: scores are 0 or 1 only.
    """

    read: Callable[[str, Item], str]
    worth: Callable[[str, Item], float]
    problem: Callable[[Sequence[str], Sequence[str]], str]
    binary: bool = True


def default_metric(answers: Sequence[str], choices: Sequence[str]) -> str:
    """`choice` where there are choices, `vqa` where there are several answers, else `exact`."""
    if choices:
        return "choice"
    return "vqa" if len(answers) > 1 else "exact"


def prompt(item: Item, suffix: str = "") -> str:
    """What the model is asked; the suffix stands on a line of its own, except where options are listed."""
    if item.metric == "choice":
        options = [f"{LETTERS[place]}. {choice}" for place, choice in enumerate(item.choices)]
        return "\n".join([item.question, *options, INSTRUCTION])
    return f"{item.question}\n{suffix}" if suffix else item.question


def soft_accuracy(answer: str, answers: Sequence[str]) -> float:
    """The accuracy of the VQA challenge: every annotator in turn is left out, and the others are counted.

    Args:
        answer, answers: already normalised; at least one annotator.
    """
    same = sum(given == answer for given in answers)
    worths = [min(1.0, (same - (given == answer)) / 3) for given in answers]
    return sum(worths) / len(worths)


def yes_or_no(text: str) -> str:
    """MME: yes or no within the first four letters, else ""."""
    start = text.strip().lower()[:4]
    return next((word for word in ("yes", "no") if word in start), "")


def pope_word(text: str) -> str:
    """POPE: no when the first sentence holds the word no or not, otherwise yes, whatever it says."""
    words = text.partition(".")[0].replace(",", "").lower().split()
    return "no" if "no" in words or "not" in words else "yes"


def chosen_option(text: str, item: Item) -> str:
    """The option that an answer names: by its text, by a letter alone or before . : ), or as the only one within it."""
    options = {normalise.plain(choice): choice for choice in item.choices}
    answer = normalise.plain(text)
    if answer in options:
        return options[answer]
    letter = re.match(r"\s*(?:the\s+answer\s+is\s*:?\s*|answer\s*:\s*)?\(?([A-Za-z])(?:[.:)]|\s*$)", text, re.I)
    place = LETTERS.find(letter[1].upper()) if letter else -1
    if 0 <= place < len(item.choices):
        return item.choices[place]
    inside = [choice for plain, choice in options.items() if _as_words(plain) in _as_words(answer)]
    return inside[0] if len(inside) == 1 else ""


def _as_words(text: str) -> str:
    """Words between single spaces, and a space at both ends."""
    words = re.findall(r"\w+", text)
    return " " + " ".join(words) + " "


def _exact(read: str, item: Item) -> float:
    return float(read in {normalise.plain(answer) for answer in item.answers})


def _vqa(read: str, item: Item) -> float:
    return soft_accuracy(read, [normalise.vqa(answer) for answer in item.answers])


def _right_word(read: str, item: Item) -> float:
    return float(read == normalise.plain(item.answers[0]))


def _right_option(read: str, item: Item) -> float:
    return float(read in item.answers)


def _free(answers: Sequence[str], choices: Sequence[str]) -> str:
    return "" if answers else "there is no answer to compare with"


def _word(answers: Sequence[str], choices: Sequence[str]) -> str:
    fits = len(answers) == 1 and normalise.plain(answers[0]) in ("yes", "no")
    return "" if fits else "the answer must be yes or no"


def _options(answers: Sequence[str], choices: Sequence[str]) -> str:
    if not 2 <= len(choices) <= len(LETTERS):
        return f"from 2 to {len(LETTERS)} choices are needed, there are {len(choices)}"
    if len({normalise.plain(choice) for choice in choices}) < len(choices):
        return "two of the choices are equal"
    return "" if set(answers) <= set(choices) else f"the answer {answers[0]!r} is none of the choices"


METRICS: Final[dict[str, Metric]] = {
    "exact": Metric(lambda text, item: normalise.plain(text), _exact, _free),
    "vqa": Metric(lambda text, item: normalise.vqa(text), _vqa, _free, binary=False),
    "yes_no": Metric(lambda text, item: yes_or_no(text), _right_word, _word),
    "pope": Metric(lambda text, item: pope_word(text), _right_word, _word),
    "choice": Metric(chosen_option, _right_option, _options),
    "likelihood": Metric(lambda text, item: text, _right_option, _options),
}
