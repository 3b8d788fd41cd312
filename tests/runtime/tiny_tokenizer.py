"""The tokenizer of the hand-made bundle: one token per byte, and four that are no bytes."""

from __future__ import annotations

import json

IMAGE, BOS, EOS, END = 256, 257, 258, 259


def byte_alphabet() -> list[str]:
    """The printable character that byte-level BPE uses for each byte."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = iter(range(256, 512))
    return [chr(byte) if byte in plain else chr(next(others)) for byte in range(256)]


def tokenizer_json() -> str:
    """One token per byte, no merges: a character of several bytes always comes in several tokens."""
    added = [
        {"id": i, "content": text, "special": True, "single_word": False, "lstrip": False, "rstrip": False,
         "normalized": False}
        for i, text in ((IMAGE, "<image>"), (BOS, "<s>"), (EOS, "</s>"), (END, "<end>"))
    ]  # fmt: skip
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    return json.dumps({
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": added, "normalizer": None,
        "pre_tokenizer": byte_level, "post_processor": None, "decoder": byte_level,
        "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
                  "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
                  "vocab": {text: i for i, text in enumerate(byte_alphabet())}, "merges": []},
    })  # fmt: skip
