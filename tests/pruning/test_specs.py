"""SPEC strings: what parses, and what is refused with which words."""

from __future__ import annotations

import pytest

from edgeprune.errors import PruningError
from edgeprune.pruning.registry import METHODS, method_class, method_names, parse


@pytest.mark.parametrize(
    ("spec", "parameters"),
    [
        ("none", {}),
        ("random", {"seed": 0}),
        (" random : seed = 7 ", {"seed": 7}),
        ("fastervlm", {"layer": None}),
        ("fastervlm:layer=-3", {"layer": -3}),
        ("received-attention:layer=2", {"layer": 2}),
        ("mmr:balance=0.25", {"balance": 0.25, "importance": "cls", "layer": None}),
    ],
)
def test_spec_parses(spec: str, parameters: dict[str, object]) -> None:
    method = parse(spec)
    assert method.parameters == parameters
    assert parse(method.spec) == method


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("fastvlm", ("fastvlm", *METHODS)),
        ("", ("unknown", "fastervlm")),
        ("random:sed=1", ("sed=1", "seed (int)")),
        ("random:seed", ("seed (int)",)),
        ("random:seed=1.5", ("seed", "int", "1.5")),
        ("fastervlm:layer=last", ("layer", "int", "last")),
        ("none:seed=1", ("it takes none",)),
        ("mmr:balance=1.5", ("mmr", "balance", "between 0 and 1", "1.5")),
        ("mmr:balance=nan", ("balance", "between 0 and 1", "nan")),
        ("mmr:importance=text", ("importance", "cls, received", "'text'")),
        ("scope:alpha=-1", ("scope", "alpha", "between 0 and 10")),
        ("todre:objective=sum", ("objective", "max-sum, k-center")),
        ("todre:pivot=centre", ("pivot", "cls, random")),
        ("mmtok-vv:temperature=0", ("mmtok-vv", "temperature", "between 0.01 and 100")),
    ],
)
def test_bad_spec_names_what_is_wrong(spec: str, words: tuple[str, ...]) -> None:
    with pytest.raises(PruningError) as caught:
        parse(spec)
    for word in words:
        assert word in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", method_names())
def test_every_method_states_itself(name: str) -> None:
    method = method_class(name)()
    assert method.name == name
    assert method.summary
    assert method.source
    assert method.where in ("before_projector", "after_projector", "nowhere")
    assert method.identity_at_full
    assert 576 in method.valid_k(576)


def test_count_outside_the_valid_ones_names_the_nearest() -> None:
    with pytest.raises(PruningError, match="nearest count it can is 576"):
        parse("none").check_k(58, 576)
    parse("fastervlm").check_k(1, 576)
    with pytest.raises(PruningError, match="cannot keep 577 of 576"):
        parse("fastervlm").check_k(577, 576)
