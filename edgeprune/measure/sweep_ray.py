"""The questions of a sweep, spread over the processes of a Ray cluster; latency never is.

A worker holds one opened variant and answers all cases about one picture at a time, in its own process and with the
code of `evaluate`. The bundle and the pictures must lie at the same place on every machine of the cluster.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeprune.bundle import Bundle
from edgeprune.errors import DependencyError, UserError
from edgeprune.measure import evaluate
from edgeprune.measure.dataset import Dataset, Item
from edgeprune.measure.eval_work import Block, WorkFile
from edgeprune.measure.grid import Case
from edgeprune.measure.quiet import answering
from edgeprune.runtime.session import Model


@dataclass(frozen=True)
class Job:
    """What every worker needs to know. `identity`: see `evaluate.identity`."""

    bundle: str
    variant: str | None
    identity: str
    threads: int
    suffix: str
    max_new_tokens: int


class Worker:
    """One process of the cluster. Errors of users come back as ("error", sentence), so that they stay one sentence."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._model: Model | None = None

    def answer(self, items: Sequence[Item], cases: Sequence[Case]) -> tuple[str, Any]:
        """("blocks", [Block]) of all cases about the one picture of `items`."""
        try:
            with answering():
                data = Dataset("part", tuple(items), self._job.suffix)
                result = evaluate.run(
                    self._open(), data, cases, WorkFile(None, {}), max_new_tokens=self._job.max_new_tokens
                )
        except UserError as error:
            return "error", str(error)
        return "blocks", list(result.blocks.values())

    def _open(self) -> Model:
        if self._model is None:
            job = self._job
            if evaluate.identity(Bundle.open(Path(job.bundle), verify="sizes"), job.variant) != job.identity:
                raise UserError(f"{job.bundle} on {os.uname().nodename} is another bundle than the one that is swept.")
            self._model = Model.open(job.bundle, variant=job.variant, threads=job.threads, verify="sizes")
        return self._model


def load_ray() -> Any:
    """The module; DependencyError, one sentence, when it is not installed."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        return importlib.import_module("ray")
    except ModuleNotFoundError as error:
        raise DependencyError(
            "--on ray needs ray, which is not installed: run `pip install 'edgeprune[ray]'`."
        ) from error


class Cluster:
    """The cluster that RAY_ADDRESS names, else one of `workers` processes on this machine; ended on exit."""

    def __init__(self, workers: int) -> None:
        self._ray, self._workers = load_ray(), workers

    def __enter__(self) -> Cluster:
        import logging

        local = {} if os.environ.get("RAY_ADDRESS") else {"num_cpus": self._workers, "include_dashboard": False}
        try:
            self._ray.init(logging_level=logging.ERROR, log_to_driver=False, **local)
        except (ConnectionError, RuntimeError, ValueError) as error:
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise UserError(f"Ray does not start: {reason}") from error
        return self

    def __exit__(self, *_: object) -> None:
        self._ray.shutdown()

    def run(
        self, job: Job, dataset: Dataset, cases: Sequence[Case], work: WorkFile, progress: Callable[[int, int], None]
    ) -> evaluate.Evaluated:
        """As `evaluate.run`: asks everything that the work file does not hold yet; Ctrl-C marks the result partial."""
        result = evaluate.Evaluated(dataset, cases, work.blocks)
        waiting = []
        for picture, items in dataset.by_picture().items():
            missing = [case for case in cases if (case.name, picture) not in work.blocks]
            if missing:
                waiting.append((items, missing))
        try:
            for done, blocks in enumerate(self._spread(job, waiting)):
                progress(done, len(waiting))
                for block in blocks:
                    work.add(block)
            progress(len(waiting), len(waiting))
        except KeyboardInterrupt:
            result.partial = True
        return result

    def _spread(self, job: Job, waiting: Sequence[tuple[list[Item], list[Case]]]) -> Iterator[list[Block]]:
        """The blocks of every picture, in the order in which they are ready."""
        if not waiting:
            return
        pool = importlib.import_module("ray.util").ActorPool
        remote = self._ray.remote(num_cpus=1)(Worker)
        cores = int(self._ray.cluster_resources().get("CPU", 0))
        if not cores:
            raise UserError("the Ray cluster offers no CPU; start its machines with --num-cpus.")
        actors = [remote.remote(job) for _ in range(min(self._workers, cores, len(waiting)))]
        try:
            for kind, found in pool(actors).map_unordered(lambda actor, part: actor.answer.remote(*part), waiting):
                if kind == "error":
                    raise UserError(found)
                yield found
        finally:
            for actor in actors:
                self._ray.kill(actor)
