"""What single nodes cost and how many operations ran: a few answers more, with the runtime's own profiler on.

They come after the trials, one model at a time, and count towards none of the times: the profiler slows a run down.
"""

from __future__ import annotations

import statistics
import tempfile
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgeprune.manifest import PRUNING_PREFIX, Graphs, Manifest
from edgeprune.measure.flops import total_flops
from edgeprune.measure.profile import Case, Question, ask
from edgeprune.measure.trace import Node, graph_of, read_runs
from edgeprune.runtime.session import Model

#: (variant, prefix of the traces) -> the model with its profiler on
Open = Callable[[str | None, str], Model]

ANSWERS, WARMUP = 3, 1
#: of a traced answer: the prefill and one decode step.
NEW_TOKENS = 2
STAGES = ("vision", "embed", "prefill", "decode_step")


@dataclass
class Traced:
    """The runs of one case: stage -> graph -> its runs, without the warm-up; `marked`: the graph names its pruner."""

    marked: bool
    runs: dict[str, dict[str, list[list[Node]]]] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        return {"flops": self.flops(), "pruner": self.pruner()}

    def flops(self) -> dict[str, int]:
        """Stage -> operations of one answer; every answer of a case runs the same shapes."""
        found = {}
        for stage in STAGES:
            graphs = self.runs.get(stage, {}).values()
            found[stage] = sum(total_flops(node for run in runs for node in run) // ANSWERS for runs in graphs)
        return found

    def pruner(self) -> dict[str, Any]:
        """{"ms", "share", "vision_ms", "nodes", "inferred_ms", "reason"}: medians over the answers; `share` is that of
        the time in nodes of the vision stage. Null, with a reason, where the graphs do not name the pruner's nodes."""
        if not self.marked:
            reason = "the bundle was exported before the pruner's nodes had names of their own; export it again"
            return {"ms": None, "share": None, "vision_ms": None, "nodes": None, "inferred_ms": None, "reason": reason}
        answers = self._answers("vision")
        ours = [[node for node in nodes if node.pruner] for nodes in answers]
        whole = [_ms(nodes) for nodes in answers]
        return {
            "ms": statistics.median(map(_ms, ours)),
            "share": statistics.median(_ms(part) / of for part, of in zip(ours, whole, strict=True)),
            "vision_ms": statistics.median(whole),
            "nodes": len(ours[0]),
            "inferred_ms": statistics.median(_ms(node for node in part if node.inferred) for part in ours),
            "reason": "",
        }

    def layers(self, count: int) -> dict[str, list[dict[str, Any]]]:
        """Graph and stage, in the order of the work -> the nodes that took longest, per answer: "ms" in all its calls,
        "share" of the stage's time in this graph."""
        return {
            f"{stage}: {graph}": _slowest(runs, count)
            for stage in STAGES
            for graph, runs in self.runs.get(stage, {}).items()
        }

    def _answers(self, stage: str) -> list[list[Node]]:
        """Per answer, the nodes of every graph of a stage."""
        graphs = self.runs[stage].values()
        return [[node for runs in graphs for run in _of_answer(runs, at) for node in run] for at in range(ANSWERS)]


def trace_cases(
    open_model: Open, manifest: Manifest, cases: Sequence[Case], asked: Question, found: dict[Case, Traced]
) -> None:
    """Runs every case with the profiler on and adds what it finds to `found`: an interrupted run keeps the rest.

    Cases of one variant and method share a model; each model is closed before the next is opened.
    """
    together: dict[tuple[str | None, str], list[Case]] = defaultdict(list)
    for case in cases:
        together[case.variant, case.method].append(case)
    short = Question(asked.picture, asked.prompt, NEW_TOKENS)
    for (variant, method), group in together.items():
        with tempfile.TemporaryDirectory(prefix="edgeprune-") as folder:
            with open_model(variant, f"{folder}/") as model:
                for case in group:
                    for _ in range(WARMUP + ANSWERS):
                        ask(model, case, short)
            runs = {graph_of(file): read_runs(file) for file in Path(folder).iterdir()}
        unpruned = manifest.methods.each[method].where == "nowhere"
        found.update(_sorted_out(graphs_of(manifest, variant), method, unpruned, group, runs))


def graphs_of(manifest: Manifest, variant: str | None) -> Graphs:
    """The graphs of a variant, None: the bundle's own."""
    if variant is None:
        return manifest.graphs
    graphs = next(known.graphs for known in manifest.variants if known.slug == variant)
    assert graphs is not None, "a variant that onnxruntime runs lists its graphs"
    return graphs


def _sorted_out(
    graphs: Graphs, method: str, unpruned: bool, group: Sequence[Case], runs: Mapping[str | None, list[list[Node]]]
) -> dict[Case, Traced]:
    """Each case's share of the runs: every answer of a group runs each graph equally often, in the cases' order."""
    result = {}
    vision = [Path(graph.file).stem for graph in graphs.vision[method]]
    text = None if graphs.text is None else Path(graphs.text.file).stem
    vision += [text] if text in runs and text is not None else []  # it runs where the method reads the question by it
    decoder = Path(graphs.decoder.file).stem
    step = Path(graphs.decoder_step.file).stem if graphs.decoder_step is not None else decoder
    named = (node.name.startswith(PRUNING_PREFIX) for name in vision for run in runs[name] for node in run)
    marked = unpruned or any(named)
    shares = {name: _shares(name, found, len(group)) for name, found in runs.items() if name is not None and found}
    for index, case in enumerate(group):
        traced = Traced(marked)
        for name, found in shares.items():
            mine = found[index]
            per_answer = len(mine) // (WARMUP + ANSWERS)
            mine = mine[WARMUP * per_answer :]
            if name == decoder:
                traced.runs.setdefault("prefill", {})[name] = mine[::per_answer]
            if name == step:
                # The first decoder run of an answer is its prefill, unless another graph does that.
                traced.runs.setdefault("decode_step", {})[name] = mine[step == decoder :: per_answer]
            if name in (decoder, step):
                continue
            traced.runs.setdefault("vision" if name in vision else "embed", {})[name] = mine
        result[case] = traced
    return result


def _shares(name: str, runs: list[list[Node]], count: int) -> list[list[list[Node]]]:
    """RuntimeError: the trace is not whole."""
    size, rest = divmod(len(runs), count)
    if rest or size % (WARMUP + ANSWERS):
        raise RuntimeError(f"the trace of {name} holds {len(runs)} runs of {count} cases; onnxruntime cut it short")
    return [runs[index * size : (index + 1) * size] for index in range(count)]


def _of_answer(runs: list[list[Node]], answer: int) -> list[list[Node]]:
    size = len(runs) // ANSWERS
    return runs[answer * size : (answer + 1) * size]


def _ms(nodes: Any) -> float:
    return float(sum(node.own_ms for node in nodes))


def _slowest(runs: list[list[Node]], count: int) -> list[dict[str, Any]]:
    times: dict[tuple[str, str, bool], list[float]] = defaultdict(list)
    for run in runs:
        for node in run:
            times[node.name, node.op, node.pruner].append(node.own_ms)
    whole = sum(map(sum, times.values()))
    rows = sorted(times.items(), key=lambda entry: -sum(entry[1]))[:count]
    return [
        {"name": name, "op": op, "pruner": pruner, "ms": sum(spent) / ANSWERS,
         "share": sum(spent) / whole if whole else 0.0, "calls": len(spent) / ANSWERS}
        for (name, op, pruner), spent in rows
    ]  # fmt: skip
