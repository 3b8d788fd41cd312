"""Write runtime/src/unicode_lowercase.inc: what Hugging Face `tokenizers` takes for the lower case of a character.

Probed like the classes of make_unicode_classes.py, for the Rust standard library holds a Unicode version of its own.

    python tools/make_unicode_lowercase.py            # rewrites the file
    python tools/make_unicode_lowercase.py --check    # exit 1 when the file is out of date
"""

from __future__ import annotations

import sys
from pathlib import Path

import tokenizers
from generated_file import write_or_check
from tokenizers import normalizers

OUTPUT = Path(__file__).resolve().parent.parent / "runtime" / "src" / "unicode_lowercase.inc"
SURROGATES = range(0xD800, 0xE000)

#: first and last code point, distance of one to the next, what is added to each
Run = tuple[int, int, int, int]


def changed() -> dict[int, str]:
    """Code point -> its lower case, where that is another text."""
    lower = normalizers.Lowercase()
    made = {c: lower.normalize_str(chr(c)) for c in range(0x110000) if c not in SURROGATES}
    return {c: text for c, text in made.items() if text != chr(c)}


def runs_of(deltas: dict[int, int]) -> list[Run]:
    """Code point -> what is added to it, as runs of one step (1 or 2) and one sum."""
    runs: list[Run] = []
    for point, delta in deltas.items():
        if runs:
            first, last, step, same = runs[-1]
            gap = point - last
            if same == delta and (gap == step or (first == last and gap <= 2)):
                runs[-1] = (first, point, gap, delta)
                continue
        runs.append((point, point, 1, delta))
    return runs


def rows(items: list[str]) -> list[str]:
    """Items in lines of the width that clang-format allows."""
    lines, row = [], ""
    for item in items:
        if len(row) + len(item) > 112:
            lines.append("    " + row.rstrip())
            row = ""
        row += item + ", "
    return [*lines, "    " + row.rstrip()]


def render() -> str:
    """Text of the .inc file."""
    known = changed()
    single = {point: ord(text) - point for point, text in known.items() if len(text) == 1}
    several = [f"{{0x{p:X}, {{{', '.join(f'0x{ord(c):X}' for c in t)}}}}}" for p, t in known.items() if len(t) == 2]
    if len(single) + len(several) != len(known):
        raise SystemExit("a character becomes more than two: kLowerPairs has no room for it")
    return "\n".join(
        [
            f"// Made by tools/make_unicode_lowercase.py from Hugging Face tokenizers {tokenizers.__version__}; "
            "do not edit.",
            "// first and last code point, step, what is added.",
            "constexpr LowerRun kLowerRuns[] = {",
            *rows([f"{{0x{a:X}, 0x{b:X}, {step}, {delta}}}" for a, b, step, delta in runs_of(single)]),
            "};",
            "// Characters that become two.",
            "constexpr LowerPair kLowerPairs[] = {",
            *rows(several),
            "};",
            "",
        ]
    )


if __name__ == "__main__":
    sys.exit(write_or_check(OUTPUT, render, __doc__))
