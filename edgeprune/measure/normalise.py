"""How answers are made comparable: plain normalisation for exact match, and the rule of the VQA challenge.

`plain`: Unicode NFKC, case folded, runs of white space become one space, punctuation at both ends goes. Articles and
number words stay.

`vqa` follows the evaluation script of the VQA challenge (GT-Vision-Lab/VQA): line breaks and tabs become spaces;
punctuation marks vanish where one stands next to a space or the text holds a comma between digits, and become spaces
elsewhere; full stops vanish unless a digit follows; lower case; number words to ten become digits; articles go; known
contractions get their apostrophe back. Unlike the script, which leaves the annotators' answers as they are when all
agree, both sides are always normalised.
"""

from __future__ import annotations

import re
import string
import unicodedata
from typing import Final

_SPACE: Final = re.compile(r"\s+")
_PERIOD: Final = re.compile(r"\.(?!\d)")
_COMMA_IN_NUMBER: Final = re.compile(r"\d,\d")
_MARKS: Final = ';/[]"{}()=+\\_-><@`,?!'
_ARTICLES: Final = frozenset({"a", "an", "the"})
_NUMBERS: Final = {
    "none": "0", "zero": "0", "one": "1", "two": "2", "three": "3", "four": "4", "five": "5", "six": "6",
    "seven": "7", "eight": "8", "nine": "9", "ten": "10",
}  # fmt: skip
#: contractions the challenge knows without their apostrophe
_ONE_APOSTROPHE: Final = """
ain't aren't can't could've couldn't didn't doesn't don't hadn't hasn't haven't he'd he's how'd how'll how's isn't it'd
it'll ma'am mightn't might've mustn't must've needn't not've o'clock oughtn't shan't should've shouldn't somebody'll
somebody's someone'd someone'll someone's something'd something'll that's there'd there're there's they'd they'll
they're they've 'twas wasn't we've weren't what'll what're what's what've when's where'd where's where've who'd who'll
who's who've why'll why're why's won't would've wouldn't y'all you'd you'll you're you've
"""
#: those with several, known with one of them missing
_MORE_APOSTROPHES: Final = """
couldn't've hadn't've he'd've it'd've mightn't've she'd've shouldn't've somebody'd've someone'd've something'd've
there'd've they'd've we'd've who'd've wouldn't've y'all'll y'all'd've you'd've 'ow's'at
"""


def _table() -> dict[str, str]:
    """Spelling without an apostrophe -> with it, as far as the challenge maps it."""
    found = {word.replace("'", ""): word for word in _ONE_APOSTROPHE.split()}
    for word in _MORE_APOSTROPHES.split():
        for place, letter in enumerate(word):
            if letter == "'":
                found[word[:place] + word[place + 1 :]] = word
    return found | {"somebody'd": "somebodyd"}


_CONTRACTIONS: Final = _table()


def plain(text: str) -> str:
    """See the module's text."""
    folded = _SPACE.sub(" ", unicodedata.normalize("NFKC", text).casefold())
    return folded.strip(string.punctuation + " ")


def vqa(text: str) -> str:
    """See the module's text."""
    given = text.replace("\n", " ").replace("\t", " ").strip()
    cleaned = given
    in_number = _COMMA_IN_NUMBER.search(given) is not None
    for mark in _MARKS:
        at_space = f"{mark} " in given or f" {mark}" in given
        cleaned = cleaned.replace(mark, "" if at_space or in_number else " ")
    words = [_NUMBERS.get(word, word) for word in _PERIOD.sub("", cleaned).lower().split()]
    return " ".join(_CONTRACTIONS.get(word, word) for word in words if word not in _ARTICLES)
