"""Tokenizer and prompt of a checkpoint -> tokenizer.json and the manifest's `prompt` and `tokens`."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from edgeprune.errors import CheckpointError
from edgeprune.export import byte_tokenizer
from edgeprune.export.checkpoint import Checkpoint

#: stands for the user's question while a chat template is taken apart
_QUESTION: Final = "Qx7QuestionSentinel7xQ"
_PROBES: Final = ("", "hello", "What is in the image?")


@dataclass(frozen=True)
class Tokens:
    """What the bundle needs to turn a question into ids.

    Attributes:
        tokenizer: transformers' fast tokenizer.
        json_text: tokenizer.json.
        segments: the manifest's prompt.segments.
        manifest: the manifest's `tokens`.
        notes: sentences about what was made up because the checkpoint lacks it.
    """

    tokenizer: Any
    json_text: str
    segments: list[dict[str, Any]]
    manifest: dict[str, Any]
    notes: tuple[str, ...]

    def prompt(self, question: str, images: int) -> str:
        """The whole prompt text, as the runtime assembles it."""
        return "".join(_assemble(self.segments, self.manifest["image_marker"], question, images))

    def ids(self, text: str) -> list[int]:
        """With what the tokenizer puts around a text."""
        return [*self.manifest["prefix"], *self.plain_ids(text), *self.manifest["suffix"]]

    def plain_ids(self, text: str) -> list[int]:
        """Of the text alone."""
        return list(self.tokenizer(text, add_special_tokens=False).input_ids)


def read_tokens(checkpoint: Checkpoint, template: tuple[str, str, str]) -> Tokens:
    """Tokenizer, prompt segments and special ids of a checkpoint.

    Args:
        template: the family's prompt, used where the checkpoint has no chat template.

    Raises:
        CheckpointError: the tokenizer is missing or of a kind the runtime cannot run; the message names the part.
    """
    notes: list[str] = []
    tokenizer = _load(checkpoint, notes)
    marker_id = int(checkpoint.model_config.image_token_index)
    added = tokenizer.added_tokens_decoder.get(marker_id)
    if added is None:
        raise CheckpointError(f"{checkpoint.id}: id {marker_id} (image_token_index) is no added token of the tokenizer")
    marker = added.content
    text = tokenizer.backend_tokenizer.to_str()
    require_supported(text)
    segments = _segments(tokenizer, _chat_template(checkpoint), marker)
    if segments is None:
        segments = _family_segments(template, marker)
        notes.append("the checkpoint has no usable chat template: the family's own prompt is used")
    prefix, suffix = _affixes(tokenizer, segments, marker)
    manifest = {
        "image_marker": marker,
        "image": marker_id,
        "eos": _eos(checkpoint, tokenizer),
        "prefix": prefix,
        "suffix": suffix,
        "stop": [],
    }
    return Tokens(tokenizer, text, segments, manifest, tuple(notes))


def _load(checkpoint: Checkpoint, notes: list[str]) -> Any:
    folder = checkpoint.tokenizer_folder
    if folder is None:
        notes.append("no tokenizer at hand: a byte-level one that covers the vocabulary was built")
        return _built(checkpoint)
    return load_tokenizer(folder)


def load_tokenizer(folder: Path) -> Any:
    """transformers' fast tokenizer of a checkpoint directory. CheckpointError: there is none."""
    from transformers import AutoTokenizer

    try:
        loaded = AutoTokenizer.from_pretrained(folder)
        loaded.backend_tokenizer.to_str()
    except Exception as error:  # transformers raises many kinds for missing or odd tokenizer files
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f"{folder} has no usable fast tokenizer (tokenizer.json): {reason}") from error
    return loaded


def _built(checkpoint: Checkpoint) -> Any:
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    text = checkpoint.model_config.text_config
    bos, eos = int(text.bos_token_id), int(text.eos_token_id)
    specials = {bos: "<s>", eos: "</s>", int(checkpoint.model_config.image_token_index): "<image>"}
    core = byte_tokenizer.build(text.vocab_size, specials)
    core.post_processor = TemplateProcessing(single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", bos)])
    return PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<s>", eos_token="</s>")


def require_supported(text: str) -> None:
    """CheckpointError that names what of a tokenizer.json the runtime cannot do."""
    from edgeprune.tokenizer_parts import unsupported_parts

    parts = unsupported_parts(json.loads(text))
    if parts:
        raise CheckpointError(f"the tokenizer uses parts that the runtime does not have: {', '.join(parts)}")


def _chat_template(checkpoint: Checkpoint) -> str | None:
    """The processor's or the tokenizer's chat template."""
    if checkpoint.alias is not None:
        return checkpoint.alias.chat_template
    folder = checkpoint.require_folder()
    for name in ("chat_template.jinja", "chat_template.json", "processor_config.json", "tokenizer_config.json"):
        path = folder / name
        if path.is_file():
            text = path.read_text(encoding="utf-8")
            found = text if path.suffix == ".jinja" else json.loads(text).get("chat_template")
            if isinstance(found, str):
                return found
    return None


def _segments(tokenizer: Any, template: str | None, marker: str) -> list[dict[str, Any]] | None:
    """Prompt segments of a chat template, or None when it cannot be taken apart."""
    if template is None:
        return None
    for content in (_listed, _plain):
        texts = [_render(tokenizer, template, content(count, marker)) for count in (1, 2, 3)]
        segments = _take_apart(texts[0], texts[1], marker)
        if segments and all(
            "".join(_assemble(segments, marker, _QUESTION, count)) == text for count, text in enumerate(texts, 1)
        ):
            return segments
    return None


def _listed(images: int, marker: str) -> Any:
    return [*({"type": "image"} for _ in range(images)), {"type": "text", "text": _QUESTION}]


def _plain(images: int, marker: str) -> Any:
    return f"{marker}\n" * images + _QUESTION


def _render(tokenizer: Any, template: str, content: Any) -> str:
    """The prompt, or "" where the template does not take this form of content."""
    messages = [{"role": "user", "content": content}]
    try:
        return str(
            tokenizer.apply_chat_template(messages, chat_template=template, add_generation_prompt=True, tokenize=False)
        )
    except Exception:  # a template may fail in any way on a form of content it does not know
        return ""


def _take_apart(one: str, two: str, marker: str) -> list[dict[str, Any]] | None:
    """Segments from the rendering with one picture and the one with two."""
    if one.count(_QUESTION) != 1 or one.count(marker) != 1 or two.count(marker) != 2:
        return None
    lead, tail = one.split(marker)
    between = two.split(marker)[1]
    after = _common_prefix(between, tail.split(_QUESTION)[0])
    before = between[len(after) :]
    if not lead.endswith(before):
        return None
    middle, end = tail[len(after) :].split(_QUESTION)
    parts: list[dict[str, Any]] = [
        {"text": lead[: len(lead) - len(before)]},
        {"images": {"before": before, "after": after}},
        {"text": middle},
        {"question": True},
        {"text": end},
    ]
    return [part for part in parts if part != {"text": ""}]


def _common_prefix(left: str, right: str) -> str:
    count = 0
    while count < min(len(left), len(right)) and left[count] == right[count]:
        count += 1
    return left[:count]


def _family_segments(template: tuple[str, str, str], marker: str) -> list[dict[str, Any]]:
    start, image, end = template
    before, _, after = image.partition("<image>")
    return [{"text": start}, {"images": {"before": before, "after": after}}, {"question": True}, {"text": end}]


def _assemble(segments: list[dict[str, Any]], marker: str, question: str, images: int) -> list[str]:
    pieces = []
    for segment in segments:
        if "text" in segment:
            pieces.append(segment["text"])
        elif "images" in segment:
            pieces.append((segment["images"]["before"] + marker + segment["images"]["after"]) * images)
        else:
            pieces.append(question)
    return pieces


def _affixes(tokenizer: Any, segments: list[dict[str, Any]], marker: str) -> tuple[list[int], list[int]]:
    """Ids that the tokenizer itself puts around a prompt; no BOS where the prompt already begins with it."""
    prompt = "".join(_assemble(segments, marker, _PROBES[-1], 1))
    prefix, suffix = affixes(tokenizer, (*_PROBES, prompt))
    if tokenizer.bos_token and prompt.startswith(tokenizer.bos_token):
        prefix = [index for index in prefix if index != tokenizer.bos_token_id]
    return prefix, suffix


def affixes(tokenizer: Any, probes: Iterable[str]) -> tuple[list[int], list[int]]:
    """Ids that the tokenizer itself puts before and after every text; `probes` are tried.

    Raises:
        CheckpointError: it does more than that.
    """
    bare = tokenizer("x", add_special_tokens=False).input_ids
    full = tokenizer("x", add_special_tokens=True).input_ids
    start = next((i for i in range(len(full)) if full[i : i + len(bare)] == bare), None)
    if start is None:
        raise CheckpointError("the tokenizer changes a text beyond adding tokens around it, which is not served")
    prefix, suffix = full[:start], full[start + len(bare) :]
    for probe in probes:
        plain = tokenizer(probe, add_special_tokens=False).input_ids
        if tokenizer(probe, add_special_tokens=True).input_ids != [*prefix, *plain, *suffix]:
            raise CheckpointError(f"the tokenizer adds other tokens around {probe!r} than around other texts")
    return list(prefix), list(suffix)


def _eos(checkpoint: Checkpoint, tokenizer: Any) -> list[int]:
    """End ids: of the generation config, else of the decoder's config, else the tokenizer's."""
    for found in (
        checkpoint.generation.get("eos_token_id"),
        checkpoint.model_config.text_config.eos_token_id,
        tokenizer.eos_token_id,
    ):
        if found is not None:
            return sorted(found) if isinstance(found, list) else [int(found)]
    return []


def write_tokenizer(tokens: Tokens, folder: Path) -> None:
    folder.mkdir()
    (folder / "tokenizer.json").write_text(tokens.json_text, encoding="utf-8")
