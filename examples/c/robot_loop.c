/*
 * A robot's loop: grab a frame, ask about it, act on the answer while it is being made.
 *
 *     robot_loop BUNDLE QUESTION [KEEP [FRAMES [PICTURE.ppm]]]
 *
 * KEEP is the keep ratio (0: the bundle's default), FRAMES how many frames to grab (3). Without a picture the "camera"
 * paints a disc that moves from left to right. Ctrl-C ends the answer that is being made, and then the loop.
 */
#include <edgeprune.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

enum { CAMERA_WIDTH = 320, CAMERA_HEIGHT = 240, MAX_NEW_TOKENS = 48 };

typedef struct {
    int32_t width_px, height_px;
    uint8_t *rgb; /* height_px rows of width_px * 3 bytes */
} camera_frame;

static volatile sig_atomic_t stop_requested = 0;

static void request_stop(int signal_number) {
    (void)signal_number;
    stop_requested = 1;
}

static int report(const char *what, ep_status status) {
    fprintf(stderr, "%s: %s: %s\n", what, ep_status_name(status), ep_last_error());
    return 1;
}

static int allocate(camera_frame *frame, int32_t width_px, int32_t height_px) {
    frame->width_px = width_px;
    frame->height_px = height_px;
    frame->rgb = malloc((size_t)width_px * (size_t)height_px * 3);
    return frame->rgb != NULL;
}

/* A red disc over a grey slope; `step` of `steps` says how far it has come. */
static void paint(camera_frame *frame, int step, int steps) {
    const int radius = frame->height_px / 5;
    const int centre_x = radius + (frame->width_px - 2 * radius) * step / (steps > 1 ? steps - 1 : 1);
    const int centre_y = frame->height_px / 2;
    for (int y = 0; y < frame->height_px; ++y) {
        for (int x = 0; x < frame->width_px; ++x) {
            uint8_t *pixel = frame->rgb + ((size_t)y * (size_t)frame->width_px + (size_t)x) * 3;
            const int dx = x - centre_x, dy = y - centre_y;
            const int inside = dx * dx + dy * dy < radius * radius;
            const uint8_t grey = (uint8_t)(200 - 100 * y / frame->height_px);
            pixel[0] = inside ? 220 : grey;
            pixel[1] = inside ? 30 : grey;
            pixel[2] = inside ? 30 : grey;
        }
    }
}

/* Reads a binary PPM (P6, 8 bits, no comments); 0 when it is none. */
static int read_ppm(const char *path, camera_frame *frame) {
    int width = 0, height = 0, most = 0, good = 0;
    FILE *file = fopen(path, "rb");
    if (file == NULL) return 0;
    if (fscanf(file, "P6 %d %d %d", &width, &height, &most) == 3 && most == 255 && fgetc(file) != EOF && width > 0 &&
        height > 0 && width <= 8192 && height <= 8192 && allocate(frame, width, height)) {
        const size_t size = (size_t)width * (size_t)height * 3;
        good = fread(frame->rgb, 1, size, file) == size;
    }
    fclose(file);
    return good;
}

/* Called for every piece of text as it becomes final: a robot would speak it or look for a command in it. */
static int32_t on_text(const char *text, size_t size, int32_t token_id, void *user_data) {
    (void)token_id;
    (void)user_data;
    fwrite(text, 1, size, stdout);
    fflush(stdout);
    return stop_requested;
}

static int print_figures(ep_session *session, int32_t image) {
    ep_kept_tokens kept;
    ep_stats stats;
    ep_status status;
    ep_kept_tokens_init(&kept);
    ep_stats_init(&stats);
    if ((status = ep_session_kept_tokens(session, image, &kept)) != EP_OK) return report("kept tokens", status);
    if ((status = ep_session_stats(session, &stats)) != EP_OK) return report("stats", status);
    printf("    K/N %lld/%lld by %s%s%s\n", (long long)kept.kept, (long long)kept.visual_tokens, kept.method,
           kept.applied ? "" : ", not pruned: ", kept.reason);
    printf("    preprocess %.1f ms, vision %.1f ms, prefill %.1f ms, TTFT %.1f ms, TPOT %.1f ms, %lld tokens\n",
           stats.preprocess_ms, stats.vision_ms, stats.prefill_ms, stats.ttft_ms, stats.tpot_ms,
           (long long)stats.new_tokens);
    return 0;
}

/* One turn of the loop. Every frame stands for itself, so the session starts afresh. */
static int look_and_ask(ep_session *session, const camera_frame *camera, const char *question, double keep) {
    ep_frame frame;
    ep_image_options image_options;
    ep_generate_options options;
    ep_status status;
    int32_t image = 0;
    ep_frame_init(&frame);
    frame.data = camera->rgb;
    frame.width_px = camera->width_px;
    frame.height_px = camera->height_px;
    frame.format = EP_PIXEL_RGB8;
    ep_image_options_init(&image_options);
    image_options.keep = keep;
    ep_generate_options_init(&options);
    options.prompt = question;
    options.max_new_tokens = MAX_NEW_TOKENS;
    options.on_text = on_text;

    if ((status = ep_session_reset(session)) != EP_OK) return report("reset", status);
    status = ep_session_add_image(session, &frame, &image_options, &image);
    if (status != EP_OK) return report("image", status);
    status = ep_session_generate(session, &options, NULL);
    printf("\n");
    if (status != EP_OK) return report("answer", status);
    return print_figures(session, image);
}

static int run(ep_session *session, camera_frame *camera, const char *question, double keep, int frames, int painted) {
    for (int i = 0; i < frames && !stop_requested; ++i) {
        if (painted) paint(camera, i, frames);
        printf("frame %d: ", i);
        if (look_and_ask(session, camera, question, keep) != 0) return 1;
    }
    return 0;
}

static int with_model(const char *bundle, camera_frame *camera, const char *question, double keep, int frames,
                      int painted) {
    ep_model *model = NULL;
    ep_session *session = NULL;
    int code = 1;
    ep_status status = ep_model_open(bundle, NULL, &model);
    if (status != EP_OK) return report(bundle, status);
    status = ep_model_warmup(model);
    if (status == EP_OK) status = ep_session_new(model, NULL, &session);
    if (status == EP_OK) {
        code = run(session, camera, question, keep, frames, painted);
    } else {
        report(bundle, status);
    }
    ep_session_free(session);
    ep_model_free(model);
    return code;
}

int main(int argc, char **argv) {
    camera_frame camera = {0, 0, NULL};
    const double keep = argc > 3 ? strtod(argv[3], NULL) : 0;
    const int frames = argc > 4 ? atoi(argv[4]) : 3;
    const int painted = argc <= 5;
    int code = 2;
    if (argc < 3) {
        fprintf(stderr, "usage: robot_loop BUNDLE QUESTION [KEEP [FRAMES [PICTURE.ppm]]]\n");
        return 2;
    }
    signal(SIGINT, request_stop);
    if (painted ? allocate(&camera, CAMERA_WIDTH, CAMERA_HEIGHT) : read_ppm(argv[5], &camera)) {
        code = with_model(argv[1], &camera, argv[2], keep, frames, painted);
    } else {
        fprintf(stderr, "no frame: %s is no binary PPM of 8 bits, or there is no memory\n",
                painted ? "the camera" : argv[5]);
    }
    free(camera.rgb);
    return code;
}
