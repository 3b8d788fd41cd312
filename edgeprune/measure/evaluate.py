"""Questions with known answers asked of a bundle, case by case, each picture encoded once per case.

Pictures are the outer loop, so that an interrupted run holds the same questions for every case. Decoding is greedy and
a function of the visual embeddings and the prompt alone; where two cases hand the decoder the very same embeddings of
a picture (any plain selection at keep 1), it is run once for both.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from edgeprune.bundle import MANIFEST, Bundle
from edgeprune.errors import UserError
from edgeprune.measure.dataset import Dataset, Item
from edgeprune.measure.eval_work import Asked, Block, WorkFile
from edgeprune.measure.grid import Case
from edgeprune.measure.metrics import METRICS, prompt
from edgeprune.runtime.session import Model, Session

Progress = Callable[[int, int], None]


@dataclass
class Evaluated:
    """Blocks by (case, picture); `partial` when the run was interrupted."""

    dataset: Dataset
    cases: Sequence[Case]
    blocks: dict[tuple[str, str], Block] = field(default_factory=dict)
    partial: bool = False

    def answers(self, case: Case) -> dict[str, Asked]:
        """Item id -> answer, of the pictures that the case has seen, in the order of the data."""
        pictures = self.dataset.by_picture()
        found = [self.blocks[case.name, name] for name in pictures if (case.name, name) in self.blocks]
        by_id = {answer.id: answer for block in found for answer in block.answers}
        return {item.id: by_id[item.id] for item in self.dataset.items if item.id in by_id}


def identity(bundle: Bundle, variant: str | None) -> str:
    """SHA-256 of all of a bundle that decides answers: graphs, tokenizer, prompt, preprocessing, one variant."""
    built = {} if variant is None else bundle.variant(variant, verify="sizes").files
    stated = json.loads((bundle.path / MANIFEST).read_bytes())
    parts = [stated[key] for key in ("prompt", "tokens", "preprocess", "methods", "files")]
    files = {name: entry.sha256 for name, entry in built.items()}
    return hashlib.sha256(json.dumps([*parts, files], sort_keys=True).encode()).hexdigest()


def run(
    model: Model,
    dataset: Dataset,
    cases: Sequence[Case],
    work: WorkFile,
    *,
    max_new_tokens: int,
    progress: Progress = lambda done, total: None,
) -> Evaluated:
    """Asks everything that the work file does not hold yet. Ctrl-C ends it early and marks the result `partial`.

    Raises:
        UserError: the runtime refuses a picture or a question; the sentence begins with the item's file and line.
    """
    result = Evaluated(dataset, cases, work.blocks)
    pictures = dataset.by_picture()
    runner = _Runner(model, dataset.suffix, max_new_tokens, work.blocks.values(), dataset)
    total = len(dataset.items) * len(cases)
    done = 0
    try:
        for picture, items in pictures.items():
            for case in cases:
                progress(done, total)
                if (case.name, picture) not in work.blocks:
                    work.add(runner.ask(case, picture, items))
                done += len(items)
        progress(total, total)
    except KeyboardInterrupt:
        result.partial = True
    return result


class _Runner:
    """Asks one block at a time, and remembers what the decoder said to which embeddings."""

    def __init__(
        self, model: Model, suffix: str, max_new_tokens: int, known: Iterable[Block], dataset: Dataset
    ) -> None:
        self._model, self._suffix, self._most = model, suffix, max_new_tokens
        self._said: dict[tuple[str, str, tuple[str, ...]], Asked] = {}
        items = {item.id: item for item in dataset.items}
        for block in known:
            for answer in block.answers:
                self._said.setdefault(self._key(block.embeds, items[answer.id]), answer)

    def ask(self, case: Case, picture: str, items: Sequence[Item]) -> Block:
        with self._model.new_session() as session:
            embeds, kept, total = "", 0, 0
            if picture and case.method is not None:
                asked = prompt(items[0], self._suffix) if self._reads_question(case) else None
                embeds, kept, total = _encode(session, case, items[0], asked)
            answers = tuple(self._answer(session, embeds, item) for item in items)
        return Block(case.name, picture, embeds, kept, total, answers)

    def _reads_question(self, case: Case) -> bool:
        methods = self._model.bundle.manifest.methods
        known = methods.each.get(case.method or methods.default)
        return known is not None and known.text

    def _key(self, embeds: str, item: Item) -> tuple[str, str, tuple[str, ...]]:
        return embeds, prompt(item, self._suffix), item.choices if item.metric == "likelihood" else ()

    def _answer(self, session: Session, embeds: str, item: Item) -> Asked:
        key = self._key(embeds, item)
        said = self._said.get(key)
        if said is None:
            said = self._said[key] = _ask(session, item, key[1], self._most)
        metric = METRICS[item.metric]
        read = metric.read(said.text, item)
        return Asked(item.id, said.text, read, metric.worth(read, item), said.finish_reason, said.log_probabilities)


def _encode(session: Session, case: Case, item: Item, asked: str | None) -> tuple[str, int, int]:
    """(SHA-256 of the embeddings that the decoder reads, K, N).

    `asked`: a question, for methods that read it. What the decoder reads then depends on each question too, so the hash
    is of what it is made of beside the question: the picture, the method, the keep.
    """
    try:
        image = session.add_image(str(item.image), keep=case.keep, method=case.method)
        if asked is not None:
            session.generate(asked, max_new_tokens=1)
    except UserError as error:
        raise UserError(f"{item.where}: {error}") from error
    if asked is not None:
        kept = session.kept_tokens(image)
        made_of = f"{case.method} {case.keep} ".encode() + Path(str(item.image)).read_bytes()
        return hashlib.sha256(made_of).hexdigest(), kept.kept, kept.visual_tokens
    kept = session.kept_tokens(image)
    return hashlib.sha256(session.image_embeds(image).tobytes()).hexdigest(), kept.kept, kept.visual_tokens


def _ask(session: Session, item: Item, asked: str, most: int) -> Asked:
    """What the model says; `read` and `score` are left to the metric."""
    try:
        if item.metric == "likelihood":
            scores = session.score(asked, item.choices, with_eos=True)
            sums = tuple(choice.log_probability for choice in scores.choices)
            return Asked(item.id, scores.best.text, "", 0.0, "choices", sums)
        answer = session.generate(asked, max_new_tokens=most)
    except UserError as error:
        raise UserError(f"{item.where}: {error}") from error
    if answer.finish_reason == "aborted":
        raise KeyboardInterrupt
    return Asked(item.id, answer.text, "", 0.0, answer.finish_reason)
