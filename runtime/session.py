"""A model and its sessions: open a bundle, ask about pictures.

import edgeprune
with edgeprune.load("demo-keep0.1.bundle") as model:
    print(model.ask("scene.png", "What is in the image?").text)
    with model.new_session() as session:          # several questions about one picture
        session.add_image("scene.png", keep=0.1)
        for piece in session.stream("What is on the left?"):
            print(piece, end="", flush=True)
"""

from __future__ import annotations

import ctypes
import json
import math
import os
import weakref
from collections.abc import Callable, Generator, Sequence
from types import TracebackType
from typing import Any, Literal, TypeAlias

import numpy as np

from edgeprune.bundle import Bundle
from edgeprune.errors import UserError
from edgeprune.runtime import _abi
from edgeprune.runtime.answers import Answer, KeptTokens, copy_answer, copy_kept, copy_stats, floats, initialised
from edgeprune.runtime.frames import ArrayLike, Frame, Picture, to_frame
from edgeprune.runtime.library import Handle, Library
from edgeprune.runtime.library import load as load_library
from edgeprune.runtime.opening import Resources, describe_bundle
from edgeprune.runtime.request import Keep, Request, keep_fields, path_bytes, utf8
from edgeprune.runtime.scoring import ChoiceScore, Scores, Scoring
from edgeprune.runtime.worker import Stream, interruptible
from edgeprune.timings import StageTimings

__all__ = [
    "Answer", "ChoiceScore", "Frame", "KeptTokens", "Model", "Picture", "Resources", "Scores", "Session",
    "StageTimings", "Stream", "describe_bundle", "load",
]  # fmt: skip

Pictures: TypeAlias = "Picture | list[Picture] | tuple[Picture, ...] | None"
Floats: TypeAlias = "np.ndarray[Any, np.dtype[np.float32]]"


class Session(Scoring):
    """One conversation: its pictures and its KV cache. Made by `Model.new_session`; one thread at a time."""

    def __init__(self, native: Library, model: Handle) -> None:
        out = ctypes.c_void_p()
        model.call("ep_session_new", None, ctypes.byref(out))
        self._native = native
        self._handle = Handle(native, out.value or 0, "ep_session_free")
        self._stream: weakref.ref[Stream] | None = None
        self._images: list[int] = []

    def add_image(self, picture: Picture, *, keep: Keep = None, method: str | None = None) -> int:
        """Preprocesses, encodes and prunes one picture now.

        Args:
            picture: a JPEG or PNG file, (H,W,3) RGB, (H,W,4) RGBA or (H,W) grey uint8, a Pillow image,
                or a `Frame` (BGR, NV12, YUYV, rows apart).
            keep: keep ratio K/N; `AutoKeep` or its text, "auto:mass=0.9,min=0.05,max=0.5": the least K that holds this
                share of the scores' sum, for bundles exported so; None: the bundle's default.
            method: one of the bundle's pruning methods; None: its default.

        Returns:
            The picture's id in this session.

        Raises:
            NativeError: not an image, or a keep or method that the bundle does not serve.
        """
        name = None if method is None else utf8(method, "method")
        options = initialised(_abi.ImageOptions, method=name, **keep_fields(keep))
        image = ctypes.c_int32()
        tail = (ctypes.byref(options), ctypes.byref(image))
        if isinstance(picture, str | os.PathLike):
            path = path_bytes(picture)
            interruptible(lambda: self._handle.call("ep_session_add_image_file", path, *tail), self.abort)
        else:
            frame, _owner = to_frame(picture)
            interruptible(lambda: self._handle.call("ep_session_add_image", ctypes.byref(frame), *tail), self.abort)
        self._images.append(image.value)
        return image.value

    def generate(
        self,
        question: str,
        *,
        images: Sequence[int] | None = None,
        max_new_tokens: int | None = None,
        stop: Sequence[str] = (),
        ignore_eos: bool = False,
        allow_special: bool = False,
        deadline_ms: float | None = None,
        on_text: Callable[[str], object] | None = None,
        **decoding: Any,
    ) -> Answer:
        """Answers a question, by greedy decoding unless a temperature is given.

        Args:
            question: the user's text; the bundle's template is put around it.
            images: ids in the order of the prompt; None: all of the session.
            max_new_tokens: None: 128, or fewer when the context ends before that.
            stop: strings that end the answer, beside the bundle's own.
            ignore_eos: the bundle's end-of-sequence tokens and stop strings end nothing.
            allow_special: special tokens written in the question count as such.
            deadline_ms: from the call on; the answer then holds what had been made.
            on_text: called with every piece of text as it becomes final, on the calling thread.
            decoding: temperature (0: greedy), top_k, top_p, repetition_penalty and seed (the same seed, the same text),
                as in transformers; visual tokens do not count for the penalty.

        Returns:
            The answer. After `abort` or the deadline its finish_reason says so, and it holds what had been made.

        Raises:
            NativeError: the prompt does not fit the context, an unknown image, another thread uses the session.
        """
        request = Request(question, images, max_new_tokens, stop, ignore_eos, allow_special, deadline_ms, **decoding)
        if on_text is None:
            return interruptible(lambda: self._answer(request, _abi.TextFunction()), self.abort)
        with self._start(request) as pieces:
            for piece in pieces:
                on_text(piece)
        return pieces.answer

    def stream(self, question: str, **options: Any) -> Stream:
        """Gives the text out in pieces as it is made; takes the arguments of `generate` except on_text.

        Closing the stream, or forgetting it, stops the generation. `.answer` holds the answer once it has ended.
        """
        return self._start(Request(question, **options))

    def _start(self, request: Request) -> Stream:
        self._close_stream()
        stream = Stream(lambda on_text: self._answer(request, on_text), self.abort)
        self._stream = weakref.ref(stream)
        return stream

    def _close_stream(self) -> None:
        stream = None if self._stream is None else self._stream()
        if stream is not None:
            stream.close()

    def _answer(self, request: Request, on_text: Any) -> Answer:
        raw = initialised(_abi.Answer)
        options = request.options(on_text)
        address = self._handle.address
        status = self._native.calls.ep_session_generate(address, ctypes.byref(options), ctypes.byref(raw))
        if status not in (_abi.ABORTED, _abi.DEADLINE):
            self._native.check(status)
        stats = initialised(_abi.Stats)
        self._handle.call("ep_session_stats", ctypes.byref(stats))
        ids = self._images if request.images is None else request.images
        return copy_answer(raw, stats, tuple(self.kept_tokens(image) for image in ids))

    def kept_tokens(self, image: int) -> KeptTokens:
        """What pruning kept of a picture."""
        raw = initialised(_abi.KeptTokens)
        self._handle.call("ep_session_kept_tokens", image, ctypes.byref(raw))
        return copy_kept(image, raw)

    def image_embeds(self, image: int) -> Floats:
        """(K,D) projected visual embeddings that the decoder reads."""
        data, kept, width = ctypes.POINTER(ctypes.c_float)(), ctypes.c_int64(), ctypes.c_int64()
        out = (ctypes.byref(data), ctypes.byref(kept), ctypes.byref(width))
        self._handle.call("ep_session_image_embeds", image, *out)
        return floats(data, kept.value, width.value)

    def set_image_embeds(self, image: int, embeds: Floats) -> None:
        """Replaces them, (K,D) as before; the part of the KV cache that used them is dropped."""
        values = np.ascontiguousarray(embeds, dtype=np.float32)
        if values.ndim != 2:
            raise UserError(f"visual embeddings have the shape (K,D), not {values.shape}.")
        data = values.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
        self._handle.call("ep_session_set_image_embeds", image, data, *values.shape)

    def logits(self) -> Floats:
        """(V,) logits of the last executed position."""
        return self._logits("ep_session_logits")

    def prefill_logits(self) -> Floats:
        """(V,) logits at the end of the last prefill."""
        return self._logits("ep_session_prefill_logits")

    def _logits(self, function: str) -> Floats:
        data, count = ctypes.POINTER(ctypes.c_float)(), ctypes.c_int64()
        self._handle.call(function, ctypes.byref(data), ctypes.byref(count))
        return floats(data, count.value)

    def stats(self) -> StageTimings:
        """Of the last answer, with the pictures added since the one before it."""
        raw = initialised(_abi.Stats)
        self._handle.call("ep_session_stats", ctypes.byref(raw))
        return copy_stats(raw)

    def abort(self) -> None:
        """Stops a running `generate`, `stream` or `add_image` from another thread; without one it does nothing."""
        self._native.calls.ep_session_abort(self._handle.address)

    def remove_image(self, image: int) -> None:
        """Drops a picture and the part of the KV cache that used it."""
        self._handle.call("ep_session_image_remove", image)
        self._images.remove(image)

    def truncate(self, kv_tokens: int) -> None:
        """Keeps the first `kv_tokens` tokens of the KV cache."""
        self._handle.call("ep_session_truncate", kv_tokens)

    def reset(self) -> None:
        """Forgets pictures, KV cache and statistics; ids start again at 0."""
        self._close_stream()
        self._handle.call("ep_session_reset")
        self._images.clear()

    def close(self) -> None:
        """Frees the session; may be called again."""
        self._close_stream()
        self._handle.close()

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if hasattr(self, "_handle"):
            self._handle.close()


class Model:
    """An opened bundle. Immutable: share it between threads, each with sessions of its own."""

    def __init__(self, native: Library, handle: Handle, bundle: Bundle) -> None:
        self._native = native
        self._handle = handle
        self.bundle = bundle

    @classmethod
    def open(
        cls,
        bundle: str | os.PathLike[str],
        *,
        variant: str | None = None,
        threads: int = 0,
        onnxruntime_library: str | os.PathLike[str] | None = None,
        verify: Literal["full", "sizes"] = "full",
        **resources: Any,
    ) -> Model:
        """Opens and verifies a bundle directory, and loads its graphs.

        Args:
            bundle: the directory.
            variant: slug of a built variant, e.g. cpu-int8; None: the canonical graphs.
            threads: inside one graph run; 0: onnxruntime's own choice.
            onnxruntime_library: path of libonnxruntime; None: EDGEPRUNE_ORT_LIB when it is set, else the one inside an
                installed onnxruntime package, else the loader's.
            verify: "full" compares size and SHA-256 of every file; "sizes" skips the hashes.
            resources: provider ("cpu", "cuda", "tensorrt") with device_id, engine_cache_dir and engine_fp16; cores,
                spinning, map_weights, memory_limit_bytes, context_tokens, profile_prefix; see `Resources`.

        Raises:
            BundleError: a file is missing, changed or unsafe, or the schema version is another.
            DependencyError: libedgeprune or libonnxruntime is missing or too old.
            NativeError: the library refuses the bundle, or the provider cannot run here.
        """
        native = load_library()
        options = Resources(threads, **resources).options(variant, onnxruntime_library)
        checked = Bundle.open(os.fspath(bundle), verify=verify)
        if variant is not None:
            checked.variant(variant, verify=verify, to_run=True)
        out = ctypes.c_void_p()
        native.call("ep_model_open", path_bytes(bundle), ctypes.byref(options), ctypes.byref(out))
        return cls(native, Handle(native, out.value or 0, "ep_model_free"), checked)

    def describe(self) -> dict[str, Any]:
        """{"name", "family", "provider", "variant", "onnxruntime", "context_length", "visual_tokens", "grid", "keep",
        "methods", "default_method", "weights_bytes", "kv_bytes_per_token", "memory"}; with another provider than the
        CPU's also "cpu_nodes": {graph: {operator: count}}, the nodes that onnxruntime left on the CPU."""
        facts: dict[str, Any] = json.loads(self._native.calls.ep_model_describe(self._handle.address))
        return facts

    def warmup(self) -> None:
        """Runs every graph once on zeros, so that the first question does not pay for lazy initialisation."""
        self._handle.call("ep_model_warmup")

    def new_session(self) -> Session:
        """A conversation of its own: pictures, KV cache."""
        return Session(self._native, self._handle)

    def ask(
        self,
        pictures: Pictures,
        question: str,
        *,
        keep: Keep = None,
        method: str | None = None,
        **options: Any,
    ) -> Answer:
        """One question in a session of its own.

        Args:
            pictures: one picture, a list of them in the order of the prompt, or None; see `Session.add_image`.
            question: the user's text.
            keep, method: see `Session.add_image`.
            options: see `Session.generate`.
        """
        with self._session_with(pictures, keep, method) as session:
            return session.generate(question, **options)

    def stream(
        self,
        pictures: Pictures,
        question: str,
        *,
        keep: Keep = None,
        method: str | None = None,
        **options: Any,
    ) -> Generator[str, None, Answer]:
        """Like `ask`, in pieces as they become final; closing the generator stops the generation."""
        with self._session_with(pictures, keep, method) as session:
            pieces = session.stream(question, **options)
            yield from pieces
            return pieces.answer

    def _session_with(self, pictures: Pictures, keep: Keep, method: str | None) -> Session:
        if pictures is None:
            several: Sequence[Picture] = ()
        else:
            several = pictures if isinstance(pictures, list | tuple) else (pictures,)
        session = self.new_session()
        try:
            for picture in several:
                session.add_image(picture, keep=keep, method=method)
        except BaseException:
            session.close()
            raise
        return session

    def tokenize(self, text: str, *, allow_special: bool = False) -> list[int]:
        """Token ids of a text; it turns into special tokens only when that is allowed."""
        encoded, count = utf8(text, "text"), ctypes.c_size_t()
        self._handle.call("ep_tokenize", encoded, allow_special, None, ctypes.byref(count))
        ids = (ctypes.c_int32 * count.value)()
        self._handle.call("ep_tokenize", encoded, allow_special, ids, ctypes.byref(count))
        return list(ids)

    def detokenize(self, ids: Sequence[int], *, skip_special: bool = True) -> str:
        """Text of token ids."""
        array, size = (ctypes.c_int32 * len(ids))(*ids), ctypes.c_size_t()
        self._handle.call("ep_detokenize", array, len(ids), skip_special, None, ctypes.byref(size))
        text = ctypes.create_string_buffer(size.value)
        self._handle.call("ep_detokenize", array, len(ids), skip_special, text, ctypes.byref(size))
        return text.raw.decode("utf-8", "replace")

    def preprocess(self, picture: ArrayLike | Frame) -> np.ndarray[Any, np.dtype[np.uint8]]:
        """(S,S,3) RGB bytes that the vision graph sees, before 1/255 and normalisation."""
        frame, _owner = to_frame(picture)
        size = ctypes.c_size_t()
        self._handle.call("ep_preprocess", ctypes.byref(frame), None, ctypes.byref(size))
        edge = math.isqrt(size.value // 3)
        rgb = np.empty((edge, edge, 3), np.uint8)
        data = rgb.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8))
        self._handle.call("ep_preprocess", ctypes.byref(frame), data, ctypes.byref(size))
        return rgb

    def close(self) -> None:
        """Frees the model; sessions that are still open keep what they need. May be called again."""
        self._handle.close()

    def __enter__(self) -> Model:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        self._handle.close()


def load(bundle: str | os.PathLike[str], **options: Any) -> Model:
    """`Model.open`, reached as `edgeprune.load`."""
    return Model.open(bundle, **options)
