"""The report of a sweep as one HTML file that loads nothing: script, pictures and data lie inside."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

from edgeprune.measure import sweep_plots
from edgeprune.measure.sweep_pictures import Picture

#: heading, of text?, (point) -> what is shown and what is sorted by.
_COLUMNS = ("variant", "method", "keep", "K", "N", "TTFT ms", "95 % interval", "total ms", "accuracy", "95 % interval",
            "questions", "front")  # fmt: skip
_TEXT = {"variant", "method", "front"}


def page(report: Mapping[str, Any], pictures: Sequence[Picture]) -> str:
    """The whole file.

    Args:
        report: JSON-ready; see `edgeprune.cli.sweep`. It is embedded as it is.
        pictures: of the kept tokens.
    """
    title = f"edgeprune sweep: {report['bundle']}"
    # "<" as an escape, so that no text in the data can end the element it stands in
    data = json.dumps(report, ensure_ascii=False, allow_nan=False).replace("<", "\\u003c")
    body = "\n".join([_head(title, report), *_figures(report), _pictures(pictures), _table(report), _end(report)])
    parts = {"TITLE": html.escape(title), "PLOTLY": sweep_plots.library(), "BODY": body, "DATA": data}
    template = resources.files("edgeprune").joinpath("assets/sweep/page.html").read_text(encoding="utf-8")
    first, *rest = template.split("@@")
    # every second piece is a name, so that nothing inside a part is taken for one
    return first + "".join(parts[piece] if place % 2 == 0 else piece for place, piece in enumerate(rest))


def _head(title: str, report: Mapping[str, Any]) -> str:
    facts = report["machine"]
    machine = f"{facts['processor']}, {facts['cores']} cores, governor {facts['governor'] or 'not readable'}"
    lines = [f"<h1>{html.escape(title)}</h1>"]
    lines.append(
        f'<p class="soft">edgeprune {html.escape(report["edgeprune"])}, onnxruntime '
        f"{html.escape(str(report['onnxruntime']))}, {html.escape(str(report['provider']))}; {html.escape(machine)}</p>"
    )
    if report["partial"]:
        lines.append(f'<p class="partial" id="partial"><b>Partial.</b> {html.escape(report["partial_reason"])}</p>')
    if report["notes"]:
        items = "".join(f"<li>{html.escape(note)}</li>" for note in report["notes"])
        lines.append(f'<div class="notes"><ul>{items}</ul></div>')
    return "\n".join(lines)


def _figures(report: Mapping[str, Any]) -> list[str]:
    points = report["points"]
    timing = report["latency"]
    how = (
        f"TTFT: median of {timing['trials']} interleaved trials, bars are its 95 % interval by bootstrap; the picture "
        f"is {timing['image']}, {timing['max_new_tokens']} new tokens."
    )
    found = []
    if report["data"] is None:
        found += [
            "<h2>TTFT by kept tokens</h2>",
            '<p id="no-accuracy"><b>Accuracy was not measured:</b> no questions were given.</p>',
            f"<p class='soft'>{html.escape(how)}</p>",
            sweep_plots.latency_figure(points),
        ]
    else:
        asked = (
            f"Accuracy: {report['data']['answered']} of {report['data']['items']} questions of "
            f"{report['data']['name']}, 95 % intervals. The front holds the cases than which no other is both faster "
            "and better; it is drawn through the estimates and knows nothing of their intervals."
        )
        if any(point["seeds"] for point in points):
            asked += " The random baseline's interval spans its seeds, not the questions, so it may look narrow."
        found += [
            "<h2>Accuracy against TTFT</h2>",
            f"<p class='soft'>{html.escape(asked)}<br>{html.escape(how)}</p>",
            sweep_plots.accuracy_figure(points),
        ]
    return [*found, "<h2>Where the time goes</h2>", sweep_plots.stage_figure(points)]


def _pictures(pictures: Sequence[Picture]) -> str:
    if not pictures:
        return ""
    lines = ["<h2>Kept tokens</h2>"]
    for name in dict.fromkeys(picture.name for picture in pictures):
        shown = [picture for picture in pictures if picture.name == name]
        asked = f": {shown[0].question}" if shown[0].question else ""
        lines.append(f"<p>{html.escape(name + asked)}</p><div class='pictures'>")
        lines += [
            f'<figure><img alt="{html.escape(picture.caption, quote=True)}" src="{picture.data_url}"></figure>'
            for picture in shown
        ]
        lines.append("</div>")
    return "\n".join(lines)


def _table(report: Mapping[str, Any]) -> str:
    heads = "".join(
        f'<th class="{"text" if name in _TEXT else ""}"><button>{html.escape(name)}</button></th>' for name in _COLUMNS
    )
    rows = "\n".join(_row(point) for point in report["points"])
    head = "<h2>All cases</h2><p class='soft'>Click a heading to sort.</p>"
    begin = f"{head}<div class='wide'><table class='sort'><thead><tr>{heads}</tr></thead>"
    return f"{begin}<tbody>\n{rows}\n</tbody></table></div>"


def _row(point: Mapping[str, Any]) -> str:
    name = "pareto" if point["pareto"] else "baseline" if point["baseline"] else ""
    seeds = f", {point['seeds']} seeds" if point["seeds"] else ""
    cells = [
        _text(point["variant"] or "own"),
        _text(point["method"] + seeds),
        _number(point["keep"], "g"),
        _number(point["kept_tokens"], "d"),
        _number(point["visual_tokens"], "d"),
        _number(point["ttft_ms"], ".2f"),
        _interval(point["ttft_interval_ms"], ".2f"),
        _number(point["total_ms"], ".2f"),
        _number(point["score"], ".3f"),
        _interval(point["score_interval"], ".3f"),
        _number(point["items"], "d"),
        _text("Pareto" if point["pareto"] else ""),
    ]
    return f'<tr class="{name}">{"".join(cells)}</tr>'


def _text(value: str) -> str:
    return f'<td class="text">{html.escape(value)}</td>'


def _number(value: float | None, form: str) -> str:
    return f'<td data-value="{"" if value is None else value}">{"-" if value is None else format(value, form)}</td>'


def _interval(value: Sequence[float] | None, form: str) -> str:
    """Sorted by its lower end."""
    if value is None:
        return '<td data-value="">-</td>'
    return f'<td data-value="{value[0]}">{value[0]:{form}} to {value[1]:{form}}</td>'


def _end(report: Mapping[str, Any]) -> str:
    lines = [f"<li>{html.escape(entry['statement'])}</li>" for entry in report["latency"]["break_even"]]
    found = f"<h2>When pruning pays</h2><ul>{''.join(lines)}</ul>" if lines else ""
    return (
        f"{found}<h2>Data</h2><p>This file holds everything it was drawn from, with every trial and every answer. "
        '<button id="save">Save as JSON</button></p>'
    )
