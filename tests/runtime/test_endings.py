"""How an answer ends: stop strings, end of sequence, streams closed, abort, deadline, another thread."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from edgeprune.errors import NativeError, UserError
from edgeprune.runtime.session import Model, Session
from tests.runtime import tiny_graphs
from tests.runtime.conftest import BundleWriter, best, features_of, picture

ABORTED, BUSY = 9, 12
QUESTION = "Where is it?"


@pytest.fixture(scope="module")
def text() -> str:
    """What the model says to the question without a picture."""
    return bytes(tiny_graphs.greedy(tiny_graphs.prompt_rows(QUESTION, []), 60)).decode()


@pytest.fixture
def slow(write_bundle: BundleWriter) -> Iterator[Model]:
    """Vision and every decoder run take seconds unless they are stopped."""
    with Model.open(write_bundle(tiny_graphs.Options(slow={"vision": 10_000_000, "decoder": 10_000_000}))) as model:
        yield model


def soon(work: Callable[[], Any], seconds: float = 0.15) -> threading.Timer:
    timer = threading.Timer(seconds, work)
    timer.start()
    return timer


def first_stop(text: str, stops: list[str]) -> str:
    return text[: min((text.index(stop) for stop in stops if stop in text), default=len(text))]


@pytest.mark.parametrize("stops", [["fuh"], ["hpysz"], ["zzz", "szqs"], ["u"], ["qszqsjqX", "qsj"], ["never"]])
def test_stop_strings_across_tokens(model: Model, text: str, stops: list[str]) -> None:
    pieces: list[str] = []
    answer = model.ask(None, QUESTION, stop=stops, max_new_tokens=60, ignore_eos=True, on_text=pieces.append)
    expected = first_stop(text, stops)
    assert answer.text == "".join(pieces) == expected
    assert answer.finish_reason == ("length" if expected == text else "stop")


def test_streamed_text_never_takes_anything_back(model: Model, text: str) -> None:
    """Every beginning that was shown is a beginning of the final text, also while a stop string is half there."""
    for stop in {text[i:j] for i in range(0, 40, 3) for j in range(i + 1, min(i + 7, 45))}:
        pieces: list[str] = []
        answer = model.ask(None, QUESTION, stop=[stop], max_new_tokens=45, ignore_eos=True, on_text=pieces.append)
        assert "".join(pieces) == answer.text == text[:45][: text.index(stop)]


def test_the_bundles_own_endings(write_bundle: BundleWriter, text: str) -> None:
    eos = ord(text[8])
    assert eos not in text[:8].encode()

    def change(manifest: dict[str, Any]) -> None:
        manifest["tokens"].update(eos=[eos], stop=[text[9:12]])

    with Model.open(write_bundle(change=change)) as model:
        ended = model.ask(None, QUESTION, max_new_tokens=20)
        assert (ended.text, ended.finish_reason) == (text[:8], "eos")
        assert ended.token_ids == tuple(text[:9].encode())
        assert model.ask(None, QUESTION, max_new_tokens=20, ignore_eos=True).text == text[:20]


def test_bundle_stop_strings(write_bundle: BundleWriter, text: str) -> None:
    with Model.open(write_bundle(change=lambda m: m["tokens"].update(stop=[text[6:10]]))) as model:
        answer = model.ask(None, QUESTION, max_new_tokens=20)
    assert (answer.text, answer.finish_reason) == (first_stop(text, [text[6:10]]), "stop")


@pytest.mark.parametrize("stop", ["a string", ["", "x"]])
def test_stop_must_be_a_list_of_strings(session: Session, stop: Any) -> None:
    with pytest.raises(UserError, match="stop must be a list"):
        session.generate(QUESTION, stop=stop)


def test_stream(model: Model, session: Session, text: str) -> None:
    with session.stream(QUESTION, max_new_tokens=30, ignore_eos=True) as pieces:
        with pytest.raises(RuntimeError, match="not ended"):
            _ = pieces.answer
        assert "".join(pieces) == text[:30]
        assert list(pieces) == []
    assert pieces.answer.text == text[:30]
    assert "".join(model.stream(None, QUESTION, max_new_tokens=30, ignore_eos=True)) == text[:30]


def test_stream_closed_early_stops_the_generation(slow: Model) -> None:
    with slow.new_session() as session:
        start = time.monotonic()
        stream = session.stream(QUESTION, max_new_tokens=400, ignore_eos=True)
        stream.close()
        assert next(stream, None) is None
        assert stream.answer.finish_reason == "aborted"
        forgotten = session.stream(QUESTION, max_new_tokens=400, ignore_eos=True)
        del forgotten
        gc.collect()
        session.truncate(0)  # would be refused while the library works
        assert time.monotonic() - start < 5


def test_closing_a_generator_stops_the_generation(model: Model, text: str) -> None:
    pieces = model.stream(None, QUESTION, max_new_tokens=480, ignore_eos=True)
    assert next(pieces) == text[0]
    pieces.close()
    assert not [t for t in threading.enumerate() if t.name.startswith("edgeprune")]


def test_stream_raises_what_generate_raises(session: Session) -> None:
    stream = session.stream(QUESTION, images=[3])
    with pytest.raises(NativeError, match="no image 3"):
        next(stream)
    assert next(stream, "end") == "end"


def test_an_error_of_the_callback_reaches_the_caller(session: Session, text: str) -> None:
    def fail(piece: str) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        session.generate(QUESTION, max_new_tokens=400, ignore_eos=True, on_text=fail)
    assert session.generate(QUESTION, max_new_tokens=5, ignore_eos=True).text == text[:5]


def test_abort_during_vision(slow: Model) -> None:
    with slow.new_session() as session:
        timer = soon(session.abort)
        start = time.monotonic()
        with pytest.raises(NativeError, match="aborted") as caught:
            session.add_image(picture(1))
        timer.join()
        assert caught.value.status == ABORTED
        assert time.monotonic() - start < 3
        with pytest.raises(NativeError, match="no image 0"):
            session.kept_tokens(0)


def test_abort_during_prefill_leaves_the_session_usable(slow: Model) -> None:
    with slow.new_session() as session:
        for _ in range(2):
            timer = soon(session.abort)
            start = time.monotonic()
            answer = session.generate(QUESTION, max_new_tokens=5)
            timer.join()
            assert (answer.finish_reason, answer.text, answer.token_ids, answer.kv_tokens) == ("aborted", "", (), 0)
            assert time.monotonic() - start < 3


@pytest.fixture
def slow_prefill(write_bundle: BundleWriter) -> Iterator[Model]:
    """A prefill of hundreds of tokens takes a second or more; a short one and a decode step take none."""
    with Model.open(write_bundle(tiny_graphs.Options(slow={"prefill": 75_000}))) as model:
        yield model


@pytest.mark.parametrize("how", ["abort", "deadline"])
def test_after_a_stop_inside_the_prefill_the_answers_are_right(slow_prefill: Model, how: str) -> None:
    """The question before, the one that was stopped, and the one before once more: each as numpy has it."""
    pixels, long_question = picture(4), "Where is it? " * 30
    features, scores = features_of(slow_prefill, pixels)
    kept = features[best(scores, 4)]

    def expected(question: str) -> list[int]:
        return tiny_graphs.greedy(tiny_graphs.prompt_rows(question, [kept]), 20)

    with slow_prefill.new_session() as session:
        session.add_image(pixels)
        for _ in range(2):
            first = session.generate(QUESTION, max_new_tokens=20, ignore_eos=True)
            assert list(first.token_ids) == expected(QUESTION)
            timer = soon(session.abort if how == "abort" else lambda: None)
            deadline_ms = 150 if how == "deadline" else None
            stopped = session.generate(long_question, max_new_tokens=20, ignore_eos=True, deadline_ms=deadline_ms)
            timer.join()
            assert (stopped.finish_reason, stopped.token_ids) == ("aborted" if how == "abort" else how, ())
            # inside the run: the engine had most of the time until the stop, and its work is not in the cache
            assert stopped.timings.graph_ms > 50
            assert stopped.kv_tokens == stopped.reused_tokens < stopped.prompt_tokens - 300
            whole = session.generate(long_question, max_new_tokens=20, ignore_eos=True)
            assert list(whole.token_ids) == expected(long_question)


def test_abort_during_decode_keeps_what_was_made(session: Session, text: str) -> None:
    def after_three(piece: str) -> None:
        seen.append(piece)
        if len(seen) == 3:
            session.abort()

    seen: list[str] = []
    answer = session.generate(QUESTION, max_new_tokens=480, ignore_eos=True, on_text=after_three)
    assert answer.finish_reason == "aborted"
    assert 3 <= len(answer.token_ids) < 480
    assert text.startswith(answer.text[:60])
    assert session.generate(QUESTION, max_new_tokens=30, ignore_eos=True).text == text[:30]


def test_abort_without_work_does_nothing(session: Session, text: str) -> None:
    session.abort()
    assert session.generate(QUESTION, max_new_tokens=5, ignore_eos=True).text == text[:5]


def test_deadline(slow: Model, session: Session, text: str) -> None:
    with slow.new_session() as waiting:
        start = time.monotonic()
        answer = waiting.generate(QUESTION, deadline_ms=100)
        assert 0.1 <= time.monotonic() - start < 3
        assert (answer.finish_reason, answer.token_ids) == ("deadline", ())
    met = session.generate(QUESTION, max_new_tokens=5, ignore_eos=True, deadline_ms=1e300)
    assert (met.finish_reason, met.text) == ("length", text[:5])
    with pytest.raises(UserError, match="deadline_ms"):
        session.generate(QUESTION, deadline_ms=-1)


def test_a_session_serves_one_thread(slow: Model) -> None:
    with slow.new_session() as session:
        outcome: list[Any] = []
        thread = threading.Thread(target=lambda: outcome.append(session.generate(QUESTION)))
        thread.start()
        time.sleep(0.1)
        for call in (lambda: session.generate("another"), lambda: session.truncate(0), session.stats):
            with pytest.raises(NativeError, match="in use") as caught:
                call()
            assert caught.value.status == BUSY
        session.abort()
        thread.join()
        assert outcome[0].finish_reason == "aborted"
        session.truncate(0)


def test_sessions_of_one_model_run_side_by_side(model: Model, text: str) -> None:
    def work(i: int) -> None:
        answers[i] = model.ask(picture(i), QUESTION, method=("best", "none", "four")[i % 3], max_new_tokens=40).text

    alone = [
        model.ask(picture(i), QUESTION, method=("best", "none", "four")[i % 3], max_new_tokens=40).text
        for i in range(6)
    ]
    answers: dict[int, str] = {}
    threads = [threading.Thread(target=work, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [answers[i] for i in range(6)] == alone


def test_a_closed_session_says_so(model: Model) -> None:
    session = model.new_session()
    session.close()
    session.close()
    with pytest.raises(ValueError, match="closed"):
        session.generate(QUESTION)
