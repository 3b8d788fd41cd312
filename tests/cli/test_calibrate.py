"""`build --calibrate`: pictures and questions become inputs of the graphs, as the runtime itself prepares them."""

from __future__ import annotations

import json
import pathlib

import numpy as np
import pytest

from edgeprune.bundle import Bundle
from edgeprune.cli import calibration_files
from edgeprune.engines import calibration
from edgeprune.errors import UserError
from edgeprune.runtime.session import Model
from tests.cli.bad_images import write_picture
from tests.cli.command import assert_user_error, edgeprune, tree


@pytest.fixture
def folder(tmp_path: pathlib.Path) -> pathlib.Path:
    """Two pictures and three questions."""
    path = tmp_path / "samples"
    path.mkdir()
    for name in ("a.png", "b.png"):
        write_picture(path / name)
    (path / "prompts.txt").write_text("What is it?\n\nHow many?\nWhere?\n", encoding="utf-8")
    return path


def test_a_directory_pairs_pictures_and_questions(tiny_bundle: pathlib.Path, folder: pathlib.Path) -> None:
    bundle = Bundle.open(tiny_bundle)
    samples = calibration_files.read(folder, bundle)
    assert samples.source == "3 sample(s) of samples: 2 picture(s)"
    with Model.open(tiny_bundle) as model:
        asked = [model.detokenize(sample.question_ids.tolist()) for sample in samples.items]
        assert asked == ["What is it?", "How many?", "Where?"]
    marker = bundle.manifest.tokens.image
    assert all((sample.prompt_ids == marker).sum() == 1 for sample in samples.items)
    (folder / "prompts.txt").unlink()
    assert len(calibration_files.read(folder, bundle).items) == 2


def test_samples_are_prepared_as_the_golden_tensors_are(tiny_bundle: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """The golden picture and question through a .jsonl give the golden pixels and ids, and the runtime's embeddings."""
    from PIL import Image

    bundle = Bundle.open(tiny_bundle)
    given, golden = bundle.golden()
    Image.fromarray(given["image_rgb"]).save(tmp_path / "golden.png")
    line = {"image": "golden.png", "question": str(given["prompt"]), "answer": "ignored"}
    (tmp_path / "data.jsonl").write_text(json.dumps(line) + "\n", encoding="utf-8")
    samples = calibration_files.read(tmp_path / "data.jsonl", bundle)
    (sample,) = samples.items
    assert np.array_equal(sample.pixels, golden["pixels_rgb"])
    assert np.array_equal(sample.prompt_ids, golden["prompt_ids"])
    made, own = calibration.inputs(bundle, samples), calibration.inputs(bundle)
    assert made.further == ()
    for name, value in made.decoder.items():
        assert np.array_equal(value, own.decoder[name]), name
    rows = made.decoder["inputs_embeds"][0]
    place = int(np.flatnonzero(sample.prompt_ids == bundle.manifest.tokens.image)[0])
    with Model.open(tiny_bundle) as model, model.new_session() as session:
        seen = session.image_embeds(session.add_image(given["image_rgb"], keep=1.0))
    assert np.abs(rows[place : place + len(seen)] - seen).max() <= 1e-5 * np.abs(seen).max()
    assert len(rows) == len(sample.prompt_ids) - 1 + len(seen)


def test_another_picture_is_another_fingerprint(tiny_bundle: pathlib.Path, folder: pathlib.Path) -> None:
    samples = calibration_files.read(folder, Bundle.open(tiny_bundle))
    fewer = calibration.Samples(samples.source, samples.items[:1])
    assert samples.sha256() != fewer.sha256()
    assert samples.sha256() == calibration.Samples("elsewhere", samples.items).sha256()


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("", "holds no line"),
        ('{"question": "q"}', "line 1: a line to calibrate on needs 'image'"),
        ('{"image": "none.png", "question": "q"}', "cannot read .*none.png: No such file"),
        ("[]", "must be a JSON object"),
    ],
)
def test_bad_lines_are_named(tiny_bundle: pathlib.Path, tmp_path: pathlib.Path, content: str, sentence: str) -> None:
    (tmp_path / "data.jsonl").write_text(content, encoding="utf-8")
    with pytest.raises(UserError, match=sentence):
        calibration_files.read(tmp_path / "data.jsonl", Bundle.open(tiny_bundle))


def test_what_cannot_calibrate_is_refused(
    tiny_bundle: pathlib.Path, folder: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    bundle, before = Bundle.open(tiny_bundle), tree(tiny_bundle)
    special = bundle.manifest.tokens.image_marker
    (folder / "prompts.txt").write_text(f"what is {special}?", encoding="utf-8")
    with pytest.raises(UserError, match="holds a special token"):
        calibration_files.read(folder, bundle)
    (folder / "a.png").write_bytes(b"no picture")
    (folder / "prompts.txt").write_text("q\n" * (calibration_files.MOST + 1), encoding="utf-8")
    with pytest.raises(UserError, match="at most 256"):
        calibration_files.read(folder, bundle)
    (tmp_path / "empty").mkdir()
    ask = ["build", tiny_bundle, "--target", "tensorrt-rtx:sm86", "--calibrate", tmp_path / "empty"]
    assert_user_error(edgeprune(*ask, "--precision", "int8"), "holds no picture")
    assert_user_error(edgeprune(*ask, "--precision", "fp32"), "--calibrate has nothing to measure")
    ask[3] = "cpu"
    assert_user_error(edgeprune(*ask, "--precision", "int8"), "--calibrate is for TensorRT targets")
    assert tree(tiny_bundle) == before
