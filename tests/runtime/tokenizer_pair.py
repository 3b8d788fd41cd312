"""One tokenizer.json read by the native tokenizer and by Hugging Face `tokenizers`, and the comparison of the two."""

from __future__ import annotations

import pathlib
import random
from collections.abc import Sequence

from tokenizers import Tokenizer

from tests.runtime.tokenizer_program import NativeTokenizer


class Pair:
    """One tokenizer.json, read by both sides."""

    def __init__(self, program: pathlib.Path, path: pathlib.Path) -> None:
        self.hf = Tokenizer.from_file(str(path))
        self.hf.no_truncation()
        self.native = NativeTokenizer(program, path)
        self.added = [token.content for token in self.hf.get_added_tokens_decoder().values()]

    def hf_encode(self, texts: Sequence[str]) -> list[list[int]]:
        return [encoding.ids for encoding in self.hf.encode_batch_fast(list(texts), add_special_tokens=False)]

    def random_ids(self, count: int, seed: int) -> list[list[int]]:
        """Lists of ids, some of them outside the vocabulary, with runs that split characters."""
        rng = random.Random(seed)
        size = self.hf.get_vocab_size()
        return [[rng.randrange(size + 3) for _ in range(rng.randint(0, 30))] for _ in range(count)]


def assert_same_ids(pair: Pair, texts: Sequence[str]) -> list[list[int]]:
    wanted = pair.hf_encode(texts)
    found = pair.native.encode([text.encode() for text in texts])
    wrong = [i for i in range(len(texts)) if wanted[i] != found[i]]
    assert not wrong, f"{len(wrong)} of {len(texts)} differ, e.g. {texts[wrong[0]]!r}: {found[wrong[0]]}"
    return found


def assert_same_text(pair: Pair, lists: Sequence[Sequence[int]]) -> None:
    """Decoding equals HF with and without special tokens, and streaming equals decoding."""
    everything, without_special, streamed = pair.native.decode(lists)
    for found, skip_special in ((everything, False), (without_special, True)):
        wanted = [text.encode() for text in pair.hf.decode_batch(list(lists), skip_special_tokens=skip_special)]
        wrong = [i for i in range(len(lists)) if wanted[i] != found[i]]
        assert not wrong, f"{len(wrong)} of {len(lists)} differ, e.g. {list(lists[wrong[0]])}: {found[wrong[0]]!r}"
    for pieces, whole in zip(streamed, without_special, strict=True):
        assert b"".join(pieces) == whole
        for piece in pieces:
            piece.decode("utf-8")
