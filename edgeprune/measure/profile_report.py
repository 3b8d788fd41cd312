"""What a profile says: JSON-ready summaries and raw trials, and the rows of the table on the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from edgeprune import machine
from edgeprune.measure.breakeven import break_evens
from edgeprune.measure.profile import Case, Measured, Trial
from edgeprune.measure.traced import Traced
from edgeprune.timings import Summary, summarize

#: name in the report -> field of StageTimings, in the order in which the work is done; then parts of stages.
STAGES = {
    "decode_image": "decode_image_ms", "preprocess": "preprocess_ms", "vision": "vision_ms", "select": "select_ms",
    "embed": "embed_ms", "prefill": "prefill_ms", "decode": "decode_ms", "ttft": "ttft_ms", "tpot": "tpot_ms",
    "total": "total_ms", "resize": "resize_ms", "graph": "graph_ms", "own": "own_ms",
    "decode_graph": "decode_graph_ms",
}  # fmt: skip
TABLE_STAGES = tuple(name for name in STAGES if name not in ("decode_image", "select"))


def report(measured: Measured) -> dict[str, Any]:
    """{"partial", "machine", "peak_rss_bytes", "cases", "break_even"}; a case without a trial has null summaries, and
    what `add_traces` fills in is null until then.

    The peak is that of the process, with every model of the run opened; interleaved cases have none of their own.
    """
    return {
        "partial": measured.partial,
        "machine": {**machine.facts(), "governor": machine.governor()},
        "peak_rss_bytes": machine.peak_rss_bytes(),
        "cases": [_case(case, measured.trials[case]) for case in measured.cases],
        "break_even": [entry.to_dict() for entry in break_evens(measured)],
    }


def _case(case: Case, trials: Sequence[Trial]) -> dict[str, Any]:
    """Counts are those of the executed tensors, equal in every trial; null before the first."""
    answer = trials[0].answer if trials else None
    image = answer.images[0] if answer else None
    return {
        "variant": case.variant,
        "method": case.method,
        "keep": case.keep,
        "visual_tokens": image and image.visual_tokens,
        "kept_tokens": image and image.kept,
        "applied": image and image.applied,
        "reason": image and image.reason,
        "prompt_tokens": answer and answer.prompt_tokens,
        "new_tokens": answer and answer.timings.new_tokens,
        "kv_tokens": answer and answer.kv_tokens,
        "kv_bytes": answer and answer.timings.kv_bytes,
        "flops": None,
        "pruner": None,
        "layers": None,
        "stages_ms": {name: _stage(trials, field) for name, field in STAGES.items()},
        "trials": [_trial(trial) for trial in trials],
    }


def add_traces(report: dict[str, Any], cases: Sequence[Case], traced: Mapping[Case, Traced], layers: int) -> None:
    """Fills in "flops" and "pruner" of the cases that were traced; "layers", too, where a number of nodes is given."""
    for case, row in zip(cases, report["cases"], strict=True):
        if case in traced:
            row |= traced[case].to_dict()
            row["layers"] = traced[case].layers(layers) if layers else None


def _stage(trials: Sequence[Trial], field: str) -> dict[str, float] | None:
    if not trials:
        return None
    found: Summary = summarize([getattr(trial.answer.timings, field) for trial in trials])
    return {
        "p50": found.median, "p90": found.p90, "p99": found.p99, "stdev": found.stdev,
        "least": found.least, "most": found.most, "trials": found.trials,
    }  # fmt: skip


def _trial(trial: Trial) -> dict[str, Any]:
    """`round` and `place` in it tell when the trial ran; the rest is the runtime's own."""
    return {"round": trial.round, "place": trial.place, **trial.answer.timings.to_dict()}


def rows(cases: Sequence[dict[str, Any]]) -> list[list[str]]:
    """The table: a header, then per case what it kept and per stage p50 in ms; TTFT with p90, p99 and stdev."""
    head = ["variant", "method", "keep", "K/N", "applied", *TABLE_STAGES[:5]]
    head += ["ttft p50", "p90", "p99", "stdev", "tpot", "total", "KV KiB", "trials"]
    return [head, *(_row(case) for case in cases)]


def _row(case: dict[str, Any]) -> list[str]:
    stages = case["stages_ms"]
    begin = [case["variant"] or "-", case["method"], f"{case['keep']:g}"]
    if not case["trials"]:
        return [*begin, *["-"] * 14, "0"]
    begin += [f"{case['kept_tokens']}/{case['visual_tokens']}", "yes" if case["applied"] else "no"]
    medians = [_ms(stages[name]["p50"]) for name in TABLE_STAGES[:5]]
    first = [_ms(stages["ttft"][name]) for name in ("p50", "p90", "p99", "stdev")]
    last = [_ms(stages[name]["p50"]) for name in ("tpot", "total")]
    return [*begin, *medians, *first, *last, f"{case['kv_bytes'] / 1024:.0f}", str(len(case["trials"]))]


def traced_rows(cases: Sequence[dict[str, Any]]) -> list[list[str]]:
    """A header, then per traced case the operations of each stage and the pruner's share of the vision stage."""
    head = ["variant", "method", "keep", "K/N", "prompt", "vision GFLOP", "prefill GFLOP", "step GFLOP"]
    head += ["pruner ms", "of vision"]
    return [head, *(_traced_row(case) for case in cases if case["flops"] is not None)]


def _traced_row(case: dict[str, Any]) -> list[str]:
    counted = [f"{case['flops'][stage] / 1e9:.3g}" for stage in ("vision", "prefill", "decode_step")]
    pruner = case["pruner"]
    share = ["-", "-"] if pruner["ms"] is None else [f"{pruner['ms']:.3g}", f"{pruner['share']:.1%}"]
    tokens = ["-", "-"]
    if case["trials"]:
        tokens = [f"{case['kept_tokens']}/{case['visual_tokens']}", str(case["prompt_tokens"])]
    return [case["variant"] or "-", case["method"], f"{case['keep']:g}", *tokens, *counted, *share]


def layer_rows(nodes: Sequence[dict[str, Any]]) -> list[list[str]]:
    """The slowest nodes of a graph; the pruner's are marked with a star."""
    head = ["node", "operator", "ms", "share", "calls"]
    return [head, *(
        [("* " if node["pruner"] else "") + node["name"], node["op"], f"{node['ms']:.3g}", f"{node['share']:.1%}",
         f"{node['calls']:g}"]
        for node in nodes
    )]  # fmt: skip


def _ms(value: float) -> str:
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"
