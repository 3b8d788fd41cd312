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
        ("hiprune:alpha=0.2,object_layer=3", {"alpha": 0.2, "object_layer": 3, "layer": None}),
        ("fopru:mode=row", {"mode": "row", "layer": None}),
        ("zoo:directions=64", {"sensitivity": "jvp", "directions": 64, "seed": 0}),
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
        ("hiprune:alpha=1.5", ("alpha", "from 0 to 1", "1.5")),
        ("fopru:mode=column", ("rank or row", "column")),
        ("mmr:balance=1.5", ("mmr", "balance", "between 0 and 1", "1.5")),
        ("mmr:balance=nan", ("balance", "between 0 and 1", "nan")),
        ("mmr:importance=text", ("importance", "cls, received", "'text'")),
        ("scope:alpha=-1", ("scope", "alpha", "between 0 and 10")),
        ("zoo:sensitivity=fd", ("zoo", "sensitivity", "jvp, norm")),
        ("zoo:directions=0", ("directions", "between 1 and 1024")),
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
    assert method.where in ("before_encoder", "before_projector", "after_projector", "in_encoder", "nowhere")
    assert (576 in method.valid_k(576)) == method.identity_at_full, "a merging method has no identity to offer at K = N"
    assert method.gathers or method.valid_k(576)


def test_count_outside_the_valid_ones_names_the_nearest() -> None:
    with pytest.raises(PruningError, match="nearest count it can is 576"):
        parse("none").check_k(58, 576)
    parse("fastervlm").check_k(1, 576)
    with pytest.raises(PruningError, match="cannot keep 577 of 576"):
        parse("fastervlm").check_k(577, 576)
    with pytest.raises(PruningError, match=r"cannot keep 58 of 576 .* is 48 \(keep 0.0833333\)"):
        parse("fopru:mode=row").check_k(58, 576)
    with pytest.raises(PruningError, match="square grid"):
        parse("fopru:mode=row").check_k(4, 12)
