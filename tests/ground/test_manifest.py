"""The strict manifest reader and docs/manifest.schema.json say the same."""

from __future__ import annotations

import copy
import json
import pathlib
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest

from edgeprune.errors import BundleError
from edgeprune.manifest import parse
from tests.ground.sample import FILES, manifest

SCHEMA = json.loads((pathlib.Path(__file__).parents[2] / "docs" / "manifest.schema.json").read_text(encoding="utf-8"))
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)
#: values put in the place of every value of the sample manifest, one at a time.
STRANGERS = [None, True, -1, "../x", {}]


def whole_manifest() -> dict[str, Any]:
    whole = manifest()
    files = {name: {"sha256": "0" * 64, "bytes": len(data)} for name, data in FILES.items()}
    build = "variants/cpu-int8/0123/build.json"
    variant = {
        "slug": "cpu-int8", "target": "cpu", "precision": {"vision": "int8"}, "key": "0123", "build": build,
        "files": {build: {"sha256": "1" * 64, "bytes": 2}}, "parity": copy.deepcopy(whole["parity"]),
        "graphs": copy.deepcopy(whole["graphs"]),
    }  # fmt: skip
    return {**whole, "files": files, "variants": [variant]}


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Keys that lead to every value below `value`."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield (*path, key)
        yield from places(item, (*path, key))


def changed(path: tuple[Any, ...], *replacement: Any) -> dict[str, Any]:
    """The whole manifest with one value replaced, or removed when there is no replacement."""
    result = copy.deepcopy(whole_manifest())
    owner: Any = result
    for key in path[:-1]:
        owner = owner[key]
    if replacement:
        owner[path[-1]] = replacement[0]
    else:
        del owner[path[-1]]
    return result


def reads(value: Any) -> bool:
    try:
        parse(value)
    except BundleError:
        return False
    return True


def test_the_sample_is_valid_for_both() -> None:
    VALIDATOR.validate(whole_manifest())
    read = parse(whole_manifest())
    assert read.graphs.decoder.kv is not None
    assert read.graphs.decoder.kv.layers == 2
    assert read.preprocess.resize.size_px == (56,)
    assert [graph.stage for graph in read.graphs] == ["vision", "embedding", "decoder"]


def test_nothing_that_the_schema_refuses_is_read() -> None:
    tried = refused = 0
    for path in places(whole_manifest()):
        for variant in [changed(path), *(changed(path, stranger) for stranger in STRANGERS)]:
            tried += 1
            if not VALIDATOR.is_valid(variant):
                refused += 1
                assert not reads(variant), f"the reader took {path}, the schema did not"
    assert tried > 900
    assert refused > tried / 2


def test_an_unknown_field_is_refused_at_every_level() -> None:
    for path in [(), *places(whole_manifest())]:
        variant = copy.deepcopy(whole_manifest())
        owner: Any = variant
        for key in path:
            owner = owner[key]
        if isinstance(owner, dict):
            owner["surprise"] = 1
            assert reads(variant) == VALIDATOR.is_valid(variant), path


@pytest.mark.parametrize(
    ("path", "value", "sentence"),
    [
        (("schema_version",), 2, "schema_version is 2 but this edgeprune reads 1"),
        (("schema_version",), True, "schema_version is True"),
        (("keep", "min"), 0.5, "keep: keep needs 0 < min <= default"),
        (("grid",), [4, 5], "grid and visual_tokens disagree"),
        (("methods", "default"), "none", "default method 'none' is not among"),
        (("graphs", "vision"), {}, "method fastervlm and graphs.vision do not match"),
        (("graphs", "decoder", "file"), "../decoder.onnx", "is not a plain relative path"),
        (("graphs", "decoder", "file"), "onnx/other.onnx", "onnx/other.onnx is used but not listed in files"),
        (("golden",), {"inputs": "g/i.npz", "outputs": "g/o.npz"}, "g/i.npz is used but not listed"),
        (("prompt", "segments", 0), {"text": "a", "question": True}, r"prompt.segments\[0\]: a prompt segment holds"),
        (("tokens", "eos"), [-1], "tokens: token ids must not be negative"),
        (("variants", 0, "slug"), "cpu int8", "is not a variant slug"),
        (("variants", 0, "files"), {}, "build.json is used but not listed in files"),
        (("variants", 0, "slug"), "cpu", "lies outside variants/cpu/"),
        (("variants", 0, "graphs", "decoder", "file"), "onnx/x.onnx", "onnx/x.onnx is used but not listed"),
        (("family",), 3, "family must be text, not 3"),
    ],
)
def test_a_refusal_names_the_field(path: tuple[Any, ...], value: Any, sentence: str) -> None:
    with pytest.raises(BundleError, match=sentence):
        parse(changed(path, value))


@pytest.mark.parametrize("value", [None, [], "x", 3, {}])
def test_something_else_than_a_manifest(value: Any) -> None:
    assert not reads(value)
