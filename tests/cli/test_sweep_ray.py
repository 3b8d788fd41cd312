"""`edgeprune sweep --on ray` on a local cluster of two processes: the same answers as in one process."""

from __future__ import annotations

import json
import pathlib

import pytest

from tests.cli.command import assert_user_error, edgeprune
from tests.cli.test_sweep import write_data
from tests.runtime import tiny_graphs

pytest.importorskip("plotly")
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("quiet_machine")]


def test_two_processes_give_the_answers_of_one(tmp_path: pathlib.Path) -> None:
    pytest.importorskip("ray")
    bundle = tiny_graphs.write_bundle(tmp_path / "hand.bundle")
    data = write_data(tmp_path, 5)
    argv = ["--methods", "best,none", "--keep", "1,0.25", "--trials", 2, "--max-new-tokens", 3, "--threads", 1]
    argv += ["-o", tmp_path / "r.html"]
    found = {}
    for name, more in {"here": [], "ray": ["--on", "ray", "--workers", 2, "--resume", tmp_path / "work"]}.items():
        target = tmp_path / f"{name}.json"
        done = edgeprune("sweep", bundle, data, *argv, *more, "--json", target, timeout=900)
        assert done.returncode == 0, done.stderr
        found[name] = json.loads(target.read_text())
    assert found["ray"]["on"] == "ray"
    assert found["ray"]["accuracy"] == found["here"]["accuracy"]
    assert found["ray"]["data"]["answered"] == 10
    blocks = (tmp_path / "work" / "answers-own.jsonl").read_text().splitlines()
    assert len(blocks) == 1 + 5 * 3
    (tmp_path / "3.png").write_bytes(b"no picture")
    refused = edgeprune("sweep", bundle, data, *argv, "--pictures", 1, "--on", "ray", "--workers", 2, timeout=900)
    assert_user_error(refused, "d.jsonl line 7: ", "3.png")
