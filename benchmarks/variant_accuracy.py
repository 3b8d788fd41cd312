"""Ask the demo model's held-out scenes through variants of a bundle, and count exact answers.

    EDGEPRUNE_DEMO_EMOJI=DIR python -m benchmarks.variant_accuracy BUNDLE OUT.json [VARIANT...] [--scenes 70]

A variant is a slug, or `canonical` for the bundle's own graphs. Every token is kept, so that precision alone differs.
OUT.json is rewritten after every scene and read first, so a stopped run goes on where it was. The scenes are made by
examples/demo_model/scenes.py, which says what it needs: emoji-datasource-google, scikit-image, scikit-learn. It also
writes the cosine of the visual embeddings to the canonical ones, scene by scene.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import sys
from typing import Any

import numpy as np

import edgeprune

REPO = pathlib.Path(__file__).resolve().parent.parent
CANONICAL = "canonical"
SPLIT = "test"


def answers(session: Any, picture: Any, questions: Any, exact: np.ndarray) -> dict[str, Any]:
    """What one scene came to: type and verdict of each question, and how far the visual embeddings lie."""
    found = session.image_embeds(session.add_image(np.asarray(picture), keep=1.0)).astype(np.float64).ravel()
    said = session.ask_each([question.text for question in questions], max_new_tokens=16, temperature=0)
    rows = [
        {"type": question.type, "right": answer.text.strip() == question.answer, "said": answer.text.strip()}
        for question, answer in zip(questions, said, strict=True)
    ]
    cosine = float(exact @ found / np.linalg.norm(exact) / np.linalg.norm(found))
    return {"answers": rows, "cosine": cosine}


def run(bundle: pathlib.Path, out: pathlib.Path, variants: list[str], count: int) -> dict[str, Any]:
    """Every scene through every variant that has not answered it yet; returns all that is known."""
    sys.path.insert(0, str(REPO / "examples" / "demo_model"))
    import scenes

    missing = scenes.missing_sources()
    if missing:
        raise SystemExit(missing)
    known: dict[str, Any] = json.loads(out.read_text(encoding="utf-8")) if out.exists() else {}
    models = {name: edgeprune.load(bundle, **({} if name == CANONICAL else {"variant": name})) for name in variants}
    reference = models.get(CANONICAL) or edgeprune.load(bundle)
    for index in range(count):
        todo = [name for name in variants if str(index) not in known.get(name, {})]
        if not todo:
            continue
        scene = scenes.make_scene(SPLIT, index)
        with reference.new_session() as session:
            picture = np.asarray(scene.image)
            embeds = session.image_embeds(session.add_image(picture, keep=1.0)).astype(np.float64).ravel()
        for name in todo:
            with models[name].new_session() as session:
                record = answers(session, scene.image, scene.questions, embeds)
            known.setdefault(name, {})[str(index)] = record
        out.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")
        print(index, {name: share(known[name]) for name in variants}, flush=True)
    return known


def share(scenes: dict[str, Any]) -> str:
    """Right of asked, as people write it."""
    rows = [row for scene in scenes.values() for row in scene["answers"]]
    return f"{sum(row['right'] for row in rows)}/{len(rows)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=pathlib.Path)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("variants", nargs="*", default=[CANONICAL, "cpu-int8", "cpu-int4"])
    parser.add_argument("--scenes", type=int, default=70)
    args = parser.parse_args()
    known = run(args.bundle, args.out, args.variants, args.scenes)
    for name in args.variants:
        lowest = min(scene["cosine"] for scene in known[name].values())
        print(f"{name}: {share(known[name])} right, lowest cosine of the visual embeddings {lowest:.6f}")


if __name__ == "__main__":
    main()
