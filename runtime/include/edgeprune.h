// clang-format Language: C
/*
 * edgeprune.h - run a pruned vision-language model from C, C++ or any language with a C FFI.
 *
 * A complete program (error checks shortened; examples/c/robot_loop.c is the long form):
 *
 *     #include <edgeprune.h>
 *     #include <stdio.h>
 *
 *     int main(void) {
 *         ep_model_options mo;  ep_model_options_init(&mo);
 *         ep_model *model = NULL;
 *         if (ep_model_open("demo-keep0.1.bundle", &mo, &model) != EP_OK) {
 *             fprintf(stderr, "%s\n", ep_last_error());
 *             return 1;
 *         }
 *         ep_session *session = NULL;
 *         ep_session_new(model, NULL, &session);
 *
 *         ep_image_options io;  ep_image_options_init(&io);
 *         io.keep = 0.1;                                // keep 10 % of the visual tokens
 *         int32_t image = 0;
 *         ep_session_add_image_file(session, "scene.png", &io, &image);
 *
 *         ep_generate_options go;  ep_generate_options_init(&go);
 *         go.prompt = "What is in the image?";
 *         go.max_new_tokens = 32;
 *         ep_answer answer;  ep_answer_init(&answer);
 *         ep_session_generate(session, &go, &answer);
 *         printf("%s\n", answer.text);
 *
 *         ep_session_free(session);
 *         ep_model_free(model);
 *         return 0;
 *     }
 *
 * Rules that hold for the whole header
 *  - Status: every call that can fail returns ep_status; EP_OK is 0. ep_last_error() gives the sentence that belongs
 *    to the last failure on the calling thread. No exception ever crosses this interface.
 *  - Structs: every options or result struct begins with `struct_size`. Call its _init, then set fields. _init is a
 *    macro over _init_sized, which fills as many bytes as the struct has in the header the program was compiled with;
 *    the functions of the same name without a size, for programs of the first header and for callers that do not use
 *    macros, fill the fields of the first header only. Every default is 0. Program and library may be of different
 *    releases: fields that one of them lacks have their defaults, and a field that the library does not know is
 *    refused unless it is 0.
 *  - Strings are UTF-8 and zero-terminated. Lengths in bytes unless a name says otherwise. `_ms` are milliseconds.
 *  - Ownership: "borrowed" pointers belong to the object named in the comment and live until the event named there.
 *    Input pointers are read during the call only; the library keeps copies.
 *  - Threads: an ep_model is immutable and may be shared. An ep_session serves one thread at a time, except
 *    ep_session_abort, which may be called from any thread.
 *  - Nothing falls back silently: not the execution provider, not the precision, not the pruning.
 *  - No network, and no files written but those that profile_prefix and engine_cache_dir ask for. The official
 *    onnxruntime from 1.29 on would do both for telemetry, so ep_model_open sets ORT_DISABLE_TELEMETRY=1 in the
 *    environment of the process before it loads onnxruntime. A program that has loaded onnxruntime before, or whose
 *    threads read the environment meanwhile, should set the variable at its start.
 *  - Tensors are row-major. B images, N visual tokens per image, K kept tokens, D decoder width, V vocabulary.
 */
#ifndef EDGEPRUNE_H
#define EDGEPRUNE_H

#include <stddef.h>
#include <stdint.h>

#if defined(_WIN32)
#define EP_API
#else
#define EP_API __attribute__((visibility("default")))
#endif

#ifdef __cplusplus
extern "C" {
#endif

#define EP_ABI_VERSION 1

typedef enum ep_status {
    EP_OK = 0,
    EP_ERROR_INVALID_ARGUMENT = 1, /* a null pointer, a keep outside its range, an unknown method or image id ... */
    EP_ERROR_IO = 2,               /* a bundle or a picture is not there, or a file cannot be read */
    EP_ERROR_BUNDLE = 3,           /* the bundle contradicts itself: malformed manifest, a file of it missing, truncated
                                     or changed, unsafe path, unknown schema version */
    EP_ERROR_UNSUPPORTED = 4,      /* a tokenizer part, a preprocess kind, a feature switched off at build time */
    EP_ERROR_RUNTIME_MISSING = 5,  /* no usable libonnxruntime; the text names every place that was tried */
    EP_ERROR_BACKEND = 6,          /* onnxruntime failed, in its own words, or a graph made what it must not */
    EP_ERROR_IMAGE = 7,            /* not an image, truncated, empty, or larger than the pixel limit */
    EP_ERROR_CONTEXT_FULL = 8,     /* prompt + visual tokens + new tokens exceed the context length */
    EP_ERROR_ABORTED = 9,          /* ep_session_abort was called; the session stays usable */
    EP_ERROR_DEADLINE = 10,        /* deadline_ms passed; the session stays usable, the answer holds what was made */
    EP_ERROR_OUT_OF_MEMORY = 11,   /* an allocation or the start of a thread failed, or memory_limit_bytes is below the
                                     need. The process and the session survive it */
    EP_ERROR_BUSY = 12,            /* the session is in use by another thread */
    EP_ERROR_INTERNAL = 13,        /* a bug, please report the text; or on_text threw a C++ exception */
    EP_ERROR_PROVIDER = 14         /* the execution provider cannot run here, or onnxruntime would not run a graph with
                                     it; the text says why and what to do. Nothing runs with another one instead */
} ep_status;

typedef enum ep_pixel_format {
    EP_PIXEL_RGB8 = 0,
    EP_PIXEL_BGR8 = 1,
    EP_PIXEL_RGBA8 = 2, /* alpha is dropped, as Pillow's convert("RGB") does */
    EP_PIXEL_GRAY8 = 3,
    EP_PIXEL_NV12 = 4, /* a plane of Y, then one of Cb Cr pairs, each for 2 x 2 pixels */
    EP_PIXEL_YUYV = 5  /* Y0 Cb Y1 Cr for 2 x 1 pixels, also known as YUY2 */
} ep_pixel_format;

/* How Y, Cb and Cr become R, G and B, for EP_PIXEL_NV12 and EP_PIXEL_YUYV. Each chroma sample serves every pixel it
 * covers, without interpolation. */
typedef enum ep_color_matrix {
    EP_MATRIX_BT601 = 0, /* ITU-R BT.601: most webcams, JPEG */
    EP_MATRIX_BT709 = 1  /* ITU-R BT.709: HD video */
} ep_color_matrix;

typedef enum ep_color_range {
    EP_RANGE_LIMITED = 0, /* Y 16..235, Cb and Cr 16..240 */
    EP_RANGE_FULL = 1     /* 0..255, as in JPEG */
} ep_color_range;

typedef enum ep_finish_reason {
    EP_FINISH_EOS = 0,      /* the model ended its answer */
    EP_FINISH_STOP = 1,     /* a stop string appeared; the text ends before it */
    EP_FINISH_LENGTH = 2,   /* max_new_tokens were made */
    EP_FINISH_CALLBACK = 3, /* on_text returned non-zero */
    EP_FINISH_ABORTED = 4,
    EP_FINISH_DEADLINE = 5
} ep_finish_reason;

typedef enum ep_verify {
    EP_VERIFY_HASHES = 0, /* sizes and SHA-256 of every file the model opens (default) */
    EP_VERIFY_SIZES = 1   /* sizes only: the caller has checked the hashes already */
} ep_verify;

typedef struct ep_model ep_model;     /* an opened bundle; immutable; share it between threads */
typedef struct ep_session ep_session; /* one conversation: its images and its KV cache */

/* ---- version, errors, log ---------------------------------------------------------------------------------- */

/* "0.1.0"; static. */
EP_API const char *ep_version(void);
/* EP_ABI_VERSION of the library that is loaded. */
EP_API int32_t ep_abi_version(void);
/* Text of the last failure on this thread; "" when there was none. Borrowed until this thread's next ep_ call. */
EP_API const char *ep_last_error(void);
/* Short name of a status, e.g. "EP_ERROR_IO"; static. */
EP_API const char *ep_status_name(ep_status status);

typedef enum ep_log_level { EP_LOG_DEBUG = 0, EP_LOG_INFO = 1, EP_LOG_WARNING = 2, EP_LOG_ERROR = 3 } ep_log_level;
/* Receives messages of the library and of onnxruntime; from any thread. `message` is borrowed for the call. */
typedef void (*ep_log_fn)(ep_log_level level, const char *message, void *user_data);
/* Process-wide. NULL switches logging off (the default). Set it before the first ep_model_open. */
EP_API void ep_set_log(ep_log_fn fn, ep_log_level least, void *user_data);

/* ---- model ------------------------------------------------------------------------------------------------- */

typedef struct ep_model_options {
    size_t struct_size;
    const char *onnxruntime_library; /* its path; NULL: EDGEPRUNE_ORT_LIB when set, else the loader path */
    const char *variant;             /* slug of a built variant that onnxruntime runs; NULL: the canonical graphs */
    int32_t threads;                 /* threads inside one graph run; 0: onnxruntime's own choice */
    int32_t verify;                  /* an ep_verify value */
    int64_t memory_limit_bytes;      /* 0: none; else ep_model_open refuses a bundle whose "memory" "total_bytes" (see
                                        ep_bundle_describe) is larger, before it loads anything. No cap while running */
    int64_t context_tokens;          /* 0: the manifest's context length; else a smaller one, to need less memory */
    const char *cores;               /* NULL, or "2,3": one thread per core named (threads 0, or as many). The first is
                                        the thread that calls, which the caller pins; the others are pinned */
    int32_t no_spinning;             /* non-zero: idle threads sleep at once, for machines with other work to do */
    int32_t reserved;                /* 0 */
    int32_t map_weights;             /* non-zero: onnxruntime works on the bundle's files as they lie in memory, instead
                                        of on repacked copies: opening is faster, processes share the memory, and the
                                        system may drop and reread it. Runs may be slower. Do not write into the files
                                        of an open bundle: a page that is gone ends the process (SIGBUS) */
    int32_t reserved_2;              /* 0 */
    const char *profile_prefix;   /* NULL, or "/tmp/run-": onnxruntime times every node of every run, and when the model
                                     is freed its JSON trace of each graph that was loaded is written to this text,
                                     the name of the graph's file without ".onnx", "_" and a time stamp. The directory
                                     must exist. Runs are slower. A trace holds at most a million events */
    const char *provider;         /* "cpu", "cuda" or "tensorrt", of onnxruntime; NULL: "cuda" for a variant that was
                                     built for the target cuda, else "cpu" */
    const char *engine_cache_dir; /* tensorrt: where it keeps the engines that it builds while it opens a bundle and
                                     runs it the first time, which takes minutes; NULL: it builds them every time */
    int32_t device_id;            /* cuda, tensorrt: which GPU */
    int32_t engine_fp16;          /* tensorrt, non-zero: it may compute float32 graphs in float16 */
} ep_model_options;
EP_API void ep_model_options_init(ep_model_options *options);
EP_API void ep_model_options_init_sized(ep_model_options *options, size_t size);
#define ep_model_options_init(options) ep_model_options_init_sized((options), sizeof(ep_model_options))

/* Opens a bundle directory. `options` may be NULL. On failure *out is NULL. */
EP_API ep_status ep_model_open(const char *bundle_dir, const ep_model_options *options, ep_model **out);
/*
 * What a bundle is and needs, before anything is loaded: reads the manifest and looks at the files' sizes. `options`
 * may be NULL; only context_tokens counts. A JSON object with the keys of ep_model_describe that need no loading, and
 * "memory": {"total_bytes", "weights_bytes", "kv_bytes", "activations_bytes", "context_tokens", "estimated": [...]} for
 * one session. weights_bytes: files of the graphs that ep_model_open loads. kv_bytes: a full context, twice where
 * the cache grows by copying, once where it is written in place. activations_bytes: the largest tensors of one run, AN
 * ESTIMATE from the usual layer shapes. Not contained: onnxruntime itself, and copies that it makes of weights while it
 * repacks them or brings them to a GPU. Call with json == NULL to get the size in bytes, without a closing zero, in
 * *size.
 */
EP_API ep_status ep_bundle_describe(const char *bundle_dir, const ep_model_options *options, char *json, size_t *size);
/* Frees the model; its sessions must be freed first. NULL is allowed. */
EP_API void ep_model_free(ep_model *model);
/*
 * A JSON object: {"name", "family", "provider", "variant", "onnxruntime": {"version", "library"}, "context_length",
 * "visual_tokens", "grid": [rows, cols], "keep": {"default","min","max"}, "methods": [...], "default_method",
 * "weights_bytes" (of every graph of the bundle), "kv_bytes_per_token", "memory"}. With another provider than the CPU's
 * also "cpu_nodes": {graph: {operator: count}}, the nodes that onnxruntime left on the CPU, as it does with the
 * arithmetic of shapes. Borrowed until ep_model_free.
 */
EP_API const char *ep_model_describe(const ep_model *model);
/* Runs every graph once on zeros so that the first question does not pay for lazy initialisation. */
EP_API ep_status ep_model_warmup(ep_model *model);

/* keep_count(N, ratio) = max(1, floor(N * ratio + 0.5)), the only place where a ratio becomes a count; -1: bad input */
EP_API int64_t ep_keep_count(int64_t visual_tokens, double ratio);

/* Token ids of a text. Text never becomes a special token unless allow_special is non-zero. Call with ids == NULL to
 * get the count in *count; otherwise *count is the capacity on entry and the count on return. */
EP_API ep_status ep_tokenize(const ep_model *model, const char *text, int32_t allow_special, int32_t *ids,
                             size_t *count);
/* Text of token ids. Call with text == NULL to get the size in bytes, without the closing zero, in *size. */
EP_API ep_status ep_detokenize(const ep_model *model, const int32_t *ids, size_t count, int32_t skip_special,
                               char *text, size_t *size);

/* ---- images ------------------------------------------------------------------------------------------------ */

/* A picture in the caller's memory. It is read during the call only and never copied whole: its rows become RGB as the
 * resize reads them. An odd width or height of NV12 and YUYV ends in half a chroma sample, which is stored whole. */
typedef struct ep_frame {
    size_t struct_size;
    const uint8_t *data; /* first row */
    int32_t width_px, height_px;
    size_t stride;         /* bytes from row to row; 0: rows are packed */
    int32_t format;        /* an ep_pixel_format value */
    const uint8_t *chroma; /* NV12: first row of Cb Cr; NULL: directly behind the last row (stride * height_px) */
    size_t chroma_stride;  /* NV12: bytes from row to row of Cb Cr; 0: as `stride` */
    int32_t color_matrix;  /* NV12, YUYV: an ep_color_matrix value */
    int32_t color_range;   /* NV12, YUYV: an ep_color_range value */
} ep_frame;
EP_API void ep_frame_init(ep_frame *frame);
EP_API void ep_frame_init_sized(ep_frame *frame, size_t size);
#define ep_frame_init(frame) ep_frame_init_sized((frame), sizeof(ep_frame))

typedef struct ep_image_options {
    size_t struct_size;
    double keep;        /* keep ratio of the original N; 0: the manifest's default */
    const char *method; /* pruning method, one of the bundle's; NULL: the manifest's default */
    double auto_mass;   /* 0: no automatic keep; else K is the least whose K highest scores hold this share of the sum
                           of all, for methods exported with --keep auto:...; keep must be 0 then */
    double auto_min;    /* with auto_mass: K is at least ep_keep_count(N, auto_min); 0: the bundle's smallest keep */
    double auto_max;    /* and at most ep_keep_count(N, auto_max); 0: the bundle's largest */
} ep_image_options;
EP_API void ep_image_options_init(ep_image_options *options);
EP_API void ep_image_options_init_sized(ep_image_options *options, size_t size);
#define ep_image_options_init(options) ep_image_options_init_sized((options), sizeof(ep_image_options))

typedef struct ep_session_options {
    size_t struct_size;
} ep_session_options;
EP_API void ep_session_options_init(ep_session_options *options);
EP_API void ep_session_options_init_sized(ep_session_options *options, size_t size);
#define ep_session_options_init(options) ep_session_options_init_sized((options), sizeof(ep_session_options))

/* `options` may be NULL. The model must outlive the session. */
EP_API ep_status ep_session_new(ep_model *model, const ep_session_options *options, ep_session **out);
/* Forgets images, KV cache and statistics; ids start again at 0. */
EP_API ep_status ep_session_reset(ep_session *session);
/* Keeps the first `kv_tokens` tokens of the KV cache. */
EP_API ep_status ep_session_truncate(ep_session *session, int64_t kv_tokens);
EP_API void ep_session_free(ep_session *session);

/* Preprocesses, encodes and prunes one image now; *image_id names it in this session. `options` may be NULL. A method
 * that reads the question only encodes it: each ep_session_generate and ep_session_score then chooses the tokens by its
 * prompt alone, without the template. */
EP_API ep_status ep_session_add_image(ep_session *session, const ep_frame *frame, const ep_image_options *options,
                                      int32_t *image_id);
/* JPEG and PNG, by libjpeg and libpng opened at run time; without them this returns EP_ERROR_UNSUPPORTED. */
EP_API ep_status ep_session_add_image_file(ep_session *session, const char *path, const ep_image_options *options,
                                           int32_t *image_id);
/* Drops an image; the part of the KV cache that used it is dropped with it. */
EP_API ep_status ep_session_image_remove(ep_session *session, int32_t image_id);

typedef struct ep_kept_tokens {
    size_t struct_size;
    int64_t kept;            /* K, read from the shape of the executed output tensor */
    int64_t visual_tokens;   /* N */
    const int64_t *keep_idx; /* K indices into the original grid, -1: stands for no single patch; borrowed */
    const float *scores;     /* N scores, or NULL when the method has none; borrowed */
    int32_t grid_rows, grid_cols;
    int32_t width_px, height_px; /* of the picture as it was given */
    int32_t applied;             /* 1 when K < N */
    const char *reason;          /* why not, when applied is 0; why K is below the ratio asked for; else ""; borrowed */
    const char *method;          /* borrowed */
    double keep;                 /* the ratio asked for; K / N when K was chosen from the scores */
    const float *pad_mask;       /* N values, 1: the patch is letter-box padding; NULL: not a letter-boxed bundle;
                                    borrowed */
    double auto_mass;            /* how K was chosen, as in ep_image_options; 0 when keep was asked for */
    double auto_min, auto_max;
} ep_kept_tokens;
EP_API void ep_kept_tokens_init(ep_kept_tokens *out);
EP_API void ep_kept_tokens_init_sized(ep_kept_tokens *out, size_t size);
#define ep_kept_tokens_init(out) ep_kept_tokens_init_sized((out), sizeof(ep_kept_tokens))
/* Borrowed pointers live until the image is removed or the session is reset or freed; where the method reads the
 * question, until the next question. What was kept is that of the last question then, and an error before the first. */
EP_API ep_status ep_session_kept_tokens(const ep_session *session, int32_t image_id, ep_kept_tokens *out);

/* The preprocessed picture: size_px*size_px*3 bytes of RGB (height, width, 3), before 1/255 and normalisation.
 * Call with rgb == NULL to get the size in *size. */
EP_API ep_status ep_preprocess(const ep_model *model, const ep_frame *frame, uint8_t *rgb, size_t *size);

/* The projected visual embeddings that the decoder reads: kept * width floats. Borrowed as in ep_kept_tokens. */
EP_API ep_status ep_session_image_embeds(const ep_session *session, int32_t image_id, const float **data, int64_t *kept,
                                         int64_t *width);
/* Replaces them (same kept * width), to test or to edit what the decoder sees; drops the KV cache that used them. */
EP_API ep_status ep_session_set_image_embeds(ep_session *session, int32_t image_id, const float *data, int64_t kept,
                                             int64_t width);

/* ---- questions --------------------------------------------------------------------------------------------- */

/* Called for every piece of text as it becomes final (never half a character). `text` is borrowed for the call.
 * Return non-zero to stop. Called on the thread that called ep_session_generate; of this header it may call only
 * ep_session_abort for the same session. */
typedef int32_t (*ep_text_fn)(const char *text, size_t size, int32_t token_id, void *user_data);

typedef struct ep_generate_options {
    size_t struct_size;
    const char *prompt;      /* the question; the bundle's template is put around it */
    const int32_t *images;   /* image ids in the order of the prompt; NULL: all images of the session */
    size_t image_count;      /* with images != NULL; 0 asks without a picture */
    int32_t max_new_tokens;  /* 0 (default): 128, or fewer when the context ends before that */
    int32_t ignore_eos;      /* non-zero: the bundle's end-of-sequence tokens and stop strings end nothing */
    int32_t allow_special;   /* non-zero: special tokens written in the prompt count as such */
    const char *const *stop; /* stop strings beside the bundle's own */
    size_t stop_count;
    double deadline_ms; /* from the call on; 0: none. Stops between tokens and inside a graph run */
    ep_text_fn on_text; /* may be NULL */
    void *user_data;
    double temperature; /* 0 (default): greedy; above 0: sampling from softmax(logits / temperature) */
    int64_t top_k;      /* 0 (default): every token; else the k likeliest and their equals */
    double top_p;       /* 0 (default) or 1: every token; else the fewest likeliest with this share of the mass */
    double
        repetition_penalty; /* 0 (default) or 1: none. Logits of ids in the prompt's text or in the answer are divided
                               by it when positive and multiplied when negative; visual tokens do not count */
    uint64_t seed;          /* the n-th token drawn depends on seed, n and its logits alone; greedy ignores it */
} ep_generate_options;
EP_API void ep_generate_options_init(ep_generate_options *options);
EP_API void ep_generate_options_init_sized(ep_generate_options *options, size_t size);
#define ep_generate_options_init(options) ep_generate_options_init_sized((options), sizeof(ep_generate_options))

typedef struct ep_answer {
    size_t struct_size;
    const char *text;         /* borrowed until the next generate, reset or free */
    size_t text_size;         /* bytes of text; it may hold zero characters when the model makes them */
    const int32_t *token_ids; /* generated ids, end-of-sequence included when it was made; borrowed likewise */
    size_t token_count;
    int32_t finish_reason;      /* an ep_finish_reason value */
    int64_t prompt_tokens;      /* text tokens + kept visual tokens of the prompt */
    int64_t visual_tokens_kept; /* those of them that are visual */
    int64_t reused_tokens;      /* of the prompt, found in the KV cache of an earlier question */
    int64_t kv_tokens;          /* length of the KV cache, read from the executed tensors */
} ep_answer;
EP_API void ep_answer_init(ep_answer *answer);
EP_API void ep_answer_init_sized(ep_answer *answer, size_t size);
#define ep_answer_init(answer) ep_answer_init_sized((answer), sizeof(ep_answer))

/* Greedy decoding unless a temperature is set; top_k and top_p without one are refused. The order is repetition
 * penalty, temperature, top_k, top_p, as in transformers. A question shares the KV cache of its longest common prefix
 * with the question before it, so a second question about the same picture costs no vision and no shared prefill. Where
 * the method reads the question, another one costs the choice of tokens and the prefill from the picture on. With
 * EP_ERROR_ABORTED and EP_ERROR_DEADLINE the answer holds what had been made. `answer` may be NULL. */
EP_API ep_status ep_session_generate(ep_session *session, const ep_generate_options *options, ep_answer *answer);

typedef struct ep_score_options {
    size_t struct_size;
    const char *prompt; /* prompt, images, image_count, allow_special, deadline_ms: as in ep_generate_options */
    const int32_t *images;
    size_t image_count;
    const char *const *choices; /* given answers; each becomes tokens by itself, exactly as by ep_tokenize */
    size_t choice_count;        /* at least 1 */
    int32_t allow_special;
    int32_t with_eos; /* non-zero: the bundle's first end-of-sequence token ends every choice and counts as one token */
    double deadline_ms;
} ep_score_options;
EP_API void ep_score_options_init(ep_score_options *options);
EP_API void ep_score_options_init_sized(ep_score_options *options, size_t size);
#define ep_score_options_init(options) ep_score_options_init_sized((options), sizeof(ep_score_options))

typedef struct ep_scores {
    size_t struct_size;
    const double *log_probabilities; /* choice_count sums of ln p over the tokens of a choice; borrowed until the next
                                        score, reset or free */
    const int64_t *token_counts;     /* choice_count; divide by it to compare choices of unequal length */
    size_t choice_count;
    int64_t prompt_tokens; /* these four: as in ep_answer */
    int64_t visual_tokens_kept;
    int64_t reused_tokens;
    int64_t kv_tokens;
} ep_scores;
EP_API void ep_scores_init(ep_scores *scores);
EP_API void ep_scores_init_sized(ep_scores *scores, size_t size);
#define ep_scores_init(scores) ep_scores_init_sized((scores), sizeof(ep_scores))

/* How likely the model finds given answers: the log-probability of each choice as the answer to the prompt, at
 * temperature 1 without any penalty. The prompt runs once, a choice of n tokens runs n - 1 decoder steps behind it, and
 * the KV cache holds the prompt afterwards. A token merged across the border of prompt and choice does not occur, so
 * begin a choice with a space where the model would. The text of the last answer stays. */
EP_API ep_status ep_session_score(ep_session *session, const ep_score_options *options, ep_scores *scores);
/* Stops a running ep_session_generate, ep_session_score or ep_session_add_image from another thread; without one it
 * does nothing. It takes a lock, so do not call it from a signal handler. */
EP_API void ep_session_abort(ep_session *session);

/* Logits of the last executed position: V floats, borrowed until the next generate or score. */
EP_API ep_status ep_session_logits(const ep_session *session, const float **logits, int64_t *count);
/* Logits at the end of the last prefill: V floats, borrowed until the next generate or score. */
EP_API ep_status ep_session_prefill_logits(const ep_session *session, const float **logits, int64_t *count);

typedef struct ep_stats {
    size_t struct_size;
    double decode_image_ms; /* reading and decoding image files */
    double preprocess_ms;   /* resize, crop, normalise */
    double vision_ms;       /* vision encoder + pruning + projector */
    double embed_ms;        /* tokenizer and embedding graph */
    double prefill_ms;
    double decode_ms; /* all decode steps */
    double ttft_ms;   /* images in memory to first token; loading excluded, images reused cost 0 */
    double tpot_ms;   /* decode_ms / decode_steps */
    double total_ms;
    int64_t decode_steps;
    int64_t new_tokens;
    int64_t kv_bytes;
    double graph_ms;        /* of ttft_ms: inside onnxruntime's graph runs */
    double resize_ms;       /* of preprocess_ms, and so of ttft_ms: resize with crop and conversion to RGB */
    double decode_graph_ms; /* of decode_ms: inside graph runs */
    double select_ms; /* of methods written as two graphs: choosing the tokens, the question's embeddings included */
} ep_stats;
EP_API void ep_stats_init(ep_stats *stats);
EP_API void ep_stats_init_sized(ep_stats *stats, size_t size);
#define ep_stats_init(stats) ep_stats_init_sized((stats), sizeof(ep_stats))
/* Of the last ep_session_generate or ep_session_score, with the images added since the one before it. After a score
 * ttft_ms ends with the prefill, decode_* are the steps of all choices, and new_tokens is 0. */
EP_API ep_status ep_session_stats(const ep_session *session, ep_stats *stats);

#ifdef __cplusplus
}
#endif
#endif /* EDGEPRUNE_H */
