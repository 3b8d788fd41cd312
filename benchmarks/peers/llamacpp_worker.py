"""llama.cpp through xllamacpp: `python llamacpp_worker.py FOLDER`, a folder that gguf_files.py wrote.

It cannot prune: all visual tokens reach the decoder. The package is built for AVX2, wherever it runs. TTFT begins with
the picture as the package takes it, a base64 text of a bitmap, and so holds a few milliseconds of decoding that.
"""

from __future__ import annotations

import base64
import pathlib
import struct
import sys
import time
from importlib import metadata
from typing import Any

import protocol
import xllamacpp

#: one batch holds the prompt, as the other peers' do
PROMPT_TOKENS = 1024
#: the question with its template and 58 visual tokens instead of 576, which is what edgeprune's decoder gets
PRUNED_PROMPT_TOKENS = 96
ASKED: dict[str, Any] = {"temperature": 0, "ignore_eos": True, "cache_prompt": False}


def bitmap(picture: Any) -> bytes:
    """A BMP file of an (H,W,3) RGB picture whose rows need no padding, top row first."""
    height, width = picture.shape[:2]
    header = struct.pack("<IiiHHIIiiII", 40, width, -height, 1, 24, 0, picture.size, 2835, 2835, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54 + picture.size, 0, 0, 54) + header + picture[:, :, ::-1].tobytes()


class Model:
    """llama.cpp's server in this process, with one conversation at a time and no cache between them."""

    def __init__(self, folder: pathlib.Path) -> None:
        params = xllamacpp.CommonParams()
        params.model.path, params.mmproj.path = str(folder / "text.gguf"), str(folder / "mmproj.gguf")
        params.n_ctx, params.n_batch, params.n_ubatch = 2 * PROMPT_TOKENS, PROMPT_TOKENS, PROMPT_TOKENS
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = protocol.THREADS
        params.n_parallel, params.cache_ram_mib, params.verbosity = 1, 0, 1
        params.n_gpu_layers, params.mmproj_use_gpu, params.fit_params = 0, False, False
        self.server = xllamacpp.Server(params)
        url = "data:image/bmp;base64," + base64.b64encode(bitmap(protocol.picture())).decode()
        parts = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": protocol.QUESTION}]
        self.question = [{"role": "user", "content": parts}]

    def answer(self) -> dict[str, float]:
        """TTFT is all the time but that of the steps behind the first token, which llama.cpp counts itself."""
        asked = {"messages": self.question, "max_tokens": protocol.NEW_TOKENS, **ASKED}
        begun = time.perf_counter()
        found = self.server.handle_chat_completions(asked)
        took = 1e3 * (time.perf_counter() - begun)
        timings = timings_of(found)
        if timings["cache_n"] or timings["predicted_n"] != protocol.NEW_TOKENS:
            raise SystemExit(f"llama.cpp did not do the whole work: {timings}")
        return {
            "llamacpp_ttft": took - timings["predicted_ms"],
            "llamacpp_decode": timings["predicted_ms"] / (protocol.NEW_TOKENS - 1),
            "llamacpp_input_tokens": float(timings["prompt_n"]),
        }

    def prefill(self) -> dict[str, float]:
        """As many tokens as edgeprune's decoder gets; text, since it cannot leave visual tokens out."""
        asked = {"prompt": " a" * PRUNED_PROMPT_TOKENS, "max_tokens": 1, **ASKED}
        timings = timings_of(self.server.handle_completions(asked))
        return {
            "llamacpp_prefill": timings["prompt_ms"],
            "llamacpp_prefill_tokens": float(timings["prompt_n"]),
        }


def timings_of(found: dict[str, Any]) -> dict[str, Any]:
    """llama.cpp's own counts and milliseconds of an answer; ends the worker on a refusal."""
    if "error" in found:
        raise SystemExit(f"llama.cpp: {found['error']}")
    timings: dict[str, Any] = found["timings"]
    return timings


def main() -> None:
    model = Model(pathlib.Path(sys.argv[1]))
    facts = {
        "xllamacpp": metadata.version("xllamacpp"),
        "built_with": xllamacpp.get_system_info().strip(),
        "weights": "Q4_0, vision Q8_0",
    }
    protocol.serve(facts, {"answer": model.answer, "prefill": model.prefill})


if __name__ == "__main__":
    main()
