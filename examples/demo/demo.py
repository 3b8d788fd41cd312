"""Export the demo model, ask about three pictures at keep 1 and 0.1, and draw the kept visual tokens.

python examples/demo/demo.py --output out/demo
"""

from __future__ import annotations

import argparse
import pathlib

import edgeprune
from edgeprune.measure.overlay import draw_overlay

PICTURES = pathlib.Path(__file__).resolve().parent.parent / "pictures"


def bundle_at(folder: pathlib.Path) -> pathlib.Path:
    """The demo bundle: exported on the first call, opened as it is afterwards."""
    from edgeprune.export.pipeline import export
    from edgeprune.recipe import ExportRecipe

    path = folder / "demo-keep0.1.bundle"
    if not path.exists():
        print(f"exporting the demo model to {path} (a minute or two)")
        export(ExportRecipe(model="demo", prune=("fastervlm",), keep=0.1), path)
    return path


def questions() -> list[tuple[pathlib.Path, list[str]]]:
    """Rows of examples/demo/questions.txt: file | question | question ..."""
    rows = (pathlib.Path(__file__).parent / "questions.txt").read_text(encoding="utf-8").splitlines()
    parts = [[cell.strip() for cell in row.split("|")] for row in rows if row.strip() and not row.startswith("#")]
    return [(PICTURES / name, asked) for name, *asked in parts]


def show_answer(question: str, answer: edgeprune.Answer) -> None:
    picture = answer.images[0]
    state = "applied" if picture.applied else f"not applied: {picture.reason}"
    t = answer.timings
    print(f"  {question}  ->  {answer.text.strip()}")
    print(
        f"    K/N {picture.kept}/{picture.visual_tokens} ({state}); preprocess {t.preprocess_ms:.1f} ms, "
        f"vision {t.vision_ms:.1f} ms, prefill {t.prefill_ms:.1f} ms, decode {t.decode_ms:.1f} ms, "
        f"TTFT {t.ttft_ms:.1f} ms"
    )


def ask_at(model: edgeprune.Model, path: pathlib.Path, asked: list[str], keep: float, output: pathlib.Path) -> None:
    """All questions about one picture in one session: the second costs no vision."""
    print(f"{path.name}, keep {keep:g}")
    with model.new_session() as session:
        session.add_image(path, keep=keep)
        for question in asked:
            show_answer(question, session.generate(question, max_new_tokens=16))
        kept = session.kept_tokens(0)
    target = output / f"{path.stem}-keep{keep:g}.png"
    draw_overlay(path, [kept], model.bundle.manifest.preprocess).save(target)
    print(f"  kept tokens drawn in {target}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("out/demo"))
    output: pathlib.Path = parser.parse_args().output
    output.mkdir(parents=True, exist_ok=True)
    with edgeprune.load(bundle_at(output)) as model:
        model.warmup()
        for path, asked in questions():
            for keep in (1.0, 0.1):
                ask_at(model, path, asked, keep, output)


if __name__ == "__main__":
    main()
