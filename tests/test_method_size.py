"""A method's file stays small: what several methods do lies in files that they share."""

from __future__ import annotations

import ast
import io
import pathlib
import tokenize

import pytest

from edgeprune.pruning.registry import METHODS, method_names

REPO = pathlib.Path(__file__).resolve().parents[1]
LIMIT = 60
#: tokens that make no line one of code
BLANK = {
    tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER,
}  # fmt: skip


def code_lines(source: str) -> int:
    """Lines that hold code: no docstring, no comment, nothing blank."""
    documented: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            documented |= set(range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1))
    tokens = [t for t in tokenize.generate_tokens(io.StringIO(source).readline) if t.type not in BLANK]
    return len({line for t in tokens for line in range(t.start[0], t.end[0] + 1)} - documented)


@pytest.mark.parametrize("name", method_names())
def test_a_method_is_less_than_sixty_lines_of_code(name: str) -> None:
    path = REPO / (METHODS[name].partition(":")[0].replace(".", "/") + ".py")
    found = code_lines(path.read_text(encoding="utf-8"))
    assert 10 < found < LIMIT, f"{path.name} has {found}: share what other methods do too, or give the maths a file"


def test_what_counts_as_code() -> None:
    assert code_lines('"""Doc.\n\nMore."""\n\n# why\nimport os  # here\n') == 1
    assert code_lines('def f():\n    """Doc."""\n\n    return (\n        1\n    )\n') == 4
    assert code_lines('x = """a\n\nb"""\n') == 3, "a string that is no docstring"
