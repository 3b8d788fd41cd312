"""Runs a sweep: latency in this process, then the pictures, then the questions, here or on Ray."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgeprune import machine
from edgeprune.bundle import Bundle
from edgeprune.errors import UserError
from edgeprune.measure import evaluate, sweep_pictures
from edgeprune.measure.dataset import Dataset
from edgeprune.measure.eval_work import WorkFile
from edgeprune.measure.evaluate import Evaluated, Progress
from edgeprune.measure.metrics import prompt
from edgeprune.measure.profile import Measured, Question, generated_picture
from edgeprune.measure.quiet import answering
from edgeprune.measure.sweep import Plan
from edgeprune.measure.sweep_latency import Rounds, measure_rounds
from edgeprune.measure.sweep_ray import Cluster, Job
from edgeprune.runtime.session import Model

OWN = "own"
Ask = Callable[[str | None, WorkFile, Progress], Evaluated]


@dataclass(frozen=True)
class Options:
    """How a sweep runs.

    Attributes:
        image, question: what latency is measured with; None: a generated picture.
        max_new_tokens: of every timed answer, and the most of every other.
        pictures: how many are drawn.
        workers: processes of Ray; None: this process answers the questions.
        resume: the directory of the work files, made where it is missing; None: nothing is kept.
        progress: label -> a function (done, total).
    """

    bundle: Path
    image: str | None
    question: str
    max_new_tokens: int
    trials: int
    warmup: int
    pictures: int
    threads: int
    workers: int | None
    resume: Path | None
    progress: Callable[[str], Progress]


@dataclass
class Swept:
    """What came out.

    Attributes:
        runs: of every round of latency, which run measured it.
        partial_reason: a sentence, "" of a whole sweep.
    """

    measured: Measured
    runs: list[int]
    described: Mapping[str, Any]
    identities: Mapping[str | None, str]
    drawn: list[sweep_pictures.Picture] = field(default_factory=list)
    answered: dict[str | None, Evaluated] = field(default_factory=dict)
    partial_reason: str = ""


def run(options: Options, bundle: Bundle, dataset: Dataset | None, planned: Plan) -> Swept:
    """All of it; Ctrl-C ends it early with what is there.

    Raises:
        UserError: work files of another run, another sweep at work, a picture or question that the runtime refuses.
    """
    identities = {variant: evaluate.identity(bundle, variant) for variant in planned.variants}
    works = _work_files(options, dataset, identities)
    try:
        with contextlib.ExitStack() as stack:
            models = {name: stack.enter_context(_open(options, name)) for name in planned.variants}
            result = _time(options, planned, models, identities)
            if not result.partial_reason:
                _draw(options, next(iter(models.values())), dataset, planned, result)
            if not result.partial_reason and dataset is not None and options.workers is None:
                with answering():
                    _ask(result, works, _here(options, models, dataset, planned), options)
        if not result.partial_reason and dataset is not None and options.workers is not None:
            with Cluster(options.workers) as cluster:
                _ask(result, works, _on_ray(options, cluster, dataset, planned, identities), options)
    finally:
        for work in works.values():
            work.close()
    return result


def _open(options: Options, variant: str | None) -> Model:
    """The files have been compared already."""
    return Model.open(options.bundle, variant=variant, threads=options.threads, verify="sizes")


def _time(
    options: Options, planned: Plan, models: Mapping[str | None, Model], identities: Mapping[str | None, str]
) -> Swept:
    """Latency, in this process, with nothing else of the sweep at work."""
    described = next(iter(models.values())).describe()
    facts = machine.facts()
    settings = {
        "the machine": [os.uname().nodename, facts["processor"], facts["cores"], described["onnxruntime"]["version"]],
        "the bundle": list(identities.values()),
        "the cases": [dataclasses.astuple(case) for case in planned.timed],
        "--image": None if options.image is None else hashlib.sha256(_read(options.image)).hexdigest(),
        "--prompt": options.question,
        "--max-new-tokens": options.max_new_tokens,
        "--threads": options.threads,
        "--warmup": options.warmup,
    }
    rounds = Rounds(_work_path(options, "latency"), settings)
    picture = generated_picture() if options.image is None else options.image
    asked = Question(picture, options.question, options.max_new_tokens)
    measured = measure_rounds(
        models, planned.timed, asked, rounds,
        trials=options.trials, warmup=options.warmup, progress=options.progress("rounds"),
    )  # fmt: skip
    result = Swept(measured, rounds.runs[: options.trials], described, identities)
    if measured.partial:
        done = len(rounds.done)
        result.partial_reason = (
            f"Interrupted after {done} of {options.trials} rounds of latency; no question was asked."
        )
    return result


def _draw(options: Options, model: Model, dataset: Dataset | None, planned: Plan, result: Swept) -> None:
    """Of the first pictures of the data, else of --image: what every method keeps at its smallest keep ratio."""
    shown: dict[Path, str] = {}
    if dataset is not None:
        for item in dataset.items:
            if item.image is not None:
                shown.setdefault(item.image, prompt(item, dataset.suffix))
    elif options.image is not None:
        shown = {Path(options.image): options.question}
    cases = sweep_pictures.smallest_keeps(planned.asked.cases)
    try:
        result.drawn = sweep_pictures.draw(model, list(shown.items())[: options.pictures], cases)
    except KeyboardInterrupt:
        result.partial_reason = "Interrupted after the latency; no question was asked."


def _here(options: Options, models: Mapping[str | None, Model], dataset: Dataset, planned: Plan) -> Ask:
    """Asks in this process."""

    def ask(variant: str | None, work: WorkFile, progress: Progress) -> Evaluated:
        most = options.max_new_tokens
        return evaluate.run(models[variant], dataset, planned.asked.cases, work, max_new_tokens=most, progress=progress)

    return ask


def _on_ray(
    options: Options, cluster: Cluster, dataset: Dataset, planned: Plan, identities: Mapping[str | None, str]
) -> Ask:
    """Asks in the processes of a cluster, one thread each unless another number is asked for."""

    def ask(variant: str | None, work: WorkFile, progress: Progress) -> Evaluated:
        bundle, threads = str(options.bundle.resolve()), options.threads or 1
        job = Job(bundle, variant, identities[variant], threads, dataset.suffix, options.max_new_tokens)
        return cluster.run(job, dataset, planned.asked.cases, work, progress)

    return ask


def _ask(result: Swept, works: Mapping[str | None, WorkFile], ask: Ask, options: Options) -> None:
    """One variant after the other; the first that is interrupted is the last."""
    for variant, work in works.items():
        label = "answers" if len(works) == 1 else f"answers, {variant or OWN}"
        found = result.answered[variant] = ask(variant, work, options.progress(label))
        if found.partial:
            result.partial_reason = f"Interrupted while {variant or OWN} answered the questions."
            return


def _work_files(
    options: Options, dataset: Dataset | None, identities: Mapping[str | None, str]
) -> dict[str | None, WorkFile]:
    """Variant -> its work file, as of `eval`; opened before anything is measured, so that a wrong one shows."""
    if dataset is None:
        return {}
    data, most = dataset.sha256(), options.max_new_tokens
    return {
        variant: WorkFile(
            _work_path(options, f"answers-{variant or OWN}"),
            {"data": data, "bundle": identity, "variant": variant, "max_new_tokens": most},
        )
        for variant, identity in identities.items()
    }


def _work_path(options: Options, name: str) -> Path | None:
    if options.resume is None:
        return None
    try:
        options.resume.mkdir(exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot use the directory {options.resume}: {error.strerror}.") from error
    return options.resume / f"{name}.jsonl"


def _read(file: str) -> bytes:
    try:
        return Path(file).read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {file}: {error.strerror}.") from error
