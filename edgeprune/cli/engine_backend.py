"""What doctor says of libedgeprune_tensorrt.so, the back end that runs engines: looked for where libedgeprune looks."""

from __future__ import annotations

import ctypes
import os

from edgeprune.errors import UserError

FILE = "libedgeprune_tensorrt.so"
VARIABLE = "EDGEPRUNE_TENSORRT_BACKEND"
#: as runtime/src/engine_library.h has it: the back end and the library have to agree in the whole text
INTERFACE = "engine interface 1"
REMEDY = (
    "only engines need it: build edgeprune where NvInfer.h is found (libnvinfer-dev of JetPack, or "
    f"-DEDGEPRUNE_TENSORRT_INCLUDE=DIR), or point {VARIABLE} at the file"
)


def examine() -> tuple[str, str]:
    """(what it is and where, "") when it loads and belongs to this libedgeprune, else ("", every place tried)."""
    try:
        from edgeprune.runtime import library

        own = library.load()
    except UserError:
        return "", "libedgeprune itself does not load"
    named = os.environ.get(VARIABLE)
    tried = []
    for place in [named] if named else [str(own.path.resolve().parent / FILE), FILE]:
        found, problem = _look(place, f"edgeprune {own.version}, {INTERFACE}")
        if not problem:
            return f"{found} ({place})", ""
        tried.append(problem)
    return "", "; ".join(tried)


def _look(place: str, wanted: str) -> tuple[str, str]:
    """(the text by which a back end names itself, "") or ("", why it is none); TensorRT itself is not opened."""
    try:
        calls = ctypes.CDLL(place)
        build, _open = calls.edgeprune_engine_build, calls.edgeprune_engine_open
    except OSError as error:
        return "", str(error)  # the loader names the file
    except AttributeError:
        return "", f"{place}: it is no back end of edgeprune"
    build.restype = ctypes.c_char_p
    text = build().decode("utf-8", "replace")
    return (text, "") if text == wanted else ("", f"{place}: it is of {text}, this library of {wanted}")
