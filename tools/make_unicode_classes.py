"""Write runtime/src/unicode_classes.inc: the character classes that Hugging Face `tokenizers` itself uses.

The classes are probed, not copied from a Unicode release, because `tokenizers` holds three Unicode versions at once
(Oniguruma for split patterns, the Rust standard library for Digits, the regex crate for added tokens) and the native
tokenizer must agree with each of them.

    python tools/make_unicode_classes.py            # rewrites the file
    python tools/make_unicode_classes.py --check    # exit 1 when the file is out of date
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

import tokenizers
from generated_file import write_or_check
from tokenizers import AddedToken, Regex, Tokenizer, models, pre_tokenizers

OUTPUT = Path(__file__).resolve().parent.parent / "runtime" / "src" / "unicode_classes.inc"
SURROGATES = range(0xD800, 0xE000)
CODE_POINTS = [c for c in range(0x110000) if c not in SURROGATES]
PROBE = "\ue000"  # private use: neither a word character nor white space, in any version

Ranges = list[tuple[int, int]]


def ranges_of(points: Iterable[int]) -> Ranges:
    """Sorted code points as closed ranges."""
    ranges: Ranges = []
    for point in points:
        if ranges and ranges[-1][1] == point - 1:
            ranges[-1] = (ranges[-1][0], point)
        else:
            ranges.append((point, point))
    return ranges


def split_class(pattern: str) -> Ranges:
    """Code points that a Split pre-tokenizer's pattern (Oniguruma) matches."""
    splitter = pre_tokenizers.Split(Regex(pattern), "removed", invert=True)
    text = "".join(map(chr, CODE_POINTS))
    points = [CODE_POINTS[i] for _, (begin, end) in splitter.pre_tokenize_str(text) for i in range(begin, end)]
    return ranges_of(points)


def digits_class() -> Ranges:
    """Code points that the Digits pre-tokenizer takes for digits (Rust's char::is_numeric)."""
    text = "".join("." + chr(c) for c in CODE_POINTS)
    pieces = pre_tokenizers.Digits(individual_digits=True).pre_tokenize_str(text)
    starts = {begin for _, (begin, end) in pieces if end - begin == 1}
    return ranges_of(c for i, c in enumerate(CODE_POINTS) if 2 * i + 1 in starts)


def added_token_starts(token: AddedToken, before: str, after: str) -> set[int]:
    """Starts of the matches of `token` in a text of (before, code point, PROBE, after) for every code point."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.add_tokens([token])
    text = "".join(before + chr(c) + PROBE + after for c in CODE_POINTS)
    return {begin for begin, _ in tokenizer.encode(text).offsets}


def word_class() -> Ranges:
    r"""Code points that count as part of a word beside a single_word added token (the regex crate's \w)."""
    starts = added_token_starts(AddedToken(PROBE, single_word=True, normalized=False), "", " ")
    return ranges_of(c for i, c in enumerate(CODE_POINTS) if 3 * i + 1 not in starts and chr(c) != PROBE)


def strip_class() -> Ranges:
    r"""Code points that an lstrip added token swallows (the regex crate's \s)."""
    starts = added_token_starts(AddedToken(PROBE, lstrip=True, normalized=False), ".", "")
    return ranges_of(c for i, c in enumerate(CODE_POINTS) if 3 * i + 1 in starts and chr(c) != PROBE)


CLASSES = {
    "kSplitLetter": ("Split patterns: \\p{L}", lambda: split_class(r"\p{L}+")),
    "kSplitNumber": ("Split patterns: \\p{N}", lambda: split_class(r"\p{N}+")),
    "kSplitSpace": ("Split patterns: \\s", lambda: split_class(r"\s+")),
    "kDigit": ("Digits pre-tokenizer", digits_class),
    "kWord": ("single_word added tokens", word_class),
    "kStrip": ("lstrip and rstrip added tokens", strip_class),
}


def render() -> str:
    """Text of the .inc file."""
    lines = [
        f"// Made by tools/make_unicode_classes.py from Hugging Face tokenizers {tokenizers.__version__}; do not edit."
    ]
    for name, (use, probe) in CLASSES.items():
        ranges = probe()
        lines += [f"// {use}.", f"constexpr CodePointRange {name}[] = {{"]
        row = ""
        for begin, end in ranges:
            item = f"{{0x{begin:X}, 0x{end:X}}}, "
            if len(row) + len(item) > 112:
                lines.append("    " + row.rstrip())
                row = ""
            row += item
        lines += ["    " + row.rstrip(), "};"]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(write_or_check(OUTPUT, render, __doc__))
