"""Seeded texts that are hard on tokenizers."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

BLOCKS = [
    (0x20, 0x7E), (0xA0, 0xFF), (0x100, 0x24F), (0x250, 0x2FF), (0x370, 0x3FF), (0x400, 0x52F), (0x530, 0x58F),
    (0x590, 0x5FF), (0x600, 0x6FF), (0x900, 0x97F), (0x980, 0x9FF), (0xB80, 0xBFF), (0xE00, 0xE7F), (0xF00, 0xFFF),
    (0x10A0, 0x10FF), (0x1100, 0x11FF), (0x1200, 0x137F), (0x1780, 0x17FF), (0x1E00, 0x1EFF), (0x1F00, 0x1FFF),
    (0x2000, 0x206F), (0x2070, 0x209F), (0x20A0, 0x20CF), (0x2100, 0x214F), (0x2150, 0x218F), (0x2190, 0x21FF),
    (0x2200, 0x22FF), (0x2460, 0x24FF), (0x2500, 0x257F), (0x2600, 0x27BF), (0x2E80, 0x2FDF), (0x3000, 0x303F),
    (0x3040, 0x30FF), (0x3100, 0x312F), (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xA000, 0xA48F), (0xAC00, 0xD7A3),
    (0xE000, 0xF8FF), (0xF900, 0xFAFF), (0xFB00, 0xFDFF), (0xFE00, 0xFE6F), (0xFF00, 0xFFEF), (0xFFF0, 0xFFFF),
    (0x10000, 0x100FF), (0x10330, 0x1034F), (0x12000, 0x123FF), (0x1D100, 0x1D1FF), (0x1D400, 0x1D7FF),
    (0x1F100, 0x1F1FF), (0x1F300, 0x1F64F), (0x1F680, 0x1F6FF), (0x1F900, 0x1FAFF), (0x20000, 0x2A6DF),
    (0x2F800, 0x2FA1F), (0xE0000, 0xE007F), (0xE0100, 0xE01EF), (0xF0000, 0xF00FF), (0x10FF00, 0x10FFFF),
]  # fmt: skip
SAMPLE = """
the quick brown fox what is in this image How many red circles are left of the blue square Hello world naïve café
Straße Ελλάδα Привет мир שלום العربية नमस्ते สวัสดี 你好 世界 こんにちは カタカナ 한국어 ქართული አማርኛ
I'm you're we've they'll he'd it's DON'T 'S 'LL 'ſ ’s user assistant def return self import C++ x_1
"""
WORDS = SAMPLE.split()
SPACES = [
    " ",
    "  ",
    "   ",
    "\t",
    "\n",
    "\r\n",
    "\n\n",
    " \n",
    "\n ",
    "\u00a0",
    "\u2003",
    "\u3000",
    "\u2028",
    "\u0085",
    "\x0b",
]
DIGITS = "0123456789٣٤५६৭๓፫²³¹¼½Ⅷⅻ①⑳㉈十〇𝟘𝟿𐄇๕"
EMOJI = ["😀", "👍🏽", "👨‍👩‍👧‍👦", "🏳️‍🌈", "🇫🇷", "❤️", "1️⃣", "🧑🏿‍🚀", "☺", "🫠"]
ENDINGS = ["s", "t", "re", "ve", "m", "ll", "d", "S", "Ll", "RE", "x", "ſ", ""]
MARKS = ["\u0301", "\u0323", "\u0327", "\u20dd", "\u0345", "\u3099", "\u093c", "\ufe0f", "\u200d", "\u200c", "\u00ad"]
CONTROLS = [chr(c) for c in (*range(0x20), 0x7F, *range(0x80, 0xA0), 0xFEFF, 0xFFFD, 0x200B, 0x200E, 0x202E)]
SPECIAL_LIKE = [
    "<s>", "</s>", "<unk>", "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|im_start|", "|im_end|>", "< s>", "<s",
    "<|begin_of_text|>", "<|eot_id|>", "<think>", "</think>", "<tool_call>", "<|image_pad|>", "<repo_name>",
    "<empty_output>", "<image>", "[INST]", "<0x0A>", "<0xFF>", "▁", "▁▁", "Ġ", "Ċ", "<<s>>", "<s><s>",
]  # fmt: skip


def any_character(rng: random.Random) -> str:
    """One code point of a random block, or any code point but a surrogate."""
    if rng.random() < 0.1:
        point = rng.randrange(0x110000 - 0x800)
        return chr(point if point < 0xD800 else point + 0x800)
    first, last = rng.choice(BLOCKS)
    return chr(rng.randint(first, last))


def makers(specials: Sequence[str]) -> list[Callable[[random.Random], str]]:
    """Functions that make one short part of a text; `specials` are the added tokens of the tokenizer under test."""
    return [
        lambda rng: rng.choice(WORDS),
        lambda rng: " " + rng.choice(WORDS),
        lambda rng: rng.choice(SPACES) * rng.randint(1, 4),
        lambda rng: "".join(rng.choice(SPACES) for _ in range(rng.randint(1, 5))),
        lambda rng: "".join(rng.choice(DIGITS) for _ in range(rng.randint(1, 6))),
        lambda rng: str(rng.randrange(10**9)),
        lambda rng: rng.choice(EMOJI),
        lambda rng: any_character(rng) + "".join(rng.choice(MARKS) for _ in range(rng.randint(1, 3))),
        lambda rng: "".join(any_character(rng) for _ in range(rng.randint(1, 6))),
        lambda rng: any_character(rng) * rng.randint(2, 9),
        lambda rng: rng.choice(CONTROLS),
        lambda rng: rng.choice([*SPECIAL_LIKE, *specials]),
        lambda rng: (
            rng.choice("'’`´ʼ") + rng.choice(["s", "t", "re", "ve", "m", "ll", "d", "S", "Ll", "RE", "x", "ſ", ""])
        ),
        lambda rng: "".join(rng.choice("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~") for _ in range(rng.randint(1, 5))),
    ]


def long_makers(specials: Sequence[str]) -> dict[str, Callable[[random.Random], str]]:
    """Functions that make one part of a long text of a kind; the parts of "one character" are all the same."""
    once = makers(specials)
    return {
        "everything": lambda rng: rng.choice(once)(rng),
        "words": lambda rng: " " + rng.choice(WORDS),
        "no spaces": lambda rng: rng.choice(WORDS).lower(),
        "spaces": lambda rng: rng.choice(SPACES),
        "digits": lambda rng: rng.choice(DIGITS),
        "look-alikes": lambda rng: rng.choice([*SPECIAL_LIKE, *specials]),
        "any characters": any_character,
        "marks": lambda rng: rng.choice(MARKS),
        "emoji": lambda rng: rng.choice(EMOJI),
        "one character": lambda rng: "",
    }


def generate_long(count: int, size_bytes: int, seed: int, specials: Sequence[str] = ()) -> list[str]:
    """`count` texts of `size_bytes` bytes of UTF-8, or up to three less, every kind of long_makers in turn."""
    rng = random.Random(seed)
    kinds = list(long_makers(specials).items())
    texts = []
    for i in range(count):
        name, make = kinds[i % len(kinds)]
        if name == "one character":
            text = rng.choice(["a", " ", "\n", "é", "你", "😀", "\u0301", "7", "'", any_character(rng)]) * size_bytes
        else:
            parts, size = [], 0
            while size < size_bytes:
                parts.append(make(rng))
                size += len(parts[-1].encode())
            text = "".join(parts)
        texts.append(text.encode()[:size_bytes].decode("utf-8", errors="ignore"))
    return texts


def generate(count: int, seed: int, specials: Sequence[str] = ()) -> list[str]:
    """`count` different-looking texts: mostly short, one in a hundred of some thousand characters."""
    rng = random.Random(seed)
    make = makers(specials)
    texts = ["", " ", "  ", "a", "\n", "\x00"]
    while len(texts) < count:
        parts = rng.randint(300, 900) if rng.random() < 0.01 else rng.randint(1, 14)
        texts.append("".join(rng.choice(make)(rng) for _ in range(parts)))
    return texts[:count]
