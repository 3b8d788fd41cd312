"""The model for lmms-eval on a real bundle. lmms-eval itself is not installed: its base class is replaced by one with
the same attributes (lmms-eval 0.7.3, `api/model.py`), and requests by objects with its six arguments."""

from __future__ import annotations

import importlib
import pathlib
import sys
import types
from collections.abc import Iterator
from typing import Any

import pytest
from PIL import Image

from edgeprune.errors import UserError
from edgeprune.recipe import toml_module
from edgeprune.runtime.session import Model
from tests.runtime import tiny_graphs


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    return tiny_graphs.write_bundle(tmp_path_factory.mktemp("lmms") / "hand.bundle")


@pytest.fixture
def adapter(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    class Base:
        is_simple = True

        def __init__(self) -> None:
            self.task_dict: dict[str, Any] = {}

    for name in (
        "lmms_eval",
        "lmms_eval.api",
        "lmms_eval.api.model",
        "lmms_eval.models",
        "lmms_eval.models.registry_v2",
    ):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    sys.modules["lmms_eval.api.model"].lmms = Base  # type: ignore[attr-defined]
    sys.modules["lmms_eval.models.registry_v2"].ModelManifest = types.SimpleNamespace  # type: ignore[attr-defined]
    yield importlib.import_module("edgeprune.measure.lmms_eval_model")
    sys.modules.pop("edgeprune.measure.lmms_eval_model")


def picture(seed: int) -> Image.Image:
    return Image.effect_noise((30, 20), 10 + seed).convert("RGB")


def request(extra: Any, doc_id: int = 0, context: str = "<image>\nWhat?") -> Any:
    return types.SimpleNamespace(args=(context, extra, lambda doc: doc["images"], doc_id, "task", "test"))


def test_answers_are_those_of_the_runtime(adapter: Any, bundle: pathlib.Path) -> None:
    model = adapter.EdgepruneModel(bundle=str(bundle), keep=0.25, batch_size=1, device="cpu")
    pictures = [picture(0), picture(1)]
    model.task_dict = {"task": {"test": [{"images": [shown]} for shown in pictures]}}
    settings = {"max_new_tokens": 4, "temperature": 0, "num_beams": 1, "until": ["\n\n"], "do_sample": False}
    found = model.generate_until([request(settings), request(settings, 1), request(settings, 1)])
    with Model.open(bundle) as direct:
        expected = [direct.ask(shown, "What?", keep=0.25, max_new_tokens=4).text for shown in pictures]
        assert found == [expected[0], expected[1], expected[1]]
        ids = direct.ask(pictures[0], "What?", keep=0.25, max_new_tokens=2, ignore_eos=True).token_ids
        greedy = direct.detokenize(ids)
        with direct.new_session() as session:
            session.add_image(pictures[0], keep=0.25)
            score = session.score("What?", [greedy]).best.log_probability
    pairs = model.loglikelihood([request(greedy), request(lambda doc: "zz")])
    assert pairs[0] == (pytest.approx(score, abs=1e-5), True)
    assert pairs[1][1] is (greedy == "zz")


def test_what_it_does_not_serve_is_said(adapter: Any, bundle: pathlib.Path) -> None:
    with pytest.raises(UserError, match="leave batch_size at 1"):
        adapter.EdgepruneModel(bundle=str(bundle), batch_size=4)
    model = adapter.EdgepruneModel(bundle=str(bundle))
    model.task_dict = {"task": {"test": [{"images": None}]}}
    with pytest.raises(UserError, match="asks for 3 beams"):
        model.generate_until([request({"num_beams": 3})])
    with pytest.raises(UserError, match="several rounds"):
        model.generate_until_multi_round([])


def test_the_entry_point_names_the_class(adapter: Any) -> None:
    project = toml_module().loads((pathlib.Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    module, _, name = project["entry-points"]["lmms_eval.models"]["edgeprune"].partition(":")
    assert (module, name) == ("edgeprune.measure.lmms_eval_model", "manifest")
    found = adapter.manifest()
    assert found.model_id == "edgeprune"
    assert found.simple_class_path == f"{module}.EdgepruneModel"
