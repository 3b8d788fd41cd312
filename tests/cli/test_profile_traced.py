"""What `profile` tells of nodes: operations against a count by hand, the pruner's share, --layers, Ctrl-C."""

from __future__ import annotations

import json
import pathlib
import re
import signal
import time
from typing import Any

import pytest

from edgeprune.manifest import PRUNING_PREFIX
from tests.cli.command import assert_user_error, edgeprune, start
from tests.runtime import tiny_graphs

STAGES = ["vision", "embed", "prefill", "decode_step"]


def profiled(bundle: pathlib.Path, *argv: object) -> dict[str, Any]:
    done = edgeprune("profile", bundle, "--trials", 1, "--max-new-tokens", 3, "--json", "-", *argv)
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)


def vision_flops(kept: int) -> int:
    """The `tiny` model: 16 patches of 14 px and [CLS], width 64, MLP 128, two blocks used, the second one's queries and
    MLP for [CLS]'s scores and the kept tokens only; then the projector, 64 wide."""
    tokens, width, mlp = 17, 64, 128
    patches = 16 * 3 * 14 * 14 * width
    first = 4 * tokens * width**2 + 2 * tokens**2 * width + 2 * tokens * width * mlp
    keys_and_values = 2 * tokens * width**2
    scores = width**2 + tokens * width
    kept_rows = kept * (2 * width**2 + 2 * tokens * width + 2 * width * mlp)
    return 2 * (patches + first + keys_and_values + scores + kept_rows + kept * 2 * width**2)


def decoder_flops(tokens: int, cached: int) -> int:
    """Two layers of width 64 with keys and values 32 wide, MLP 128 gated; 384 logits of one position."""
    projections = 2 * 64 * 64 + 2 * 64 * 32
    attention = 2 * (tokens + cached) * 64
    return 2 * (2 * tokens * (projections + attention + 3 * 64 * 128) + 64 * 384)


@pytest.fixture(scope="module")
def traced(tiny_bundle: pathlib.Path) -> dict[str, Any]:
    return profiled(tiny_bundle, "--prune", "fastervlm,none", "--keep", "0.5,0.25", "--layers", 3)


def test_operations_are_those_counted_by_hand(traced: dict[str, Any]) -> None:
    half, quarter, none = traced["cases"]
    for case in (half, quarter):
        assert case["flops"]["vision"] == vision_flops(case["kept_tokens"])
    for case in (half, quarter, none):
        tokens = case["prompt_tokens"]
        assert list(case["flops"]) == STAGES
        assert case["flops"]["embed"] == 0
        assert case["flops"]["prefill"] == decoder_flops(tokens, 0)
        assert case["flops"]["decode_step"] == decoder_flops(1, tokens)


def test_the_pruners_share_is_measured(traced: dict[str, Any]) -> None:
    for case in traced["cases"]:
        pruner = case["pruner"]
        assert list(pruner) == ["ms", "share", "vision_ms", "nodes", "inferred_ms", "reason"]
        assert pruner["reason"] == ""
        assert 0 <= pruner["ms"] < pruner["vision_ms"]
        assert 0 <= pruner["share"] < 1
        assert (pruner["nodes"] >= 15) == (case["method"] == "fastervlm")


def test_layers(traced: dict[str, Any], tiny_bundle: pathlib.Path) -> None:
    case = traced["cases"][0]
    assert set(case["layers"]) == {
        "vision: vision-fastervlm", "embed: embedding", "prefill: decoder", "decode_step: decoder"
    }  # fmt: skip
    for nodes in case["layers"].values():
        assert 1 <= len(nodes) <= 3
        assert [list(node) for node in nodes] == [["name", "op", "pruner", "ms", "share", "calls"]] * len(nodes)
        assert [node["ms"] for node in nodes] == sorted((node["ms"] for node in nodes), reverse=True)
        assert sum(node["share"] for node in nodes) <= 1 + 1e-9
        assert all(node["pruner"] == node["name"].startswith(PRUNING_PREFIX) for node in nodes)
    done = edgeprune("profile", tiny_bundle, "--trials", 1, "--keep", 0.5, "--max-new-tokens", 2, "--layers", 1000)
    assert done.returncode == 0
    assert "own fastervlm keep 0.5, vision: vision-fastervlm" in done.stdout
    assert re.search(r"^\* pruning/node_topk", done.stdout, re.MULTILINE)
    assert re.search(r"^variant +method .* vision GFLOP .* pruner ms +of vision$", done.stdout, re.MULTILINE)


def test_every_node_of_a_greedy_loop_is_counted_once(tmp_path: pathlib.Path) -> None:
    from edgeprune.export.pipeline import export
    from edgeprune.recipe import ExportRecipe

    bundle = export(ExportRecipe(model="tiny", prune=("divprune",), keep=0.25), tmp_path / "greedy.bundle")
    [case] = profiled(bundle, "--keep", 0.5, "--layers", 1000)["cases"]
    nodes = case["layers"]["vision: vision-divprune"]
    assert sum(node["share"] for node in nodes) == pytest.approx(1)
    [loop] = [node for node in nodes if node["op"] == "Scan"]
    body = [node for node in nodes if node["calls"] == case["kept_tokens"]]
    assert loop["pruner"]
    assert loop["calls"] == 1
    assert body
    assert all(node["pruner"] for node in body)


def test_an_older_bundle_says_why_there_is_no_share(tmp_path: pathlib.Path) -> None:
    """These graphs are written by hand, without the mark."""
    hand = tiny_graphs.write_bundle(tmp_path / "hand.bundle")
    report = profiled(hand, "--keep", 0.5)
    [case] = report["cases"]
    assert (case["pruner"]["ms"], case["pruner"]["share"], case["layers"]) == (None, None, None)
    assert "export it again" in case["pruner"]["reason"]
    assert case["flops"]["prefill"] > 0


def test_without_the_traced_answers(tmp_path: pathlib.Path) -> None:
    hand = tiny_graphs.write_bundle(tmp_path / "hand.bundle")
    [case] = profiled(hand, "--keep", 0.5, "--no-trace")["cases"]
    assert (case["flops"], case["pruner"], case["layers"]) == (None, None, None)
    assert_user_error(edgeprune("profile", hand, "--layers", 0), "--layers", "from 1")
    assert_user_error(edgeprune("profile", hand, "--layers", "--no-trace"), "--layers", "--no-trace")


def test_ctrl_c_while_nodes_are_timed(tmp_path: pathlib.Path) -> None:
    """The trials are whole, the traces are missing, and the report says that it is partial."""
    slow = tiny_graphs.write_bundle(tmp_path / "s.bundle", tiny_graphs.Options(slow={"vision": 600_000}))
    running = start("profile", slow, "--trials", 1, "--keep", "1,0.5,0.25", "--json", tmp_path / "out.json")
    folder = pathlib.Path(f"/proc/{running.pid}/fd")

    def tracing() -> bool:
        links = [link.readlink().name for link in folder.iterdir() if link.exists()]
        return any(re.fullmatch(r"vision-best_.*\.json", name) for name in links)

    while not tracing():
        assert running.poll() is None, running.communicate()
        time.sleep(0.02)
    running.send_signal(signal.SIGINT)
    text, errors = running.communicate(timeout=60)
    assert (running.returncode, "Traceback" in errors) == (130, False), errors
    assert "interrupted: these results are partial" in text
    report = json.loads((tmp_path / "out.json").read_text())
    assert report["partial"] is True
    assert [len(case["trials"]) for case in report["cases"]] == [1, 1, 1]
    assert [case["flops"] for case in report["cases"]] == [None, None, None]
