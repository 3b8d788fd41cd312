"""What the run needs first: the checkpoint, the bundle and its variant, the environments of OpenVINO and llama.cpp."""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys
from dataclasses import dataclass

from benchmarks import sharded_checkpoint
from benchmarks.peers import random_scorer
from edgeprune.bundle import Bundle
from edgeprune.engines import precisions
from edgeprune.export.checkpoint import resolve
from edgeprune.recipe import ExportRecipe

#: what edgeprune is timed in: int8 for pictures and prompts, int4 for each next token.
PRECISION = "vision=int8,decoder=int8+int4"
REPO = pathlib.Path(__file__).resolve().parents[2]
RECIPE = REPO / "benchmarks" / "llava_1b4.toml"
REQUIREMENTS = REPO / "requirements"
GGUF_FILES = REPO / "benchmarks" / "peers" / "gguf_files.py"
#: peers that a run can do without
OPTIONAL = ("openvino", "llamacpp")
TEMPLATE = (
    "{% for m in messages %}{{ m['role'].upper() }}: {{ m['content'] }} {% endfor %}"
    "{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)
EDGEPRUNE = (sys.executable, "-c", "from edgeprune.cli.main import entry; entry()")


@dataclass(frozen=True)
class Prepared:
    """Paths of what was made, each once; delete the folder to make it anew."""

    checkpoint: pathlib.Path
    bundle: pathlib.Path
    openvino_python: pathlib.Path
    openvino_model: pathlib.Path
    llamacpp_python: pathlib.Path
    llamacpp_model: pathlib.Path

    @classmethod
    def below(cls, folder: pathlib.Path) -> Prepared:
        """Where everything goes in a work folder."""
        openvino, llamacpp = (folder / name / "bin" / "python" for name in OPTIONAL)
        return cls(
            folder / "checkpoint", folder / "peers.bundle", openvino, folder / "openvino-int4", llamacpp,
            folder / "llamacpp-q4_0",
        )  # fmt: skip


def variant_of(precision: str) -> str:
    """Slug of edgeprune's variant, or `own`."""
    return precision if precision == "own" else precisions.slug("cpu", precisions.parse(precision))


def prepare(
    folder: pathlib.Path, precision: str, prune: tuple[str, ...], peers: tuple[str, ...] = OPTIONAL
) -> Prepared:
    """Makes below `folder` what is missing: about 15 GB, half an hour, 12 GB of memory.

    Args:
        peers: of OPTIONAL those that the run needs.
    """
    folder.mkdir(parents=True, exist_ok=True)
    made = Prepared.below(folder)
    if not (made.checkpoint / "processor_config.json").is_file():
        _checkpoint(made.checkpoint)
    if not serves(made.bundle, prune):
        _export(made, prune)
    if precision != "own":
        # The command itself knows a variant that still fits.
        _run(*EDGEPRUNE, "build", str(made.bundle), "--target", "cpu", "--precision", precision)
    if "openvino" in peers:
        openvino(made)
    if "llamacpp" in peers:
        llamacpp(made)
    return made


def openvino(made: Prepared) -> None:
    """OpenVINO GenAI's environment and its int4 model."""
    if _environment(made.openvino_python, "peers-openvino.txt"):
        # optimum-intel asks for it; beside a CPU build of torch its import fails, and nothing here needs it.
        _run(str(made.openvino_python), "-m", "pip", "uninstall", "--quiet", "--yes", "torchvision")
    if not (made.openvino_model / "openvino_detokenizer.xml").is_file():
        _convert(made)


def llamacpp(made: Prepared) -> None:
    """llama.cpp and its GGUF files."""
    _environment(made.llamacpp_python, "peers-llamacpp.txt")
    if not made.llamacpp_model.is_dir():
        _run(str(made.llamacpp_python), str(GGUF_FILES), str(made.checkpoint), str(made.llamacpp_model))


def serves(bundle: pathlib.Path, prune: tuple[str, ...]) -> bool:
    """The bundle is there and was exported with these methods; else it is exported anew."""
    if not bundle.is_dir():
        return False
    asked = Bundle.open(bundle, verify="sizes").manifest.recipe["prune"]
    return set(prune) <= set(asked)


def _export(made: Prepared, prune: tuple[str, ...]) -> None:
    wanted = [part for name in prune for part in ("--prune", name)]
    if any(name.startswith("background") for name in prune):
        config = json.loads((made.checkpoint / "config.json").read_text(encoding="utf-8"))["vision_config"]
        side = config["image_size"] // config["patch_size"]
        scorer = random_scorer.write(made.bundle.with_name("scorer.safetensors"), (side, side), config["patch_size"])
        wanted += ["--background-weights", str(scorer)]
    _run(*EDGEPRUNE, "export", "--model", str(made.checkpoint), "--keep", "0.1", *wanted, "--force", "-o",
         str(made.bundle))  # fmt: skip


def _checkpoint(folder: pathlib.Path) -> None:
    config = resolve(ExportRecipe.read(RECIPE), None).config
    sharded_checkpoint.write(folder, {**config, "architectures": ["LlavaForConditionalGeneration"]}, "llava15")
    processor = {
        "processor_class": "LlavaProcessor",
        "patch_size": 14,
        "vision_feature_select_strategy": "default",
        "num_additional_image_tokens": 1,
        "image_token": "<image>",
    }
    for_older_releases(folder / "tokenizer_config.json")
    (folder / "processor_config.json").write_text(json.dumps(processor, indent=1) + "\n", encoding="utf-8")


def for_older_releases(path: pathlib.Path) -> None:
    """transformers 4, which OpenVINO's converter needs, knows neither the class that release 5 writes nor a chat
    template that is a file of its own; and OpenVINO GenAI hands the template plain text."""
    config = json.loads(path.read_text(encoding="utf-8"))
    config |= {"tokenizer_class": "PreTrainedTokenizerFast", "chat_template": TEMPLATE}
    path.write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")


def _environment(python: pathlib.Path, requirements: str) -> bool:
    """A virtual environment; whether it was made now. One that was begun and not finished is made anew."""
    folder = python.parent.parent
    finished = folder / "finished"
    if finished.exists():
        return False
    _run(sys.executable, "-m", "venv", "--clear", str(folder))
    _run(str(python), "-m", "pip", "install", "--quiet", "-r", str(REQUIREMENTS / requirements))
    finished.touch()
    return True


def _convert(made: Prepared) -> None:
    command = str(made.openvino_python.parent / "optimum-cli")
    model = ["-m", str(made.checkpoint), "--task", "image-text-to-text"]
    _run(command, "export", "openvino", *model, "--weight-format", "int4", "--group-size", "64", "--ratio", "1.0",
         str(made.openvino_model))  # fmt: skip
    # optimum leaves the tokenizer out without a word where it cannot convert it; this fails instead.
    _run(str(made.openvino_python.parent / "convert_tokenizer"), str(made.checkpoint), "--with-detokenizer", "-o",
         str(made.openvino_model))  # fmt: skip


def _run(*command: str) -> None:
    subprocess.run(command, check=True)
