/*
 * A program that is compiled with the header of one release and run with the library of another; see
 * tests/runtime/test_abi.py. Behind every struct lie bytes that the library must not touch.
 *
 * usage: caller BUNDLE WIDTH HEIGHT  (RGB pixels on standard input; prints the answer, then its figures)
 * With -DFUTURE, for a header whose structs end in `int64_t future`, it then sets that field and prints the statuses.
 */
#include <edgeprune.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { GUARD = 512, MARK = 0xA5 };

#define GUARDED(type)               \
    struct {                        \
        type value;                 \
        unsigned char guard[GUARD]; \
    }
#define MARK_ALL(name) memset(&(name), MARK, sizeof(name))

static int broken = 0;

static void check_guard(const char *name, const unsigned char *guard) {
    for (int i = 0; i < GUARD; ++i) {
        if (guard[i] != MARK) {
            printf("%s: byte %d behind the struct was overwritten\n", name, i);
            broken = 1;
            return;
        }
    }
}
#define CHECK(name) check_guard(#name, name.guard)

/* _init leaves struct_size and zeros, padding included, and nothing behind them. */
#define INITIALISE(name, init, type)                                \
    do {                                                            \
        type expected;                                              \
        const size_t size = sizeof expected;                        \
        memset(&expected, 0, sizeof expected);                      \
        memcpy(&expected, &size, sizeof size);                      \
        MARK_ALL(name);                                             \
        init(&name.value);                                          \
        if (memcmp(&name.value, &expected, sizeof expected) != 0) { \
            printf(#init " left something else than zeros\n");      \
            broken = 1;                                             \
        }                                                           \
        CHECK(name);                                                \
    } while (0)

static GUARDED(ep_model_options) model_options;
static GUARDED(ep_session_options) session_options;
static GUARDED(ep_frame) frame;
static GUARDED(ep_image_options) image_options;
static GUARDED(ep_kept_tokens) kept;
static GUARDED(ep_generate_options) options;
static GUARDED(ep_answer) answer;
static GUARDED(ep_stats) stats;

static void initialise(void) {
    INITIALISE(model_options, ep_model_options_init, ep_model_options);
    INITIALISE(session_options, ep_session_options_init, ep_session_options);
    INITIALISE(frame, ep_frame_init, ep_frame);
    INITIALISE(image_options, ep_image_options_init, ep_image_options);
    INITIALISE(kept, ep_kept_tokens_init, ep_kept_tokens);
    INITIALISE(options, ep_generate_options_init, ep_generate_options);
    INITIALISE(answer, ep_answer_init, ep_answer);
    INITIALISE(stats, ep_stats_init, ep_stats);
}

static void check_guards(void) {
    CHECK(model_options);
    CHECK(session_options);
    CHECK(frame);
    CHECK(image_options);
    CHECK(kept);
    CHECK(options);
    CHECK(answer);
    CHECK(stats);
}

#define TRY(call)                                                \
    do {                                                         \
        if ((call) != EP_OK) {                                   \
            fprintf(stderr, "%s: %s\n", #call, ep_last_error()); \
            exit(1);                                             \
        }                                                        \
    } while (0)

#ifdef FUTURE
static void show(const char *what, ep_status status) {
    printf("%s %s %s\n", what, ep_status_name(status), status == EP_OK ? "" : ep_last_error());
}

/* What an older library makes of a field that it does not know. */
static void use_future_fields(const char *bundle, ep_model *model, ep_session *session) {
    ep_model *other = NULL;
    ep_session *second = NULL;
    int32_t image = 0;
    model_options.value.future = session_options.value.future = frame.value.future = 1;
    image_options.value.future = options.value.future = 1;
    show("ep_model_options", ep_model_open(bundle, &model_options.value, &other));
    show("ep_session_options", ep_session_new(model, &session_options.value, &second));
    show("ep_frame", ep_session_add_image(session, &frame.value, NULL, &image));
    frame.value.future = 0;
    show("ep_image_options", ep_session_add_image(session, &frame.value, &image_options.value, &image));
    show("ep_generate_options", ep_session_generate(session, &options.value, NULL));
    printf("future %lld %lld %lld\n", (long long)kept.value.future, (long long)answer.value.future,
           (long long)stats.value.future);
}
#endif

int main(int argc, char **argv) {
    ep_model *model = NULL;
    ep_session *session = NULL;
    int32_t image = -1;
    if (argc != 4) return 2;
    initialise();
    frame.value.width_px = atoi(argv[2]);
    frame.value.height_px = atoi(argv[3]);
    const size_t bytes = (size_t)frame.value.width_px * (size_t)frame.value.height_px * 3;
    unsigned char *pixels = malloc(bytes);
    if (pixels == NULL || fread(pixels, 1, bytes, stdin) != bytes) return 2;
    frame.value.data = pixels;
    image_options.value.keep = 0.5;
    options.value.prompt = "Where is it?";
    options.value.max_new_tokens = 24;
    TRY(ep_model_open(argv[1], &model_options.value, &model));
    TRY(ep_session_new(model, &session_options.value, &session));
    TRY(ep_session_add_image(session, &frame.value, &image_options.value, &image));
    TRY(ep_session_generate(session, &options.value, &answer.value));
    TRY(ep_session_kept_tokens(session, image, &kept.value));
    TRY(ep_session_stats(session, &stats.value));
    printf("%s\n", answer.value.text);
    printf("kept %lld of %lld, kv %lld, new %lld\n", (long long)kept.value.kept, (long long)kept.value.visual_tokens,
           (long long)answer.value.kv_tokens, (long long)stats.value.new_tokens);
    printf("sizes kept %d\n", kept.value.struct_size == sizeof kept.value &&
                                  answer.value.struct_size == sizeof answer.value &&
                                  stats.value.struct_size == sizeof stats.value);
#ifdef FUTURE
    use_future_fields(argv[1], model, session);
#endif
    check_guards();
    ep_session_free(session);
    ep_model_free(model);
    free(pixels);
    return broken;
}
