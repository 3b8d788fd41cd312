"""runtime/include/edgeprune.h in ctypes: the structs, and the signature of every function."""

from __future__ import annotations

import ctypes
from ctypes import POINTER, c_char_p, c_double, c_float, c_int32, c_int64, c_size_t, c_uint8, c_uint64, c_void_p

ABI_VERSION = 1

OK = 0
BUNDLE = 3
RUNTIME_MISSING = 5
ABORTED = 9
DEADLINE = 10
INTERNAL = 13
PROVIDER = 14

VERIFY_HASHES = 0
VERIFY_SIZES = 1

RGB8 = 0
BGR8 = 1
RGBA8 = 2
GRAY8 = 3
NV12 = 4
YUYV = 5

#: ep_finish_reason -> the word of Answer.finish_reason.
FINISH_REASONS = ("eos", "stop", "length", "callback", "aborted", "deadline")

#: int32_t (*)(const char *text, size_t size, int32_t token_id, void *user_data)
TextFunction = ctypes.CFUNCTYPE(c_int32, c_void_p, c_size_t, c_int32, c_void_p)


class ModelOptions(ctypes.Structure):
    _fields_ = (
        ("struct_size", c_size_t),
        ("onnxruntime_library", c_char_p),
        ("variant", c_char_p),
        ("threads", c_int32),
        ("verify", c_int32),
        ("memory_limit_bytes", c_int64),
        ("context_tokens", c_int64),
        ("cores", c_char_p),
        ("no_spinning", c_int32),
        ("reserved", c_int32),
        ("map_weights", c_int32),
        ("reserved_2", c_int32),
        ("profile_prefix", c_char_p),
        ("provider", c_char_p),
        ("engine_cache_dir", c_char_p),
        ("device_id", c_int32),
        ("engine_fp16", c_int32),
    )


class SessionOptions(ctypes.Structure):
    _fields_ = (("struct_size", c_size_t),)


class Frame(ctypes.Structure):
    _fields_ = (
        ("struct_size", c_size_t),
        ("data", c_void_p),
        ("width_px", c_int32),
        ("height_px", c_int32),
        ("stride", c_size_t),
        ("format", c_int32),
        ("chroma", c_void_p),
        ("chroma_stride", c_size_t),
        ("color_matrix", c_int32),
        ("color_range", c_int32),
    )


class ImageOptions(ctypes.Structure):
    _fields_ = (
        ("struct_size", c_size_t),
        ("keep", c_double),
        ("method", c_char_p),
        ("auto_mass", c_double),
        ("auto_min", c_double),
        ("auto_max", c_double),
    )


class KeptTokens(ctypes.Structure):
    _fields_ = (
        ("struct_size", c_size_t),
        ("kept", c_int64),
        ("visual_tokens", c_int64),
        ("keep_idx", POINTER(c_int64)),
        ("scores", POINTER(c_float)),
        ("grid_rows", c_int32),
        ("grid_cols", c_int32),
        ("width_px", c_int32),
        ("height_px", c_int32),
        ("applied", c_int32),
        ("reason", c_char_p),
        ("method", c_char_p),
        ("keep", c_double),
        ("pad_mask", POINTER(c_float)),
        ("auto_mass", c_double),
        ("auto_min", c_double),
        ("auto_max", c_double),
    )


class GenerateOptions(ctypes.Structure):
    _fields_ = (
        ("struct_size", c_size_t),
        ("prompt", c_char_p),
        ("images", POINTER(c_int32)),
        ("image_count", c_size_t),
        ("max_new_tokens", c_int32),
        ("ignore_eos", c_int32),
        ("allow_special", c_int32),
        ("stop", POINTER(c_char_p)),
        ("stop_count", c_size_t),
        ("deadline_ms", c_double),
        ("on_text", TextFunction),
        ("user_data", c_void_p),
        ("temperature", c_double),
        ("top_k", c_int64),
        ("top_p", c_double),
        ("repetition_penalty", c_double),
        ("seed", c_uint64),
    )


class Answer(ctypes.Structure):
    _fields_ = (
        ("struct_size", c_size_t),
        ("text", c_void_p),
        ("text_size", c_size_t),
        ("token_ids", POINTER(c_int32)),
        ("token_count", c_size_t),
        ("finish_reason", c_int32),
        ("prompt_tokens", c_int64),
        ("visual_tokens_kept", c_int64),
        ("reused_tokens", c_int64),
        ("kv_tokens", c_int64),
    )


class ScoreOptions(ctypes.Structure):
    _fields_ = (
        ("struct_size", c_size_t),
        ("prompt", c_char_p),
        ("images", POINTER(c_int32)),
        ("image_count", c_size_t),
        ("choices", POINTER(c_char_p)),
        ("choice_count", c_size_t),
        ("allow_special", c_int32),
        ("with_eos", c_int32),
        ("deadline_ms", c_double),
    )


class Scores(ctypes.Structure):
    _fields_ = (
        ("struct_size", c_size_t),
        ("log_probabilities", POINTER(c_double)),
        ("token_counts", POINTER(c_int64)),
        ("choice_count", c_size_t),
        ("prompt_tokens", c_int64),
        ("visual_tokens_kept", c_int64),
        ("reused_tokens", c_int64),
        ("kv_tokens", c_int64),
    )


class Stats(ctypes.Structure):
    _fields_ = (
        ("struct_size", c_size_t),
        ("decode_image_ms", c_double),
        ("preprocess_ms", c_double),
        ("vision_ms", c_double),
        ("embed_ms", c_double),
        ("prefill_ms", c_double),
        ("decode_ms", c_double),
        ("ttft_ms", c_double),
        ("tpot_ms", c_double),
        ("total_ms", c_double),
        ("decode_steps", c_int64),
        ("new_tokens", c_int64),
        ("kv_bytes", c_int64),
        ("graph_ms", c_double),
        ("resize_ms", c_double),
        ("decode_graph_ms", c_double),
        ("select_ms", c_double),
    )


#: C struct -> its mirror.
STRUCTS: dict[str, type[ctypes.Structure]] = {
    "ep_model_options": ModelOptions,
    "ep_session_options": SessionOptions,
    "ep_frame": Frame,
    "ep_image_options": ImageOptions,
    "ep_kept_tokens": KeptTokens,
    "ep_generate_options": GenerateOptions,
    "ep_answer": Answer,
    "ep_score_options": ScoreOptions,
    "ep_scores": Scores,
    "ep_stats": Stats,
}

_SIZE_OUT = POINTER(c_size_t)
_INT64_OUT = POINTER(c_int64)
_FLOATS_OUT = POINTER(POINTER(c_float))

#: functions that return ep_status -> their argument types.
STATUS_CALLS: dict[str, tuple[type, ...]] = {
    "ep_model_open": (c_char_p, POINTER(ModelOptions), POINTER(c_void_p)),
    "ep_bundle_describe": (c_char_p, POINTER(ModelOptions), c_char_p, _SIZE_OUT),
    "ep_model_warmup": (c_void_p,),
    "ep_tokenize": (c_void_p, c_char_p, c_int32, POINTER(c_int32), _SIZE_OUT),
    "ep_detokenize": (c_void_p, POINTER(c_int32), c_size_t, c_int32, c_char_p, _SIZE_OUT),
    "ep_preprocess": (c_void_p, POINTER(Frame), POINTER(c_uint8), _SIZE_OUT),
    "ep_session_new": (c_void_p, POINTER(SessionOptions), POINTER(c_void_p)),
    "ep_session_reset": (c_void_p,),
    "ep_session_truncate": (c_void_p, c_int64),
    "ep_session_add_image": (c_void_p, POINTER(Frame), POINTER(ImageOptions), POINTER(c_int32)),
    "ep_session_add_image_file": (c_void_p, c_char_p, POINTER(ImageOptions), POINTER(c_int32)),
    "ep_session_image_remove": (c_void_p, c_int32),
    "ep_session_kept_tokens": (c_void_p, c_int32, POINTER(KeptTokens)),
    "ep_session_image_embeds": (c_void_p, c_int32, _FLOATS_OUT, _INT64_OUT, _INT64_OUT),
    "ep_session_set_image_embeds": (c_void_p, c_int32, POINTER(c_float), c_int64, c_int64),
    "ep_session_generate": (c_void_p, POINTER(GenerateOptions), POINTER(Answer)),
    "ep_session_score": (c_void_p, POINTER(ScoreOptions), POINTER(Scores)),
    "ep_session_logits": (c_void_p, _FLOATS_OUT, _INT64_OUT),
    "ep_session_prefill_logits": (c_void_p, _FLOATS_OUT, _INT64_OUT),
    "ep_session_stats": (c_void_p, POINTER(Stats)),
}

#: the other functions -> (result, argument types).
PLAIN_CALLS: dict[str, tuple[type | None, tuple[type, ...]]] = {
    "ep_version": (c_char_p, ()),
    "ep_abi_version": (c_int32, ()),
    "ep_last_error": (c_char_p, ()),
    "ep_status_name": (c_char_p, (c_int32,)),
    "ep_keep_count": (c_int64, (c_int64, c_double)),
    "ep_model_describe": (c_char_p, (c_void_p,)),
    "ep_model_free": (None, (c_void_p,)),
    "ep_session_free": (None, (c_void_p,)),
    "ep_session_abort": (None, (c_void_p,)),
}


def declare(library: ctypes.CDLL) -> None:
    """Sets the signature of every function. AttributeError: the library lacks one."""
    for name, arguments in STATUS_CALLS.items():
        function = getattr(library, name)
        function.restype = c_int32
        function.argtypes = arguments
    for name, (result, arguments) in PLAIN_CALLS.items():
        function = getattr(library, name)
        function.restype = result
        function.argtypes = arguments
