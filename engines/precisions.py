"""`--precision` as the user writes it: one word for every graph, or graph=word pairs."""

from __future__ import annotations

from edgeprune.errors import UserError

#: graphs that have a precision of their own; the embedding is a table whose rows are copied, never computed with.
GRAPHS = ("vision", "decoder")
#: of the decoder alone: one graph of the first word for prompts, one of the second for each next token.
TWO_GRAPHS = "int8+int4"


def parse(text: str) -> dict[str, str]:
    """{"vision": P, "decoder": P} from `P` or `vision=P,decoder=P`.

    Raises:
        UserError: another form, an unknown graph, or a graph that is left out.
    """
    if "=" not in text:
        return dict.fromkeys(GRAPHS, text.strip())
    found: dict[str, str] = {}
    for part in text.split(","):
        graph, equals, precision = (word.strip() for word in part.partition("="))
        if graph not in GRAPHS or not equals or not precision or graph in found:
            raise UserError(f"write a precision as int8 or as vision=int8,decoder=fp32, not {text!r}.")
        found[graph] = precision
    missing = [graph for graph in GRAPHS if graph not in found]
    if missing:
        raise UserError(f"{text!r} says nothing about the {missing[0]} graph: add {missing[0]}=...")
    return {graph: found[graph] for graph in GRAPHS}


def slug(target_slug: str, precision: dict[str, str]) -> str:
    """Name of a variant: letters, digits, dots and dashes."""
    words = {graph: word.replace("+", "-") for graph, word in precision.items()}
    if len(set(words.values())) == 1:
        return f"{target_slug}-{words['vision']}"
    return "-".join([target_slug, *(f"{graph}.{word}" for graph, word in words.items())])
