"""Many threads on one model, and many questions in one process."""

from __future__ import annotations

import os
import pathlib
import threading
from typing import Any

import pytest

from edgeprune.runtime.session import Model
from tests.runtime.conftest import picture

THREADS = 8
METHODS = ("best", "none", "four")


def converse(model: Model, who: int) -> list[Any]:
    """A conversation of its own in a session of its own: pictures, sampling, scores, a removal, a reset."""
    said: list[Any] = []
    with model.new_session() as session:
        for turn in range(4):
            session.add_image(picture(who + turn), method=METHODS[who % 3])
            options = {"max_new_tokens": 12, "ignore_eos": True}
            greedy = session.generate(f"Where is number {who}?", **options)
            drawn = session.generate("And now?", temperature=1.2, top_k=30, seed=who, **options)
            scores = session.score("Which?", ["left", "right"])
            said += [greedy.token_ids, drawn.token_ids, [choice.log_probability for choice in scores.choices]]
            if turn == 2:
                session.reset()
    return said


def test_eight_threads_give_the_answers_of_one(model: Model) -> None:
    alone = [converse(model, who) for who in range(THREADS)]
    together: dict[int, list[Any]] = {}
    start = threading.Barrier(THREADS)

    def work(who: int) -> None:
        start.wait()
        together[who] = converse(model, who)

    threads = [threading.Thread(target=work, args=(who,)) for who in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [together.get(who) for who in range(THREADS)] == alone


def resident_bytes() -> int:
    return int(pathlib.Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def descriptors() -> int:
    return len(list(pathlib.Path("/proc/self/fd").iterdir()))


@pytest.mark.slow
def test_a_thousand_questions_take_no_more_memory(hand_bundle: pathlib.Path) -> None:
    """Over 200 pictures, five questions each: resident memory stays within 2 % of what it was after the first 200
    questions, and no descriptor stays open."""
    with Model.open(hand_bundle, threads=1) as model, model.new_session() as session:
        resident: list[int] = []
        opened: list[int] = []
        for number in range(200):
            image = session.add_image(picture(number, 300, 200), keep=0.5)
            for turn in range(5):
                session.generate(f"Question {turn}?", max_new_tokens=20, ignore_eos=True)
            session.remove_image(image)
            resident.append(resident_bytes())
            opened.append(descriptors())
    assert max(resident[40:]) <= 1.02 * resident[39]
    assert max(opened[40:]) == opened[39]
