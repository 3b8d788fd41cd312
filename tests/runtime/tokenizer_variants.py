"""Small trained tokenizers and what tokenizer.json allows to vary in them."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from edgeprune.tokenizer_parts import CLIP_PATTERNS, SPLIT_PATTERNS
from tests.runtime.tokenizer_texts import generate

Json = dict[str, Any]
Change = Callable[[Json], None]
SPECIALS = ["<unk>", "<s>", "</s>"]
CLIP_START, CLIP_END = "<|startoftext|>", "<|endoftext|>"
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]


def trained_byte_level() -> Json:
    """GPT-2 style: every byte is in the alphabet."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=900, special_tokens=SPECIALS, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(generate(3000, seed=11), trainer)
    return _parsed(tokenizer)


def trained_sentencepiece() -> Json:
    """Llama-2 style: bytes stand in for unknown characters."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=1200, special_tokens=[*SPECIALS, *BYTES], limit_alphabet=300, max_token_length=8, show_progress=False
    )
    tokenizer.train_from_iterator((text[:80] for text in generate(3000, seed=12)), trainer)
    parsed = _parsed(tokenizer)
    parsed["added_tokens"] = [token for token in parsed["added_tokens"] if token["content"] in SPECIALS]
    return parsed


def trained_clip() -> Json:
    """CLIP style: lower case, one kind of white space, no word across it, and the end of a word marked."""
    tokenizer = Tokenizer(models.BPE(unk_token=CLIP_END, end_of_word_suffix="</w>", continuing_subword_prefix=""))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(CLIP_SPLITS[0]), "removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    seeds = dict.fromkeys([*letters, *(letter + "</w>" for letter in letters)])
    trainer = trainers.BpeTrainer(
        vocab_size=700, initial_alphabet=letters, end_of_word_suffix="</w>", show_progress=False
    )
    tokenizer.train_from_iterator(generate(2000, seed=13), trainer)
    trained = _parsed(tokenizer)
    # as CLIP's own: all bytes, all bytes at the end of a word, merges in their order, special tokens last
    merges = trained["model"]["merges"]
    tokens = dict.fromkeys([*seeds, *("".join(pair) for pair in merges), CLIP_START, CLIP_END])
    trained["model"]["vocab"] = {token: index for index, token in enumerate(tokens)}
    adding({"content": CLIP_START, "special": True, "normalized": True}, {"content": CLIP_END, "special": True})(
        trained
    )
    return trained


def _parsed(tokenizer: Tokenizer) -> Json:
    parsed: Json = json.loads(tokenizer.to_str())
    return parsed


def setting(path: str, value: Any) -> Change:
    """Sets one value; `path` is dotted."""

    def change(parsed: Json) -> None:
        *parents, last = path.split(".")
        for key in parents:
            parsed = parsed[int(key)] if isinstance(parsed, list) else parsed[key]
        parsed[last] = copy.deepcopy(value)

    return change


def adding(*tokens: Json) -> Change:
    """Appends added tokens with the next ids."""

    def change(parsed: Json) -> None:
        vocab = parsed["model"]["vocab"]
        for token in tokens:
            known = [other for other in parsed["added_tokens"] if other["content"] not in vocab]
            flags = dict.fromkeys(("special", "normalized", "lstrip", "rstrip", "single_word"), False)
            parsed["added_tokens"].append(
                {"id": vocab.get(token["content"], len(vocab) + len(known)), **flags, **token}
            )

    return change


def both(*changes: Change) -> Change:
    """One change after the other."""

    def change(parsed: Json) -> None:
        for one in changes:
            one(parsed)

    return change


def without_tokens(*tokens: str) -> Change:
    """Removes tokens and the merges that need them."""

    def change(parsed: Json) -> None:
        model = parsed["model"]
        for token in tokens:
            model["vocab"].pop(token, None)
        model["vocab"] = {token: index for index, token in enumerate(model["vocab"])}
        vocab = model["vocab"]
        model["merges"] = [m for m in model["merges"] if m[0] in vocab and m[1] in vocab and "".join(m) in vocab]

    return change


def numbered_anew(parsed: Json) -> None:
    """Gives added tokens of the vocabulary their ids there."""
    for token in parsed["added_tokens"]:
        token["id"] = parsed["model"]["vocab"][token["content"]]


def legacy_merges(parsed: Json) -> None:
    """Merges as "a b", the way older files write them."""
    parsed["model"]["merges"] = ["#version: 0.2", *(" ".join(pair) for pair in parsed["model"]["merges"])]


def sequence(kind: str, *parts: Json) -> Json:
    """A Sequence of a section."""
    key = {"normalizer": "normalizers", "pre_tokenizer": "pretokenizers", "decoder": "decoders"}[kind]
    return {"type": "Sequence", key: list(parts)}


def byte_level(add_prefix_space: bool = False, use_regex: bool = True) -> Json:
    """A ByteLevel pre-tokenizer or decoder."""
    options = {"add_prefix_space": add_prefix_space, "trim_offsets": True, "use_regex": use_regex}
    return {"type": "ByteLevel", **options}


def metaspace(scheme: str, split: bool) -> Json:
    """A Metaspace pre-tokenizer or decoder."""
    return {"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": split}


def replace(pattern: str, content: str) -> Json:
    """A Replace normalizer or decoder."""
    return {"type": "Replace", "pattern": {"String": pattern}, "content": content}


def strip(start: int, stop: int, content: str = " ") -> Json:
    """A Strip decoder."""
    return {"type": "Strip", "content": content, "start": start, "stop": stop}


def literal_split(pattern: str, behavior: str, invert: bool = False) -> Json:
    """A Split pre-tokenizer with a String pattern."""
    return {"type": "Split", "pattern": {"String": pattern}, "behavior": behavior, "invert": invert}


def split(pattern: str, behavior: str = "Isolated", invert: bool = False) -> Json:
    """A Split pre-tokenizer."""
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": behavior, "invert": invert}


FLAGGED = adding(
    {"content": "<l>", "lstrip": True, "special": True},
    {"content": "<r>", "rstrip": True, "special": True},
    {"content": "<lr>", "lstrip": True, "rstrip": True},
    {"content": "the", "single_word": True},
    {"content": "image", "single_word": True, "normalized": True},
    {"content": "red circles", "normalized": True},
    {"content": "red"},
    {"content": "re"},
    {"content": "<l><r>", "special": True},
    {"content": "日本", "normalized": True, "rstrip": True},
    {"content": "  "},
)
FLAGGED_TEXTS = [
    "e\u0301",
    "é",
    "\u1100\u1161",
    "가\u11a8",
    "<l>",
    " <l> ",
    "<r>\u3000 ",
    "\n<lr>\t",
    "the",
    "there",
    " the ",
    "image",
    "images",
    "red circles",
    "日本  ",
]

# Two patterns: numbers in threes, numbers one by one.
_PATTERNS = sorted(SPLIT_PATTERNS, key=len)
# CLIP's, without and with its special tokens.
CLIP_SPLITS = sorted(CLIP_PATTERNS, key=len)
LITERAL_SPLITS: dict[str, Json] = {
    f"{behavior} at {pattern!r}{', inverted' if invert else ''}": literal_split(pattern, behavior, invert)
    for behavior in ("Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous")
    for pattern, invert in ((" ", False), (" ", True), ("▁▁", False), (".", False))
}
BYTE_LEVEL_VARIANTS: dict[str, Change] = {
    "as trained": lambda parsed: None,
    "legacy merges": legacy_merges,
    "prefix space": setting("pre_tokenizer", byte_level(add_prefix_space=True)),
    "no regex": setting("pre_tokenizer", byte_level(use_regex=False)),
    "digits": setting(
        "pre_tokenizer", sequence("pre_tokenizer", {"type": "Digits", "individual_digits": True}, byte_level())
    ),
    "digit groups": setting(
        "pre_tokenizer", sequence("pre_tokenizer", {"type": "Digits", "individual_digits": False}, byte_level(True))
    ),
    "numbers one by one": setting(
        "pre_tokenizer", sequence("pre_tokenizer", split(_PATTERNS[0]), byte_level(use_regex=False))
    ),
    "numbers in threes": setting(
        "pre_tokenizer", sequence("pre_tokenizer", split(_PATTERNS[1]), byte_level(use_regex=False))
    ),
    "inverted removal": setting(
        "pre_tokenizer", sequence("pre_tokenizer", split(_PATTERNS[1], "Removed", True), byte_level(use_regex=False))
    ),
    "ignore merges": setting("model.ignore_merges", True),
    "flags": FLAGGED,
    "flags, digits": both(
        FLAGGED,
        setting(
            "pre_tokenizer", sequence("pre_tokenizer", {"type": "Digits", "individual_digits": False}, byte_level(True))
        ),
    ),
    "unknown letters": both(without_tokens("e", "Ġ", "Ã", "ð"), setting("model.unk_token", "<unk>")),
    "fused unknown letters": both(
        without_tokens("e", "Ġ", "Ã", "ð"), setting("model.unk_token", "<unk>"), setting("model.fuse_unk", True)
    ),
    "dropped letters": without_tokens("e", "Ġ", "Ã", "ð"),
    "no decoder": setting("decoder", None),
    "strip both ends": setting(
        "decoder", sequence("decoder", byte_level(), strip(2, 3), {"type": "Fuse"}, strip(0, 1))
    ),
    **{
        f"cut {name}": setting("pre_tokenizer", sequence("pre_tokenizer", cut, byte_level(use_regex=False)))
        for name, cut in LITERAL_SPLITS.items()
    },
    "no pre-tokenizer": setting("pre_tokenizer", None),
    "NFC": setting("normalizer", {"type": "NFC"}),
}

_NO_NORMALIZER = setting("normalizer", None)
_NORMALIZED = adding(
    {"content": "the", "normalized": True},
    {"content": "</t>", "normalized": True, "special": True},
    {"content": " circles", "normalized": True, "lstrip": True},
)
SENTENCEPIECE_VARIANTS: dict[str, Change] = {
    "as trained": lambda parsed: None,
    "no normalizer": _NO_NORMALIZER,
    "replace only": setting("normalizer", replace(" ", "▁")),
    "nested normalizers": setting(
        "normalizer",
        sequence("normalizer", sequence("normalizer", replace("  ", " _ ")), replace("e", ""), replace("_", "é")),
    ),
    "NFC, normalized added tokens": both(
        setting("normalizer", sequence("normalizer", {"type": "NFC"}, replace(" ", "▁"))),
        adding({"content": "e\u0301", "normalized": True}, {"content": "가", "normalized": True, "special": True}),
    ),
    **{
        f"metaspace {scheme} split {cut}": both(_NO_NORMALIZER, setting("pre_tokenizer", metaspace(scheme, cut)))
        for scheme in ("first", "always", "never")
        for cut in (True, False)
    },
    "cut at spaces after replacing them, as Gemma does": both(
        setting("normalizer", replace(" ", "▁")),
        setting("pre_tokenizer", literal_split(" ", "MergedWithPrevious")),
        setting("decoder", sequence("decoder", replace("▁", " "), {"type": "ByteFallback"}, {"type": "Fuse"})),
    ),
    **{f"cut {name}": both(_NO_NORMALIZER, setting("pre_tokenizer", cut)) for name, cut in LITERAL_SPLITS.items()},
    "metaspace after prepend": setting("pre_tokenizer", metaspace("first", True)),
    "metaspace, flags": both(_NO_NORMALIZER, setting("pre_tokenizer", metaspace("first", True)), FLAGGED),
    "flags": FLAGGED,
    "normalized added tokens": _NORMALIZED,
    "normalized added tokens, metaspace": both(
        setting("normalizer", replace("the", "x")), setting("pre_tokenizer", metaspace("first", False)), _NORMALIZED
    ),
    "no byte fallback": setting("model.byte_fallback", False),
    "unknown not fused": both(setting("model.byte_fallback", False), setting("model.fuse_unk", False)),
    "no unknown token": both(setting("model.byte_fallback", False), setting("model.unk_token", None)),
    "some bytes missing": without_tokens("<0xF0>", "<0xC3>", "<0x0A>", "<0xE4>"),
    "metaspace decoder": setting("decoder", metaspace("always", True)),
    "metaspace decoder, never": setting("decoder", metaspace("never", True)),
    "no fuse": setting("decoder", sequence("decoder", replace("▁", " "), {"type": "ByteFallback"}, strip(1, 0))),
    "strip both ends": setting(
        "decoder", sequence("decoder", {"type": "ByteFallback"}, replace("▁", " "), {"type": "Fuse"}, strip(3, 2))
    ),
    "no decoder": setting("decoder", None),
}

CLIP_VARIANTS: dict[str, Change] = {
    "as trained": lambda parsed: None,
    "special tokens in the pattern": setting("pre_tokenizer.pretokenizers.0.pattern", {"Regex": CLIP_SPLITS[1]}),
    "lower case only": setting("normalizer", {"type": "Lowercase"}),
    "white space only": setting("normalizer", {"type": "Replace", "pattern": {"Regex": "\\s+"}, "content": " _ "}),
    "no normalizer": setting("normalizer", None),
    "whole words first": setting("model.ignore_merges", True),
    "unknown letters": both(without_tokens("e</w>", "e", "Ã", "ð</w>"), numbered_anew),
    "flags": FLAGGED,
}

REFUSED: dict[str, Change] = {
    "model.WordPiece": setting("model.type", "WordPiece"),
    "model.Unigram": setting("model.type", "Unigram"),
    "model.BPE with dropout": setting("model.dropout", 0.1),
    "model.BPE with continuing_subword_prefix": setting("model.continuing_subword_prefix", "##"),
    "model.BPE with end_of_word_suffix and byte_fallback": setting("model.end_of_word_suffix", "</w>"),
    'model.BPE with option "cache"': setting("model.cache", 7),
    "model without a type": lambda parsed: parsed["model"].pop("type"),
    "extra": setting("extra", 1),
    'version "2.0"': setting("version", "2.0"),
    "normalizer.Strip": setting("normalizer", {"type": "Strip", "strip_left": True, "strip_right": True}),
    "normalizer.NFKC": setting("normalizer", sequence("normalizer", replace("a", "b"), {"type": "NFKC"})),
    'normalizer.Replace with pattern "\\s*"': setting(
        "normalizer", {"type": "Replace", "pattern": {"Regex": "\\s*"}, "content": " "}
    ),
    'decoder.Replace with pattern "\\s+"': setting(
        "decoder", {"type": "Replace", "pattern": {"Regex": "\\s+"}, "content": " "}
    ),
    "normalizer.Replace with an empty pattern": setting("normalizer", replace("", "b")),
    'normalizer.Prepend with option "append"': setting(
        "normalizer", {"type": "Prepend", "prepend": "▁", "append": "a"}
    ),
    "pre_tokenizer.Whitespace": setting("pre_tokenizer", {"type": "Whitespace"}),
    "pre_tokenizer.Punctuation": setting(
        "pre_tokenizer", sequence("pre_tokenizer", byte_level(), {"type": "Punctuation", "behavior": "Isolated"})
    ),
    'pre_tokenizer.Split with pattern "\\d"': setting("pre_tokenizer", split("\\d")),
    "pre_tokenizer.Split with an empty pattern": setting("pre_tokenizer", literal_split("", "Isolated")),
    'pre_tokenizer.Split with behavior "MergedWithBoth"': setting(
        "pre_tokenizer", literal_split(" ", "MergedWithBoth")
    ),
    'pre_tokenizer.Split with behavior "Removed"': setting("pre_tokenizer", split(_PATTERNS[0], "Removed")),
    'pre_tokenizer.Split with behavior "Isolated"': setting("pre_tokenizer", split(CLIP_SPLITS[0])),
    'pre_tokenizer.Metaspace with prepend_scheme "first" after another pre_tokenizer': setting(
        "pre_tokenizer", sequence("pre_tokenizer", {"type": "Digits"}, metaspace("first", True))
    ),
    'pre_tokenizer.Metaspace with prepend_scheme "last"': setting("pre_tokenizer", metaspace("last", True)),
    'pre_tokenizer.Digits with option "groups"': setting("pre_tokenizer", {"type": "Digits", "groups": 3}),
    "decoder.WordPiece": setting("decoder", {"type": "WordPiece", "prefix": "##", "cleanup": True}),
    "decoder.CTC": setting("decoder", sequence("decoder", {"type": "CTC"}, {"type": "Fuse"})),
    'decoder.Replace with pattern "▁+"': setting(
        "decoder", {"type": "Replace", "pattern": {"Regex": "▁+"}, "content": " "}
    ),
    "decoder.Replace after the tokens are joined": setting(
        "decoder", sequence("decoder", {"type": "Fuse"}, replace("▁", " "))
    ),
    'added_tokens with option "priority"': adding({"content": "<x>", "priority": 1}),
    'added_tokens with the empty or repeated token "<s>"': adding({"content": "<s>"}),
}


def strips_the_end(parsed: Json) -> bool:
    """Whether a Strip decoder cuts at the end: HF then panics on texts that are shorter than what it may cut."""
    steps = (parsed["decoder"] or {}).get("decoders", [])
    return any(step.get("stop") for step in steps)


def varied(base: Json, change: Change) -> Json:
    """A changed copy."""
    parsed = copy.deepcopy(base)
    change(parsed)
    return parsed
