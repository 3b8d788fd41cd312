"""The README's chapter "Embedding in C and C++", followed word by word in an empty directory."""

from __future__ import annotations

import os
import pathlib
import re
import subprocess
import sys

import pytest

from edgeprune.runtime.session import Model

REPO = pathlib.Path(__file__).resolve().parent.parent
QUESTION = "What is in the image?"

pytestmark = pytest.mark.slow


def chapter() -> str:
    text = (REPO / "README.md").read_text()
    return text.split("\n## Embedding in C and C++\n")[1].split("\n## ")[0]


def script_and_files(text: str) -> tuple[str, dict[str, str]]:
    """The shell blocks in their order, and the other blocks by the file that the line before them names."""
    commands, files = [], {}
    for before, language, body in re.findall(r"([^\n]*)\n```(\w+)\n(.*?)```", text, re.DOTALL):
        if language == "sh":
            commands.append(body)
        else:
            (name,) = re.findall(r"`([\w/]+\.\w+)`", before)
            files[name] = body
    return "set -eu\n" + "".join(commands), files


def test_the_chapter_works(tiny_bundle: pathlib.Path, tmp_path: pathlib.Path) -> None:
    picture = next((REPO / "tests" / "data" / "scenes").glob("*.png"))
    (tmp_path / "edgeprune").symlink_to(REPO)
    (tmp_path / "demo-keep0.1.bundle").symlink_to(tiny_bundle)
    (tmp_path / "scene.png").symlink_to(picture)
    script, files = script_and_files(chapter())
    assert sorted(files) == ["robot/CMakeLists.txt", "robot/robot.cpp"]
    for name, body in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(body)

    path = f"{pathlib.Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    kept = {name: value for name, value in os.environ.items() if name.startswith(("PIP_", "HOME", "SSL_", "TMP"))}
    command = ["sh", "-c", script]
    done = subprocess.run(
        command, cwd=tmp_path, env={**kept, "PATH": path}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr
    with Model.open(tiny_bundle) as model:
        answer = model.ask(picture, QUESTION, keep=0.25, max_new_tokens=32)
    said = f"{answer.text}\n{answer.images[0].kept} of {answer.images[0].visual_tokens} visual tokens\n"
    assert done.stdout.count(said) == 2
