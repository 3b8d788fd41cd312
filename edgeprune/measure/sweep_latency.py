"""Interleaved trials that can be taken up again: a round counts whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from edgeprune.errors import UserError
from edgeprune.measure.profile import Case, Measured, Question, Trial, measure
from edgeprune.measure.quiet import measuring
from edgeprune.runtime.answers import Answer, KeptTokens
from edgeprune.runtime.session import Model
from edgeprune.timings import StageTimings

_FORMAT = 1
#: what is kept of an answer and of its picture beside the timings: all that a report reads.
_ANSWER = ("finish_reason", "prompt_tokens", "visual_tokens_kept", "reused_tokens", "kv_tokens")
_PICTURE = ("image", "kept", "visual_tokens", "grid_rows", "grid_cols", "width_px", "height_px", "applied", "reason",
            "method", "keep")  # fmt: skip


class Rounds:
    """Complete rounds, kept in a file where one is given: JSON lines, the first states what times depend on.

    Args:
        path: None: nothing is kept on the disk.
        settings: JSON-ready facts: machine, bundle, cases, picture, question.

    Raises:
        UserError: the file is of another run; the sentence names the first fact that differs.
    """

    def __init__(self, path: Path | None, settings: Mapping[str, Any]) -> None:
        self.path = path
        self.done: list[list[Trial]] = []
        #: of every complete round, in which run it was measured, from 1.
        self.runs: list[int] = []
        self._run = 1
        head = {"edgeprune_latency": _FORMAT, **settings}
        if path is None:
            return
        try:
            text = path.read_text(encoding="utf-8") if path.exists() else ""
            lines = text[: text.rfind("\n") + 1].splitlines()
            if lines:
                self._read(path, lines, json.loads(json.dumps(head)))
            whole = "\n".join([*(lines or [json.dumps(head)]), ""])
            if text != whole:
                path.write_text(whole, encoding="utf-8")
        except OSError as error:
            raise UserError(f"cannot use the work file {path}: {error.strerror}.") from error

    def add(self, trials: list[Trial]) -> None:
        """Keeps a round, on the disk before the call returns."""
        self.done.append(trials)
        self.runs.append(self._run)
        if self.path is not None:
            with self.path.open("a", encoding="utf-8") as file:
                row = {"run": self._run, "trials": [_to_json(trial) for trial in trials]}
                file.write(json.dumps(row) + "\n")
                file.flush()
                os.fsync(file.fileno())

    def _read(self, path: Path, lines: Sequence[str], settings: dict[str, Any]) -> None:
        try:
            head, *rounds = (json.loads(line) for line in lines)
            for key, value in settings.items():
                if head[key] != value:
                    raise UserError(
                        f"the latency in {path} was measured with another state of {key}; remove it to begin again."
                    )
            self.done = [[_from_json(row) for row in found["trials"]] for found in rounds]
            self.runs = [int(found["run"]) for found in rounds]
            self._run = max(self.runs, default=0) + 1
        except (ValueError, TypeError, KeyError, AttributeError, IndexError) as error:
            raise UserError(f"{path} is not the work file of a sweep's latency; name another or remove it.") from error


def measure_rounds(
    models: Mapping[str | None, Model],
    cases: Sequence[Case],
    question: Question,
    rounds: Rounds,
    *,
    trials: int,
    warmup: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Measured:
    """As `profile.measure`, from the first round that `rounds` lacks; warm-up runs again whenever trials are run.

    Every round runs every case once, one after the other in this process, and begins one case later than the round
    before. Ctrl-C ends it early and drops the round that was under way.

    Raises:
        UserError: another sweep is at work on this machine.
    """
    measured = Measured(cases)
    if len(rounds.done) < trials:
        with measuring():
            try:
                measured.partial = not _run(models, cases, question, rounds, trials, warmup, progress)
            except KeyboardInterrupt:
                measured.partial = True
    for found in rounds.done[:trials]:
        for place, trial in enumerate(found):
            measured.trials[cases[(trial.round + place) % len(cases)]].append(trial)
    return measured


def _run(
    models: Mapping[str | None, Model],
    cases: Sequence[Case],
    question: Question,
    rounds: Rounds,
    trials: int,
    warmup: int,
    progress: Callable[[int, int], None],
) -> bool:
    """Whether all rounds were run; False after Ctrl-C."""
    if measure(models, cases, question, trials=0, warmup=warmup).partial:
        return False
    for turn in range(len(rounds.done), trials):
        progress(turn, trials)
        start = turn % len(cases)
        shifted = [*cases[start:], *cases[:start]]
        found = measure(models, shifted, question, trials=1, warmup=0)
        if found.partial:
            return False
        rounds.add([Trial(turn, place, found.trials[case][0].answer) for place, case in enumerate(shifted)])
    progress(trials, trials)
    return True


def _to_json(trial: Trial) -> dict[str, Any]:
    answer, picture = trial.answer, trial.answer.images[0]
    return {
        "round": trial.round,
        "place": trial.place,
        "answer": {name: getattr(answer, name) for name in _ANSWER},
        "picture": {name: getattr(picture, name) for name in _PICTURE},
        "timings": asdict(answer.timings),
    }


def _from_json(row: dict[str, Any]) -> Trial:
    """The trial without its text and its kept indices, which no report of times reads."""
    picture = KeptTokens(**row["picture"], keep_idx=np.empty(0, np.int64), scores=None)
    answer = Answer(**row["answer"], text="", token_ids=(), images=(picture,), timings=StageTimings(**row["timings"]))
    return Trial(row["round"], row["place"], answer)
