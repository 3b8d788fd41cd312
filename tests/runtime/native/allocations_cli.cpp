// Driven by tests/runtime/test_allocations.py: open|ask once|on BUNDLE ONNXRUNTIME PICTURE. Fails the n-th allocation
// of the library, alone (once) or with all that follow (on), for n = 0, 1, ... until a round needs fewer: while a
// bundle is described, opened and warmed up, or in a conversation. Expects of every round EP_ERROR_OUT_OF_MEMORY or
// success, no block left over, and that what could be opened works as before. Out: how many rounds had a failed
// allocation. The C++ library is linked into this program, so operator new below is ours alone: onnxruntime keeps its
// own.
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <new>
#include <string>
#include <vector>

#include "edgeprune.h"

namespace {

std::atomic<long> until_failure{-1};  // -1: none fails
std::atomic<long> blocks{0};
std::atomic<bool> failed{false};
std::atomic<bool> lasting{false};  // whether all fail after the first

void arm(long n, bool on) {
    failed = false;
    lasting = on;
    until_failure = n;
}

void disarm() {
    until_failure = -1;
    lasting = false;
}

bool fails() {
    if (lasting.load() && failed.load()) return true;
    if (until_failure.load() < 0 || until_failure.fetch_sub(1) != 0) return false;
    failed = true;
    return true;
}

void* allocate(std::size_t size) {
    if (fails()) return nullptr;
    void* block = std::malloc(size == 0 ? 1 : size);
    if (block != nullptr) ++blocks;
    return block;
}

void* allocate_or_throw(std::size_t size) {
    void* block = allocate(size);
    if (block == nullptr) throw std::bad_alloc();
    return block;
}

void release(void* block) noexcept {
    if (block != nullptr) --blocks;
    std::free(block);
}

}  // namespace

void* operator new(std::size_t size) {
    return allocate_or_throw(size);
}
void* operator new[](std::size_t size) {
    return allocate_or_throw(size);
}
void* operator new(std::size_t size, const std::nothrow_t&) noexcept {
    return allocate(size);
}
void* operator new[](std::size_t size, const std::nothrow_t&) noexcept {
    return allocate(size);
}
void operator delete(void* block) noexcept {
    release(block);
}
void operator delete[](void* block) noexcept {
    release(block);
}
void operator delete(void* block, std::size_t) noexcept {
    release(block);
}
void operator delete[](void* block, std::size_t) noexcept {
    release(block);
}

namespace {

[[noreturn]] void die(long n, const char* what, ep_status status) {
    disarm();
    std::fprintf(stderr, "allocation %ld: %s: %s: %s\n", n, what, ep_status_name(status), ep_last_error());
    std::exit(1);
}

struct Setup {
    bool on;  // whether all allocations fail after the n-th
    const char* bundle;
    const char* onnxruntime;
    const char* picture;
};

ep_status open(const Setup& setup, ep_model** model) {
    ep_model_options options;
    ep_model_options_init(&options);
    options.onnxruntime_library = setup.onnxruntime;
    options.threads = 1;
    options.cores = "0";
    return ep_model_open(setup.bundle, &options, model);
}

ep_status generate(ep_session* session, char* text, size_t room) {
    static const char* const stops[] = {"never"};
    ep_generate_options options;
    ep_generate_options_init(&options);
    options.prompt = "Where is it?";
    options.max_new_tokens = 5;
    options.stop = stops;
    options.stop_count = 1;
    options.temperature = 1;
    options.top_p = 0.9;
    options.repetition_penalty = 1.1;
    options.deadline_ms = 60000;
    ep_answer answer;
    ep_answer_init(&answer);
    const ep_status status = ep_session_generate(session, &options, &answer);
    if (status == EP_OK) std::snprintf(text, room, "%s", answer.text);
    return status;
}

ep_status score(ep_session* session) {
    static const char* const choices[] = {"left", "right"};
    ep_score_options options;
    ep_score_options_init(&options);
    options.prompt = "Which one?";
    options.choices = choices;
    options.choice_count = 2;
    ep_scores scores;
    ep_scores_init(&scores);
    return ep_session_score(session, &options, &scores);
}

// Everything a conversation does. Stops at the first failure.
ep_status converse(ep_session* session, const Setup& setup, char* text, size_t room) {
    static uint8_t pixels[20 * 30 * 3];
    ep_frame frame;
    ep_frame_init(&frame);
    frame.data = pixels;
    frame.width_px = 30;
    frame.height_px = 20;
    int32_t image = 0;
    ep_status status = ep_session_add_image(session, &frame, nullptr, &image);
    if (status == EP_OK) status = ep_session_add_image_file(session, setup.picture, nullptr, &image);
    if (status == EP_OK) status = generate(session, text, room);
    if (status == EP_OK) status = score(session);
    if (status == EP_OK) status = ep_session_truncate(session, 3);
    if (status == EP_OK) status = ep_session_image_remove(session, image);
    if (status == EP_OK) status = ep_session_reset(session);
    return status;
}

void expect(bool held, long n, const char* what, ep_status status) {
    if (!held) die(n, what, status);
}

// One conversation with allocation n failing, and the same one again in the same session.
bool ask_round(ep_model* model, const Setup& setup, long n, const char* expected) {
    const long before = blocks;
    char text[256] = "";
    arm(n, setup.on);
    ep_session* session = nullptr;
    ep_status status = ep_session_new(model, nullptr, &session);
    if (status == EP_OK) status = converse(session, setup, text, sizeof text);
    disarm();
    expect(status == (failed ? EP_ERROR_OUT_OF_MEMORY : EP_OK), n, "conversation", status);
    if (session != nullptr) {
        status = ep_session_reset(session);
        if (status == EP_OK) status = converse(session, setup, text, sizeof text);
        expect(status == EP_OK && std::strcmp(text, expected) == 0, n, "conversation after the failure", status);
    }
    ep_session_free(session);
    expect(blocks <= before + 1, n, "leak while asking", status);
    return failed;
}

long ask_rounds(const Setup& setup) {
    ep_model* model = nullptr;
    ep_status status = open(setup, &model);
    expect(status == EP_OK, -1, "open", status);
    ep_session* session = nullptr;
    char expected[256] = "";
    status = ep_session_new(model, nullptr, &session);
    if (status == EP_OK) status = converse(session, setup, expected, sizeof expected);
    expect(status == EP_OK && expected[0] != '\0', -1, "first conversation", status);
    ep_session_free(session);
    long n = 0;
    while (ask_round(model, setup, n, expected)) ++n;
    ep_model_free(model);
    return n;
}

// Everything up to the first question, with allocation n failing, and what was opened used without a failure.
bool open_round(const Setup& setup, long n) {
    arm(n, setup.on);
    size_t size = 0;
    ep_model* model = nullptr;
    ep_status status = ep_bundle_describe(setup.bundle, nullptr, nullptr, &size);
    if (status == EP_OK) status = open(setup, &model);
    expect((status == EP_OK) == (model != nullptr), n, "the model that opening gives", status);
    if (status == EP_OK) status = ep_model_warmup(model);
    disarm();
    expect(status == (failed ? EP_ERROR_OUT_OF_MEMORY : EP_OK), n, "opening", status);
    if (model != nullptr) {
        status = ep_model_warmup(model);
        expect(status == EP_OK, n, "warming up after the failure", status);
    }
    ep_model_free(model);
    return failed;
}

// The first round that succeeds leaves blocks that live as long as the process: the loaded onnxruntime.
long open_rounds(const Setup& setup) {
    long n = 0;
    while (open_round(setup, n)) ++n;
    const long before = blocks;
    for (long again = 0; again < n; again += 7) open_round(setup, again);
    expect(blocks <= before + 1, n, "leak while opening", EP_OK);
    return n;
}

}  // namespace

int main(int argc, char** argv) {
    if (argc != 6) return 2;
    const Setup setup{std::strcmp(argv[2], "on") == 0, argv[3], argv[4], argv[5]};
    std::printf("%ld\n", std::strcmp(argv[1], "open") == 0 ? open_rounds(setup) : ask_rounds(setup));
}
