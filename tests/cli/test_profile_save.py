"""`profile --target-ms X --save` and `run --keep tuned`: what is stored, who reads it, and when it is refused."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import pytest

from tests.cli.bad_images import write_picture
from tests.cli.command import assert_user_error, edgeprune, environment, tree
from tests.runtime import tiny_graphs

FOUND = ("--trials", 1, "--max-new-tokens", 1, "--no-trace", "--keep", 1)


@pytest.fixture(scope="module")
def hand(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    return tiny_graphs.write_bundle(tmp_path_factory.mktemp("tuned") / "hand.bundle")


def at(home: pathlib.Path) -> dict[str, str]:
    return environment(XDG_CONFIG_HOME=str(home))


def profiled(bundle: pathlib.Path, home: pathlib.Path, *argv: object) -> dict[str, Any]:
    done = edgeprune("profile", bundle, *FOUND, "--json", "-", *argv, env=at(home))
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)


def asked(bundle: pathlib.Path, home: pathlib.Path, picture: pathlib.Path, *argv: object) -> dict[str, Any]:
    done = edgeprune("run", bundle, "--image", picture, "--prompt", "?", "--json", "-", *argv, env=at(home))
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)


def test_a_stored_keep_is_used_by_who_asks_for_it_and_by_no_other(hand: pathlib.Path, tmp_path: pathlib.Path) -> None:
    picture, before = write_picture(tmp_path / "picture.png"), tree(hand)
    [entry] = profiled(hand, tmp_path, "--target-ms", 1e9, "--save")["target"]
    assert entry["saved"] == str(tmp_path / "edgeprune" / "tuned.json")
    assert tree(hand) == before, "the bundle stays as it is"

    tuned = asked(hand, tmp_path, picture, "--keep", "tuned")
    assert (tuned["keep"], tuned["kept_tokens"]) == (1.0, 16)
    assert tuned["keep_source"].startswith("profile --target-ms 1e+09 of 20")
    default = asked(hand, tmp_path, picture)
    assert "keep_source" not in default
    assert default["kept_tokens"] < 16

    text = edgeprune("run", hand, "--image", picture, "--prompt", "?", "--keep", "tuned", env=at(tmp_path)).stdout
    assert "keep from profile --target-ms" in text


def test_nothing_is_stored_unasked_or_unmet(hand: pathlib.Path, tmp_path: pathlib.Path) -> None:
    assert profiled(hand, tmp_path, "--target-ms", 1e9)["target"][0]["saved"] is None
    assert list(tmp_path.iterdir()) == []
    assert profiled(hand, tmp_path, "--target-ms", 1e-9, "--save")["target"][0]["saved"] is None
    assert not (tmp_path / "edgeprune" / "tuned.json").exists()


def test_a_missing_or_foreign_keep_is_refused(hand: pathlib.Path, tmp_path: pathlib.Path) -> None:
    picture, place = write_picture(tmp_path / "picture.png"), tmp_path / "edgeprune" / "tuned.json"
    argv = ["run", hand, "--image", picture, "--prompt", "?", "--keep", "tuned"]
    assert_user_error(edgeprune(*argv, env=at(tmp_path)), "no keep is stored", "for best of hand.bundle", "--save")
    profiled(hand, tmp_path, "--target-ms", 1e9, "--save")
    assert_user_error(edgeprune(*argv, "--prune", "four", env=at(tmp_path)), "no keep is stored", "for four")
    stored = json.loads(place.read_text())
    for methods in stored.values():
        methods["best"]["machine"] = "another one"
    place.write_text(json.dumps(stored))
    assert_user_error(edgeprune(*argv, env=at(tmp_path)), "measured on another one, CPUExecutionProvider, and this is")
    for broken in ("{", "[]", '{"x": 1}'):
        place.write_text(broken)
        assert_user_error(edgeprune(*argv, env=at(tmp_path)), "remove it to begin again")


def test_what_cannot_be_written_is_refused_before_anything_is_measured(
    hand: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    assert_user_error(edgeprune("profile", hand, "--json", tmp_path / "no" / "p.json"), "there is no directory")
    assert_user_error(edgeprune("profile", hand, "--save"), "--target-ms")
    (tmp_path / "file").write_text("")
    done = edgeprune("profile", hand, "--target-ms", 1, "--save", env=at(tmp_path / "file"))
    assert_user_error(done, "XDG_CONFIG_HOME")


def test_a_target_for_a_method_that_keeps_everything(hand: pathlib.Path, tmp_path: pathlib.Path) -> None:
    [entry] = profiled(hand, tmp_path, "--prune", "none", "--target-ms", 1e-9)["target"]
    assert [probe["kept_tokens"] for probe in entry["probes"]] == [16]
