"""Write questions about photographs as DATA.jsonl: `python photographs.py OUTPUT`.

OUTPUT/photographs/*.png and OUTPUT/photographs.jsonl: yes/no questions, as many of each, and one open question, about
the pictures inside the scikit-image and scikit-learn packages whose licence is stated (../demo_model/README.md lists
them). Meant for models that know photographs: the demo model knows drawn objects only, and most of these pictures as
backgrounds. Far too few to tell methods apart; a smoke test.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "demo_model"))

import backgrounds

#: file -> (what it shows, with its article; what it does not show; open question; accepted answers)
SHOWN = {
    "chelsea.png": ("a cat", "a dog", "What animal is in the image?", ("cat", "a cat")),
    "coffee.png": ("a cup", "a cat", "What drink is in the cup?", ("coffee", "espresso")),
    "astronaut.png": ("a person", "a bicycle", "Is the person wearing a suit or a dress?", ("suit", "a suit")),
    "rocket.jpg": ("a rocket", "a cow", "What stands between the towers?", ("rocket", "a rocket")),
    "camera.png": ("a camera", "a boat", "Is the picture in colour or in black and white?", ("black and white",)),
    "coins.png": ("a coin", "a tree", "What objects are in the image?", ("coins", "coin")),
    "flower.jpg": ("a flower", "a car", "What plant part is in the image?", ("flower", "a flower", "bloom")),
    "china.jpg": ("a building", "an elephant", "Is it a temple or a factory?", ("temple", "a temple")),
    "brick.png": ("a brick", "a fish", "What is the surface made of?", ("brick", "bricks")),
}


def rows(name: str) -> Iterator[dict[str, Any]]:
    """Three lines of DATA.jsonl per picture."""
    there, absent, question, answers = SHOWN[name]
    common = {"image": f"photographs/{Path(name).stem}.png"}
    for kind, thing, answer in (("there", there, "yes"), ("absent", absent, "no")):
        asked = f"Is there {thing} in the image?"
        yield {
            "id": f"{name}-{kind}",
            **common,
            "question": asked,
            "answer": answer,
            "metric": "pope",
            "category": "exist",
        }
    yield {"id": f"{name}-open", **common, "question": question, "answers": list(answers), "metric": "exact",
           "category": "open"}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output", type=Path)
    output: Path = parser.parse_args().output
    (output / "photographs").mkdir(parents=True, exist_ok=True)
    lines = []
    for name in SHOWN:
        backgrounds.photograph(name).save(output / "photographs" / f"{Path(name).stem}.png")
        lines += [json.dumps(row) + "\n" for row in rows(name)]
    (output / "photographs.jsonl").write_text("".join(lines), encoding="utf-8")
    print(f"{len(SHOWN)} photographs, {len(lines)} questions in {output / 'photographs.jsonl'}")


if __name__ == "__main__":
    main()
