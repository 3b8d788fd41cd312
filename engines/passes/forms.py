"""The dialects of TensorRT: which passes make one, and what its graphs hold to.

opset20: what JetPack 6 (TensorRT 10.3) parses, plain operators of opset 20 at most. The canonical graphs are that, so
it changes nothing and refuses what is not. trt: RMSNormalization, RotaryEmbedding and, in fp16, Attention as nodes.
plain: the canonical operators in whatever opset the types need.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx

from edgeprune.engines.passes import attention, newer_opset, rms_norm, rotary
from edgeprune.engines.passes.base import (
    Check,
    GraphPass,
    in_order,
    no_attention_beside_scan,
    opset_between,
    standard_only,
)
from edgeprune.errors import DialectError, UserError


@dataclass(frozen=True)
class Form:
    """One dialect.

    Attributes:
        before, after: its passes before and after the graph becomes fp16, where it does.
        holds: what every graph of it holds to.
    """

    name: str
    holds: tuple[Check, ...]
    before: tuple[GraphPass, ...] = ()
    after: tuple[GraphPass, ...] = ()

    @property
    def changes(self) -> bool:
        """Whether its graphs may differ from the canonical ones in more than their types."""
        return bool(self.before or self.after)

    def require(self, model: onnx.ModelProto) -> None:
        """DialectError, naming the first thing that does not belong."""
        found = next((wrong for check in self.holds for wrong in check(model)), None)
        if found is not None:
            raise DialectError(
                f"no graph of the dialect {self.name}: it {found}; build for a target of another dialect."
            )


FORMS = {
    form.name: form
    for form in (
        Form("plain", (standard_only, in_order)),
        Form("opset20", (opset_between(9, 20), standard_only, in_order)),
        Form(
            "trt",
            (opset_between(newer_opset.OPSET, newer_opset.OPSET), standard_only, in_order, no_attention_beside_scan),
            (newer_opset.PASS, rms_norm.PASS, rotary.PASS),
            (attention.PASS,),
        ),
    )
}


def find(name: str) -> Form:
    """The dialect of that name; UserError names those there are."""
    if name not in FORMS:
        raise UserError(f"there is no dialect {name!r} of engines; there are: {', '.join(FORMS)}.")
    return FORMS[name]


def apply(passes: tuple[GraphPass, ...], model: onnx.ModelProto) -> dict[str, int]:
    """Runs passes in order; name -> how many nodes each made, those that made none left out."""
    made = {change.name: change(model) for change in passes}
    return {name: count for name, count in made.items() if count}
