"""Write runtime/src/unicode_normalization.inc: what NFC needs, in the Unicode version of Hugging Face `tokenizers`.

The tables are probed through `tokenizers` itself: its Unicode version is older than Python's, and the native tokenizer
must agree with it. Hangul syllables are left out: they follow from arithmetic (Unicode, section 3.12).

    python tools/make_unicode_normalization.py            # rewrites the file
    python tools/make_unicode_normalization.py --check    # exit 1 when the file is out of date
"""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Callable, Iterable
from pathlib import Path

import tokenizers
from generated_file import write_or_check
from tokenizers import normalizers

OUTPUT = Path(__file__).resolve().parent.parent / "runtime" / "src" / "unicode_normalization.inc"
HANGUL = range(0xAC00, 0xAC00 + 11172)
CODE_POINTS = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000 and c not in HANGUL]
NFD: Callable[[str], str] = normalizers.NFD().normalize_str
NFC: Callable[[str], str] = normalizers.NFC().normalize_str
LOWEST_MARK = "\u0334"  # combining class 1
HIGHEST_MARK = "\u0345"  # combining class 240


def decompositions() -> dict[int, str]:
    """Full canonical decomposition of every code point that has one."""
    found = {}
    for point in CODE_POINTS:
        decomposed = NFD(chr(point))
        if decomposed != chr(point):
            found[point] = decomposed
    return found


def compositions(decomposed: dict[int, str]) -> dict[tuple[int, int], int]:
    """(first, second) -> composite, for the composites that NFC makes."""
    pairs = {}
    for point, parts in decomposed.items():
        first, second = NFC(parts[:-1]), parts[-1]
        if len(first) == 1 and NFC(first + second) == chr(point):
            pairs[ord(first), ord(second)] = point
    return pairs


def combining_classes(decomposed: dict[int, str]) -> dict[int, int]:
    """Canonical combining class of every mark, from the order into which NFD brings it beside known marks."""
    # A mark younger than the tables sorts nowhere: it counts as no mark, as it does there.
    marks = [c for c in CODE_POINTS if c not in decomposed and is_mark(chr(c))]
    references: dict[int, str] = {}
    for point in marks:
        references.setdefault(unicodedata.combining(chr(point)), chr(point))
    classes = {}
    for point in marks:
        mark = chr(point)
        lower = [value for value, other in references.items() if moves(mark, other)]
        higher = [value for value, other in references.items() if moves(other, mark)]
        (classes[point],) = set(references) - set(lower) - set(higher)
    return classes


def moves(first: str, second: str) -> bool:
    """Whether NFD brings `second` before `first`."""
    return first != second and NFD("a" + first + second) == "a" + second + first


def is_mark(character: str) -> bool:
    """Whether its combining class is not 0."""
    return moves(character, LOWEST_MARK) or moves(HIGHEST_MARK, character)


def rows(items: Iterable[str]) -> list[str]:
    """Items in lines of at most 116 columns."""
    lines = [""]
    for item in items:
        if len(lines[-1]) + len(item) > 112:
            lines.append("")
        lines[-1] += item + " "
    return ["    " + line.rstrip() for line in lines]


def render() -> str:
    """Text of the .inc file."""
    decomposed = decompositions()
    text = "".join(decomposed.values())
    starts = {}
    at = 0
    for point, parts in decomposed.items():
        starts[point] = at
        at += len(parts)
    pairs = sorted(compositions(decomposed).items())
    spans = [f"{{0x{point:X}, {starts[point]}, {len(parts)}}}," for point, parts in decomposed.items()]
    marks = [f"{{0x{point:X}, {value}}}," for point, value in combining_classes(decomposed).items()]
    tool = "tools/make_unicode_normalization.py"
    lines = [f"// Made by {tool} from Hugging Face tokenizers {tokenizers.__version__}; do not edit."]
    for head, body in (
        ("char32_t kDecomposedText[]", [f"0x{ord(c):X}," for c in text]),
        ("Decomposition kDecompositions[]", spans),
        ("Composition kCompositions[]", [f"{{0x{a:X}, 0x{b:X}, 0x{c:X}}}," for (a, b), c in pairs]),
        ("CombiningClass kCombiningClasses[]", marks),
    ):
        lines += [f"constexpr {head} = {{", *rows(body), "};"]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(write_or_check(OUTPUT, render, __doc__))
