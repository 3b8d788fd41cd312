"""A method that reads the question, from the command line: export, run, show, profile, check --parity, list."""

from __future__ import annotations

import json
import pathlib

import pytest

from edgeprune.cli.main import main
from edgeprune.errors import UserError
from tests.checkpoints import write_checkpoint

PICTURE = str(pathlib.Path(__file__).resolve().parents[1] / "data" / "scenes" / "test-000.png")
QUESTION = "What is on the left?"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("text")
    checkpoint = write_checkpoint(folder / "checkpoint")
    out = folder / "out.bundle"
    argv = ["--prune", "cdpruner:weight=0.9", "--prune", "fastervlm", "-o", str(out)]
    assert main(["export", "--model", str(checkpoint), "--keep", "0.25", *argv]) == 0
    return str(out)


def test_manifest_has_two_stages_that_fit_the_schema(bundle: str) -> None:
    import jsonschema

    schema = pathlib.Path(__file__).resolve().parents[2] / "docs" / "manifest.schema.json"
    manifest = json.loads((pathlib.Path(bundle) / "manifest.json").read_text())
    jsonschema.validate(manifest, json.loads(schema.read_text()))
    stages = {name: [graph["stage"] for graph in graphs] for name, graphs in manifest["graphs"]["vision"].items()}
    assert stages == {"cdpruner": ["encode", "select"], "fastervlm": ["vision"]}
    assert manifest["methods"]["each"]["cdpruner"]["text"]
    encode, select = manifest["graphs"]["vision"]["cdpruner"]
    assert [tensor["role"] for tensor in encode["outputs"]] == ["tokens"]
    assert [tensor["role"] for tensor in select["inputs"]] == ["tokens", "keep_slots", "text_embeds", "text_mask"]
    assert select["data"] == [], "the projector has run already, so a new question reads no weights"


def test_run_show_and_parity(bundle: str, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = tmp_path / "report.json"
    argv = ["--image", PICTURE, "--prompt", QUESTION, "--max-new-tokens", "4"]
    assert main(["run", bundle, *argv, "--json", str(report)]) == 0
    made = json.loads(report.read_text())
    assert (made["method"], made["kept_tokens"], len(made["keep_idx"])) == ("cdpruner", 4, 4)
    assert made["timings_ms"]["select_ms"] > 0
    assert main(["show", bundle, *argv[:4], "--prune", "cdpruner,fastervlm", "-o", str(tmp_path / "a.png")]) == 0
    assert (tmp_path / "a.png").is_file()
    capsys.readouterr()
    assert main(["check", bundle, "--parity"]) == 0
    assert "cdpruner" in capsys.readouterr().out


def test_show_without_a_question_is_one_sentence(bundle: str, tmp_path: pathlib.Path) -> None:
    for argv in ([], ["--prune", "cdpruner"], ["--prompt", ""]):
        code = main(["show", bundle, "--image", PICTURE, "-o", str(tmp_path / "b.png"), *argv])
        assert code == 2
    assert not (tmp_path / "b.png").exists()
    assert main(["show", bundle, "--image", PICTURE, "--prune", "fastervlm", "-o", str(tmp_path / "b.png")]) == 0


def test_profile_measures_the_select_stage(bundle: str, tmp_path: pathlib.Path) -> None:
    report = tmp_path / "profile.json"
    argv = ["--prune", "cdpruner", "--keep", "1.0,0.5", "--trials", "2", "--json", str(report)]
    assert main(["profile", bundle, *argv]) == 0
    cases = json.loads(report.read_text())["cases"]
    assert [case["kept_tokens"] for case in cases] == [16, 8]
    assert all(case["stages_ms"]["select"]["p50"] > 0 for case in cases)


def test_list_says_which_methods_read_the_question(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "methods", "--json"]) == 0
    entries = {entry["name"]: entry for entry in json.loads(capsys.readouterr().out)}
    assert entries["cdpruner"]["text"] is True
    assert entries["fastervlm"]["text"] is False


def test_a_count_that_the_preset_cannot_keep_is_refused(tmp_path: pathlib.Path) -> None:
    from edgeprune.export.pipeline import plan
    from edgeprune.recipe import ExportRecipe

    spec = "cdpruner:preset=openvino-split"
    with pytest.raises(UserError, match=r"cannot keep 5 of 16 visual tokens; the nearest count it can is 4"):
        plan(ExportRecipe(model="tiny", prune=(spec,), keep=0.3))
    plan(ExportRecipe(model="tiny", prune=(spec,), keep=0.25))


def test_an_int8_variant_keeps_the_select_graph_and_answers(bundle: str, tmp_path: pathlib.Path) -> None:
    import shutil

    copy = str(shutil.copytree(bundle, tmp_path / "copy.bundle"))
    assert main(["build", copy, "--target", "cpu", "--precision", "int8"]) == 0
    variant = json.loads((pathlib.Path(copy) / "manifest.json").read_text())["variants"][0]
    encode, select = variant["graphs"]["vision"]["cdpruner"]
    assert encode["file"].startswith("variants/")
    assert select["file"] == "onnx/vision-cdpruner-select.onnx"
    report = tmp_path / "report.json"
    argv = ["run", copy, "--variant", variant["slug"], "--image", PICTURE, "--prompt", QUESTION]
    assert main([*argv, "--max-new-tokens", "3", "--json", str(report)]) == 0
    assert json.loads(report.read_text())["kept_tokens"] == 4
