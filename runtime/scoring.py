"""What `Session` does with several texts at once: given answers by likelihood, many questions on the same pictures."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from edgeprune.errors import UserError
from edgeprune.runtime import _abi
from edgeprune.runtime.answers import Answer, KeptTokens, copy_stats, initialised
from edgeprune.runtime.library import Handle
from edgeprune.runtime.request import Request, utf8
from edgeprune.runtime.worker import interruptible
from edgeprune.timings import StageTimings


@dataclass(frozen=True)
class ChoiceScore:
    """How likely the model finds one given answer.

    Args:
        text: the choice.
        log_probability: sum of ln p over its tokens, at temperature 1.
        tokens: how many, the end-of-sequence token included when it was asked for.
    """

    text: str
    log_probability: float
    tokens: int

    @property
    def per_token(self) -> float:
        """Mean of ln p, to compare choices of unequal length."""
        return self.log_probability / self.tokens


@dataclass(frozen=True)
class Scores:
    """Given answers, scored.

    Args:
        choices: in the order they were given.
        images, prompt_tokens, visual_tokens_kept, reused_tokens, kv_tokens: as in `Answer`.
        timings: milliseconds per stage; decode is all choices together.
    """

    choices: tuple[ChoiceScore, ...]
    prompt_tokens: int
    visual_tokens_kept: int
    reused_tokens: int
    kv_tokens: int
    images: tuple[KeptTokens, ...]
    timings: StageTimings

    @property
    def best(self) -> ChoiceScore:
        """The choice with the largest sum, the first of equals."""
        return max(self.choices, key=lambda choice: choice.log_probability)

    def shares(self) -> tuple[float, ...]:
        """Probability of each choice, given that the answer is one of them."""
        top = self.best.log_probability
        weights = [math.exp(choice.log_probability - top) for choice in self.choices]
        return tuple(weight / sum(weights) for weight in weights)


class Scoring:
    """The part of `Session` that asks about given answers and asks many questions."""

    _handle: Handle
    _images: list[int]

    def abort(self) -> None:
        raise NotImplementedError

    def kept_tokens(self, image: int) -> KeptTokens:
        raise NotImplementedError

    def generate(self, question: str, **options: Any) -> Answer:
        raise NotImplementedError

    def score(
        self,
        question: str,
        choices: Sequence[str],
        *,
        images: Sequence[int] | None = None,
        with_eos: bool = False,
        allow_special: bool = False,
        deadline_ms: float | None = None,
    ) -> Scores:
        """The log-probability of each given answer; the prompt runs once for all of them.

        Args:
            question: as in `generate`, like images, allow_special and deadline_ms.
            choices: each becomes tokens by itself (`Model.tokenize`); begin it with a space where the model would.
            with_eos: an end-of-sequence token ends every choice and counts, so that "2" does not profit from "21".

        Raises:
            NativeError: no room in the context, an empty choice, aborted, the deadline passed.
        """
        if isinstance(choices, str) or not choices:
            raise UserError("choices must be a list of at least one string.")
        request = Request(question, images, allow_special=allow_special, deadline_ms=deadline_ms)
        texts = [utf8(choice, "a choice") for choice in choices]
        options = initialised(
            _abi.ScoreOptions,
            **request.prompt_fields(),
            choices=(ctypes.c_char_p * len(texts))(*texts),
            choice_count=len(texts),
            with_eos=with_eos,
        )
        raw, stats = initialised(_abi.Scores), initialised(_abi.Stats)
        call = (ctypes.byref(options), ctypes.byref(raw))
        interruptible(lambda: self._handle.call("ep_session_score", *call), self.abort)
        self._handle.call("ep_session_stats", ctypes.byref(stats))
        rows = zip(choices, raw.log_probabilities[: len(texts)], raw.token_counts[: len(texts)], strict=True)
        return Scores(
            choices=tuple(ChoiceScore(*row) for row in rows),
            prompt_tokens=raw.prompt_tokens,
            visual_tokens_kept=raw.visual_tokens_kept,
            reused_tokens=raw.reused_tokens,
            kv_tokens=raw.kv_tokens,
            images=tuple(self.kept_tokens(image) for image in (self._images if images is None else images)),
            timings=copy_stats(stats),
        )

    def ask_each(self, questions: Iterable[str], **options: Any) -> list[Answer]:
        """One answer per question about the session's pictures, each with its own `timings` and `reused_tokens`.

        The graphs have batch 1, so the questions run one after another. They share the vision encoder's work and the KV
        cache of everything up to the first token in which a question differs from the one before it.

        Args:
            questions: each is answered as if it were asked alone.
            options: see `generate`.
        """
        return [self.generate(question, **options) for question in questions]
