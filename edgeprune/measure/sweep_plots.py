"""The figures of a sweep's report, drawn by plotly in the reader's browser."""

from __future__ import annotations

import html
import importlib
from collections.abc import Mapping, Sequence
from typing import Any

from edgeprune.errors import DependencyError

#: stages of the bars, in the order in which the work is done; their sum is the total without reading a file.
STAGES = ("preprocess", "vision", "select", "embed", "prefill", "decode")
#: Okabe and Ito's colours, told apart by most colour-blind people; grey is the random baseline's.
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c510a", "#5e3c99")
_GREY, _INK, _GRID = "#888888", "#222222", "#e3e3e3"
_SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "x", "star", "hexagon")
_LAYOUT = {
    "template": "none", "font": {"family": "system-ui, sans-serif", "size": 13, "color": _INK},
    "margin": {"l": 70, "r": 20, "t": 20, "b": 60}, "paper_bgcolor": "white", "plot_bgcolor": "white",
}  # fmt: skip
_CONFIG = {"displaylogo": False, "responsive": True, "modeBarButtonsToRemove": ["lasso2d", "select2d"]}
Points = Sequence[Mapping[str, Any]]


def plotly(module: str) -> Any:
    """`plotly.MODULE`; DependencyError when it is not installed."""
    try:
        return importlib.import_module(f"plotly.{module}")
    except ModuleNotFoundError as error:
        raise DependencyError(
            "the report of a sweep needs plotly, which is not installed: run `pip install 'edgeprune[sweep]'`."
        ) from error


def library() -> str:
    """plotly's own script, to be put into the page."""
    return str(plotly("offline").get_plotlyjs())


def label(point: Mapping[str, Any]) -> str:
    """METHOD, and the variant where it is not the bundle's own graphs."""
    return point["method"] if point["variant"] is None else f"{point['method']}, {point['variant']}"


def accuracy_figure(points: Points) -> str:
    """Accuracy against TTFT with intervals of both; the front is a line through ringed points."""
    known = [point for point in points if point["score"] is not None and point["ttft_ms"] is not None]
    best = sorted((point for point in known if point["pareto"]), key=lambda point: point["ttft_ms"])
    traces = [_front(best), *(_series(points, name, _accuracy) for name, points in _by_label(known).items())]
    return _figure("accuracy", traces, _axes("TTFT in ms (median)", "accuracy", {"tickformat": ".0%"}), 460)


def latency_figure(points: Points) -> str:
    """TTFT against the kept tokens, where nothing was asked."""
    known = [point for point in points if point["ttft_ms"] is not None]
    traces = [_series(points, name, _latency) for name, points in _by_label(known).items()]
    axes = _axes("kept tokens K", "TTFT in ms (median)", {"rangemode": "tozero"})
    return _figure("latency", traces, axes, 420)


def stage_figure(points: Points) -> str:
    """A bar per case, made of the medians of its stages; the fastest TTFT on top."""
    known = sorted((p for p in points if p["ttft_ms"] is not None), key=lambda point: -point["ttft_ms"])
    names = [html.escape(f"{label(point)} @ {point['keep']:g}") for point in known]
    traces = [
        {"type": "bar", "orientation": "h", "name": stage, "y": names, "marker": {"color": colour},
         "x": [point["stages_ms"][stage] for point in known], "hovertemplate": f"{stage}: %{{x:.2f}} ms<extra></extra>"}
        for stage, colour in zip(STAGES, _COLOURS, strict=False)
        if any(point["stages_ms"][stage] for point in known)
    ]  # fmt: skip
    axes = _axes("ms (median of each stage)", "", {"automargin": True, "showgrid": False})
    axes["yaxis"].pop("title")
    legend = {"traceorder": "normal", "orientation": "h", "y": 1, "yanchor": "bottom", "x": 0}
    more = {"barmode": "stack", "bargap": 0.25, "legend": legend, "margin": {"l": 20, "r": 20, "t": 50, "b": 60}}
    return _figure("stages", traces, {**axes, **more}, 130 + 26 * len(names))


def _by_label(points: Points) -> dict[str, list[Mapping[str, Any]]]:
    found: dict[str, list[Mapping[str, Any]]] = {}
    for point in points:
        found.setdefault(label(point), []).append(point)
    return {name: sorted(group, key=lambda point: point["keep"]) for name, group in found.items()}


def _accuracy(point: Mapping[str, Any]) -> tuple[float, float, list[float] | None, list[float] | None]:
    return point["ttft_ms"], point["score"], point["ttft_interval_ms"], point["score_interval"]


def _latency(point: Mapping[str, Any]) -> tuple[float, float, list[float] | None, list[float] | None]:
    return point["kept_tokens"], point["ttft_ms"], None, point["ttft_interval_ms"]


def _series(points: Points, name: str, read: Any) -> dict[str, Any]:
    """One method in one variant, its keep ratios joined by a thin line."""
    rows = [read(point) for point in points]
    place = points[0]["series"]
    baseline = points[0]["baseline"]
    colour = _GREY if baseline else _COLOURS[place % len(_COLOURS)]
    symbol = _SYMBOLS[place // len(_COLOURS) % len(_SYMBOLS)]
    return {
        "type": "scatter", "mode": "lines+markers", "name": html.escape(name),
        "x": [row[0] for row in rows], "y": [row[1] for row in rows],
        "error_x": _error([(row[0], row[2]) for row in rows], colour),
        "error_y": _error([(row[1], row[3]) for row in rows], colour),
        "line": {"color": colour, "width": 1, "dash": "dash" if baseline else "dot"},
        "marker": {"color": colour, "size": 9, "symbol": symbol},
        "hovertext": [_hover(point) for point in points], "hoverinfo": "text",
    }  # fmt: skip


def _error(rows: Sequence[tuple[float, list[float] | None]], colour: str) -> dict[str, Any]:
    above = [0.0 if interval is None else max(0.0, interval[1] - value) for value, interval in rows]
    below = [0.0 if interval is None else max(0.0, value - interval[0]) for value, interval in rows]
    return {"type": "data", "symmetric": False, "array": above, "arrayminus": below, "thickness": 1, "width": 3,
            "color": colour}  # fmt: skip


def _front(best: Points) -> dict[str, Any]:
    """A wide pale line behind the points, and a ring around each of the front."""
    return {
        "type": "scatter", "mode": "lines+markers", "name": "Pareto front", "hoverinfo": "skip",
        "x": [point["ttft_ms"] for point in best], "y": [point["score"] for point in best],
        "line": {"color": "#f2c744", "width": 5},
        "marker": {"size": 19, "color": "white", "line": {"color": "#d09a00", "width": 2}},
    }  # fmt: skip


def _hover(point: Mapping[str, Any]) -> str:
    lines = [f"<b>{html.escape(label(point))}</b>, keep {point['keep']:g}"]
    lines.append(f"{point['kept_tokens']} of {point['visual_tokens']} tokens")
    lines.append(f"TTFT {point['ttft_ms']:.2f} ms")
    if point["score"] is not None:
        interval = point["score_interval"]
        spread = f" ({interval[0]:.1%} to {interval[1]:.1%})" if interval else ""
        lines.append(f"accuracy {point['score']:.1%}{spread}")
    return "<br>".join(lines)


def _axes(x: str, y: str, y_more: Mapping[str, Any]) -> dict[str, Any]:
    common = {"gridcolor": _GRID, "zeroline": False, "linecolor": _INK, "ticks": "outside"}
    return {
        "xaxis": {**common, "title": {"text": x}, "rangemode": "tozero"},
        "yaxis": {**common, "title": {"text": y}, **y_more},
    }


def _figure(name: str, traces: Sequence[Mapping[str, Any]], layout: Mapping[str, Any], height: int) -> str:
    """A <div> and the script that fills it."""
    figure = plotly("graph_objects").Figure(
        data=list(traces), layout={**_LAYOUT, "showlegend": True, **layout, "height": height}
    )
    return str(
        plotly("io").to_html(
            figure, full_html=False, include_plotlyjs=False, div_id=f"figure-{name}", config=_CONFIG,
            default_height=f"{height}px",
        )
    )  # fmt: skip
