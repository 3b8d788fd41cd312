"""Parity inside the export: every graph just written, run in ONNX Runtime and compared with the torch reference."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from edgeprune.errors import CheckFailed, DependencyError
from edgeprune.export.golden import Golden
from edgeprune.export.models.base import ModelFamily
from edgeprune.export.reference import Reference, VisionReference
from edgeprune.export.reference_text import TextReference
from edgeprune.export.text_encoder import segments
from edgeprune.pruning.base import PruningMethod
from edgeprune.tolerances import TOLERANCES

Row = dict[str, Any]

#: measure of a parity row, which `edgeprune check --parity` reads too
DIFFERENT = "different kept tokens"


def check(
    folder: Path,
    golden: Golden,
    reference: Reference,
    methods: dict[str, tuple[PruningMethod, int]],
    files: dict[str, list[str]],
    default: str,
    dtype: str,
) -> list[Row]:
    """Rows of manifest.parity.

    Args:
        folder: onnx/ of the bundle being written.
        files: key -> the method's vision graphs, in the order in which they run.
        methods: key -> method and its K. default: key whose prompt the decoder is run on.

    Raises:
        CheckFailed: a comparison is outside its tolerance.
    """
    suffix = "" if dtype == "fp32" else f"_{dtype}"
    rows: list[Row] = []
    for key, (method, _) in methods.items():
        expected, last = golden.vision[key], files[key][-1]
        # torch's values first: a greedy graph that meets NaN may fail in a node that says nothing about it
        require_finite(key, last, _known(scores=expected.scores, visual_embeds=expected.visual_embeds))
        feeds = vision_feeds(golden, reference, method, len(expected.keep_idx))
        made = run_vision([folder / name for name in files[key]], feeds)
        require_finite(key, last, _known(scores=made.get("scores"), visual_embeds=made["visual_embeds"]))
        rows += _vision(made, f"vision/{key}", expected, method, suffix)
    if reference.text is not None:
        rows.append(_text(folder / "text.onnx", golden, reference.text))
    rows.append(_embedding(folder / "embedding.onnx", golden, reference, suffix))
    rows += _decoder(folder / "decoder.onnx", golden, reference, default, suffix)
    failed = [row for row in rows if not row["passed"]]
    if failed:
        worst = failed[0]
        raise CheckFailed(
            f"parity of {worst['stage']} failed: {worst['measure']} is {worst['value']:.3g}, "
            f"tolerated is {worst['tolerance']:.3g}; nothing was written"
        )
    return rows


def session(path: Path) -> Any:
    """An ONNX Runtime CPU session."""
    # From 1.29 on, official builds write below $HOME and upload usage; an export asks for neither.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    try:
        import onnxruntime
    except ImportError as error:
        raise DependencyError("export checks its graphs in onnxruntime: pip install 'edgeprune[cpu]'") from error
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def _row(stage: str, measure: str, value: float, tolerance: float) -> Row:
    passed = bool(np.isfinite(value) and value <= tolerance)
    return {
        "stage": stage,
        "measure": measure,
        "value": float(np.nan_to_num(value, nan=1e30, posinf=1e30)),
        "tolerance": tolerance,
        "passed": passed,
    }


def require_finite(method: str, graph: str, made: dict[str, np.ndarray]) -> None:
    """CheckFailed, naming method, graph and how many, unless every value is finite: NaN has no order, so what a
    selection keeps by it is arbitrary."""
    for name, values in made.items():
        bad = int(np.count_nonzero(~np.isfinite(values)))
        if bad:
            raise CheckFailed(
                f"method {method}: {bad} of {values.size} values of {name} of {graph} are NaN or Inf; look for "
                "NaN in the checkpoint's weights, or export with --dtype fp32; nothing was written"
            )


def _known(**values: np.ndarray | None) -> dict[str, np.ndarray]:
    return {name: array for name, array in values.items() if array is not None}


def relative(found: np.ndarray, expected: np.ndarray) -> float:
    """Largest difference over the largest |expected|."""
    found = found.astype(np.float32)
    return float(np.abs(found - expected).max() / max(float(np.abs(expected).max()), 1e-30))


def vision_feeds(golden: Golden, reference: Reference, method: PruningMethod, count: int) -> dict[str, np.ndarray]:
    """Role -> input of the vision graphs, for the golden picture and question."""
    feeds = {"pixel_values": golden.seen.values, "keep_slots": np.zeros(count, np.float32)}
    if golden.seen.padding is not None:
        feeds["pad_mask"] = golden.seen.padding[None]
    if method.text:
        ids = golden.outputs["text_encoder_ids" if method.text_encoder else "question_ids"]
        embeds = reference.question_embeds(method, ids.tolist())[None]
        feeds |= {"text_embeds": embeds, "text_mask": np.ones(embeds.shape[:2], np.float32)}
    return feeds


def run_vision(paths: list[Path], feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Outputs of a method's vision graphs, each reading what the ones before it made."""
    known = dict(feeds)
    for path in paths:
        running = session(path)
        names = [item.name for item in running.get_outputs()]
        wanted = {item.name: known[item.name] for item in running.get_inputs()}
        known |= dict(zip(names, running.run(None, wanted), strict=True))
    return known


def _vision(
    made: dict[str, np.ndarray], stage: str, expected: VisionReference, method: PruningMethod, suffix: str
) -> list[Row]:
    index = made["keep_idx"][0]
    rows = [
        _row(
            stage,
            "visual_embeds",
            relative(made["visual_embeds"][0], expected.embeds_at(index)),
            TOLERANCES["visual_embeds" + suffix],
        )
    ]
    if expected.scores is not None:
        tolerance = TOLERANCES["scores"] if not suffix else TOLERANCES["visual_embeds" + suffix]
        rows.append(_row(stage, "scores", relative(made["scores"][0], expected.scores), tolerance))
    if expected.unsteady is not None:
        rows += _picks(stage, index, expected, suffix)
    elif not suffix and method.stable:
        rows.append(_row(stage, DIFFERENT, _different(index, expected.keep_idx, expected.scores), 0.0))
    return rows


def _picks(stage: str, index: np.ndarray, expected: VisionReference, suffix: str) -> list[Row]:
    """Kept tokens of a greedy method: no more may differ than torch itself changes under rounding noise, and both
    counts are written down. In half precision the first is reported, not judged."""
    assert expected.unsteady is not None
    count = len(expected.keep_idx)
    changed = float(len(np.setdiff1d(index, expected.keep_idx)))
    noise = f"kept tokens that torch changes under {TOLERANCES['pick_noise']:g} relative noise"
    return [
        _row(stage, DIFFERENT, changed, float(count if suffix else expected.unsteady)),
        _row(stage, noise, float(expected.unsteady), float(count)),
    ]


def _different(found: np.ndarray, expected: np.ndarray, scores: np.ndarray | None) -> float:
    """Kept tokens that the reference does not keep, near ties of the reference's scores excepted."""
    extra, missing = np.setdiff1d(found, expected), np.setdiff1d(expected, found)
    if len(extra) == 0 or scores is None:
        return float(len(extra))
    gap = float(scores[missing].max() - scores[extra].min())
    return 0.0 if gap <= TOLERANCES["scores"] * float(np.abs(scores).max()) else float(len(extra))


def _text(path: Path, golden: Golden, reference: TextReference) -> Row:
    """The golden question, and one of two segments; float32 whatever the bundle's dtype is."""
    ids = golden.outputs["text_encoder_ids"].tolist()
    length = reference.spec.positions
    long = (ids * (length // len(ids) + 2))[: length + len(ids)]
    running = session(path)
    worst = max(
        relative(running.run(None, {"input_ids": segments(asked, length)})[0], reference.embed(asked))
        for asked in (ids, long)
    )
    return _row("text", "text_embeds", worst, TOLERANCES["text_embeds"])


def _embedding(path: Path, golden: Golden, reference: Reference, suffix: str) -> Row:
    ids = golden.outputs["prompt_ids"]
    found = session(path).run(None, {"input_ids": ids[None]})[0][0]
    tolerance = TOLERANCES["inputs_embeds"] if not suffix else TOLERANCES["visual_embeds" + suffix]
    return _row("embedding", "inputs_embeds", relative(found, reference.embed(ids.tolist())), tolerance)


def _decoder(path: Path, golden: Golden, reference: Reference, key: str, suffix: str) -> list[Row]:
    """Prefill with an empty past, then two steps with a filled one."""
    running = DecoderRun(path, reference.family)
    embeds, cache, rows = golden.prompts[key], None, []
    for name in ("prefill", "decode", "decode, second step"):
        expected, cache = reference.step(embeds, cache)
        found = running.step(embeds)
        rows.append(_row("decoder", f"logits of {name}", relative(found, expected), TOLERANCES["logits" + suffix]))
        embeds = reference.embed([int(expected.argmax())])
    return rows


class DecoderRun:
    """A decoder graph with its growing cache, batch 1."""

    def __init__(self, path: Path, family: ModelFamily) -> None:
        self.session = session(path)
        self.names = [item.name for item in self.session.get_outputs()]
        self.dtype = np.float16 if self.session.get_inputs()[0].type == "tensor(float16)" else np.float32
        text = family.config.text_config
        empty = np.zeros((1, text.num_key_value_heads, 0, text.head_dim), self.dtype)
        self.past = {item.name: empty for item in self.session.get_inputs() if item.name.startswith("past")}
        self.length = 0

    def step(self, embeds: np.ndarray) -> np.ndarray:
        """(T,D) -> logits (V,)."""
        new = len(embeds)
        feeds = {
            "inputs_embeds": embeds[None].astype(self.dtype),
            "position_ids": np.arange(self.length, self.length + new)[None],
            "attention_mask": np.ones((1, self.length + new), np.int64),
            **self.past,
        }
        made = dict(zip(self.names, self.session.run(None, feeds), strict=True))
        self.past = {name: made[name.replace("past_key_values", "present")] for name in self.past}
        self.length += new
        return made["logits"][0, 0]
