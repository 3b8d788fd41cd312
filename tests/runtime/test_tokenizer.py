"""The native tokenizer against Hugging Face `tokenizers`: same ids, same text, same refusals as the export's list."""

from __future__ import annotations

import json
import pathlib
import random
import subprocess
import sys
import unicodedata
from collections.abc import Callable

import pytest

from edgeprune.tokenizer_parts import unsupported_parts
from tests.runtime.tokenizer_pair import Pair, assert_same_ids, assert_same_text
from tests.runtime.tokenizer_program import NativeTokenizer, RefusedError
from tests.runtime.tokenizer_texts import generate
from tests.runtime.tokenizer_variants import (
    BYTE_LEVEL_VARIANTS,
    CLIP_START,
    CLIP_VARIANTS,
    FLAGGED_TEXTS,
    REFUSED,
    SENTENCEPIECE_VARIANTS,
    Change,
    Json,
    strips_the_end,
    trained_byte_level,
    trained_clip,
    trained_sentencepiece,
    varied,
)

REPO = pathlib.Path(__file__).resolve().parent.parent.parent
UNSUPPORTED, BUNDLE = 4, 3
VARIANT_TEXTS = 250


# ---- trained in the test: every option ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained() -> dict[str, Json]:
    return {"byte_level": trained_byte_level(), "sentencepiece": trained_sentencepiece(), "clip": trained_clip()}


@pytest.fixture
def write(tmp_path: pathlib.Path) -> Callable[[Json], pathlib.Path]:
    def write_json(parsed: Json) -> pathlib.Path:
        path = tmp_path / "tokenizer.json"
        path.write_text(json.dumps(parsed, ensure_ascii=False), encoding="utf-8")
        return path

    return write_json


Write = Callable[[Json], pathlib.Path]
Program = Callable[[str], pathlib.Path]
VARIANTS = [
    *(pytest.param("byte_level", change, id=f"byte-level, {name}") for name, change in BYTE_LEVEL_VARIANTS.items()),
    *(pytest.param("sentencepiece", change, id=f"sp, {name}") for name, change in SENTENCEPIECE_VARIANTS.items()),
    *(pytest.param("clip", change, id=f"clip, {name}") for name, change in CLIP_VARIANTS.items()),
]


@pytest.mark.parametrize(("base", "change"), VARIANTS)
def test_variant_equals_hf(
    trained: dict[str, Json], base: str, change: Change, write: Write, native_program: Program
) -> None:
    parsed = varied(trained[base], change)
    assert unsupported_parts(parsed) == []
    pair = Pair(native_program("tokenizer_cli"), write(parsed))
    texts = generate(VARIANT_TEXTS, seed=21, specials=[*pair.added, *FLAGGED_TEXTS])
    ids = assert_same_ids(pair, texts)
    lead = [pair.hf.token_to_id(letter) for letter in "abc" if strips_the_end(parsed)]
    assert_same_text(pair, [lead + some for some in ids + pair.random_ids(VARIANT_TEXTS, seed=22)])
    assert pair.native.vocab_size() == pair.hf.get_vocab_size()
    tokens = [*pair.added, "a", "▁the", "Ġthe", "no such token"]
    wanted = [pair.hf.token_to_id(token) for token in tokens]
    assert pair.native.token_to_id(tokens) == [-1 if index is None else index for index in wanted]


@pytest.mark.parametrize("name", ["as trained", "digit groups", "numbers in threes", "NFC", "flags", "clip"])
def test_every_code_point_is_classified_as_in_hf(
    trained: dict[str, Json], name: str, write: Write, native_program: Program
) -> None:
    """Where categories change, and every 16th, beside what looks at neighbours: letters, spaces, marks, tokens."""
    parsed = trained["clip"] if name == "clip" else varied(trained["byte_level"], BYTE_LEVEL_VARIANTS[name])
    pair = Pair(native_program("tokenizer_cli"), write(parsed))
    kinds = [unicodedata.category(chr(c)) for c in range(0x32000)]
    points = [c for c in range(1, len(kinds) - 1) if c % 16 == 0 or len(set(kinds[c - 1 : c + 2])) > 1]
    points = [c for c in points if not 0xD800 <= c < 0xE000]
    around = "{0}<lr>{0}the " if name == "flags" else "{0}\u0323\u0301" if name == "NFC" else "a{0}1 {0}{0}"
    size = 40 if name == "flags" else 400  # the search for white space before a token is quadratic in HF
    chunks = ["".join(around.format(chr(c)) for c in points[i : i + size]) for i in range(0, len(points), size)]
    assert_same_ids(pair, chunks)


@pytest.mark.parametrize("name", REFUSED)
def test_export_and_runtime_refuse_the_same_part(
    trained: dict[str, Json], name: str, write: Write, native_program: Program
) -> None:
    parsed = varied(trained["sentencepiece"], REFUSED[name])
    assert unsupported_parts(parsed) == [name]
    with pytest.raises(RefusedError) as refused:
        NativeTokenizer(native_program("tokenizer_cli"), write(parsed)).load()
    assert str(refused.value) == f"tokenizer part {name} is not supported by libedgeprune"
    assert refused.value.status == UNSUPPORTED


def test_contradicting_added_id_is_refused(trained: dict[str, Json], write: Write, native_program: Program) -> None:
    parsed = varied(trained["byte_level"], lambda json_: json_["added_tokens"][1].update(id=77))
    names = unsupported_parts(parsed)
    assert len(names) == 1
    with pytest.raises(RefusedError) as refused:
        NativeTokenizer(native_program("tokenizer_cli"), write(parsed)).load()
    assert names[0] in str(refused.value)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        '{"model": "\udcff"}',
        "[]",
        "{}",
        '{"model": {"type": "BPE", "vocab": {"a": -1}, "merges": []}}',
        '{"model": {"type": "BPE", "vocab": {"a": 1, "b": 1}, "merges": []}}',
        '{"model": {"type": "BPE", "vocab": {"a": 4294967296}, "merges": []}}',
        '{"model": {"type": "BPE", "vocab": {"a": 0}, "merges": ["a b"]}}',
        '{"model": {"type": "BPE", "vocab": {"a": 0}, "merges": ["a"]}}',
        '{"model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}, "added_tokens": [{"id": 1}]}',
        '{"model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}, "added_tokens": [{"id": 1.8e20}]}',
        '{"model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}, "decoder": 3}',
        pytest.param('{"version": ' + "[" * 65 + "]" * 65 + "}", id="66 levels"),
    ],
)
def test_malformed_files_are_errors(text: str, tmp_path: pathlib.Path, native_program: Program) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_bytes(text.encode("utf-8", errors="surrogateescape"))
    with pytest.raises(RefusedError) as refused:
        NativeTokenizer(native_program("tokenizer_cli"), path).load()
    assert refused.value.status == BUNDLE
    assert "\n" not in str(refused.value)


def test_every_upper_case_letter_becomes_the_lower_case_of_hf(
    trained: dict[str, Json], write: Write, native_program: Program
) -> None:
    """All code points that have a lower case, a letter beside each: no rule looks at neighbours."""
    pair = Pair(native_program("tokenizer_cli"), write(varied(trained["clip"], CLIP_VARIANTS["lower case only"])))
    letters = [chr(c) for c in range(0x110000) if not 0xD800 <= c < 0xE000 and chr(c) != chr(c).lower()]
    assert len(letters) > 1300
    assert_same_ids(
        pair, ["".join(f"a{letter} " for letter in letters[i : i + 50]) for i in range(0, len(letters), 50)]
    )


def test_transformers_own_clip_tokenizer_gives_the_same_ids(
    trained: dict[str, Json], write: Write, native_program: Program
) -> None:
    """CLIPTokenizer on 4000 texts, between the two tokens that it puts around each."""
    from transformers import CLIPTokenizer

    model = trained["clip"]["model"]
    clip = CLIPTokenizer(vocab=model["vocab"], merges=[tuple(pair) for pair in model["merges"]])
    parsed = json.loads(clip.backend_tokenizer.to_str())
    assert unsupported_parts(parsed) == []
    native = NativeTokenizer(native_program("tokenizer_cli"), write(parsed))
    texts = ["", " ", "What's the CAT's colour?  It'll be 12345", *generate(4000, seed=23, specials=[CLIP_START])]
    found = native.encode([text.encode() for text in texts])
    wanted = [clip(text).input_ids for text in texts]
    start, end = clip.bos_token_id, clip.eos_token_id
    wrong = [text for text, ids, full in zip(texts, found, wanted, strict=True) if [start, *ids, end] != full]
    assert not wrong, f"{len(wrong)} of {len(texts)} differ, e.g. {wrong[0]!r}"


# ---- plain spans and malformed text ------------------------------------------------------------------------------


def test_no_special_token_matches_in_plain_text(
    trained: dict[str, Json], write: Write, native_program: Program
) -> None:
    pair = Pair(native_program("tokenizer_cli"), write(trained["byte_level"]))
    special = pair.hf.token_to_id("</s>")
    text = "<s>a</s>b</s>"
    everywhere, middle, overlap, nothing = pair.native.encode(
        [text.encode()] * 4, [[(0, 13)], [(3, 9)], [(12, 13)], [(4, 4)]]
    )
    assert special not in everywhere
    assert pair.hf.decode(everywhere, skip_special_tokens=True) == text
    assert middle.count(special) == 1
    assert middle[-1] == special
    assert overlap.count(special) == 1
    assert nothing == pair.hf_encode([text])[0]


def test_a_plain_beginning_does_not_hide_the_template(
    trained: dict[str, Json], write: Write, native_program: Program
) -> None:
    """A longer token that would begin in the question gives way to the template's token behind it."""
    change = lambda parsed: parsed["added_tokens"].append(  # noqa: E731
        {**parsed["added_tokens"][0], "id": len(parsed["model"]["vocab"]), "content": "<<s>"}
    )
    pair = Pair(native_program("tokenizer_cli"), write(varied(trained["byte_level"], change)))
    (ids,) = pair.native.encode([b"a<<s>"], [[(0, 2)]])
    assert ids[-1] == pair.hf.token_to_id("<s>")


def test_plain_spans_reach_through_the_normalizer(
    trained: dict[str, Json], write: Write, native_program: Program
) -> None:
    change = SENTENCEPIECE_VARIANTS["normalized added tokens"]
    pair = Pair(native_program("tokenizer_cli"), write(varied(trained["sentencepiece"], change)))
    special = pair.hf.token_to_id("</t>")
    text = "x  ▁</t> ▁</t>".encode()
    middle = text.index(b"</t>") + 2
    whole, first_plain = pair.native.encode([text] * 2, [[], [(middle, middle + 1)]])
    assert whole == pair.hf_encode([text.decode()])[0]
    assert whole.count(special) == 2
    assert first_plain.count(special) == 1


def test_plain_text_without_look_alikes_changes_nothing(
    trained: dict[str, Json], write: Write, native_program: Program
) -> None:
    """Stripping of white space beside a template's token reaches into the question, as in HF."""
    pair = Pair(native_program("tokenizer_cli"), write(varied(trained["byte_level"], BYTE_LEVEL_VARIANTS["flags"])))
    text = "<r>\twhat is it \n<l>"
    assert pair.native.encode([text.encode()], [[(3, 16)]]) == pair.hf_encode([text])


def test_malformed_utf8_counts_as_python_replaces_it(
    trained: dict[str, Json], write: Write, native_program: Program
) -> None:
    pair = Pair(native_program("tokenizer_cli"), write(trained["byte_level"]))
    rng = random.Random(3)
    texts = [b"\xff", b"a\xc3", b"\xe2\x82", b"\xf0\x9f\x98", b"\xed\xa0\x80", b"\xc0\xaf", b"\xf4\x90\x80\x80"]
    texts += [bytes(rng.choice([rng.randrange(256), *b"a<s>\xe2\x82\xac"]) for _ in range(40)) for _ in range(500)]
    assert pair.native.encode(texts) == pair.hf_encode([text.decode("utf-8", errors="replace") for text in texts])


@pytest.mark.slow
@pytest.mark.parametrize(
    "tool", ["make_unicode_classes.py", "make_unicode_lowercase.py", "make_unicode_normalization.py"]
)
def test_generated_tables_are_up_to_date(tool: str) -> None:
    subprocess.run([sys.executable, str(REPO / "tools" / tool), "--check"], check=True)
