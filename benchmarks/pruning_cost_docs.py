"""The measured part of docs/pruning.md, written from the newest raw result of `make bench-pruning`."""

from __future__ import annotations

from typing import Any, Final

from benchmarks import docs_tables

NAME: Final = "pruning-cost"
PAGE: Final = docs_tables.REPO / "docs" / "pruning.md"


def write() -> None:
    """Puts the newest result between the marks of docs/pruning.md."""
    docs_tables.replace(PAGE, NAME, text(docs_tables.newest(NAME)))


def text(result: dict[str, Any]) -> str:
    """The table and the sentences that state numbers. Results from before the int8 encoder was timed have no column
    for it."""
    wide = f"ratio_at_width_{result['sizes']['D']}"
    eighth = result.get("encoder_int8")
    header = ["method", "own time / fp32 encoder", *(["own time / int8 encoder"] if eighth else [])]
    header += [f"at width {result['sizes']['D']}", "MFLOP", "signal MFLOP", "extra bytes"]
    rows = [
        [
            f"`{spec}`",
            share(row["ratio_to_encoder"]),
            *([share(row["ratio_to_int8_encoder"])] if eighth else []),
            share(row[wide]) if wide in row else "",
            f"{row['flops'] / 1e6:.2f}",
            f"{row['signal_flops'] / 1e6:.0f}",
            f"{row['extra_bytes'] / 1024:.0f} Ki",
        ]
        for spec, row in result["methods"].items()
    ]
    return "\n".join([docs_tables.markdown(header, rows), "", *sentences(result)])


def share(ratio: float) -> str:
    """A ratio as per cent."""
    return f"{100 * ratio:.3f} %" if ratio < 0.0001 else f"{100 * ratio:.2f} %"


def sentences(result: dict[str, Any]) -> list[str]:
    """What the encoder is, what int8 makes of it, what projecting all tokens costs, and what misses its goal."""
    encoder, projecting, eighth = result["encoder"], result["projecting_all"], result.get("encoder_int8")
    payers = ", ".join(f"`{name}`" for name in projecting["paid_by"])
    lines = [f"The encoder is {encoder['flops'] / 1e9:.0f} GFLOP."]
    if eighth:
        lines.append(
            f"With the {eighth['products_of_a_block']} weight products of every block in dynamic int8 and its "
            f"attention in bfloat16, as `edgeprune build` makes them, it takes {share(eighth['ratio_to_encoder'])} of "
            "the fp32 time."
        )
    else:
        lines.append("An int8 encoder was not timed in this run.")
    lines.append(f"Methods that read projected tokens ({payers}) also project all N tokens instead of K:")
    own = f"{share(projecting['ratio_to_encoder'])} of the fp32 encoder"
    if eighth:
        own += f", {share(projecting['ratio_to_int8_encoder'])} of the int8 one, with an fp32 projector"
    lines.append(f"{own}, for LLaVA-1.5-7B's projector (1024, 4096, 4096), whichever of them it is.")
    missed = [spec for spec, row in result["methods"].items() if not row["meets_goal"]]
    lines.append(f"Over the goal: {', '.join(f'`{spec}`' for spec in missed) or 'no method'}.")
    return lines
