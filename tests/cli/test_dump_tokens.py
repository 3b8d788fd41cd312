"""`run --dump-tokens`: what it writes, read back by numpy; where it cannot write."""

from __future__ import annotations

import json
import os
import pathlib

import numpy as np
import pytest

from tests.cli.bad_images import write_picture
from tests.cli.command import assert_user_error, edgeprune


@pytest.fixture
def picture(tmp_path: pathlib.Path) -> pathlib.Path:
    return write_picture(tmp_path / "picture.png")


def run(bundle: pathlib.Path, target: pathlib.Path, *argv: object) -> dict[str, object]:
    command = ["run", bundle, "--prompt", "What?", "--max-new-tokens", 2, "--dump-tokens", target, "--json", "-"]
    done = edgeprune(*command, *argv)
    assert (done.returncode, done.stderr) == (0, "")
    report: dict[str, object] = json.loads(done.stdout)
    return report


@pytest.mark.parametrize("options", [[], ["--choices", "red,blue"]])
def test_arrays_are_those_of_the_answer(
    tiny_bundle: pathlib.Path, picture: pathlib.Path, tmp_path: pathlib.Path, options: list[str]
) -> None:
    from edgeprune.runtime.session import Model

    other, target = write_picture(tmp_path / "other.jpg"), tmp_path / "tokens.npz"
    target.write_bytes(b"older")
    command = ["run", tiny_bundle, "--prompt", "What?", "--dump-tokens", target, "--json", "-", "--keep", 0.5]
    done = edgeprune(*command, "--image", picture, other, *options)
    assert (done.returncode, done.stderr) == (0, "")
    images = json.loads(done.stdout)["images"]
    with np.load(target, allow_pickle=False) as file:
        arrays = dict(file)
    names = ("keep_idx", "kinds", "visual_embeds", "grid", "size_px", "method", "file", "scores")
    assert set(arrays) == {f"{name}/{place}" for name in names for place in (0, 1)}
    with Model.open(tiny_bundle) as model, model.new_session() as session:
        for place, (image, path) in enumerate(zip(images, (picture, other), strict=True)):
            known = session.add_image(path, keep=0.5)
            assert arrays[f"keep_idx/{place}"].tolist() == image["keep_idx"]
            assert arrays[f"kinds/{place}"].tolist() == ["patch"] * 8
            np.testing.assert_array_equal(arrays[f"visual_embeds/{place}"], session.image_embeds(known))
            np.testing.assert_array_equal(arrays[f"scores/{place}"], session.kept_tokens(known).scores)
            assert arrays[f"grid/{place}"].tolist() == [4, 4]
            assert arrays[f"size_px/{place}"].tolist() == [image["height"], image["width"]]
            assert (str(arrays[f"method/{place}"]), str(arrays[f"file/{place}"])) == ("fastervlm", str(path))


def test_a_method_without_scores_has_none(
    tiny_bundle: pathlib.Path, picture: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    target = tmp_path / "tokens.npz"
    run(tiny_bundle, target, "--image", picture, "--prune", "stride")
    with np.load(target) as file:
        assert "scores/0" not in file
        assert file["keep_idx/0"].shape == (4,)
    run(tiny_bundle, target)
    with np.load(target) as file:
        assert list(file) == [], "no picture, no arrays"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["picture.png", "tokens.npz"]


def test_a_place_that_cannot_be_written_is_refused_before_the_bundle_is_opened(tmp_path: pathlib.Path) -> None:
    command = ["run", tmp_path / "no.bundle", "--prompt", "q", "--dump-tokens"]
    (tmp_path / "folder.npz").mkdir()
    assert_user_error(edgeprune(*command, tmp_path / "tokens.json"), "tokens.json", "ends in .npz")
    assert_user_error(edgeprune(*command, tmp_path / "folder.npz"), "folder.npz", "it is a directory")
    assert_user_error(edgeprune(*command, tmp_path / "no" / "t.npz"), "no/t.npz", "there is no directory")
    assert_user_error(edgeprune(*command, tmp_path / "fine.npz"), "no.bundle")
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    if os.access(locked, os.W_OK):
        pytest.skip("this user may write everywhere; the refusal of a locked directory cannot be tried")
    assert_user_error(edgeprune(*command, locked / "t.npz"), "Permission denied")


def test_a_full_disk_leaves_the_older_file(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from edgeprune.errors import UserError
    from edgeprune.measure import token_dump

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    target = tmp_path / "tokens.npz"
    target.write_bytes(b"older")
    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(UserError, match=r"cannot write .*: No space left on device"):
        token_dump.write(target, {})
    assert target.read_bytes() == b"older"
    assert list(tmp_path.iterdir()) == [target]
