"""List what can be asked for: pruning methods, models or targets.

Methods are read from the source of their modules, so that the list is the same where torch is not installed.
"""

from __future__ import annotations

import argparse
import ast
import importlib.util
from pathlib import Path
from typing import Any

from edgeprune.cli.arguments import add_json
from edgeprune.cli.output import table, write_json
from edgeprune.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("what", choices=["methods", "models", "targets"], help="what to list")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    entries = {"methods": methods, "models": models, "targets": targets}[args.what]()
    if args.json is not None:
        write_json(entries, args.json)
    if args.json != "-":
        print(_text(entries))
    return 0


def methods() -> list[dict[str, Any]]:
    """What every pruning method states about itself: name, summary, source; where it prunes and over what (`scope`);
    whether it reads the question (`text`); signals of the encoder that it may ask for (`needs`); whether it departs
    from its source (`adaptation`); parameters {name: default}."""
    from edgeprune.pruning import registry

    return [method_entry(name, registry.METHODS[name]) for name in registry.method_names()]


def method_entry(name: str, place: str) -> dict[str, Any]:
    """What the class `module:class` states about itself, read from its syntax tree."""
    module, _, class_name = place.partition(":")
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        raise UserError(f"the module of the method {name} is missing: install edgeprune again.")
    tree = _tree(Path(spec.origin))
    described = _class(tree, class_name)
    fields = _fields(described)
    base = _tree(Path(spec.origin).with_name("base.py"))
    inherited = {_target(node): node for node in _fields(_class(base, "PruningMethod"))}
    constants = {_target(node): _literal(node) for node in fields if _is_class_variable(node)}
    parameters = {_target(node): _literal(node) for node in fields if not _is_class_variable(node)}
    stated = {key: constants.get(key, _literal(inherited[key])) for key in ("where", "scope", "text")}
    return {
        "name": name,
        "summary": constants.get("summary", ""),
        "source": constants.get("source", ""),
        **stated,
        "needs": _needs(tree, base),
        "adaptation": (ast.get_docstring(described) or "").startswith("Adaptation of"),
        "parameters": parameters,
    }


def _needs(tree: ast.Module, base: ast.Module) -> list[str]:
    """Kinds of signals that a method's module names; one that takes a parameter `importance` may ask for either."""
    kinds = _dictionary(base, "SIGNAL_KINDS")
    words = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}
    calls = {node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
    if "importance_signal" in calls:
        words |= {"cls_attention", "received_attention"}
    return [kind for kind in kinds if kind in words]


def _dictionary(tree: ast.Module, name: str) -> dict[str, Any]:
    """The literal dictionary that a module binds to a name."""
    assigned = [node for node in tree.body if isinstance(node, ast.AnnAssign) and _target(node) == name]
    found: dict[str, Any] = _literal(assigned[0])
    return found


def _tree(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


def _class(tree: ast.Module, name: str) -> ast.ClassDef:
    return next(node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name)


def _fields(described: ast.ClassDef) -> list[ast.AnnAssign]:
    """The annotated names in the body of a class, in order."""
    body = described.body
    return [node for node in body if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)]


def models() -> list[dict[str, Any]]:
    """Name, summary and source of every alias that `export --model` takes."""
    from edgeprune.export import aliases

    return [
        {"name": alias.name, "summary": alias.summary, "source": alias.source} for alias in aliases.ALIASES.values()
    ]


def targets() -> list[dict[str, Any]]:
    """Every row of engines/targets.toml."""
    from edgeprune.engines import targets as table_of_targets

    return [target.to_dict() for target in table_of_targets.all_targets()]


#: left to --json: they would make the lines of targets too long.
_HIDDEN = ("parameters", "builder", "newer_ops", "memory_mib")


def _text(entries: list[dict[str, Any]]) -> str:
    columns = sorted((key for key in entries[0] if key not in _HIDDEN), key="summary".__eq__)
    rows = [columns] + [[_cell(entry[key]) for key in columns] for entry in entries]
    if "parameters" in entries[0]:
        rows[0] = [*columns, "parameters"]
        for row, entry in zip(rows[1:], entries, strict=True):
            row.append(", ".join(f"{key}={value}" for key, value in entry["parameters"].items()) or "-")
    return table(rows)


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return (", ".join(value) or "-") if isinstance(value, list) else str(value)


def _is_class_variable(node: ast.AnnAssign) -> bool:
    return "ClassVar" in ast.unparse(node.annotation)


def _target(node: ast.AnnAssign) -> str:
    return ast.unparse(node.target)


def _literal(node: ast.AnnAssign) -> Any:
    return None if node.value is None else ast.literal_eval(node.value)
