"""Tokenizer and prompt: segments from chat templates, prefix and suffix, the built tokenizer, refused parts."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import pytest

from edgeprune.errors import CheckpointError
from edgeprune.export import byte_tokenizer
from edgeprune.export.checkpoint import resolve
from edgeprune.export.models.llava import Llava
from edgeprune.export.tokens import Tokens, read_tokens
from edgeprune.recipe import ExportRecipe
from edgeprune.tokenizer_parts import unsupported_parts
from tests.checkpoints import write_checkpoint

LISTED = (
    "{% for m in messages %}<|{{ m.role }}|>{% for c in m.content %}{% if c.type == 'image' %}[<image>]\n{% endif %}"
    "{% if c.type == 'text' %} Q: {{ c.text }}{% endif %}{% endfor %}{% endfor %}<|end|>"
)
PLAIN = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] + '<|im_end|>' }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    return write_checkpoint(tmp_path_factory.mktemp("tokens") / "checkpoint")


def tokens_of(model: str, **recipe: Any) -> Tokens:
    return read_tokens(resolve(ExportRecipe(model=model, **recipe), None), Llava.template)


def with_template(folder: pathlib.Path, template: str | None) -> Tokens:
    path = folder / "chat_template.jinja"
    path.unlink(missing_ok=True)
    config = json.loads((folder / "tokenizer_config.json").read_text())
    config.pop("chat_template", None)
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    if template is not None:
        path.write_text(template)
    return tokens_of(str(folder))


def test_template_with_content_lists(folder: pathlib.Path) -> None:
    tokens = with_template(folder, LISTED)
    assert tokens.segments == [
        {"text": "<|user|>"},
        {"images": {"before": "[", "after": "]\n"}},
        {"text": " Q: "},
        {"question": True},
        {"text": "<|end|>"},
    ]
    assert tokens.prompt("why?", 2) == "<|user|>[<image>]\n[<image>]\n Q: why?<|end|>"
    assert tokens.notes == ()


def test_template_with_plain_strings(folder: pathlib.Path) -> None:
    tokens = with_template(folder, PLAIN)
    assert tokens.prompt("why?", 1) == "<|im_start|>user\n<image>\nwhy?<|im_end|>\n<|im_start|>assistant\n"


@pytest.mark.parametrize("template", [None, "{{ raise_exception('no') }}", "fixed text"])
def test_without_a_usable_template_the_familys_own_is_used_and_said(folder: pathlib.Path, template: str | None) -> None:
    tokens = with_template(folder, template)
    assert tokens.prompt("why?", 1) == "USER: <image>\nwhy? ASSISTANT:"
    assert "chat template" in tokens.notes[0]


def test_ids_equal_transformers_own(folder: pathlib.Path) -> None:
    tokens = with_template(folder, PLAIN)
    text = tokens.prompt("How many objects are there?", 2)
    ids = tokens.ids(text)
    assert ids == tokens.tokenizer(text).input_ids
    assert ids.count(tokens.manifest["image"]) == 2
    assert (tokens.manifest["eos"], tokens.manifest["image_marker"]) == ([2], "<image>")


def test_built_tokenizer_puts_bos_in_front_and_says_so() -> None:
    tokens = tokens_of("tiny")
    assert (tokens.manifest["prefix"], tokens.manifest["suffix"]) == ([1], [])
    assert tokens.prompt("why?", 1) == "USER: <image>\nwhy? ASSISTANT:"
    assert "byte-level" in tokens.notes[0]
    assert unsupported_parts(json.loads(tokens.json_text)) == []


def test_tokenizer_of_another_directory(folder: pathlib.Path) -> None:
    tokens = tokens_of("tiny", overrides=(("tokenizer", str(folder)), ("text.vocab_size", "512")))
    assert tokens.notes == ()
    assert tokens.ids("cat") == tokens.tokenizer("cat").input_ids


def test_unknown_tokenizer_part_is_refused_by_name(folder: pathlib.Path, tmp_path: pathlib.Path) -> None:
    for file in folder.iterdir():
        if file.suffix != ".safetensors":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    content = json.loads((tmp_path / "tokenizer.json").read_text())
    content["normalizer"] = {"type": "NFKC"}
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match="NFKC"):
        tokens_of(str(tmp_path))


def test_marker_that_is_no_added_token_is_refused(folder: pathlib.Path) -> None:
    with pytest.raises(CheckpointError, match="id 70 "):
        tokens_of(str(folder), overrides=(("image_token_index", "70"),))


def test_byte_tokenizer_covers_its_vocabulary() -> None:
    tok = byte_tokenizer.build(2000, {1: "<s>", 2: "</s>", 1500: "<image>"})
    assert tok.get_vocab_size() == 2000
    assert sorted(tok.get_vocab().values()) == list(range(2000))
    for text in ("What is in the image?", "  äß 漢字 🙂\n\t", "<image>", ""):
        assert tok.decode(tok.encode(text).ids, skip_special_tokens=False) == text
    assert tok.encode("a<image>b").ids.count(1500) == 1
    assert tok.to_str() == byte_tokenizer.build(2000, {1: "<s>", 2: "</s>", 1500: "<image>"}).to_str()
    with pytest.raises(ValueError, match="256 bytes"):
        byte_tokenizer.build(200, {})
