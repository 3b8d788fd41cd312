"""The paper's preset of CDPruner from the command line: export, run, eval, profile, check, build, refusals."""

from __future__ import annotations

import json
import pathlib
import shutil

import pytest

from edgeprune.cli.main import main
from tests.checkpoints import write_checkpoint
from tests.clip_checkpoints import ClipShape, write_clip

REPO = pathlib.Path(__file__).resolve().parents[2]
PICTURE = str(REPO / "tests" / "data" / "scenes" / "test-000.png")
QUESTION = "What is on the left?"
PAPER = "cdpruner:preset=paper"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    made = tmp_path_factory.mktemp("encoder")
    write_checkpoint(made / "llava")
    write_clip(made / "clip", ClipShape(layers=1))
    return made


def export(folder: pathlib.Path, *more: str) -> int:
    return main(["export", "--model", str(folder / "llava"), "--keep", "0.25", *more])


@pytest.fixture(scope="module")
def bundle(folder: pathlib.Path) -> str:
    out = str(folder / "out.bundle")
    argv = ["--prune", PAPER, "--prune", "fastervlm", "--text-encoder", str(folder / "clip"), "-o", out]
    assert export(folder, *argv) == 0
    return out


def test_manifest_fits_the_schema(bundle: str) -> None:
    import jsonschema

    manifest = json.loads((pathlib.Path(bundle) / "manifest.json").read_text())
    jsonschema.validate(manifest, json.loads((REPO / "docs" / "manifest.schema.json").read_text()))
    encode, select = manifest["graphs"]["vision"]["cdpruner"]
    assert [tensor["role"] for tensor in encode["outputs"]] == ["tokens", "signal.0"]
    assert select["data"] == [], "a new question reads the weights of the text encoder only"
    assert manifest["methods"]["each"]["cdpruner"]["text_encoder"] is True
    assert "text_encoder" not in manifest["methods"]["each"]["fastervlm"]
    assert manifest["recipe"]["text_encoder"] == "clip", "no path of this machine"
    assert manifest["text_encoder"]["segment_tokens"] == 77
    assert "text" in {row["stage"] for row in manifest["parity"]}


def test_run_eval_profile_and_parity(bundle: str, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    report, asked = tmp_path / "report.json", ["--image", PICTURE, "--prompt", QUESTION]
    assert main(["run", bundle, *asked, "--max-new-tokens", "4", "--json", str(report)]) == 0
    made = json.loads(report.read_text())
    assert (made["method"], made["kept_tokens"]) == ("cdpruner", 4)
    assert made["timings_ms"]["select_ms"] > 0
    data = tmp_path / "data.jsonl"
    data.write_text(json.dumps({"image": PICTURE, "question": QUESTION, "answers": ["left"]}) + "\n")
    assert main(["eval", bundle, str(data), "--methods", "cdpruner", "--json", str(report)]) == 0
    argv = ["--prune", "cdpruner,fastervlm", "--keep", "0.5", "--trials", "2", "--json", str(report)]
    assert main(["profile", bundle, *argv]) == 0
    cases = {case["method"]: case for case in json.loads(report.read_text())["cases"]}
    assert cases["cdpruner"]["stages_ms"]["select"]["p50"] > 0
    assert cases["cdpruner"]["pruner"]["ms"] > 0
    assert cases["fastervlm"]["pruner"]["ms"] > 0, "the text encoder is not loaded for other methods"
    capsys.readouterr()
    assert main(["check", bundle, "--parity"]) == 0
    assert "cdpruner" in capsys.readouterr().out


def test_lint_reads_the_text_graph(bundle: str, capsys: pytest.CaptureFixture[str]) -> None:
    for target in ("tensorrt-rtx:sm86", "cpu"):
        assert main(["check", bundle, "--target", target]) == 0, capsys.readouterr().out


def test_an_int8_variant_keeps_the_text_graph_and_the_projection(bundle: str, tmp_path: pathlib.Path) -> None:
    import onnx

    copy = pathlib.Path(shutil.copytree(bundle, tmp_path / "copy.bundle"))
    assert main(["build", str(copy), "--target", "cpu", "--precision", "int8"]) == 0
    variant = json.loads((copy / "manifest.json").read_text())["variants"][0]
    assert variant["graphs"]["text"]["file"] == "onnx/text.onnx"
    encode = onnx.load(copy / variant["graphs"]["vision"]["cdpruner"][0]["file"], load_external_data=False)
    plain = {node.input[1] for node in encode.graph.node if node.op_type == "MatMul"}
    assert "text_space.visual_projection.weight" in plain, "what tokens are compared by stays fp32"
    report = tmp_path / "report.json"
    argv = ["run", str(copy), "--variant", variant["slug"], "--image", PICTURE, "--prompt", QUESTION]
    assert main([*argv, "--max-new-tokens", "3", "--json", str(report)]) == 0
    assert json.loads(report.read_text())["kept_tokens"] == 4


def test_fp16_export_keeps_the_text_graph_in_fp32(folder: pathlib.Path, tmp_path: pathlib.Path) -> None:
    out = tmp_path / "half.bundle"
    argv = ["--prune", PAPER, "--text-encoder", str(folder / "clip"), "--dtype", "fp16", "-o", str(out)]
    assert export(folder, *argv) == 0
    manifest = json.loads((out / "manifest.json").read_text())
    assert [tensor["dtype"] for tensor in manifest["graphs"]["text"]["outputs"]] == ["float32"]
    (signal,) = [t for t in manifest["graphs"]["vision"]["cdpruner"][0]["outputs"] if t["role"] == "signal.0"]
    assert signal["dtype"] == "float32"
    assert main(["run", str(out), "--image", PICTURE, "--prompt", QUESTION, "--max-new-tokens", "2"]) == 0


def test_refusals_are_one_sentence_and_write_nothing(
    folder: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, clip = tmp_path / "none.bundle", str(folder / "clip")
    for argv, words in (
        (["--prune", PAPER], "with --text-encoder DIR"),
        (["--prune", "cdpruner", "--text-encoder", clip], "--text-encoder belongs to --prune cdpruner:preset=paper"),
        (["--prune", PAPER, "--text-encoder", f"{clip}-nowhere"], "there is no such directory"),
        (["--prune", PAPER, "--text-encoder", str(folder / "llava")], "is a llava checkpoint, but served is clip"),
    ):
        assert export(folder, *argv, "-o", str(out)) == 2
        (line,) = capsys.readouterr().err.strip().splitlines()
        assert words in line
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_names_the_graph(folder: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert export(folder, "--prune", PAPER, "--text-encoder", str(folder / "clip"), "--dry-run") == 0
    printed = capsys.readouterr().out
    assert "text.onnx" in printed
    assert "the question is read by the text encoder of clip, 1 layers of width 48" in printed


def test_random_weights_read_the_config_and_the_tokenizer_only(folder: pathlib.Path, tmp_path: pathlib.Path) -> None:
    bare = pathlib.Path(shutil.copytree(folder / "clip", tmp_path / "bare"))
    (bare / "model.safetensors").unlink()
    out = tmp_path / "random.bundle"
    argv = ["--random-weights", "--prune", PAPER, "--text-encoder", str(bare), "-o", str(out)]
    assert export(folder, *argv) == 0
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["text_encoder"]["sha256"] is None
    assert any("with random weights: its choice means nothing" in note for note in manifest["notes"])
    assert all(row["passed"] for row in manifest["parity"])
