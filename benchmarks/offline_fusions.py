"""Whether the fusions that onnxruntime makes when it loads a graph are worth writing into a cpu variant.

    python -m benchmarks.offline_fusions OUT.json BUNDLE [--trials N]

The first vision graph of BUNDLE, and the decoder's prefill, as they are and with every product in int8, each in two
forms: as it stands, and as onnxruntime itself wrote it down after optimising it (contrib operators included). Processor
time of one thread, trials interleaved: of opening a session, and of a run. Results of both forms are compared.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import onnxruntime

from edgeprune.bundle import Bundle
from edgeprune.engines import calibration, one_by_one, quantise
from edgeprune.engines.accuracy import relative


def options(written: Path | None = None) -> Any:
    made = onnxruntime.SessionOptions()
    made.intra_op_num_threads = 1
    made.log_severity_level = 3
    if written is not None:
        made.optimized_model_filepath = str(written)
        made.add_session_config_entry("session.optimized_model_external_initializers_file_name", written.stem + ".data")
    return made


def opened(path: Path, written: Path | None = None) -> tuple[Any, float]:
    """A session, and the processor time that opening it took, in milliseconds."""
    started = time.process_time()
    session = onnxruntime.InferenceSession(str(path), options(written), providers=["CPUExecutionProvider"])
    return session, (time.process_time() - started) * 1e3


def timed(session: Any, feeds: quantise.Arrays) -> float:
    started = time.process_time()
    session.run(None, dict(feeds))
    return (time.process_time() - started) * 1e3


def compare(path: Path, feeds: quantise.Arrays, trials: int) -> dict[str, Any]:
    """One graph in both forms; the written one lies beside it."""
    written = path.with_name(f"{path.stem}-written.onnx")
    opened(path, written)
    forms = {"as it stands": path, "written": written}
    loads: dict[str, list[float]] = {name: [] for name in forms}
    for _ in range(3):
        for name, file in forms.items():
            loads[name].append(opened(file)[1])
    sessions = {name: opened(file)[0] for name, file in forms.items()}
    exact, found = (sessions[name].run(None, dict(feeds)) for name in forms)
    runs: dict[str, list[float]] = {name: [] for name in forms}
    for _ in range(trials):
        for name, session in sessions.items():
            runs[name].append(timed(session, feeds))
    return {
        "operators": {name: _operators(file) for name, file in forms.items()},
        "graph_bytes": {name: file.stat().st_size for name, file in forms.items()},
        "load_ms": loads,
        "run_ms": runs,
        "run_ratio": {"median": _ratio(runs, statistics.median), "least": _ratio(runs, min)},
        "load_ratio": _ratio(loads, min),
        "largest_difference": max(relative(b, a) for a, b in zip(exact, found, strict=True) if a.size),
    }


def _ratio(values: dict[str, list[float]], of: Callable[[list[float]], float]) -> float:
    before, after = map(of, values.values())
    return after / before


def _operators(path: Path) -> dict[str, int]:
    nodes = onnx.load(path, load_external_data=False).graph.node
    return dict(Counter(f"{node.domain}:{node.op_type}".lstrip(":") for node in nodes).most_common())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--trials", type=int, default=10)
    args = parser.parse_args()
    bundle = Bundle.open(args.bundle, verify="sizes")
    inputs, graphs = calibration.inputs(bundle), bundle.manifest.graphs
    method = next(iter(graphs.vision))
    work = {"vision": (graphs.vision[method][0], inputs.vision[method]), "decoder": (graphs.decoder, inputs.decoder)}
    rows = {}
    for stage, (graph, feeds) in work.items():
        source = bundle.file(graph.file)
        for word in ("fp32", "int8"):
            with tempfile.TemporaryDirectory(dir=args.bundle.parent) as folder:
                products = one_by_one.Products(source, source.parent, Path(folder), quantise.integer)
                every = [node.name for node in quantise.products(onnx.load(source, load_external_data=False))]
                path = products.write(products.model(every if word == "fp32" else []))
                rows[f"{stage} {word}"] = compare(path, feeds, args.trials)
            shown = rows[f"{stage} {word}"]
            print(
                stage, word, {key: shown[key] for key in ("run_ratio", "load_ratio", "largest_difference")}, flush=True
            )
    facts = {"onnxruntime": onnxruntime.__version__, "shared_machine": True, "bundle": args.bundle.name}
    args.out.write_text(json.dumps({**facts, "rows": rows}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
