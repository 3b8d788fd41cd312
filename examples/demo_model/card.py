"""The figures of MODEL_CARD.md from evaluate.py's results: `python card.py FIGURES.json...` prints the tables."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import evaluate
import scenes

#: accuracy by type, all visual tokens, of the earlier run of the recipe that the gate compares with, and its slack
EARLIER = {"what": 0.755, "count": 0.828, "where": 0.909, "exist": 0.989, "colour": 1.0}
SLACK, LEAST_ALL, LEAST_FEW, ABOVE_TEXT, QUESTIONS = 0.02, 0.90, 0.80, 0.40, 1000
COLUMNS = ("all", *scenes.QUESTION_TYPES)
NAMES = {"all": ("256", "all"), "text": ("none", "text only")}


def accuracy(results: dict, plan: str, kind: str = "all") -> float:
    return results[plan]["types"][kind]["accuracy"]


def table(results: dict) -> list[str]:
    """One row per plan; counts of questions beside the accuracy of each type are the same for a whole set."""
    lines = [f"| set | visual tokens | selection | scenes | {' | '.join(COLUMNS)} |", "|---" * (4 + len(COLUMNS)) + "|"]
    for plan, result in results.items():
        split, name = plan.split(":")
        kept, chosen = NAMES.get(name, (name.partition("@")[2].partition("#")[0], name.replace("@26", "")))
        cells = [f"{result['types'][kind]['accuracy']:.3f}" for kind in COLUMNS]
        lines.append(f"| {split} | {kept} | {chosen} | {result['scenes']} | {' | '.join(cells)} |")
    for split in dict.fromkeys(plan.split(":")[0] for plan in results):
        counts = results[f"{split}:all"]["types"]
        lines.append(f"Questions of `{split}`: " + ", ".join(f"{kind} {counts[kind]['questions']}" for kind in COLUMNS))
    return lines


def random_interval(results: dict, split: str) -> dict[str, float]:
    """Student's 95 % interval over the seeds of random selection, K = 26."""
    return evaluate.interval([accuracy(results, plan) for plan in results if plan.startswith(f"{split}:random@26#")])


def gate(results: dict) -> list[str]:
    """Every line of the gate with what was found."""
    whole, few, small = (accuracy(results, plan) for plan in ("test:all", "test:cls8@26", "small:cls8@26"))
    asked = results["test:all"]["types"]["all"]["questions"]
    text, drawn = accuracy(results, "test:text"), random_interval(results, "small")
    worst = {kind: accuracy(results, "test:all", kind) - least for kind, least in EARLIER.items()}
    lowest = min(worst, key=lambda kind: worst[kind])
    enough, far = whole >= LEAST_ALL and asked >= QUESTIONS, f"{lowest} {worst[lowest]:+.3f}"
    rows = [
        ("all tokens", f">= {LEAST_ALL} on >= {QUESTIONS}", f"{whole:.3f} on {asked}", enough),
        ("types, all tokens", f"none more than {SLACK} below {EARLIER}", far, worst[lowest] >= -SLACK),
        ("keep 0.1, [CLS], `test`", f">= {LEAST_FEW}", f"{few:.3f}", few >= LEAST_FEW),
        ("keep 0.1, [CLS], `small`", "above random's interval", f"{small:.3f}; random {drawn}", small > drawn["high"]),
        ("text only", f">= {ABOVE_TEXT} below all tokens", f"{text:.3f}", whole - text >= ABOVE_TEXT),
    ]
    return ["| line | asked | found | held |", "|---|---|---|---|"] + [
        f"| {line} | {wanted} | {found} | {'yes' if held else 'no'} |" for line, wanted, found, held in rows
    ]


def main() -> None:
    results: dict = {}
    for path in sys.argv[1:]:
        results |= json.loads(Path(path).read_text(encoding="utf-8"))
    results = {plan: results[plan] for plan in evaluate.GATE if plan in results}
    print("\n".join([*table(results), "", *gate(results)]))
    for split in ("test", "small"):
        print(f"random, K = 26, {split}: {random_interval(results, split)}")


if __name__ == "__main__":
    main()
