"""Names of the pruning methods and the SPEC strings that ask for them.

A new method is one file in this folder and one line in `METHODS`. Nothing here imports torch until a method is asked
for, so names can be listed where torch is not installed.
"""

from __future__ import annotations

import dataclasses
import importlib
import re
import typing
from typing import TYPE_CHECKING, Any, Final

from edgeprune.errors import PruningError

if TYPE_CHECKING:
    from edgeprune.pruning.base import PruningMethod

#: name -> "module:class"
METHODS: Final[dict[str, str]] = {
    "none": "edgeprune.pruning.none:NoPruning",
    "random": "edgeprune.pruning.random:RandomTokens",
    "stride": "edgeprune.pruning.stride:Stride",
    "fastervlm": "edgeprune.pruning.fastervlm:FasterVLM",
    "received-attention": "edgeprune.pruning.received_attention:ReceivedAttention",
    "hiprune": "edgeprune.pruning.hiprune:HiPrune",
    "fopru": "edgeprune.pruning.fopru:FoPru",
    "visionzip": "edgeprune.pruning.visionzip:VisionZip",
    "vispruner": "edgeprune.pruning.vispruner:VisPruner",
    "pagerank": "edgeprune.pruning.pagerank:PageRank",
    "prumerge": "edgeprune.pruning.prumerge:PruMerge",
    "holov": "edgeprune.pruning.holov:HoloV",
    "vflowopt": "edgeprune.pruning.vflowopt:VFlowOpt",
    "agileprune": "edgeprune.pruning.agileprune:AgilePrune",
    "dart-pre": "edgeprune.pruning.dart_pre:DartPre",
    "aim-merge": "edgeprune.pruning.aim_merge:AimMerge",
    "divprune": "edgeprune.pruning.divprune:DivPrune",
    "todre": "edgeprune.pruning.todre:ToDRE",
    "mmr": "edgeprune.pruning.mmr:Mmr",
    "scope": "edgeprune.pruning.scope:Scope",
    "mmtok-vv": "edgeprune.pruning.mmtok_vv:MmtokVv",
    "mmtok": "edgeprune.pruning.mmtok:MMTok",
    "background": "edgeprune.pruning.background:Background",
    "recoverable": "edgeprune.pruning.recoverable:Recoverable",
    "cdpruner": "edgeprune.pruning.cdpruner:CDPruner",
    "zoo": "edgeprune.pruning.zoo:Zoo",
    "tome": "edgeprune.pruning.tome:ToMe",
    "flowcut": "edgeprune.pruning.flowcut:FlowCut",
    "embedlens": "edgeprune.pruning.embedlens:EmbedLens",
}

#: the end of a SPEC whose first stage stands before the encoder
_STAGE: Final = re.compile(r"@(?P<ratio>[^@+]*)(?:\+(?P<second>.*))?$")

_TRUTH: Final[dict[str, bool]] = {"true": True, "false": False, "1": True, "0": False}


def method_names() -> tuple[str, ...]:
    """Names of all methods, in the order in which they are documented."""
    return tuple(METHODS)


def method_class(name: str) -> type[PruningMethod]:
    """The class of a method.

    Raises:
        PruningError: no method has this name.
    """
    if name not in METHODS:
        raise PruningError(f"unknown pruning method {name!r}; known: {', '.join(METHODS)}")
    module, _, attribute = METHODS[name].partition(":")
    found: type[PruningMethod] = getattr(importlib.import_module(module), attribute)
    return found


def parse(spec: str) -> PruningMethod:
    """`NAME[:param=value,...]`, or `NAME[:...]@RATIO[+NAME[:...]]` for a stage before the encoder -> the method.

    Raises:
        PruningError: unknown method, unknown parameter, a value of the wrong type, or stages that do not fit.
    """
    stage = _STAGE.search(spec)
    if stage is not None:
        return _staged(spec[: stage.start()], stage["ratio"], stage["second"])
    if "+" in spec.partition(":")[0]:
        raise PruningError(f"{spec!r} does not say how much enters the encoder; write NAME@RATIO+NAME")
    return _single(spec)


def _staged(first: str, ratio: str, second: str | None) -> PruningMethod:
    from edgeprune.pruning.background import Background
    from edgeprune.pruning.stages import Staged

    method = _single(first)
    if not isinstance(method, Background):
        raise PruningError(f"{method.name} cannot stand before the encoder; only background takes @RATIO")
    if second is not None and "@" in second:
        raise PruningError(f"{second!r} takes no ratio: only the first stage does, --keep is that of the last")
    try:
        share = float(ratio)
    except ValueError:
        raise PruningError(f"{method.name}@RATIO needs a number above 0 and at most 1, not {ratio!r}") from None
    return Staged(method, share, method if second is None else _single(second))


def _single(spec: str) -> PruningMethod:
    """`NAME[:param=value,...]` -> the method."""
    name, _, tail = (part.strip() for part in spec.partition(":"))
    cls = method_class(name)
    types = parameter_types(cls)
    values: dict[str, Any] = {}
    for item in filter(None, (part.strip() for part in tail.split(","))):
        key, equals, text = (part.strip() for part in item.partition("="))
        if key not in types or not equals:
            raise PruningError(f"{name} has no parameter {item!r}; {_described(types)}")
        values[key] = _typed(name, key, text, types[key])
    return cls(**values)


def parameter_types(cls: type[PruningMethod]) -> dict[str, type]:
    """Parameter name -> int, float, bool or str; optional parameters give the type they have when set."""
    hints = typing.get_type_hints(cls)
    return {field.name: _plain(hints[field.name]) for field in dataclasses.fields(cls)}


def _plain(hint: Any) -> type:
    """`int | None` -> int."""
    options = [option for option in typing.get_args(hint) if option is not type(None)]
    return typing.cast(type, options[0] if options else hint)


def _described(types: dict[str, type]) -> str:
    if not types:
        return "it takes none"
    return "its parameters are " + ", ".join(f"{key} ({kind.__name__})" for key, kind in types.items())


def _typed(name: str, key: str, text: str, kind: type) -> Any:
    try:
        return _TRUTH[text.lower()] if kind is bool else kind(text)
    except (ValueError, KeyError):
        raise PruningError(f"{name}: {key} must be {kind.__name__}, not {text!r}") from None
