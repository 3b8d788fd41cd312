"""The text encoder in the runtime: its tokenizer, when it runs, what it costs, and damaged bundles."""

from __future__ import annotations

import ctypes
import json
import pathlib
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from edgeprune.errors import EdgepruneError
from edgeprune.runtime import _abi, library
from edgeprune.runtime.answers import initialised
from edgeprune.runtime.session import Model, describe_bundle
from tests.checkpoints import write_checkpoint
from tests.clip_checkpoints import ClipShape, write_clip
from tests.runtime.conftest import picture as frame_pixels
from tests.runtime.test_text_methods import COUNT, LEFT, ask
from tests.runtime.tokenizer_program import NativeTokenizer
from tests.test_text_parity import picture

PAPER = "cdpruner-preset-paper"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The paper's preset beside the decoder's embeddings and a method that reads no question, which is the default."""
    from edgeprune.export.pipeline import export
    from edgeprune.recipe import ExportRecipe

    where = tmp_path_factory.mktemp("encoder")
    clip = write_clip(where / "clip", ClipShape(layers=1))
    prune = ("fastervlm", "cdpruner:preset=paper", "cdpruner")
    recipe = ExportRecipe(model=str(write_checkpoint(where / "llava")), prune=prune, keep=0.5, text_encoder=str(clip))
    return export(recipe, where / "out.bundle")


@pytest.fixture(scope="module")
def model(bundle: pathlib.Path) -> Iterator[Model]:
    with Model.open(bundle) as opened:
        yield opened


def changed(bundle: pathlib.Path, to: pathlib.Path, change: Callable[[dict[str, Any]], None]) -> pathlib.Path:
    """A copy with another manifest."""
    copy = pathlib.Path(shutil.copytree(bundle, to / "copy.bundle"))
    manifest = json.loads((copy / "manifest.json").read_text())
    change(manifest)
    (copy / "manifest.json").write_text(json.dumps(manifest))
    return copy


def test_ids_equal_those_of_hugging_face(bundle: pathlib.Path, native_program: Callable[[str], pathlib.Path]) -> None:
    """The bundle's second tokenizer in the C library, with prefix and suffix of the manifest, against `tokenizers`."""
    from transformers import AutoTokenizer

    theirs = AutoTokenizer.from_pretrained(bundle.parent / "clip")
    texts = [
        "",
        "What is on the left?",
        "WHAT is  ON\tthe left?!",
        "it's 1999 o'clock",
        "naïve Ärger 東京 👍🏽",
        LEFT * 40,
    ]
    native = NativeTokenizer(native_program("tokenizer_cli"), bundle / "text-tokenizer" / "tokenizer.json")
    about = json.loads((bundle / "manifest.json").read_text())["text_encoder"]
    for text, ids in zip(texts, native.encode([text.encode() for text in texts]), strict=True):
        assert [*about["prefix"], *ids, *about["suffix"]] == theirs(text).input_ids, text


def test_it_runs_once_for_several_pictures_and_not_for_the_same_words(model: Model) -> None:
    with model.new_session() as session:
        for seed, method in ((3, PAPER), (4, PAPER), (4, "cdpruner"), (5, "fastervlm")):
            session.add_image(picture(seed, 90, 70), method=method)
        first = ask(session, LEFT)
        assert first.timings.select_ms > 0
        assert ask(session, LEFT).timings.select_ms == 0
        other = ask(session, COUNT)
        assert (other.timings.select_ms > 0, other.timings.vision_ms) == (True, 0)
        for answer, question in ((first, LEFT), (other, COUNT)):
            for index, (seed, method) in enumerate(((3, PAPER), (4, PAPER), (4, "cdpruner"))):
                with model.new_session() as alone:
                    alone.add_image(picture(seed, 90, 70), method=method)
                    wanted = ask(alone, question).images[0]
                np.testing.assert_array_equal(answer.images[index].keep_idx, wanted.keep_idx)
                np.testing.assert_array_equal(answer.images[index].scores, wanted.scores)
        scores = [image.scores for image in first.images]
        assert np.abs(scores[1] - scores[2]).max() > 0.1, "the presets read the question differently"


def test_capitals_are_the_same_question_to_clip(model: Model) -> None:
    with model.new_session() as session:
        session.add_image(picture(3, 90, 70), method=PAPER)
        ask(session, LEFT)
        assert ask(session, LEFT.upper()).timings.select_ms == 0


@pytest.mark.parametrize("question", ["", "  \n"])
def test_without_a_question_there_is_one_clear_sentence(model: Model, question: str) -> None:
    with model.new_session() as session:
        session.add_image(picture(3, 90, 70), method=PAPER)
        with pytest.raises(
            EdgepruneError, match=f'method "{PAPER}" chooses visual tokens by the question, which is em'
        ):
            ask(session, question)
        assert ask(session, LEFT).images[0].kept == 8, "the session goes on"


def test_special_tokens_in_a_question_are_text_unless_allowed(model: Model) -> None:
    def scores(question: str, **options: Any) -> np.ndarray:
        with model.new_session() as session:
            session.add_image(picture(3, 90, 70), method=PAPER)
            return np.asarray(ask(session, question, **options).images[0].scores)

    marked = f"{LEFT}<|endoftext|>{COUNT}"
    assert np.abs(scores(marked) - scores(marked, allow_special=True)).max() > 1e-4
    np.testing.assert_allclose(scores(marked, allow_special=True), scores(LEFT), atol=1e-5), "the first end answers"


def test_memory_counts_the_encoder_where_the_default_method_uses_it(
    bundle: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    manifest = json.loads((bundle / "manifest.json").read_text())
    files = ("onnx/text.onnx", "onnx/text.data")
    own = sum(manifest["files"][name]["bytes"] for name in files)
    without = describe_bundle(bundle)
    assert without["weights_bytes"] == sum(
        entry["bytes"] for name, entry in manifest["files"].items() if name.startswith("onnx/")
    )

    def default(name: str) -> Callable[[dict[str, Any]], None]:
        return lambda changing: changing["methods"].update(default=name)

    paper = describe_bundle(changed(bundle, tmp_path / "a", default(PAPER)))
    llm = describe_bundle(changed(bundle, tmp_path / "b", default("cdpruner")))
    graphs = {
        name: sum(manifest["files"][graph["file"]]["bytes"] for graph in manifest["graphs"]["vision"][name])
        for name in (PAPER, "cdpruner")
    }
    more = paper["memory"]["weights_bytes"] - llm["memory"]["weights_bytes"]
    assert more == own + graphs[PAPER] - graphs["cdpruner"]


def test_warm_up_and_other_methods(bundle: pathlib.Path) -> None:
    with Model.open(bundle) as opened:
        opened.warmup()
        answer = opened.ask(picture(3, 90, 70), LEFT, method="fastervlm", max_new_tokens=2, ignore_eos=True)
        assert answer.timings.select_ms == 0


@pytest.mark.parametrize("name", ["onnx/text.onnx", "onnx/text.data", "text-tokenizer/tokenizer.json"])
def test_a_changed_file_is_found_when_the_method_is_used(
    bundle: pathlib.Path, tmp_path: pathlib.Path, name: str
) -> None:
    """By the C library; Python reads every file when it opens a bundle."""
    copy = pathlib.Path(shutil.copytree(bundle, tmp_path / "copy.bundle"))
    content = bytearray((copy / name).read_bytes())
    content[len(content) // 2] ^= 1
    (copy / name).write_bytes(bytes(content))
    with pytest.raises(EdgepruneError, match=f"{name} has sha256"):
        Model.open(copy)
    native, pixels = library.load(), frame_pixels(1)
    out, session, image = ctypes.c_void_p(), ctypes.c_void_p(), ctypes.c_int32()
    opening = initialised(_abi.ModelOptions, onnxruntime_library=bytes(library.wheel_onnxruntime() or b""))
    native.call("ep_model_open", bytes(copy), ctypes.byref(opening), ctypes.byref(out))
    native.call("ep_session_new", out, None, ctypes.byref(session))
    frame = initialised(_abi.Frame, data=pixels.ctypes.data, width_px=30, height_px=20)
    llm, paper = (initialised(_abi.ImageOptions, method=method.encode()) for method in ("cdpruner", PAPER))
    native.call("ep_session_add_image", session, ctypes.byref(frame), ctypes.byref(llm), ctypes.byref(image))
    with pytest.raises(EdgepruneError, match=f"{name} has SHA-256"):
        native.call("ep_session_add_image", session, ctypes.byref(frame), ctypes.byref(paper), ctypes.byref(image))
    native.calls.ep_session_free(session)
    native.calls.ep_model_free(out)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda m: m.pop("text_encoder"), "belong together"),
        (lambda m: m["graphs"].pop("text"), "belong together"),
        (lambda m: m["methods"]["each"][PAPER].update(text=False), "text_encoder needs text|must hold"),
        (lambda m: m["text_encoder"].update(segment_tokens=0), "segment_tokens"),
        (lambda m: m["text_encoder"].update(prefix=[-1]), "prefix|negative"),
        (lambda m: (m.pop("text_encoder"), m["graphs"].pop("text")), r"needs graphs\.text"),
    ],
    ids=["no-encoder", "no-graph", "no-text", "no-length", "bad-prefix", "neither"],
)
def test_both_readers_refuse_contradictions(
    bundle: pathlib.Path, tmp_path: pathlib.Path, change: Callable[[dict[str, Any]], Any], words: str
) -> None:
    from edgeprune.bundle import Bundle

    copy = changed(bundle, tmp_path, change)
    with pytest.raises(EdgepruneError, match=words):
        Bundle.open(copy)
    with pytest.raises(EdgepruneError, match=words):
        describe_bundle(copy)


def test_a_graph_of_another_width_is_refused(bundle: pathlib.Path, tmp_path: pathlib.Path) -> None:
    def other(manifest: dict[str, Any]) -> None:
        manifest["graphs"]["text"]["outputs"][0]["shape"][1] = "E"

    words = r"reads text_embeds 40 wide, but onnx/text\.onnx makes them -1 wide"
    with (
        Model.open(changed(bundle, tmp_path, other)) as opened,
        opened.new_session() as session,
        pytest.raises(EdgepruneError, match=words),
    ):
        session.add_image(picture(3, 90, 70), method=PAPER)
