"""What the native tokenizer knows: every other part of a tokenizer.json is named here, before a bundle is written.

The rules are those of runtime/src/tokenizer_load.cpp and tokenizer_sections.cpp, which refuse the same names when a
bundle is opened: change both together.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

Json = dict[str, Any]

_TOP_LEVEL = frozenset(
    (
        *("version", "truncation", "padding", "added_tokens"),
        *("normalizer", "pre_tokenizer", "post_processor", "decoder", "model"),
    )
)
_ADDED_TOKEN = frozenset(("id", "content", "special", "normalized", "lstrip", "rstrip", "single_word"))
_BPE = frozenset(
    (
        *("vocab", "merges", "ignore_merges", "dropout", "unk_token", "fuse_unk", "byte_fallback"),
        *("continuing_subword_prefix", "end_of_word_suffix"),
    )
)
_BYTE_LEVEL = frozenset(("add_prefix_space", "trim_offsets", "use_regex"))
_METASPACE = frozenset(("replacement", "prepend_scheme", "split", "add_prefix_space", "str_rep"))
_REPLACE = frozenset(("pattern", "content"))
_NORMALIZERS = {
    "Prepend": frozenset(("prepend",)),
    "Replace": _REPLACE,
    "NFC": frozenset[str](),
    "Lowercase": frozenset[str](),
}
_PRE_TOKENIZERS = {
    "ByteLevel": _BYTE_LEVEL,
    "Digits": frozenset(("individual_digits",)),
    "Metaspace": _METASPACE,
    "Split": frozenset(("pattern", "behavior", "invert")),
}
_DECODERS = {
    "ByteLevel": _BYTE_LEVEL,
    "Fuse": frozenset[str](),
    "Replace": _REPLACE,
    "ByteFallback": frozenset[str](),
    "Metaspace": _METASPACE,
    "Strip": frozenset(("content", "start", "stop")),
}

_LITERAL_BEHAVIORS = frozenset(("Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous"))

# The Split patterns of Llama-3 and of Qwen2, letter by letter; the runtime matches them by hand.
_CONTRACTIONS_AND_LETTERS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+"
_SYMBOLS_AND_SPACE = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
SPLIT_PATTERNS = frozenset(
    f"{_CONTRACTIONS_AND_LETTERS}|{number}|{_SYMBOLS_AND_SPACE}" for number in (r"\p{N}{1,3}", r"\p{N}")
)
# CLIP's, in its two spellings: white space is in no match, so these only cut, they do not isolate.
_CLIP = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
CLIP_PATTERNS = frozenset((_CLIP, rf"<\|startoftext\|>|<\|endoftext\|>|{_CLIP}"))


def unsupported_parts(tokenizer_json: Json) -> list[str]:
    """Names of the parts, options and patterns of a tokenizer.json that libedgeprune does not know; [] when it runs.

    Args:
        tokenizer_json: a parsed tokenizer.json of Hugging Face `tokenizers`.

    Returns:
        Names such as `normalizer.Lowercase` or `pre_tokenizer.Split with pattern "..."`, as they stand in the
        runtime's own error. Contradictions inside the file (ids that repeat, merges of unknown tokens) are not looked
        for: `tokenizers` itself refuses most of them.
    """
    return [*_top_level(tokenizer_json), *_sections(tokenizer_json), *_model(tokenizer_json), *_added(tokenizer_json)]


def _top_level(root: Json) -> Iterator[str]:
    yield from sorted(set(root) - _TOP_LEVEL)
    version = root.get("version")
    if version not in (None, "1.0"):
        yield f'version "{version}"'


def _sections(root: Json) -> Iterator[str]:
    for part in _flatten(root.get("normalizer"), "normalizers"):
        yield from _part(part, "normalizer", _NORMALIZERS)
    for position, part in enumerate(_flatten(root.get("pre_tokenizer"), "pretokenizers")):
        yield from _part(part, "pre_tokenizer", _PRE_TOKENIZERS)
        yield from _split(part)
        yield from _prepend_scheme(part, "pre_tokenizer", is_first=position == 0)
    yield from _decoder(list(_flatten(root.get("decoder"), "decoders")))


def _flatten(section: Json | None, list_key: str) -> Iterator[Json]:
    if section is None:
        return
    if section.get("type") != "Sequence":
        yield section
        return
    for part in section[list_key]:
        yield from _flatten(part, list_key)


def _part(part: Json, section: str, known: dict[str, frozenset[str]]) -> Iterator[str]:
    """What is wrong with a part that does not depend on its place: its type, its options, its literal pattern."""
    if "type" not in part:
        yield f"{section} without a type"
        return
    name = f"{section}.{part['type']}"
    if part["type"] not in known:
        yield name
        return
    yield from _unknown_options(name, part, known[part["type"]])
    if part["type"] == "Replace":
        kind, text = next(iter(part["pattern"].items()))
        if section == "normalizer" and (kind, text) == ("Regex", r"\s+"):
            return
        if kind != "String":
            yield f'{name} with pattern "{text}"'
        elif not text:
            yield f"{name} with an empty pattern"


def _unknown_options(name: str, part: Json, known: Iterable[str]) -> Iterator[str]:
    for option in sorted(set(part) - set(known) - {"type"}):
        yield f'{name} with option "{option}"'


def _split(part: Json) -> Iterator[str]:
    if part.get("type") != "Split":
        return
    name = "pre_tokenizer.Split"
    kind, text = next(iter(part["pattern"].items()))
    behavior = part["behavior"]
    if kind == "String":
        known = behavior in _LITERAL_BEHAVIORS
        if not text:
            yield f"{name} with an empty pattern"
    else:
        isolated = behavior == "Isolated" and text not in CLIP_PATTERNS
        known = isolated or (behavior == "Removed" and bool(part.get("invert")))
        if kind != "Regex" or text not in SPLIT_PATTERNS | CLIP_PATTERNS:
            yield f'{name} with pattern "{text}"'
    if not known:
        yield f'{name} with behavior "{behavior}"'


def _prepend_scheme(part: Json, section: str, is_first: bool) -> Iterator[str]:
    if part.get("type") != "Metaspace":
        return
    scheme = part.get("prepend_scheme") or "always"
    if scheme not in ("always", "never", "first"):
        yield f'{section}.Metaspace with prepend_scheme "{scheme}"'
    elif scheme == "first" and not is_first:
        yield f'{section}.Metaspace with prepend_scheme "first" after another pre_tokenizer'


def _decoder(parts: list[Json]) -> Iterator[str]:
    joined = False
    for part in parts:
        if joined and part.get("type") not in ("Fuse", "Strip"):
            yield f"decoder.{part.get('type')} after the tokens are joined"
            continue
        yield from _part(part, "decoder", _DECODERS)
        yield from _prepend_scheme(part, "decoder", is_first=True)
        joined = joined or part.get("type") in ("Fuse", "ByteLevel")


def _model(root: Json) -> Iterator[str]:
    model = root.get("model") or {}
    if "type" not in model:
        yield "model without a type"
        return
    if model["type"] != "BPE":
        yield f"model.{model['type']}"
        return
    yield from _unknown_options("model.BPE", model, _BPE)
    for option, neutral in (("dropout", 0), ("continuing_subword_prefix", "")):
        if model.get(option) not in (None, neutral):
            yield f"model.BPE with {option}"
    if model.get("end_of_word_suffix") and model.get("byte_fallback"):
        yield "model.BPE with end_of_word_suffix and byte_fallback"


def _added(root: Json) -> Iterator[str]:
    """Added tokens whose ids `tokenizers` would change on reading: it numbers them behind the vocabulary, in order."""
    vocabulary = (root.get("model") or {}).get("vocab")
    if not isinstance(vocabulary, dict):
        return
    next_id = len(vocabulary)
    seen: set[str] = set()
    for token in root.get("added_tokens") or []:
        yield from _unknown_options("added_tokens", token, _ADDED_TOKEN)
        content = token["content"]
        if not content or content in seen:
            yield f'added_tokens with the empty or repeated token "{content}"'
            continue
        seen.add(content)
        expected = vocabulary.get(content, next_id)
        next_id += content not in vocabulary
        if token["id"] != expected:
            yield f'added_tokens with the id {token["id"]} for "{content}", whose place gives {expected},'
