"""Every registered method's vision graph at ViT-L width: what lint says for each TensorRT target, that no greedy loop
is unrolled, and that TensorRT-RTX builds it for sm86."""

from __future__ import annotations

import pytest

from benchmarks import docs_tables, method_graphs
from edgeprune.pruning.registry import method_names
from tests.engines.test_tensorrt import needs_rtx

#: two encoder blocks have about 100 nodes; 58 unrolled steps of a greedy method would have more than 300
MOST_NODES = 300


@needs_rtx
@pytest.mark.slow
@pytest.mark.parametrize("spec", method_names())
def test_graph_at_vit_l_width_is_clean_and_builds_for_sm86(spec: str, capsys: pytest.CaptureFixture[str]) -> None:
    row = method_graphs.row(spec)
    with capsys.disabled():
        print(f"\n{spec}: {row}")
    assert row["findings"] == []
    assert row["nodes"] < MOST_NODES
    assert row["engine_mib"] > 50, "two blocks of ViT-L width"


def test_docs_hold_the_newest_result() -> None:
    result = docs_tables.newest(method_graphs.NAME)
    assert docs_tables.part(method_graphs.PAGE, method_graphs.NAME) == method_graphs.table(result) + "\n"
    for spec, row in result["methods"].items():
        assert row["findings"] == [], spec
        assert row["nodes"] < MOST_NODES, spec


def test_every_tensorrt_target_is_linted_for() -> None:
    names = {target.name for target in method_graphs.tensorrt_targets()}
    assert {"tensorrt:local", "tensorrt:orin-nano", "tensorrt-rtx:sm86,sm89,sm120"} <= names
