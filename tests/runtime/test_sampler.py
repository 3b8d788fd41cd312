"""Sampling: distributions against transformers' logits processors, draws against NumPy, and statistics of the draws."""

from __future__ import annotations

import pathlib
import subprocess
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from edgeprune.errors import NativeError, UserError
from edgeprune.runtime.session import Model
from edgeprune.tolerances import TOLERANCES
from tests.runtime import tiny_graphs
from tests.runtime.conftest import picture

Program = Callable[[str], pathlib.Path]
Floats = np.ndarray[Any, np.dtype[np.float64]]
INVALID_ARGUMENT = 1
QUESTION = "Where is it?"
GAMMA, MASK = 0x9E3779B97F4A7C15, 2**64 - 1


def sample(
    program: Program, logits: Any, *, temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0,
    penalty: float = 1.0, seed: int = 0, seen: tuple[int, ...] = (), draws: int = 0,
) -> tuple[Floats, list[int]]:  # fmt: skip
    """(V,) probabilities and the drawn tokens by the library."""
    numbers = [temperature, top_k, top_p, penalty, seed, len(seen), *seen, len(logits), *map(float, logits), draws]
    text = " ".join(map(str, numbers))
    done = subprocess.run([program("sampler_cli")], input=text, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    pairs, tokens = (line.split() for line in done.stdout.split("\n")[:2])
    probabilities = np.zeros(len(logits))
    probabilities[list(map(int, pairs[::2]))] = list(map(float, pairs[1::2]))
    return probabilities, list(map(int, tokens))


def reference(logits: Any, temperature: float, top_k: int, top_p: float, penalty: float, seen: tuple[int, ...]) -> Any:
    """(V,) probabilities by transformers' processors in the order of its generate()."""
    torch = pytest.importorskip("torch")
    from transformers import generation

    steps: list[Any] = []
    if penalty != 1:
        steps.append(generation.RepetitionPenaltyLogitsProcessor(penalty))
    steps.append(generation.TemperatureLogitsWarper(temperature))
    if top_k:
        steps.append(generation.TopKLogitsWarper(top_k))
    if top_p < 1:
        steps.append(generation.TopPLogitsWarper(top_p))
    ids, scores = torch.tensor([seen], dtype=torch.long), torch.from_numpy(logits)[None]
    for step in steps:
        scores = step(ids, scores)
    return torch.softmax(scores.double(), -1)[0].numpy()


def mix(x: int) -> int:
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK
    return x ^ (x >> 31)


def uniforms(seed: int, count: int) -> Floats:
    """The documented generator in whole numbers of Python."""
    key = mix((seed + GAMMA) & MASK)
    return np.array([(mix((key + (n + 1) * GAMMA) & MASK) >> 11) / 2**53 for n in range(count)])


@pytest.mark.parametrize("penalty", [1.0, 1.3, 0.7])
@pytest.mark.parametrize(
    ("top_k", "top_p"), [(0, 1.0), (1, 1.0), (7, 1.0), (0, 0.5), (0, 0.95), (20, 0.8), (999, 0.01)]
)
@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.5])
def test_distribution_equals_transformers(
    native_program: Program, temperature: float, top_k: int, top_p: float, penalty: float
) -> None:
    for seed in range(3):
        logits = np.random.default_rng(seed).normal(0, 3, 300).astype(np.float32)
        seen = (3, 5, 5, 250, 17, int(logits.argmax()))
        expected = reference(logits, temperature, top_k, top_p, penalty, seen)
        found, _ = sample(
            native_program, logits, temperature=temperature, top_k=top_k, top_p=top_p, penalty=penalty, seen=seen
        )
        np.testing.assert_array_equal(found > 0, expected > 0)
        np.testing.assert_allclose(found, expected, atol=TOLERANCES["token_probability"])


def test_equal_logits(native_program: Program) -> None:
    logits = np.array([0, 2, 2, 1, 2, 0], np.float32)
    kept = [np.flatnonzero(sample(native_program, logits, top_k=k)[0]).tolist() for k in (1, 3, 4)]
    assert kept == [[1, 2, 4], [1, 2, 4], [1, 2, 3, 4]]  # ties with the k-th stay, as in transformers
    assert np.flatnonzero(sample(native_program, logits, top_p=0.3)[0]).tolist() == [1, 2]  # lower ids first
    assert sample(native_program, logits, temperature=0, draws=2)[1] == [1, 1]


def test_extremes(native_program: Program) -> None:
    logits = np.array([-np.inf, 1e38, -1e38, 3e38], np.float32)
    found, drawn = sample(native_program, logits, temperature=1e-300, draws=3)
    np.testing.assert_array_equal(found, [0, 0, 0, 1])
    assert drawn == [3, 3, 3]
    found, _ = sample(native_program, np.array([-np.inf, 0.0, -np.inf, 0.0]), temperature=1e300)
    np.testing.assert_array_equal(found, [0, 0.5, 0, 0.5])


def test_draws_are_the_documented_ones(native_program: Program) -> None:
    logits = np.random.default_rng(5).normal(0, 2, 50).astype(np.float32)
    weights = np.exp(logits.astype(np.float64) - logits.max())
    borders = np.cumsum(weights / weights.sum())
    for seed in (0, 1, 12345, 2**64 - 1):
        u = uniforms(seed, 500)
        assert np.abs(borders[:, None] - u).min() > 1e-9  # no draw lies where rounding could decide
        _, drawn = sample(native_program, logits, seed=seed, draws=500)
        assert drawn == np.searchsorted(borders, u, side="right").tolist()


def chi_square(counts: Floats, expected: Floats) -> float:
    return float(((counts - expected) ** 2 / expected).sum())


def test_draws_follow_the_distribution(native_program: Program) -> None:
    """Pearson's test at a fixed seed: the statistic lies within its 0.1 % and 99.9 % quantiles."""
    draws, size = 40_000, 12
    logits = np.linspace(0, 2.5, size).astype(np.float32)
    for seed, (low, high) in ((7, (1.83, 31.27)), (8, (1.83, 31.27))):  # chi-square with 11 degrees of freedom
        expected, drawn = sample(native_program, logits, seed=seed, draws=draws)
        counts = np.bincount(drawn, minlength=size).astype(np.float64)
        assert low < chi_square(counts, expected * draws) < high
    pairs = np.zeros((size, size))  # and no draw knows the one before it: 143 degrees of freedom
    np.add.at(pairs, (drawn[:-1:2], drawn[1::2]), 1)
    assert 95 < chi_square(pairs, np.outer(expected, expected) * (draws / 2)) < 200


def test_seeds_and_neighbours_are_independent() -> None:
    u = np.array([uniforms(seed, 64) for seed in range(256)])
    assert len(np.unique(u)) == u.size
    counts, _ = np.histogram(u[:, 0], bins=16, range=(0, 1))  # the first draw over neighbouring seeds
    assert 3.48 < chi_square(counts.astype(np.float64), np.full(16, 16.0)) < 37.7


@pytest.mark.parametrize("penalty", [1.5, 0.8])
def test_penalty_counts_text_and_answer_but_no_visual_token(model: Model, penalty: float) -> None:
    with model.new_session() as session:
        session.add_image(picture(2), keep=0.5)
        answer = session.generate(QUESTION, max_new_tokens=30, ignore_eos=True, repetition_penalty=penalty)
        rows = tiny_graphs.prompt_rows(QUESTION, [session.image_embeds(0)])
    seen = {tiny_graphs.BOS, *f"{tiny_graphs.BEFORE}\n{QUESTION}{tiny_graphs.AFTER}".encode()}
    ids: list[int] = []
    for _ in range(30):
        logits = tiny_graphs.next_logits(rows)
        for i in seen:
            logits[i] = logits[i] * penalty if logits[i] < 0 else logits[i] / penalty
        ids.append(int(logits.argmax()))
        seen.add(ids[-1])
        rows = np.concatenate([rows, tiny_graphs.weights()["table"][ids[-1:]]])
    assert list(answer.token_ids) == ids


def test_the_same_seed_gives_the_same_text_on_any_number_of_threads(hand_bundle: pathlib.Path) -> None:
    options: dict[str, Any] = {"temperature": 1.5, "top_k": 20, "top_p": 0.95, "max_new_tokens": 60, "ignore_eos": True}
    texts = []
    for threads in (1, 2):
        with Model.open(hand_bundle, threads=threads) as model:
            texts.append([model.ask(picture(1), QUESTION, seed=seed, **options).token_ids for seed in (0, 1, 2, 1)])
    assert texts[0] == texts[1]
    assert texts[0][1] == texts[0][3]
    assert len(set(texts[0])) == 3


def test_greedy_is_the_default_and_ignores_the_seed(model: Model) -> None:
    plain = model.ask(None, QUESTION, max_new_tokens=20, ignore_eos=True)
    rows = tiny_graphs.prompt_rows(QUESTION, [])
    assert list(plain.token_ids) == tiny_graphs.greedy(rows, 20)
    seeded = model.ask(None, QUESTION, max_new_tokens=20, ignore_eos=True, seed=9, repetition_penalty=1.0)
    likeliest = model.ask(None, QUESTION, max_new_tokens=20, ignore_eos=True, seed=9, temperature=2.0, top_k=1)
    assert plain.token_ids == seeded.token_ids == likeliest.token_ids


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"temperature": -0.1}, "temperature is -0.1"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"temperature": float("inf")}, "temperature is inf"),
        ({"temperature": 1.0, "top_p": 1.5}, "top_p is 1.5"),
        ({"temperature": 1.0, "top_p": -1.0}, "top_p is -1"),
        ({"repetition_penalty": -2.0}, "repetition_penalty is -2"),
        ({"top_k": 5}, "set a temperature above 0"),
        ({"top_p": 0.5}, "set a temperature above 0"),
    ],
)
def test_values_that_the_library_refuses(model: Model, options: dict[str, float], text: str) -> None:
    with pytest.raises(NativeError, match=text) as caught:
        model.ask(None, QUESTION, **options)
    assert caught.value.status == INVALID_ARGUMENT


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"top_k": 0}, "top_k is 0"),
        ({"top_k": -3}, "top_k is -3"),
        ({"top_p": 0.0}, "top_p is 0"),
        ({"repetition_penalty": 0.0}, "repetition_penalty is 0"),
        ({"seed": -1}, "seed is -1"),
        ({"seed": 2**64}, "from 0 to 2\\^64 - 1"),
    ],
)
def test_values_that_python_refuses(model: Model, options: dict[str, float], text: str) -> None:
    with pytest.raises(UserError, match=text):
        model.ask(None, QUESTION, **{"temperature": 1.0, **options})
