"""edgeprune: visual-token pruning inside the graph of a vision-language model.

    import edgeprune
    model = edgeprune.load("demo-keep0.1.bundle")
    print(model.ask("scene.png", "What is in the image?").text)

Importing this package loads nothing but the standard library. `load` (run a bundle, needs libedgeprune) and `export`
(the stage that makes bundles, needs the export extra) are fetched when they are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgeprune.bundle import Bundle
    from edgeprune.recipe import ExportRecipe
    from edgeprune.runtime.session import Answer, Frame, Model, Session, load

__version__ = "0.1.0"
__all__ = ["Answer", "Bundle", "ExportRecipe", "Frame", "Model", "Session", "__version__", "export", "load"]

#: public name -> (module, attribute); no attribute: the module itself. `export` stays the package because importing
#: edgeprune.export binds that name anyway: a function of the same name would depend on the order of imports.
_LAZY: dict[str, tuple[str, str | None]] = {
    "Answer": ("edgeprune.runtime.session", "Answer"),
    "Bundle": ("edgeprune.bundle", "Bundle"),
    "ExportRecipe": ("edgeprune.recipe", "ExportRecipe"),
    "Frame": ("edgeprune.runtime.session", "Frame"),
    "Model": ("edgeprune.runtime.session", "Model"),
    "Session": ("edgeprune.runtime.session", "Session"),
    "export": ("edgeprune.export", None),
    "load": ("edgeprune.runtime.session", "load"),
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'edgeprune' has no attribute {name!r}")
    module_name, attribute = _LAZY[name]
    module = importlib.import_module(module_name)
    return module if attribute is None else getattr(module, attribute)
