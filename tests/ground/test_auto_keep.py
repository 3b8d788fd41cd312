"""K from the mass of the scores: the rule in Python and in C++ on one table, and against exact arithmetic."""

from __future__ import annotations

import itertools
import math
import pathlib
import subprocess
from collections.abc import Callable, Sequence
from fractions import Fraction

import numpy as np
import pytest

from edgeprune.errors import UserError
from edgeprune.keep import AutoKeep, auto_count, count_runs, keep_count, mass_count, parse_auto

MASSES = (1e-9, 0.1, 0.25, 1 / 3, 0.5, 0.75, 0.9, 0.99, math.nextafter(1.0, 0), 1.0)
BOUNDS = ((0.01, 1.0), (0.05, 0.5), (0.25, 0.25), (0.6, 0.9))
#: counts served; None: every one
SERVED: tuple[Callable[[int], Sequence[int]] | None, ...] = (
    None,
    lambda n: range(2, n + 1, 2),
    lambda n: [k for k in (1, 2, 4, 8, 16, 32, 64, 128, 256) if k <= n],
    lambda n: range(24, n + 1, 24),
)


def score_rows() -> list[np.ndarray]:
    """Every row of up to 5 scores out of {0, 1, 3}, and random ones like a softmax, peaked and flat, with ties."""
    rows = [np.array(row, np.float32) for n in range(1, 6) for row in itertools.product((0, 1, 3), repeat=n)]
    rng = np.random.default_rng(0)
    for n in (16, 256, 576):
        for heat in (0.0, 1.0, 4.0):
            powers = np.exp(heat * rng.normal(size=n))
            rows.append((powers / powers.sum()).astype(np.float32))
        rows.append(np.repeat(rng.uniform(size=n // 4), 4).astype(np.float32))
    return rows


def expected(scores: np.ndarray, auto: AutoKeep, served: Sequence[int] | None) -> int:
    try:
        return auto_count(scores.tolist(), auto, served)
    except UserError:
        return -1


def test_python_equals_cpp(native_program: Callable[[str], pathlib.Path]) -> None:
    lines, wanted = [], []
    for scores in score_rows():
        words = " ".join(float(score).hex() for score in scores)
        for mass, (low, high), counts in itertools.product(MASSES, BOUNDS, SERVED):
            served = None if counts is None else list(counts(len(scores)))
            if served == []:
                continue
            runs = "-" if served is None else ",".join("{first}:{last}:{step}".format(**r) for r in count_runs(served))
            lines.append(f"{low.hex()} {high.hex()} {mass.hex()} {runs} {words}\n")
            wanted.append(expected(scores, AutoKeep(mass, low, high), served))
    done = subprocess.run(
        [native_program("mass_count_cli")], input="".join(lines), capture_output=True, text=True, check=True
    )
    assert [int(line) for line in done.stdout.split()] == wanted
    assert len(wanted) > 30_000
    assert wanted.count(-1) > 100, "some must be refused"


def test_rule_against_exact_arithmetic() -> None:
    """Wherever the mass is not within a rounding error of a sum of the highest scores."""
    compared = 0
    for scores, mass in itertools.product(score_rows(), MASSES):
        falling = sorted((Fraction(float(score)) for score in scores), reverse=True)
        sums = list(itertools.accumulate(falling))
        wanted = Fraction(mass) * sums[-1]
        if any(0 < abs(held - wanted) <= Fraction(1, 10**9) * sums[-1] for held in sums):
            continue
        compared += 1
        assert mass_count(scores.tolist(), mass) == next(k for k, held in enumerate(sums, 1) if held >= wanted)
    assert compared > 3000


def test_known_counts() -> None:
    scores = [0.5, 0.1, 0.2, 0.2]
    assert [mass_count(scores, mass) for mass in (0.4, 0.5, 0.6, 0.9, 0.95, 1.0)] == [1, 1, 2, 3, 4, 4]
    assert mass_count([0.0, 0.0], 0.9) == 1
    assert auto_count(scores, AutoKeep(0.9, 0.25, 0.5)) == 2
    assert auto_count(scores, AutoKeep(0.1, 0.75, 1.0)) == 3
    assert auto_count(scores, AutoKeep(0.9, 0.1, 1.0), [2, 4]) == 2, "the smaller of two that are as near"
    with pytest.raises(UserError, match="no count from 1 to 2 is served"):
        auto_count(scores, AutoKeep(0.9, 0.1, 0.5), [3, 4])


def test_k_stays_between_the_bounds_and_grows_with_the_mass() -> None:
    for scores in score_rows():
        found = [auto_count(scores.tolist(), AutoKeep(mass, 0.05, 0.5)) for mass in MASSES]
        assert found == sorted(found)
        assert keep_count(len(scores), 0.05) <= found[0] <= found[-1] <= keep_count(len(scores), 0.5)


@pytest.mark.parametrize("scores", [[], [-1.0, 2.0], [math.nan], [math.inf, 1.0]])
def test_scores_without_a_mass(scores: list[float], native_program: Callable[[str], pathlib.Path]) -> None:
    with pytest.raises(ValueError, match="none negative"):
        mass_count(scores, 0.9)
    line = "0.1 1.0 0.9 - " + " ".join(map(str, scores)) + "\n"
    done = subprocess.run([native_program("mass_count_cli")], input=line, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["-1"]


def test_text_form() -> None:
    assert parse_auto("auto:mass=0.9,min=0.05,max=0.5") == AutoKeep(0.9, 0.05, 0.5)
    assert parse_auto("auto: mass = 0.9 ") == AutoKeep(0.9)
    for auto in (AutoKeep(0.9), AutoKeep(1 / 3, 0.05, 0.5), AutoKeep(0.1, max=0.7)):
        assert parse_auto(str(auto)) == auto


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("auto", "auto:mass=0.9,min=0.05,max=0.5"),
        ("auto:", "auto:mass=0.9"),
        ("auto:min=0.1", "auto:mass=0.9"),
        ("auto:mass=0.9,most=1", "auto:mass=0.9"),
        ("auto:mass=0.9,mass=0.8", "auto:mass=0.9"),
        ("automatic:mass=0.9", "auto:mass=0.9"),
        ("auto:mass=much", "mass of an automatic keep must be a number, not 'much'"),
        ("auto:mass=1.5", "mass of an automatic keep is 1.5, but must be above 0 and at most 1"),
        ("auto:mass=nan", "mass .* must be above 0"),
        ("auto:mass=0.9,min=0.5,max=0.1", "from 0.5 to 0.1 is empty"),
    ],
)
def test_bad_text_is_one_sentence(text: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        parse_auto(text)
