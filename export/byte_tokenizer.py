"""A small byte-level BPE tokenizer, for models that come without one (random weights).

It encodes any text and has a decodable token for every id of the vocabulary, so that random ids stay printable.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import product
from typing import Any, Final

#: merges in order; each makes one token of two that exist. "Ġ" is the byte-level spelling of a space.
_MERGES: Final = (
    "t h|Ġ th|Ġth e|i n|Ġ a|Ġ i|r e|o n|e r|a n|Ġi s|Ġ in|i s|Ġa n|an d|Ġ and|o r|e n|a t|e s|Ġ o|Ġo f|i t|a r|"
    "Ġ w|h a|Ġw ha|Ġwha t|o u|o w|in g|Ġ s|Ġ c|Ġ p|Ġ m|c t|l e|a l|i c|g e|i ma|m a|U S|US E|USE R|A S"
)


def build(size: int, specials: Mapping[int, str]) -> Any:
    """A `tokenizers.Tokenizer` with ids 0 .. size-1 and the special tokens at the ids given.

    Raises:
        ValueError: the vocabulary has no room for the 256 bytes, or a special id lies outside it.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    if size < 256 + len(specials) or max(specials, default=0) >= size:
        raise ValueError(f"a vocabulary of {size} cannot hold 256 bytes and the special ids {sorted(specials)}")
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = list(_merges(alphabet, size - 256 - len(specials)))
    words = _words(alphabet, merges)
    vocabulary = {specials[index] if index in specials else next(words): index for index in range(size)}
    made = Tokenizer(models.BPE(vocabulary, merges))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens([specials[index] for index in sorted(specials)])
    return made


def _merges(alphabet: list[str], room: int) -> Iterator[tuple[str, str]]:
    """At most `room` merges whose parts exist."""
    known = set(alphabet)
    for pair in _MERGES.split("|"):
        left, right = pair.split(" ")
        if left in known and right in known and left + right not in known and room > 0:
            known.add(left + right)
            room -= 1
            yield left, right


def _words(alphabet: list[str], merges: list[tuple[str, str]]) -> Iterator[str]:
    """Bytes, merged words, then byte runs that decode but are never encoded."""
    made = [*alphabet, *(left + right for left, right in merges)]
    yield from made
    seen = set(made)
    for length in (2, 3):
        for letters in product(alphabet, repeat=length):
            word = "".join(letters)
            if word not in seen:
                yield word
