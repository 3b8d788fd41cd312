"""Argument parsing that the verbs share: one-line errors, keep ratios, lists and key=value pairs."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

from edgeprune.errors import UserError
from edgeprune.keep import AutoKeep, parse_auto
from edgeprune.recipe import parse_ratio

_T = TypeVar("_T")
#: instead of a keep ratio: what `profile --save` stored
TUNED = "tuned"


class UsageError(UserError):
    """The command line itself is wrong; `program` is what to ask for help."""

    def __init__(self, message: str, program: str) -> None:
        super().__init__(message)
        self.program = program


class Parser(argparse.ArgumentParser):
    """An ArgumentParser that raises UsageError and takes no abbreviations."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**{"allow_abbrev": False, **settings})

    def error(self, message: str) -> NoReturn:
        raise UsageError(message, self.prog)


def value(read: Callable[[str], _T]) -> Callable[[str], _T]:
    """An argparse type from a function that raises UserError: its sentence becomes the message."""

    def convert(text: str) -> _T:
        try:
            return read(text)
        except UserError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return convert


def keep(text: str) -> float:
    """A keep ratio; the automatic form is refused by name."""
    if text.startswith("auto"):
        raise UserError("an automatic keep has no place here; give numbers above 0 and at most 1.")
    return parse_ratio(text)


def keep_or_auto(text: str) -> float | AutoKeep:
    """A keep ratio, or auto:mass=...,min=...,max=..."""
    return parse_auto(text) if text.startswith("auto") else parse_ratio(text)


def keep_auto_or_tuned(text: str) -> float | AutoKeep | str:
    """A keep ratio, the automatic form, or TUNED."""
    return TUNED if text == TUNED else keep_or_auto(text)


def keeps(text: str) -> list[float]:
    """R,R,...: keep ratios, none twice."""
    return list(dict.fromkeys(keep(part) for part in names(text)))


def keep_range(text: str) -> tuple[float, float]:
    """LOW:HIGH, both keep ratios."""
    low, colon, high = text.partition(":")
    if not colon:
        raise UserError(f"write a keep range as LOW:HIGH, for example 0.01:1.0, not {text!r}.")
    return parse_ratio(low, "keep range"), parse_ratio(high, "keep range")


def setting(text: str) -> tuple[str, str]:
    """KEY=VALUE."""
    key, equals, content = text.partition("=")
    if not equals or not key:
        raise UserError(f"write a setting as key=value, for example text.num_hidden_layers=2, not {text!r}.")
    return key, content


def positive(text: str) -> int:
    """A whole number of at least 1 that fits 32 bits."""
    number = int(text) if text.isascii() and text.isdigit() and len(text) < 12 else math.nan
    if not 1 <= number < 2**31:
        raise UserError(f"give a whole number from 1 to {2**31 - 1}, not {text!r}.")
    return int(number)


def whole(text: str) -> int:
    """A whole number of at least 0 that fits 32 bits."""
    return 0 if text == "0" else positive(text)


def number(least: float, most: float, *, open_below: bool = True) -> Callable[[str], float]:
    """A finite number above `least` (from it on, unless open_below) and at most `most`."""

    def read(text: str) -> float:
        try:
            found = float(text)
        except ValueError:
            found = math.nan
        if math.isfinite(found) and (least < found <= most or (found == least and not open_below)):
            return found
        upper = "" if math.isinf(most) else f" and at most {most:g}"
        raise UserError(f"give a number {'above' if open_below else 'of at least'} {least:g}{upper}, not {text!r}.")

    return read


def seed(text: str) -> int:
    """A whole number from 0 to 2^64 - 1."""
    if text.isascii() and text.isdigit() and len(text) <= 20 and int(text) < 2**64:
        return int(text)
    raise UserError(f"give a whole number from 0 to 2^64 - 1, not {text!r}.")


def question(text: str) -> str:
    """A prompt: must be valid UTF-8, because the tokenizer reads bytes."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise UserError("the prompt is not valid UTF-8 text.") from None
    return text


def names(text: str) -> list[str]:
    """NAME,NAME,..."""
    found = [name.strip() for name in text.split(",")]
    if not all(found):
        raise UserError(f"write names separated by commas, not {text!r}.")
    return found


def choices(text: str) -> list[str]:
    """TEXT,TEXT,...; spaces count, for the model sees them."""
    found = text.split(",")
    if not all(found):
        raise UserError(f"write choices separated by commas, none of them empty, not {text!r}.")
    return [question(choice) for choice in found]


def add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--json", nargs="?", const="-", metavar="FILE", help="write the result as JSON to FILE, or to stdout"
    )


def add_no_verify(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--no-verify", action="store_true", help="compare file sizes only, not SHA-256")
