"""Arguments of Python as arguments of C, checked where C could not see the difference."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from edgeprune.errors import UserError
from edgeprune.keep import AutoKeep, parse_auto
from edgeprune.runtime import _abi
from edgeprune.runtime.answers import initialised

_MOST_INT32 = 2**31 - 1
_MOST_INT64 = 2**63 - 1
_MOST_UINT64 = 2**64 - 1


def utf8(text: str, name: str) -> bytes:
    """UserError: a zero character, at which C would end the text, or half of a surrogate pair."""
    if "\0" in text:
        raise UserError(f"{name} must not contain a zero character.")
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise UserError(f"{name} is not valid Unicode: {error.reason} at position {error.start}.") from error


def path_bytes(path: str | os.PathLike[str]) -> bytes:
    """UserError: a zero character."""
    encoded = os.fsencode(path)
    if b"\0" in encoded:
        raise UserError("a path must not contain a zero character.")
    return encoded


#: a keep ratio, an automatic keep or its text, or None for the bundle's default
Keep: TypeAlias = "float | str | AutoKeep | None"


def keep_fields(keep: Keep) -> dict[str, float]:
    """The fields of ep_image_options that say how many tokens are kept."""
    if isinstance(keep, str):
        keep = parse_auto(keep)
    if isinstance(keep, AutoKeep):
        return {"auto_mass": keep.mass, "auto_min": keep.min or 0.0, "auto_max": keep.max or 0.0}
    if keep is not None and not 0 < keep <= 1:
        raise UserError(f"keep is {keep}, but must be above 0 and at most 1.")
    return {"keep": 0.0 if keep is None else float(keep)}


@dataclass(frozen=True)
class Request:
    """A question; the fields are the arguments of `Session.generate`."""

    question: str
    images: Sequence[int] | None = None
    max_new_tokens: int | None = None
    stop: Sequence[str] = ()
    ignore_eos: bool = False
    allow_special: bool = False
    deadline_ms: float | None = None
    temperature: float = 0.0
    top_k: int | None = None
    top_p: float | None = None
    repetition_penalty: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        utf8(self.question, "the question")
        if self.max_new_tokens is not None and not 1 <= self.max_new_tokens <= _MOST_INT32:
            raise UserError(f"max_new_tokens is {self.max_new_tokens}, but must be at least 1.")
        if self.deadline_ms is not None and not self.deadline_ms > 0:
            raise UserError(f"deadline_ms is {self.deadline_ms}, but must be above 0.")
        if isinstance(self.stop, str) or not all(self.stop):
            raise UserError("stop must be a list of strings, none of them empty.")
        self._check_decoding()

    def _check_decoding(self) -> None:
        # In C a 0 asks for the default, and an integer out of range would wrap; the library checks all the rest.
        if self.top_k is not None and not 1 <= self.top_k <= _MOST_INT64:
            raise UserError(f"top_k is {self.top_k}, but must be at least 1.")
        for name in ("top_p", "repetition_penalty"):
            if getattr(self, name) == 0:
                raise UserError(f"{name} is 0, but must be above 0.")
        if not 0 <= self.seed <= _MOST_UINT64:
            raise UserError(f"seed is {self.seed}, but must be a whole number from 0 to 2^64 - 1.")

    def prompt_fields(self) -> dict[str, Any]:
        """The fields that every struct with a prompt has."""
        images = None if self.images is None else (ctypes.c_int32 * len(self.images))(*self.images)
        return {
            "prompt": utf8(self.question, "the question"),
            "images": images,
            "image_count": 0 if images is None else len(images),
            "allow_special": self.allow_special,
            "deadline_ms": self.deadline_ms or 0.0,
        }

    def options(self, on_text: Any) -> _abi.GenerateOptions:
        """The C struct; ctypes keeps alive what its pointers point to."""
        stops = [utf8(text, "a stop string") for text in self.stop]
        options: _abi.GenerateOptions = initialised(
            _abi.GenerateOptions,
            **self.prompt_fields(),
            max_new_tokens=self.max_new_tokens or 0,
            ignore_eos=self.ignore_eos,
            stop=(ctypes.c_char_p * len(stops))(*stops),
            stop_count=len(stops),
            on_text=on_text,
            temperature=self.temperature,
            top_k=self.top_k or 0,
            top_p=self.top_p or 0.0,
            repetition_penalty=self.repetition_penalty or 0.0,
            seed=self.seed,
        )
        return options
